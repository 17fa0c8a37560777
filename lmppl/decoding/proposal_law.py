"""Proposal laws of the next token: one set of log probabilities, read at several temperatures.

Normalisers are computed once a temperature; whole laws only for the rows that draw from them.
Nothing here knows texts: which tokens end one is said by whoever asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK = 256  # tokens whose probabilities are added up before any is looked for among them
# probability with which a hurried law draws among the tokens that end the text, or bring its end
# near
HURRY = 0.5


class Hot(float):
    """A temperature to explore at. min_p: leaves out tokens less probable than this times the
    likeliest (Nguyen et al. 2024), or a flat law is mostly of its tail. hurried: half of the law is
    on the tokens that end the text, or under a mask bring it nearest to an end; half is the usual
    one. A power above 1 favours short texts far more than token by token temperatures do, and what
    a mask asks for may need tokens that are rare beside others; this finds both.
    """

    def __new__(cls, temperature: float, min_p: float = 0.0, hurried: bool = False) -> Hot:
        made = super().__new__(cls, temperature)
        made.min_p, made.hurried = min_p, hurried
        return made

    min_p: float
    hurried: bool


def min_p_of(temperature: float) -> float:
    """How improbable a token may be that the law at a temperature keeps; 0 where it keeps all."""
    return temperature.min_p if isinstance(temperature, Hot) else 0.0


def is_hurried(temperature: float) -> bool:
    """Whether the law at a temperature ends texts early."""
    return isinstance(temperature, Hot) and temperature.hurried


class Laws:
    """softmax(base / τ) over V tokens at K temperatures τ, for B rows."""

    def __init__(
        self,
        base: torch.Tensor,
        temperatures: Sequence[float],
        closing: NDArray[np.bool_] | torch.Tensor | None = None,
        *,
        normalised: bool = False,
        top_p: float = 1.0,
    ) -> None:
        """base: (B, V). closing: (V,) tokens that end a text, for hurried laws, or (B, V) those of
        each row that bring it near to an end. normalised: base is a law at τ = 1."""
        self._temperatures, self._top_p = temperatures, top_p
        self._bases = {
            min_p: _trimmed(base, min_p) for min_p in {0.0, *map(min_p_of, temperatures)}
        }
        self._base = self._bases[0.0]
        self._near = closing.to(base.device) if isinstance(closing, torch.Tensor) else None
        ends = np.flatnonzero(closing) if isinstance(closing, np.ndarray) else None
        self._closing = torch.as_tensor(ends, device=base.device) if ends is not None else None
        self._normalised = normalised

    @cached_property
    def _normalisers(self) -> dict[tuple[float, float], torch.Tensor]:
        """(B, 1) log Σ exp(base / τ) of every temperature and min_p."""
        every = dict.fromkeys((float(t), min_p_of(t)) for t in self._temperatures)
        return {(t, min_p): self._normaliser(t, min_p) for t, min_p in every}

    def _is_base(self, temperature: float, min_p: float) -> bool:
        """Whether the law is the base as it was given."""
        return temperature == 1 and self._normalised and not min_p

    def _normaliser(self, temperature: float, min_p: float) -> torch.Tensor:
        if self._is_base(temperature, min_p):
            return self._base.new_zeros(len(self._base), 1)
        base = self._bases[min_p]
        return torch.logsumexp(base if temperature == 1 else base / temperature, -1, keepdim=True)

    def _plain(
        self,
        temperature: float,
        rows: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """log softmax(base / τ) of these rows, or of all: the whole of it, or at some tokens (R,
        n).
        """
        min_p = min_p_of(temperature)
        if rows is None and tokens is None and self._is_base(temperature, min_p):
            return self._base
        base, normaliser = self._bases[min_p], self._normalisers[float(temperature), min_p]
        if rows is not None:  # to pick rows is to copy V tokens of each
            base, normaliser = base[rows], normaliser[rows]
        return (base if tokens is None else base.gather(1, tokens)) / temperature - normaliser

    def whole(self, k: int, rows: NDArray[np.int64] | None = None) -> torch.Tensor:
        """(R, V) the law at temperature k of some rows, or of all. It is not to be changed."""
        temperature = self._temperatures[k]
        index = None if rows is None else torch.as_tensor(rows, device=self._base.device)
        law = self._plain(temperature, index)
        if is_hurried(temperature):
            law = self._hurry(law, index)
        return _nucleus(law, self._top_p) if self._top_p < 1 else law

    def _hurry(self, law: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        """(1 − h) law + h law given that the token ends the text; the law itself where none can.
        (R, V)
        """
        if self._near is not None:
            ends = law.masked_fill(~(self._near if rows is None else self._near[rows]), -torch.inf)
            total = torch.logsumexp(ends, -1, keepdim=True)  # (R, 1)
            mixed = torch.logaddexp(law + np.log1p(-HURRY), ends - total + np.log(HURRY))
        elif self._closing is not None:
            ends, mixed = law[:, self._closing], law + np.log1p(-HURRY)
            total = torch.logsumexp(ends, -1, keepdim=True)
            mixed[:, self._closing] = torch.logaddexp(
                mixed[:, self._closing], ends - total + np.log(HURRY)
            )
        else:
            return law
        return torch.where(torch.isneginf(total), law, mixed)

    def at(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """(B, K) log probability of one token a row, at every temperature."""
        index = torch.as_tensor(tokens, device=self._base.device)[:, None]
        if self._top_p < 1:
            columns = [self.whole(k).gather(1, index)[:, 0] for k in range(len(self._temperatures))]
        else:
            keys = [
                (float(t), min_p_of(t), is_hurried(t)) for t in self._temperatures
            ]  # some may be there twice
            distinct = dict(zip(keys, self._temperatures, strict=True))
            found = {key: self._column(temperature, index) for key, temperature in distinct.items()}
            columns = [found[key] for key in keys]
        return torch.stack(columns, 1).double().cpu().numpy()

    def _column(self, temperature: float, index: torch.Tensor) -> torch.Tensor:
        """(B,) log probability of one token a row. index: (B, 1)"""
        plain = self._plain(temperature, tokens=index)
        if not is_hurried(temperature) or (self._closing is None and self._near is None):
            return plain[:, 0]
        if self._near is not None:
            ends, is_end = (
                self._plain(temperature).masked_fill(~self._near, -torch.inf),
                self._near.gather(1, index),
            )
        else:
            assert self._closing is not None
            ends = self._plain(temperature, tokens=self._closing.expand(len(index), -1))
            is_end = torch.isin(index, self._closing)
        total = torch.logsumexp(ends, -1, keepdim=True)
        mixed = plain + np.log1p(-HURRY)
        hurried = torch.logaddexp(mixed, plain - total + np.log(HURRY))
        mixed = torch.where(is_end, hurried, mixed)
        return torch.where(torch.isneginf(total), plain, mixed)[:, 0]

    def draw(
        self, component: NDArray[np.int64], uniforms: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """One token a row, each from its own temperature, by inverting the distribution function.
        (B,)
        """
        kinds = np.unique(component)
        if len(kinds) == 1:
            return invert(self.whole(int(kinds[0])), uniforms[:, None])[:, 0]
        drawn = np.zeros(len(component), dtype=np.int64)
        for k in kinds:
            rows = np.flatnonzero(component == k)
            drawn[rows] = invert(self.whole(int(k), rows), uniforms[rows, None])[:, 0]
        return drawn


def invert(law: torch.Tensor, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """(B, n) tokens of laws (B, V) at uniforms (B, n), in float64 but for the sums of blocks.

    First the block that a level falls into, then the token there: to add up is cheap, a running
    total of V is not.
    """
    mass = law.exp()
    if left := -law.shape[-1] % BLOCK:
        mass = torch.nn.functional.pad(mass, (0, left))
    mass = mass.unflatten(-1, (-1, BLOCK))
    ends = mass.sum(-1).cumsum(-1, dtype=torch.float64)  # (B, blocks)
    levels = torch.as_tensor(uniforms, device=law.device) * ends[:, -1:]
    block = _first_above(ends, levels)
    begun = torch.nn.functional.pad(ends, (1, 0)).gather(1, block)
    row = torch.arange(len(law), device=law.device)[:, None]
    within = mass[row, block].cumsum(-1, dtype=torch.float64)  # (B, n, BLOCK)
    token = _first_above(within, (levels - begun)[..., None])[..., 0]
    return (block * BLOCK + token).clamp(max=law.shape[-1] - 1).cpu().numpy()


def _first_above(cumulative: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Where running totals (…, N) first exceed levels (…, n); the last that has any mass where
    rounding leaves none.
    """
    last = cumulative[..., -1:]
    below = torch.minimum(levels, torch.nextafter(last, torch.zeros_like(last)))
    # right=True passes over what has probability 0, whose running total is that of its predecessor
    return torch.searchsorted(cumulative, below, right=True).clamp(max=cumulative.shape[-1] - 1)


def _trimmed(base: torch.Tensor, min_p: float) -> torch.Tensor:
    """base without the tokens that are less probable than min_p times the likeliest. (B, V)"""
    if not min_p:
        return base
    return base.masked_fill(base < base.amax(-1, keepdim=True) + np.log(min_p), -torch.inf)


def _nucleus(law: torch.Tensor, top_p: float) -> torch.Tensor:
    """The most probable tokens whose mass reaches top_p, renormalised (Holtzman et al. 2020). (B,
    V)
    """
    ordered, index = law.sort(dim=-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    cut = torch.full_like(law, -torch.inf).scatter(
        1, index, ordered.masked_fill(before >= top_p, -torch.inf)
    )
    return torch.log_softmax(cut, dim=-1)
