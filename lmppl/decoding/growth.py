"""Texts that grow in step, their tokens chosen by somebody else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.decoding.look_ahead import AheadRows
from lmppl.decoding.masks import MaskRows
from lmppl.decoding.proposal_law import Hot
from lmppl.decoding.rollout import Guide, proposal_laws
from lmppl.decoding.stopping import Stopping
from lmppl.decoding.tools import FREE
from lmppl.lm import Stream, Tokens


class Growth:
    """B texts that grow a token a step, chosen by somebody else: for samplers that resample on the
    way.

    Texts that are alike in all that came before share a row of the streams and the masks, U rows in
    all, so that a step costs what its distinct texts cost. Texts that are over have no row.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        powers: Sequence[float],
        stopping: Stopping,
        masks: MaskRows | None,
        begun: Sequence[Tokens],
        place: NDArray[np.int64],
        temperature: float,
        ahead: AheadRows | None = None,
    ) -> None:
        """begun: (B,) what each text begins as: empty, or not there. place: (B,) the row of the
        streams and masks that each begins in. temperature: of what is drawn. ahead: what looks
        ahead of it; without, where masks know how far the end is, the law is mixed in equal parts
        with the hurried one."""
        self._streams, self._powers = streams, powers
        self._stopping, self._masks = stopping, masks
        self._ahead = ahead
        leads = masks is not None and masks.leads and ahead is None
        self._temperatures = (
            (temperature, Hot(temperature, hurried=True)) if leads else (temperature,)
        )
        self.place = place
        self.tokens: list[Tokens] = list(begun)
        self.running = np.array([not stopping.closes(text) for text in begun], dtype=bool)

    def laws(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(U, V) log prior of the next token, and the log law that it is drawn from."""
        laws = [stream.log_probs() for stream in self._streams]
        guide, due = Guide.of(self._masks, self._temperatures), self._due(len(laws[0]))
        log_prior, laws = proposal_laws(
            laws, self._powers, self._stopping, self._temperatures, guide, due
        )
        every = [laws.whole(k) for k in range(len(self._temperatures))]
        if self._ahead is not None:
            times = np.bincount(self.place[self.running], minlength=len(log_prior))
            self._ahead.learn(every[0], times)
            return log_prior, self._ahead.twisted(every[0])
        return log_prior, every[0] if len(every) == 1 else torch.logaddexp(*every) - np.log(2)

    def _due(self, count: int) -> NDArray[np.int64]:
        """(U,) what tools write next into the texts of each row of the streams."""
        due = np.full(count, FREE, dtype=np.int64)
        for row in np.flatnonzero(self.running) if self._stopping.tools else ():
            due[self.place[row]] = self._stopping.due_next(self.tokens[row])
        return due

    @property
    def looks_ahead(self) -> bool:
        """Whether `chances` can be asked."""
        return self._ahead is not None

    def chances(self, log_prior: torch.Tensor) -> NDArray[np.float64]:
        """(B,) log of what each running text is likely to gain, constraints and all; of others 0.

        log_prior: (U, V) of the next token, as `laws` has told.
        """
        assert self._ahead is not None
        return np.where(self.running, self._ahead.values(log_prior)[self.place], 0.0)

    def needed(self) -> NDArray[np.int64]:
        """(B,) fewest tokens that a mask needs before each text can end; 0 where it does not know,
        or is over.
        """
        if self._masks is None or not self.running.any():
            return np.zeros(len(self.tokens), dtype=np.int64)
        return np.where(self.running, self._masks.needed()[self.place], 0)

    def closing(self, row: int, law: torch.Tensor) -> NDArray[np.int64]:
        """Tokens possible under a law (V,) that may end the row's text; `closes` tells whether they
        do.
        """
        possible = torch.isfinite(law).cpu().numpy()
        if len(self.tokens[row]) + 1 < self._stopping.maximum:
            possible &= self._stopping.may_close(len(possible))
        return np.flatnonzero(possible)

    def closes(self, row: int, token: int) -> bool:
        """Whether this token would end the row's text."""
        return token == self._stopping.end or self._stopping.closes((*self.tokens[row], token))

    def extended(self, row: int, token: int) -> Tokens:
        """The row's text with one token more; the end token adds nothing."""
        return self.tokens[row] if token == self._stopping.end else (*self.tokens[row], token)

    def push(self, drawn: NDArray[np.int64]) -> None:
        """Append a token to every running text; the others stay as they are. (B,)"""
        for row in np.flatnonzero(self.running):
            over = self.closes(int(row), int(drawn[row]))
            self.tokens[row] = self.extended(int(row), int(drawn[row]))
            self.running[row] = not over
        if not self.running.any():
            return
        steps = np.stack([self.place, drawn], 1)[self.running]
        distinct, place = np.unique(steps, axis=0, return_inverse=True)
        self.place = np.zeros_like(self.place)
        self.place[self.running] = place.reshape(-1)
        guides = [guide for guide in (self._masks, self._ahead) if guide is not None]
        for stream in (*self._streams, *guides):
            stream.keep(distinct[:, 0])
            stream.push(distinct[:, 1])

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with these texts only, in this order; one may be named more than once."""
        self.tokens = [self.tokens[row] for row in rows]
        self.running, self.place = self.running[rows], self.place[rows]
