"""Which way a network can be run, found out by what it does with a few tokens and not by its name.

A pass over a whole sequence by itself is what a network means. The quickest way whose laws are
those is taken: rows behind a prompt that was run once, padded or not, or no cache at all. Where no
way is right the network is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmppl.errors import LmpplError, error, first_line, ran_out_of_memory
from lmppl.lm.base import NOTHING
from lmppl.lm.protocol import Cost, Tokens
from lmppl.lm.transformers.huggingface import HuggingFaceModel
from lmppl.lm.transformers.limits import longest
from lmppl.lm.transformers.silence import quiet
from lmppl.lm.transformers.uncached import UncachedModel

PHRASE = "It was a dark and stormy night, and nobody in the house had slept."
# tokens of the prompt, and of the two rows behind it; fewer where a window is tiny
SIZES = (
    (5, 6, 3),
    (1, 3, 2),
)
FED = 2  # tokens at the end of each row that a stream is fed one by one
# total variation of laws that differ by rounding: in float32, and where numbers are coarser
CLOSE, COARSE = (
    1e-4,
    0.05,
)
Make = Callable[[], HuggingFaceModel]


@dataclass(frozen=True)
class Truth:
    """Two rows behind one prompt, and the logits (T, V) after every token of each, from a whole
    pass over it.
    """

    prompt: Tokens
    rows: Sequence[Tokens]
    logits: Sequence[torch.Tensor]


def quickest(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    name: str,
    identifier: str,
    revision: str,
    fingerprint: Mapping[str, str] = NOTHING,
) -> HuggingFaceModel:
    """The network as a language model, run in the quickest way that gives its own laws. The names:
    as there.

    Raises LmpplError where the network cannot be run.
    """

    def made(kind: type[HuggingFaceModel]) -> HuggingFaceModel:
        names = {"name": name, "identifier": identifier, "revision": revision}
        return kind(network, tokenizer, **names, fingerprint=fingerprint)

    def apart() -> HuggingFaceModel:
        model = made(HuggingFaceModel)
        model.pads = False
        return model

    found = "in no way of running it are its laws those of each text by itself"
    try:
        with quiet():
            truth = _truth(network.eval(), tokenizer)
            for way in (lambda: made(HuggingFaceModel), apart, lambda: made(UncachedModel)):
                if model := _tried(way, truth):
                    return model
    except _Unsupported as reason:
        found = str(reason)
    message = f"`{identifier}` is a {type(network).__name__}, which lmppl cannot run"
    help = "docs/models.md lists the architectures that run"
    raise LmpplError(error("model-unsupported", message, found=found, help=help))


class _Unsupported(Exception):
    """Why a network has no laws to compare with."""


def _truth(network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Truth:
    size = int(network.config.get_text_config().vocab_size)
    begun, long, short = next(
        (sizes for sizes in SIZES if sum(sizes[:2]) <= longest(network)), SIZES[-1]
    )
    tokens = _some(network, tokenizer, begun + long + short)
    prompt, rows = tokens[:begun], (tokens[begun : begun + long], tokens[begun + long :])
    try:
        logits = [_whole(network, (*prompt, *row)) for row in rows]
    except Exception as reason:  # whatever a network that is given tokens alone may raise
        if ran_out_of_memory(reason):
            raise
        raise _Unsupported(f"a pass over tokens alone fails: {first_line(reason)}") from None
    for law, row in zip(logits, rows, strict=True):
        if law.shape != (begun + len(row), size):
            raise _Unsupported(
                f"a pass over {begun + len(row)} tokens gives laws of the shape {tuple(law.shape)}"
            )
    if any(law.isnan().any() for law in logits):
        raise _Unsupported("its laws are no numbers (NaN)")
    if not _apart(logits[0][:begun], logits[1][:begun]) <= tolerance(network):
        raise _Unsupported(
            "what follows a token changes the law before it: it fills in gaps, and does not "
            "write on"
        )
    return Truth(prompt, rows, logits)


def _some(network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, count: int) -> Tokens:
    """Different tokens, as among equal ones no place is seen: of a phrase, and others where it has
    too few.
    """
    phrase = tokenizer(PHRASE, add_special_tokens=False)["input_ids"]
    config = network.config.get_text_config().to_dict()
    special = {
        *tokenizer.added_tokens_decoder,
        *tokenizer.all_special_ids,
        config.get("pad_token_id"),
    }
    every = dict.fromkeys([*phrase, *sorted(tokenizer.get_vocab().values())])
    known = [token for token in every if token < config["vocab_size"] and token not in special] or [
        0
    ]
    return tuple((known * count)[:count])


@torch.inference_mode()
def _whole(network: PreTrainedModel, tokens: Tokens) -> torch.Tensor:
    return (
        network(input_ids=torch.tensor([tokens], device=network.device), use_cache=False)
        .logits[0]
        .float()
    )


def _tried(way: Make, truth: Truth) -> HuggingFaceModel | None:
    """The model of a way, as new, if it is right."""
    try:
        model = way()
        right = is_right(model, truth)
    except LmpplError:
        raise
    except (
        Exception
    ) as reason:  # caches of another kind, arguments that a network does not take: no way for it
        if ran_out_of_memory(reason):
            raise
        return None
    if not right:
        return None
    model.cost = Cost()
    model.forget_prompts()
    return model


def is_right(model: HuggingFaceModel, truth: Truth) -> bool:
    """Whether scores and streams of rows of unequal length have the laws of each row by itself."""
    near = tolerance(model.model)
    scored = model.laws(truth.prompt, truth.rows, [0] * len(truth.rows))
    before = slice(len(truth.prompt) - 1, -1)  # what each row's tokens come from
    if any(
        not _apart(law, _law(model, whole[before])) <= near
        for law, whole in zip(scored, truth.logits, strict=True)
    ):
        return False
    stream = model.stream(truth.prompt, [row[:-FED] for row in truth.rows])
    order = list(range(len(truth.rows)))
    for left in range(FED, -1, -1):
        expected = torch.stack([truth.logits[row][-1 - left] for row in order])
        if not _apart(stream.log_probs(), _law(model, expected)) <= near:
            return False
        if left:
            stream.push(np.array([truth.rows[row][-left] for row in order]))
        if left == FED:
            order = [1, 0, 1]
            stream.keep(np.array(order))
    return True


def tolerance(network: PreTrainedModel) -> float:
    """Total variation of two laws that are to be the same."""
    return CLOSE if network.dtype == torch.float32 else COARSE


def _law(model: HuggingFaceModel, logits: torch.Tensor) -> torch.Tensor:
    return model.log_law(logits.clone())


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest total variation of two laws (…, V) that are given by log probabilities, or by
    logits.
    """
    first, second = (part.float().softmax(-1) for part in (one, other))
    return float((first - second).abs().sum(-1).max() / 2)
