"""Which tokens begin and end the texts of a model, by what its files say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from transformers import PreTrainedTokenizerFast

from lmppl.errors import LmpplError, error
from lmppl.findings import models as findings
from lmppl.lm.chat import ChatTemplate
from lmppl.lm.pieces import DOCUMENT_START

# what templates may call by its name
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class NamesEnds(Protocol):
    """What names end tokens: a network, or its files."""

    @property
    def config(self) -> Any: ...

    @property
    def generation_config(self) -> Any: ...


def end_tokens(model: NamesEnds, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """End-of-text tokens, the tokenizer's own first. Raises LmpplError where there is none."""
    settings = model.generation_config or model.config
    listed = (
        settings.eos_token_id
        if isinstance(settings.eos_token_id, list)
        else [settings.eos_token_id]
    )
    ends = [
        token for token in dict.fromkeys([tokenizer.eos_token_id, *listed]) if token is not None
    ]
    if not ends:
        raise LmpplError(findings.no_end_token())
    if odd := [token for token in ends if not isinstance(token, int)]:
        message = "an end-of-text token of the model is no number"
        raise LmpplError(
            error("no-end-token", message, expected="whole numbers", found=repr(odd[0])[:80])
        )
    return tuple(ends)  # type: ignore[arg-type]


def beginning(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The beginning-of-text token, where the tokenizer puts one in front of a text by itself."""
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    added = len(whole) > len(bare) and whole[:1] != bare[:1]
    return int(whole[0]) if added and whole[0] == tokenizer.bos_token_id else None


def document_start(tokenizer: PreTrainedTokenizerFast, end: int) -> int:
    """What an empty context consists of, where the tokenizer adds no beginning-of-text token."""
    vocabulary = tokenizer.get_vocab()
    if DOCUMENT_START in vocabulary:
        return vocabulary[DOCUMENT_START]
    return int(str(tokenizer.bos_token_id)) if tokenizer.bos_token_id is not None else end


def template_of(tokenizer: PreTrainedTokenizerFast) -> ChatTemplate | None:
    """The template by which conversations are written; None where there is none, or none of several
    is the usual one.
    """
    text: Any = tokenizer.chat_template
    if isinstance(text, Mapping):
        text = text.get("default")
    if not isinstance(text, str):
        return None
    names = {n: str(token) for n, token in tokenizer.special_tokens_map.items() if n in NAMES}
    return ChatTemplate(text, names)
