"""Checks of laws: whole ones, windows, and laws under a mask."""

from __future__ import annotations

import math
from collections.abc import Callable

from lmppl.compile import compile
from lmppl.doctor.check import Check
from lmppl.doctor.found import CannotTell, Measured
from lmppl.doctor.levels import ERRORS, NATS
from lmppl.doctor.patient import SEED, Patient, rms
from lmppl.lm import Capability
from lmppl.testing import language_model_laws

NEARS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # nats within which laws are tried
OWN_LAWS = (
    "adds_up_to_one", "scores_laws_and_streams_agree", "prefixes_are_scored_as_texts",
    "trees_are_scored_as_rows", "streams_are_cut_and_joined",
)  # fmt: skip
GUIDED = 256  # draws under a mask
ROUNDING = 1e-3  # nats that two ways to one evidence may differ by
PROGRAM = """\
lm LM = "a model"
given X, A
Z ~ LM("{X}") max 3
constrain starts_with(Z, A)
"""


def _own_laws(patient: Patient) -> Measured:
    """The laws that every backend's tests hold, on this model."""
    if not patient.able(Capability.LAWS):
        raise CannotTell("the model tells no whole laws")
    laws = [law for law in language_model_laws if law.__name__ in OWN_LAWS]
    within = max(_within(law, patient) for law in laws)
    said = f"scores, laws, streams, prefixes and trees agree within {within:.0e} nats"
    return Measured(within, "nats at most", said, NATS)


def _within(law: Callable[..., None], patient: Patient) -> float:
    """The first distance within which a law holds; infinity where none does."""
    for near in NEARS:
        try:
            law(patient.model, near)
        except AssertionError:
            continue
        return near
    return float("inf")


def _window(patient: Patient) -> Measured:
    model = patient.model
    size = model.window
    if size > patient.sizes.window:
        raise CannotTell(f"a window of {size:,} tokens is too long to be filled: see --thorough")
    stem = [token for text in patient.texts for token in text]
    text = tuple(stem * (size // len(stem) + 1))[: size - len(patient.prompt)]
    (found,) = patient.score([text])
    short = patient.score([text[: len(text) // 2]])[0]
    apart = rms([(found[: len(short)], short)])
    said = f"{size} tokens are scored, the first as ever, within {apart:.2g} nats"
    return Measured(apart, "nats rms", said, NATS)


def _masked(patient: Patient) -> Measured:
    """The probability that a text begins with some letter, by weights of draws that a constraint
    guides, against the share of free draws that begin so.
    """
    letter, share, unsure = _letter(patient)
    posterior = compile(PROGRAM).infer(
        "importance", lms={"LM": patient.model}, num_samples=GUIDED, chains=1, seed=SEED,
        budget="none", givens={"X": patient.prompt_text, "A": letter},
    )  # fmt: skip
    found = posterior.rows[0]
    if found.log_evidence is None:
        return Measured(math.inf, "errors", "the draws have no evidence", ERRORS)
    error = math.hypot(found.log_evidence_se or 0.0, unsure / share, ROUNDING)
    errors = abs(found.log_evidence - math.log(share)) / error
    said = (
        f"texts that begin with {letter!r} have probability {math.exp(found.log_evidence):.3f} by "
        f"guided draws, {share:.3f} by scores"
    )
    return Measured(errors, "errors", said, ERRORS)


def _letter(patient: Patient) -> tuple[str, float, float]:
    """The beginning of texts that comes most nearly every other time, its probability, and the
    error of that: tokens that were never drawn are not scored.
    """
    counts, size = patient.singles, patient.singles.total()
    if not patient.prompt_text:
        raise CannotTell("no text that is drawn can be written as a prompt")
    begun: dict[str, list[int]] = {}
    for token in patient.probabilities:
        text = patient.model.decode([token]) if token != patient.model.end else ""
        if text and text[0] != "�":
            begun.setdefault(text[: 1 + (text[0] == " ")], []).append(token)
    known = {}
    for text, tokens in begun.items():
        often = [counts[token] for token in tokens]
        once, twice = often.count(1), often.count(2)
        share = sum(patient.probabilities[token] for token in tokens) + once / size
        known[text] = share, math.sqrt(once + 2 * twice) / size
    best = min(known, key=lambda text: abs(known[text][0] - 0.5), default="")
    if not best or not 0.02 < known[best][0] < 0.98:
        raise CannotTell("no beginning of texts is likely and uncertain: none can be asked for")
    return (best, *known[best])


CHECKS = (
    Check(
        "masked", "do guided draws carry the log p of the law that they are from?", _masked,
        "Constrained programs get wrong evidence and weights.",
        "See that masks are obeyed, and that log probabilities are those under the mask.",
    ),
    Check(
        "own laws", "do scores, laws and growing texts agree?", _own_laws,
        "Engines that use whole laws have other densities than those that score.",
        "Load the model in float32; report it if that does not help.",
    ),
    Check(
        "window", "is the window as long as the model says?", _window,
        "Long texts are cut, or refused in the middle of a run.",
        "Give the server its true window (vLLM: --max-model-len), and see that it refuses what is "
        "longer.",
    ),
)  # fmt: skip
