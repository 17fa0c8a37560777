"""What a language model promises, in small parts. Token ids in, natural-log probabilities out.

A `Tokenizer` writes and reads tokens; a `Scorer` tells the log probability of given tokens; a
`Sampler` draws texts by itself; a `Decoder` tells the whole law of the next token, and lets texts
grow. A `LanguageModel` is all of them, and has what saves work; `base.py` gives it all but a
tokenizer and one method. A `Trainable` takes adapters, and tells its laws with gradients. What a
model keeps of these, its `capabilities` say. A model knows nothing of programs, latents or engines.
Log probabilities are of the model itself at temperature 1. Where it has a local law, that says what
becomes of every next-token law, and all that the model tells is of what comes of it. Where a model
has several end-of-text tokens they are one event: their probability is summed into `end`, and the
others have probability 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from lmppl import ir
from lmppl.lm.capabilities import Capabilities, Capability
from lmppl.lm.chat import ChatTemplate

if TYPE_CHECKING:
    import torch

Tokens = tuple[int, ...]
Row = tuple[Tokens, int]  # what follows a prompt, and how many of these tokens are not scored


def nothing() -> None:
    """What is called before a pass where nobody waits for one."""


@dataclass
class Cost:
    """Work done by a model so far. Padding is not counted."""

    tokens_decoded: int = 0  # tokens appended one step at a time
    tokens_scored: int = 0  # tokens run in parallel passes, prompts included
    forward_passes: int = 0
    watch: Callable[[], None] = field(
        default=nothing, repr=False, compare=False
    )  # asked before every pass: may raise

    def begin_pass(self) -> None:
        """Count a pass that is about to be run. Raises what the watch raises, and then counts
        nothing.
        """
        self.watch()
        self.forward_passes += 1


@dataclass(frozen=True)
class Rows:
    """B rows behind one prompt, of which the tokens from each row's start on are asked about."""

    prompt: Tokens
    tokens: Sequence[Tokens]
    starts: Sequence[int]

    @property
    def num_laws(self) -> int:
        """How many laws a pass has for them at most."""
        return len(self.tokens) * max(map(len, self.tokens))


@dataclass(frozen=True)
class Past:
    """What a model has run of one row after the prompt, to go on from anywhere in it. Never
    changed.
    """

    tokens: Tokens  # T
    # keys and values of the T tokens, laid out as the model likes; none where it needs none
    block: torch.Tensor | None


class Stream(Protocol):
    """A batch of B sequences that grow token by token on one key-value cache."""

    def log_probs(self) -> torch.Tensor:
        """(B, V) log probabilities of the next token, float32 or finer, on the model's device."""
        ...

    def push(self, tokens: NDArray[np.int64]) -> None:
        """Append one token to every row. (B,)"""
        ...

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with these rows only, in this order; a row may be named more than once."""
        ...

    @property
    def joins(self) -> bool:
        """Whether rows can be taken out and put together."""
        ...

    def take(self, rows: Sequence[int]) -> list[Past]:
        """Copies of what has been run of these rows after the prompt."""
        ...

    def join(self, other: Self) -> None:
        """Go on with another stream's rows of the same prompt behind these; it is not to be used
        any more.
        """
        ...


class Tokenizer(Protocol):
    """Texts as tokens, and tokens as texts."""

    vocabulary_size: int  # V: tokens that can be drawn and scored are 0 to V − 1
    end: int  # the end-of-text token
    tokenizer_fingerprint: str  # equal for models whose token ids mean the same

    @property
    def token_bytes(self) -> Sequence[bytes] | None:
        """Bytes of each of the V tokens, empty for padding; None where a token's text depends on
        its neighbours.
        """
        ...

    def encode(self, text: str, *, markers: bool, opening: bool = False) -> Tokens:
        """Tokens of a run of text, as it would be written inside a longer one, with nothing added.

        markers: whether "<|im_end|>" and the like become that token (program text) or stay plain
        characters (data). opening: a prompt begins with it, where some tokenizers put a space in
        front.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens as it stands behind others: special tokens are shown, spaces are left as
        they are.
        """
        ...

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Text of every token by itself, for people to read."""
        ...

    def begin(self, tokens: Tokens) -> Tokens:
        """A context's tokens with the model's beginning-of-text token in front, exactly once.

        Models that have none get the end-of-text token where the context would be empty.
        """
        ...


