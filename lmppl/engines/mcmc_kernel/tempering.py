"""Parallel tempering: every chain on a ladder of inverse temperatures, from q₀ at β = 0 to the
posterior at β = 1.

Each rung moves by the kernel at its own β; the lowest is drawn anew from q₀ at every step, so that
it forgets at once. Then neighbours exchange their states by Metropolis' rule, even and odd pairs in
turn (Syed et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmppl.decoding import Purpose
from lmppl.engines.mcmc_kernel.chain_state import ChainState, asked
from lmppl.engines.mcmc_kernel.kernel import Kernel

# states of one rung are numbered below this: chain c of rung r below the top is c + r · RUNG
RUNG = 2**22
Rungs = list[list[ChainState]]  # (R, C), the last at β = 1


@dataclass(frozen=True)
class Sweep:
    """All rungs after a step, which chains accepted a move at β = 1, which states are new, and
    which were exchanged.
    """

    rungs: Rungs
    accepted: NDArray[np.bool_]  # (C,)
    fresh: NDArray[
        np.bool_
    ]  # (R, C) rungs whose state, before the exchanges, kept nothing of the old one
    swapped: NDArray[np.bool_]  # (R - 1, C)
    offered: NDArray[np.bool_]  # (R - 1,) which pairs were asked


def inverse_temperatures(count: int) -> tuple[float, ...]:
    """β of each rung, evenly from 0 to 1; 1 alone where there is one."""
    return (1.0,) if count == 1 else tuple(float(beta) for beta in np.linspace(0, 1, count))


def number(chain: int, rung: int, count: int) -> int:
    """The number that the randomness of a rung goes by; that of the top rung is the chain's."""
    return chain + (count - 1 - rung) * RUNG


def sweep(
    kernel: Kernel, rungs: Rungs, betas: Sequence[float], chains: Sequence[int], at: int
) -> Sweep:
    """One step of every rung of every chain, and the exchanges. at: the step's number."""
    count = len(rungs)
    keys = [_keys(chains, rung, count, at) for rung in range(count)]
    moving = [rung for rung in range(count) if betas[rung] > 0]
    step = kernel.step(
        [chain_state for rung in moving for chain_state in rungs[rung]],
        [key for rung in moving for key in keys[rung]],
        [betas[rung] for rung in moving for _ in chains],
    )
    after, fresh = [], step.fresh.reshape(len(moving), len(chains))
    if moving[0] > 0:
        drawn, replaced = _refreshed(kernel, rungs[0], keys[0])
        after, fresh = [drawn], np.concatenate([replaced[None], fresh])
    after += [
        step.chain_states[i * len(chains) : (i + 1) * len(chains)] for i in range(len(moving))
    ]
    swapped, offered = (
        np.zeros((count - 1, len(chains)), dtype=bool),
        np.zeros(count - 1, dtype=bool),
    )
    for low in range(at % 2, count - 1, 2):
        offered[low] = True
        swapped[low] = _exchange(kernel, after, betas, low, keys[-1])
    top = slice(-len(chains), None)
    return Sweep(after, step.accepted[top], fresh, swapped, offered)


def _keys(chains: Sequence[int], rung: int, count: int, at: int) -> list[tuple[int, int]]:
    """Of one rung of every chain."""
    return [(number(chain, rung, count), at) for chain in chains]


def origins(count: int, chains: int) -> NDArray[np.int64]:
    """(R, C) which draw each rung's state descends from, before the first step: one each."""
    return np.arange(count * chains).reshape(count, chains)


def followed(before: NDArray[np.int64], swept: Sweep) -> NDArray[np.int64]:
    """The origins after a step: new numbers where a state kept nothing of the old, then exchanged
    as states were.
    """
    numbers = before.max() + 1 + np.arange(before.size).reshape(before.shape)
    after = np.where(swept.fresh, numbers, before)
    for low, exchanged in enumerate(swept.swapped):
        after[low : low + 2, exchanged] = after[low : low + 2, exchanged][::-1]
    return after


def _refreshed(
    kernel: Kernel, chain_states: Sequence[ChainState], keys: Sequence[tuple[int, int]]
) -> tuple[list[ChainState], NDArray[np.bool_]]:
    """Draws of q₀, and which are possible; an impossible one leaves the old."""
    fresh = kernel.start(keys)
    possible = np.array([np.isfinite(new.log_density) for new in fresh])
    pairs = zip(fresh, chain_states, possible, strict=True)
    return [new if allowed else old for new, old, allowed in pairs], possible


def _exchange(
    kernel: Kernel, rungs: Rungs, betas: Sequence[float], low: int, keys: Sequence[tuple[int, int]]
) -> NDArray[np.bool_]:
    """Exchange the states of rungs low and low + 1 where Metropolis' rule says so; says where.
    (C,)
    """
    done = np.zeros(len(keys), dtype=bool)
    rungs[low], rungs[low + 1] = asked(rungs[low]), asked(rungs[low + 1])
    for c, key in enumerate(keys):
        cold, warm = rungs[low + 1][c], rungs[low][c]
        gain = (warm.log_density - warm.log_start) - (cold.log_density - cold.log_start)
        uniform = kernel.randomness.uniforms(*key, Purpose.EXCHANGES + low, 1)[0]
        if np.log1p(-uniform) < (betas[low + 1] - betas[low]) * gain:
            rungs[low][c], rungs[low + 1][c] = cold, warm
            done[c] = True
    return done
