"""Checks of draws: whether they come from the law that scores tell, and hang on seeds alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom, chi2

from lmppl.doctor.check import Check
from lmppl.doctor.found import CannotTell, Measured
from lmppl.doctor.levels import ERRORS, MOVED, NATS, SHARE, SURPRISE
from lmppl.doctor.patient import SEED, Floats, Patient, rms
from lmppl.lm import Tokens

OFTEN = 5  # draws that are expected of a token which is counted by itself
RARE = 10  # and of the rarest one that would surely have been drawn
A_TOKEN = "nats rms"
FOR_SEEDS, SEEDED_TOKENS = 8, 8  # rows that are drawn again, and their tokens


def _pairs(patient: Patient) -> list[tuple[Floats, Floats]]:
    """Per text, log p of its tokens as they were drawn and as they are scored, ends left out."""
    texts = [one.tokens for one in patient.drawn]
    found = []
    for one, own in zip(patient.drawn, patient.score(texts), strict=True):
        kept = np.array(one.tokens) != patient.model.end
        found.append((one.log_probs[kept], own[kept]))
    return found


def _as_scored(patient: Patient) -> Measured:
    pairs = _pairs(patient)
    apart = rms(pairs)
    both = np.concatenate([np.stack(pair) for pair in pairs], axis=1)
    most = float(np.max(np.abs(both[0] - both[1]), initial=0.0))
    said = f"{both.shape[1]} drawn tokens are scored within {apart:.2g} nats ({most:.2g} at most)"
    return Measured(apart, A_TOKEN, said, NATS)


def _in_place(patient: Patient) -> Measured:
    """Whether draws fit scores that stand one place away better than those at their own."""
    pairs = [(a, b) for a, b in _pairs(patient) if len(a) > 2]
    if not pairs:
        raise CannotTell("no text that was drawn has three tokens")
    own = rms([(a[1:-1], b[1:-1]) for a, b in pairs])
    late = rms([(a[:-2], b[1:-1]) for a, b in pairs])
    early = rms([(a[2:], b[1:-1]) for a, b in pairs])
    nearest = min(late, early)
    where = "a place late" if late < early else "a place early"
    if own <= nearest:
        return Measured(0, "places", f"scores stand at their tokens ({own:.2g} nats)", SHARE)
    said = f"scores fit draws better {where} ({nearest:.2g} nats) than in place ({own:.2g})"
    return Measured(1, "places", said, SHARE)


def _ends(patient: Patient) -> Measured:
    """Texts that end have their end token, and it has the log p that it is scored with."""
    most = patient.sizes.tokens
    short = [one for one in patient.answers if len(one.tokens) < most]
    cut = [one for one in short if not patient.has_ended(one)]
    if cut:
        share = len(cut) / len(patient.answers)
        said = f"{len(cut)} of {len(patient.answers)} texts stop without an end token"
        return Measured(share, "share", said, SHARE)
    ended = [one for one in patient.answers if patient.has_ended(one)]
    if not ended:
        raise CannotTell(f"none of {len(patient.answers)} texts ended within {most} tokens")
    found = patient.score([one.tokens for one in ended], patient.turn)
    pairs = [(one.log_probs[-1:], own[-1:]) for one, own in zip(ended, found, strict=True)]
    apart = rms(pairs)
    said = f"{len(ended)} texts ended; their end tokens are scored within {apart:.2g} nats"
    return Measured(apart, "nats rms", said, NATS)


def _as_often_ended(patient: Patient) -> Measured:
    """How many texts ended, against the sum of the probabilities to end at each of their places.

    The difference is a martingale: its variance is the sum of p (1 − p).
    """
    answers = patient.answers[: max(8, patient.sizes.texts // 2)]
    rows = [one.tokens[: len(one.tokens) - patient.has_ended(one)] for one in answers]
    found = patient.model.score_prefixes(patient.turn, rows, [0] * len(rows))
    expected = variance = 0.0
    for one, (_, closing) in zip(answers, found, strict=True):
        chances = np.exp(closing[: len(one.tokens)])
        expected += float(chances.sum())
        variance += float((chances * (1 - chances)).sum())
    count = sum(map(patient.has_ended, answers))
    errors = abs(count - expected) / math.sqrt(max(variance, 1e-3))
    said = f"{count} of {len(answers)} texts ended, {expected:.1f} were to be expected"
    return Measured(errors, "errors", said, ERRORS)


# --- many single tokens ---------------------------------------------------------------------------


def _follow_scores(patient: Patient) -> Measured:
    """Tokens that are drawn often, against each other: their law as it is among them."""
    counts, law = patient.singles, patient.probabilities
    often = [t for t, p in law.items() if p * counts.total() >= OFTEN and counts[t]]
    if len(often) < 2:
        raise CannotTell("fewer than two tokens are drawn often enough to be compared")
    seen = np.array([counts[token] for token in often], dtype=float)
    expected = np.array([law[token] for token in often])
    expected *= seen.sum() / expected.sum()
    statistic = 2 * float((seen * np.log(seen / expected)).sum())
    surprise = -float(chi2.logsf(statistic, len(often) - 1)) / math.log(10)
    surprise = abs(surprise)
    apart = float(np.abs(seen - expected).sum() / 2 / seen.sum())
    said = f"{counts.total()} draws, {len(often)} tokens: {apart:.1%} of the draws are elsewhere"
    return Measured(surprise, "−log10 p", said, SURPRISE)


def _nothing_cut(patient: Patient) -> Measured:
    """Probability of tokens that were never drawn, against the share of tokens drawn once, which
    is what is to be expected of it (Good 1953).
    """
    counts, size = patient.singles, patient.singles.total()
    missing = 1 - sum(patient.probabilities[token] for token in counts)
    once = sum(count == 1 for count in counts.values())
    twice = sum(count == 2 for count in counts.values())
    error = math.sqrt(once + 2 * twice + 1) / size
    errors = max(missing - once / size, 0.0) / error
    said = (
        f"tokens that were never drawn have probability {max(missing, 0.0):.3f}, and "
        f"{once / size:.3f} ± {error:.3f} is to be expected"
    )
    return Measured(errors, "errors", said, ERRORS)


def _tails(patient: Patient) -> Measured:
    """Draws of rare tokens, against the probability that the frequent ones leave."""
    counts, size = patient.singles, patient.singles.total()
    law = patient.probabilities
    frequent = {token: law[token] for token in counts if law[token] * size >= RARE}
    rest = min(max(1 - sum(frequent.values()), 0.0), 1.0)
    if rest * size < OFTEN:
        raise CannotTell(f"rare tokens have probability {rest:.2g}: too little to be seen")
    seen = size - sum(counts[token] for token in frequent)
    surprise = _surprise(seen, size, rest)
    said = (
        f"tokens rarer than {RARE / size:.3f} came {seen} times in {size}, "
        f"{rest * size:.0f} were to be expected"
    )
    return Measured(surprise, "−log10 p", said, SURPRISE)


def _surprise(seen: int, size: int, chance: float) -> float:
    """−log10 of the probability of a count as far out, on either side."""
    below, above = binom.logcdf(seen, size, chance), binom.logsf(seen - 1, size, chance)
    return max(-float(min(below, above) + math.log(2)) / math.log(10), 0.0)


# --- seeds ----------------------------------------------------------------------------------------


def _seeds_alone(patient: Patient) -> Measured:
    """A text a time: the same seed twice, and whether seeds differ at all."""
    seeds = range(SEED, SEED + FOR_SEEDS)
    first, again = (_each_alone(patient, seeds) for _ in range(2))
    if len({*first}) == 1:
        return Measured(1, "share", f"{FOR_SEEDS} seeds draw the same text", SHARE)
    moved = float(np.mean([a != b for a, b in zip(first, again, strict=True)]))
    said = f"{round(moved * FOR_SEEDS)} of {FOR_SEEDS} texts were others with the same seed"
    return Measured(moved, "share", said, SHARE)


def _seeds_beside(patient: Patient) -> Measured:
    """A text alone, and the same seed among others."""
    seeds = range(SEED, SEED + FOR_SEEDS)
    alone = _each_alone(patient, seeds)
    rows = range(SEED - FOR_SEEDS, SEED + FOR_SEEDS)
    drawn = patient.draw(patient.prompt, rows, SEEDED_TOKENS)
    beside = [one.tokens for one in drawn[FOR_SEEDS:]]
    moved = float(np.mean([a != b for a, b in zip(alone, beside, strict=True)]))
    said = f"{round(moved * FOR_SEEDS)} of {FOR_SEEDS} texts are others beside neighbours"
    return Measured(moved, "share", said, MOVED)


def _each_alone(patient: Patient, seeds: Sequence[int]) -> list[Tokens]:
    found = patient.draw(patient.prompt, seeds, SEEDED_TOKENS, at_once=1)
    return [one.tokens for one in found]


TRUNCATED = (
    "Send top_p = 1, top_k = 0 and min_p = 0 with every request, and start the server so that it "
    "takes no defaults from the model's files (vLLM: --generation-config vllm)."
)
CHECKS = (
    Check(
        "drawn as scored", "does a draw have the log p that its text is scored with?", _as_scored,
        "Weights of draws mix two laws: evidence and posteriors are biased.",
        "Serve in float32 and without penalties; where numbers differ by rounding, take both from "
        "scores.",
    ),
    Check(
        "in place", "do scores stand at their own tokens?", _in_place,
        "Every log p is another token's.", "Report it to who made the server.",
    ),
    Check(
        "end scored", "is a text's end token returned, with its own log p?", _ends,
        "Lengths are free of charge: short texts weigh too much or too little.",
        "Ask for special tokens in the answer, or serve by vLLM.",
    ),
    Check(
        "ends as often", "do texts end as often as the end's probabilities say?", _as_often_ended,
        "Texts are longer or shorter than the model's: the end is masked, or several tokens end.",
        "See min_tokens, ignore_eos and the end tokens of the model's generation_config.json.",
    ),
    Check(
        "draws follow scores", "do frequent tokens come as often as their scores say?",
        _follow_scores,
        "Draws are from another law than scores: a temperature, a penalty or a bias is at work.",
        "Send temperature = 1 and no penalties with every request.",
    ),
    Check(
        "nothing cut", "can every token come that has a probability?", _nothing_cut,
        "Hidden truncation: what is never drawn is missing from every answer.", TRUNCATED,
    ),
    Check(
        "tails", "do rare tokens come as often as they should?", _tails,
        "Rare texts, which evidence may hang on, are drawn too seldom or too often.",
        TRUNCATED + " On a GPU, draw with finer noise (vLLM: --use-fp64-gumbel).",
    ),
    Check(
        "seeds alone", "does a seed draw the same text again?", _seeds_alone,
        "Runs cannot be repeated, and a request that is sent again draws something else.",
        "See that the server knows the field `seed`.",
    ),
    Check(
        "seeds beside", "does a seed draw the same text beside others?", _seeds_beside,
        "Runs cannot be repeated where other rows are asked for at the same time; weights stay "
        "right.",
        "Seed every request, in float32.",
    ),
)  # fmt: skip