class Scorer(Tokenizer, Protocol):
    """A model that tells how probable given tokens are: what every backend can do."""

    name: str  # as the program calls it
    identifier: str  # as it was asked for: alias, hub id, folder, or table
    revision: str  # what was loaded: commit, checksum, or "local"
    fingerprint: Mapping[str, str]  # what was loaded, by content: of weights, config, tokenizer
    window: int  # longest sequence, in tokens
    capabilities: Capabilities  # what it can do besides
    caches: bool  # whether what has been run of a text is kept while it grows
    chat: ChatTemplate | None  # how it writes conversations, where it knows a way
    cost: Cost
    local_law: ir.LocalLaw | None  # None where its next-token laws stay as they are

    def score(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[NDArray[np.float64]]:
        """Log probability of every token continuations[i][starts[i]:] after prompt + what is before
        it.

        The prompt (at least one token) is run once and kept; rows are batched by length. A row that
        another one begins with is not run by itself.
        """
        ...

    @property
    def root(self) -> object:
        """What it shares weights and passes with: one for all models that differ in their local
        laws alone, and so can be run together.
        """
        ...

    @property
    def slow(self) -> bool:
        """Whether it takes milliseconds a token: a processor that goes over many weights."""
        ...


@dataclass(frozen=True)
class Drawn:
    """A text that a model has drawn by itself."""

    tokens: Tokens  # (T,) the end token is the last where the model has ended the text
    log_probs: NDArray[np.float64]  # (T,) of each token, as `score` gives them


class Sampler(Scorer, Protocol):
    """A model that draws texts by itself (Capability.DRAWS): all that many servers do besides
    scoring.
    """

    def sample(
        self,
        prompt: Tokens,
        suffixes: Sequence[Tokens],
        seeds: Sequence[int],
        maximum: int,
        until: str | None = None,
    ) -> list[Drawn]:
        """Per row, a text drawn behind the shared prompt and the row's own suffix, from the model
        as it is: at temperature 1, nothing cut away.

        seeds: a whole number ≥ 0 a row; a text depends on its own seed, not on its neighbours.
        maximum: most tokens of a text, at least 1; a shorter one has ended, or holds `until`.
        until: a text need not go on once it holds this. Where there is an `until`, what stands
        behind it is the caller's to cut.
        """
        ...


class Decoder(Scorer, Protocol):
    """A model that tells the probability of every next token (Capability.LAWS)."""

    def laws(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[torch.Tensor]:
        """Per row (T, V) log probabilities: the laws that its T tokens continuations[i][starts[i]:]
        come from, as a stream would give them one by one.

        All of them are held at once: who asks sees to it that they are not too many.
        """
        ...

    def stream(self, prompt: Tokens, suffixes: Sequence[Tokens]) -> Stream:
        """Rows that begin with the shared prompt, each followed by its own suffix (may be
        empty).
        """
        ...

    def under(self, law: ir.LocalLaw | None) -> Self:
        """The same model under another local law, or under none. It shares weights, what is kept
        of prompts, and counts of work.
        """
        ...

    def push(self, streams: Sequence[Stream], tokens: Sequence[NDArray[np.int64]]) -> None:
        """Append one token to every row of several streams, its own and those of models with its
        root, in one pass where that can be.
        """
        ...

    def resume(self, prompt: Tokens, pasts: Sequence[Past], lengths: Sequence[int]) -> Stream:
        """Rows that begin with the shared prompt and the first so many tokens of what was taken
        from its streams.

        Nothing is run: the laws of the next token are not known before a push.
        """
        ...


class LanguageModel(Decoder, Sampler, Protocol):
    """What the density sees: see the module's docstring. What it adds saves work, and has defaults
    in base.py.
    """

    def encode_template(self, text: str, *, opening: bool) -> Tokens:
        """Tokens of a run of text that a chat template writes: as `apply_chat_template` of
        transformers has them, where that is to be known. opening: a prompt begins with it.
        """
        ...

    def end_also(self, token: int) -> bool:
        """Let another token end texts as well, as one event with the others. To be called before
        anything is run. Whether it does so now.
        """
        ...

    def expect(self, stem: Tokens) -> None:
        """Prompts that begin with these tokens are to come, as those of all rows do: they may be
        run once for all.
        """
        ...

    def forget_prompts(self) -> None:
        """Drop what is kept of prompts, so that the next use of one is paid for again."""
        ...

    def forget_all_but_stems(self) -> None:
        """As `forget_prompts`, but what was told of by `expect` may be kept where its numbers do
        not hang on what else was run.
        """
        ...

    def prepare(self, prompts: Sequence[Tokens]) -> None:
        """Run prompts that are about to be asked for side by side, where that changes nothing but
        the time.
        """
        ...

    def score_all(
        self, asked: Sequence[tuple[Tokens, Sequence[Row]]]
    ) -> list[list[NDArray[np.float64]]]:
        """What `score` gives for the rows behind each of several prompts, in passes that have rows
        of all of them.
        """
        ...

    def score_all_by(
        self, models: Sequence[Self], asked: Sequence[tuple[Tokens, Sequence[Row]]]
    ) -> list[list[list[NDArray[np.float64]]]]:
        """What `score_all` of each of several models gives that have its root, from the same passes
        where that can be.
        """
        ...

    def score_prefixes(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        starts: Sequence[int],
        closing: int | None = None,
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Per row: log probability of every token continuations[i][starts[i]:], (T,), as `score`
        gives it, and of the closing token after each of its prefixes, the empty one and the whole
        included, (T + 1,).

        closing: the end token where it is None.
        """
        ...

    def score_trees(
        self, prompt: Tokens, groups: Sequence[Sequence[Row]]
    ) -> list[NDArray[np.float64]]:
        """Per group (number of its rows,): log probability of each row's scored tokens, summed, in
        nats.

        What rows of a group have in common at their beginnings is run once, where the model's
        attention allows that; else this is `score`, row by row (tree.score_one_by_one).
        """
        ...


# --- learning -------------------------------------------------------------------------------------


class OpenPrompts(Protocol):
    """Prompts that were run with gradients, once for all rows behind them. Good until the model
    forgets its prompts or its weights change.
    """

    def laws(self, asked: Sequence[Rows]) -> list[torch.Tensor]:
        """Per entry (B, S, V) float32 logits, with gradients, of the laws that the tokens asked
        about come from, all ends as one; padded at the end to the longest row, S.

        Each prompt is one of those that were opened.
        """
        ...

    @property
    def leaves(self) -> list[torch.Tensor]:
        """Where rows leave their gradients on the way to the prompts."""
        ...

    def backward(self) -> None:
        """Carry what rows have left at the leaves through the prompts, to the weights."""
        ...


class Adapter(Protocol):
    """Few weights that are learned on top of a model's own, which stay as they are."""

    @property
    def base(self) -> Trainable:
        """The model as it was loaded; it goes on without the adapter."""
        ...

    @property
    def model(self) -> Trainable:
        """The model with the adapter. It shares weights, tokenizer and counts of work with the
        base.
        """
        ...

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is learned, by name, in an order that is always the same; ready to take
        gradients.
        """
        ...

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of what was learned so far."""
        ...

    def put(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over weights by name, all or some."""
        ...

    def save(self, folder: Path) -> None:
        """Write it into a folder that exists, so that `load_adapter` reads it again. Raises
        OSError.
        """
        ...

    def remove(self) -> None:
        """Leave the model as it was loaded."""
        ...


class Trainable(LanguageModel, Protocol):
    """A model that takes adapters, and whose laws have gradients (Capability.GRADIENTS)."""

    device: torch.device  # where its laws and gradients are

    @property
    def most_logits(self) -> int:
        """Numbers that the laws of one pass may have: what is larger should be asked in parts."""
        ...

    def add_adapter(self, *, rank: int, alpha: int, targets: str, seed: int) -> Adapter:
        """A fresh adapter of low rank, which changes nothing yet; its scale is alpha / rank.

        targets: names of layers, comma separated, or "all-linear". Raises LmpplError where the
        model has no such layers.
        """
        ...

    def load_adapter(self, folder: Path) -> Adapter:
        """The adapter that a folder holds. Raises LmpplError where there is none, or one of another
        model.
        """
        ...

    def open_prompts(self, prompts: Sequence[Tokens]) -> OpenPrompts:
        """Run prompts with gradients. Streams use the same prompts until they are forgotten."""
        ...

    def num_open_tokens(self, prompts: Iterable[Tokens]) -> int:
        """How many tokens `open_prompts` runs for these alone: what they share with prompts of
        other rows, as `expect` was told, is left out.
        """
        ...


def is_decoder(model: LanguageModel) -> TypeGuard[Decoder]:
    """Whether a model tells the laws of next tokens, as it says itself."""
    return Capability.LAWS in model.capabilities


def is_trainable(model: LanguageModel) -> TypeGuard[Trainable]:
    """Whether a model keeps the promises of a Trainable, as it says itself."""
    return Capability.GRADIENTS in model.capabilities
