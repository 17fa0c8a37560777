"""Checks on chains of equal weight: whether they agree, move, and repeat themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lmppl.diagnosis.check import Check, above, below, judged
from lmppl.diagnosis.draws import Floats
from lmppl.diagnosis.found import Found
from lmppl.diagnosis.levels import (
    ACCEPTANCE,
    COUNTED_CHAINS,
    DISTINCT_DRAWS,
    ESS,
    ESS_BULK,
    ESS_TAIL,
    FRESH_STARTS,
    LEAST_DRAWS,
    LOW_ACCEPTANCE,
    R_HAT,
    STUCK_DRAWS,
    Levels,
)
from lmppl.diagnosis.summary import r_hat_by_chance, rank_r_hat


def r_hat(found: Found) -> Check | None:
    """Whether chains agree. Draws that are independent by construction differ by luck alone."""
    if found.traits.independent:
        return None
    values = {name: rank_r_hat(column) for name, column in found.statistics.items()}
    known = {
        name: value
        for name, value in values.items()
        if value is not None and (math.isfinite(value) or _tells(found.statistics[name]))
    }
    if not known:
        return None
    name = max(known, key=lambda key: known[key])
    value, advice = known[name], found.or_try(found.traits.longer, found.instead.apart)
    if math.isinf(value):
        message = (
            f"R-hat of {name} is infinite: chains are stuck, each at a value of its own. {advice}"
        )
        return judged("r_hat", "fail", value, R_HAT.fail, message)
    levels = _above_chance(R_HAT, [found.statistics[name] for name in known])
    return above(
        "r_hat", value, levels, f"R-hat of {name} is {value:.3f}: chains disagree. {advice}"
    )


def _tells(column: Floats) -> bool:
    """Whether chains (chains, draws) that stay at a value each are likely to be stuck. Of a few
    draws, some are equal by chance.
    """
    return column.shape[1] >= STUCK_DRAWS


def _above_chance(levels: Levels, statistics: Sequence[Floats]) -> Levels:
    """Levels raised to what independent chains reach, so that short runs do not fail by chance."""
    chains, draws = statistics[0].shape
    varying = sum(bool(np.ptp(column) > 0) for column in statistics)
    chance = r_hat_by_chance(
        (chains, draws), 2 * max(varying, 1)
    )  # two for each: R-hat ranks values, and distances
    return Levels(*(None if level is None else max(level, chance) for level in levels))


def ess_bulk(found: Found) -> Check | None:
    """Whether the draws of all chains are worth enough independent ones for means."""
    return _chain_ess(found, "ess_bulk", ESS_BULK, "the middle")


def ess_tail(found: Found) -> Check | None:
    """Whether they are worth enough for the 5 % and 95 % quantiles."""
    return _chain_ess(found, "ess_tail", ESS_TAIL, "the tails")


def _chain_ess(found: Found, key: str, levels: Levels, part: str) -> Check | None:
    known = {name: size for name, sizes in found.sizes.items() if (size := sizes[key]) is not None}
    if not known:
        return None
    name = min(known, key=lambda k: known[k])
    size, (chains, draws) = known[name], found.statistics[name].shape
    asked = Levels(*(level * min(chains, COUNTED_CHAINS) for level in levels if level is not None))
    needed = math.ceil(draws * (asked.warn or 0) / size)
    message = (
        f"for {part} of {name}, {chains * draws} draws are worth {size:.0f} independent ones. "
        f"Take --num-samples {_rounded_up(needed)} or more, or a higher --thin."
    )
    return below(key, size, asked, message)


def _rounded_up(number: int) -> int:
    """Two digits, then zeros."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


def acceptance(found: Found) -> Check | None:
    """Whether chains move. A single number is the acceptance of proposals, not of moves: it is no
    fault.
    """
    if found.only_value or not isinstance(found.diagnostics.acceptance, Sequence):
        return None
    rates = np.array(found.numbers("acceptance") or [0.0])
    stuck, least = int((rates == 0).sum()), float(rates.min())
    advice = found.or_try(found.traits.longer, found.instead.still)
    if stuck:
        message = (
            f"{stuck} of {len(rates)} chains accepted no move: their draws are one text "
            f"each. {advice}"
        )
        return judged("acceptance", "fail", 0.0, ACCEPTANCE.fail, message)
    message = f"a chain accepted {least:.1%} of its moves. {advice}"
    return below("acceptance", least, Levels(ACCEPTANCE.warn, None), message)


def fresh_starts(found: Found) -> Check | None:
    """Whether chains have shown that they can go anywhere: proposals that kept nothing of a state
    were accepted.
    """
    if found.only_value or not (counts := found.numbers("fresh_starts")):
        return None
    chains = min(len({draw.chain for draw in found.draws}), COUNTED_CHAINS)
    tempered = bool(found.numbers("swaps"))
    plain = "Take more draws, or more -o levels=" if tempered else "Take more draws, or -o levels=4"
    message = (
        f"chains went somewhere else at once {counts[0]:.0f} times: a mode far from where they "
        f"are would go unseen. "
        f"{found.or_try(plain, found.instead.apart)}"
    )
    return below(
        "fresh_starts", counts[0], Levels((FRESH_STARTS.warn or 0) * chains, None), message
    )


def distinct_draws(found: Found) -> Check | None:
    """Whether draws are one text for want of movement. A peaked posterior gives one text, too, and
    is no fault.
    """
    possible = [draw for draw, weight in zip(found.draws, found.weights, strict=True) if weight > 0]
    if not possible or found.only_value or not found.traits.inferred:
        return None
    by_chain: dict[int, list[tuple[str | None, ...]]] = {}
    for draw in possible:
        by_chain.setdefault(draw.chain, []).append(tuple(draw.values.values()))
    kinds = {texts for chain in by_chain.values() for texts in chain}
    share = len(kinds) / len(possible)
    if reason := _single(found, list(by_chain.values()), len(kinds)):
        return judged("distinct_draws", "fail", share, None, reason)
    rates = found.numbers("acceptance")
    slow = bool(rates) and float(np.mean(rates)) < LOW_ACCEPTANCE
    message = (
        f"{len(possible)} draws hold {len(kinds)} distinct texts, few moves being "
        f"accepted. Take more --num-samples."
    )
    return below("distinct_draws", share, DISTINCT_DRAWS if slow else Levels(None, None), message)


def _single(
    found: Found, chains: Sequence[Sequence[tuple[str | None, ...]]], kinds: int
) -> str | None:
    """Why single texts are no posterior; None where they may be."""
    alone = all(len(set(chain)) == 1 and len(chain) >= LEAST_DRAWS for chain in chains)
    if alone and kinds > 1:
        return (
            f"each of {len(chains)} chains holds one text, {kinds} different ones in all. "
            f"Take more --num-warmup."
        )
    size = found.weight_size
    if kinds == 1 and len(found.draws) > 1 and size is not None and size < (ESS.fail or 0):
        return (
            f"all draws are one text, on weights worth {size:.1f} draws. Ask for more "
            f"--num-samples."
        )
    return None
