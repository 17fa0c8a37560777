"""What a network has room for: which tokens, and how many of them."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmppl.errors import LmpplError, error


def require_rows(
    size: int, special: Sequence[int | None], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Raise LmpplError where the network has no row for a token that texts begin or end with, or
    consist of.

    Markers that a tokenizer has beyond the network, as for images, harm nobody until they are
    written.
    """
    added = tokenizer.added_tokens_decoder
    ordinary = [number for number in tokenizer.get_vocab().values() if number not in added]
    beyond = sorted(
        {
            number
            for number in (*special, *ordinary)
            if number is not None and not 0 <= number < size
        }
    )
    if beyond:
        found = f"token {beyond[0]}" + (f" and {len(beyond) - 1} more" if len(beyond) > 1 else "")
        message = "the tokenizer and the network do not belong together"
        expected = f"tokens 0 to {size - 1}, which the network has"
        raise LmpplError(error("tokens-beyond-model", message, expected=expected, found=found))


def require_known(
    tokens: Sequence[int], size: int, name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Raise LmpplError where a text holds a marker that the network of this name has no row for."""
    if beyond := [token for token in tokens if token >= size]:
        message = f"`{name}` has no token for `{tokenizer.convert_ids_to_tokens(beyond[0])}`"
        expected = f"tokens 0 to {size - 1}, which the network has"
        help = (
            "the tokenizer knows more than the network: leave that marker out, or name "
            "another model"
        )
        found = f"token {beyond[0]}"
        raise LmpplError(
            error("tokens-beyond-model", message, expected=expected, found=found, help=help)
        )


def longest(model: PreTrainedModel) -> int:
    """The longest sequence; a model without learned or rotary positions has no window of its
    own.
    """
    config = model.config.get_text_config().to_dict()
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")
    told = [
        config[name] for name in names if isinstance(config.get(name), int) and config[name] > 0
    ]
    return told[0] if told else 2**31
