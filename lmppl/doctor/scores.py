"""Checks of scores: whether log probabilities of given tokens are whole, and always the same."""

from __future__ import annotations

import itertools

import numpy as np

from lmppl.doctor.check import Check
from lmppl.doctor.found import CannotTell, Measured
from lmppl.doctor.levels import ABOVE_ZERO, NATS, SHARE, SUM
from lmppl.doctor.patient import Patient, rms
from lmppl.lm import Capability, Tokens

A_TOKEN = "nats rms"
FEW = 1024  # tokens of a vocabulary that are all scored
VLLM = "Serve the model by vLLM as docs/served-models.md says."


def _scored(patient: Patient) -> Measured:
    texts = patient.texts
    found = np.concatenate(patient.score(texts))
    missing = float(np.mean(np.isnan(found)))
    said = f"{len(found) - int(np.isnan(found).sum())} of {len(found)} tokens have a log p"
    return Measured(missing, "share missing", said, SHARE)


def _at_most_zero(patient: Patient) -> Measured:
    largest = float(np.max(np.concatenate(patient.score(patient.texts))))
    return Measured(max(largest, 0.0), "nats", f"the largest log p is {largest:.3g}", ABOVE_ZERO)


def _sums_to_one(patient: Patient) -> Measured:
    model = patient.model
    if patient.able(Capability.LAWS):
        law = model.stream(patient.prompt, patient.texts[:4]).log_probs().double().cpu().numpy()
        sums = np.exp(law).sum(-1)
        worst = float(sums[np.argmax(np.abs(sums - 1))])
        return Measured(abs(worst - 1), "of 1", f"next tokens have {worst:.6f} in all", SUM)
    if model.vocabulary_size <= FEW:
        rows = [(token,) for token in range(model.vocabulary_size)]
        total = float(np.exp(np.concatenate(patient.score(rows))).sum())
        return Measured(abs(total - 1), "of 1", f"all next tokens have {total:.6f} in all", SUM)
    total, count = sum(patient.probabilities.values()), len(patient.probabilities)
    said = f"the {count} tokens that were drawn have {total:.4f} of 1; the others were not asked"
    return Measured(max(total - 1, 0.0), "above 1", said, SUM)


def _cut_anywhere(patient: Patient) -> Measured:
    """A text's tokens have the same log p wherever its prompt ends, and whatever stands behind."""
    texts = [text for text in patient.texts if len(text) > 1][:4]
    if not texts:
        raise CannotTell("no text has two tokens")
    pairs = []
    for text, whole in zip(texts, patient.score(texts), strict=True):
        cut = len(text) // 2
        pairs.append((whole[:cut], patient.score([text[:cut]])[0]))
        behind = (*patient.prompt, *text[:cut])
        pairs.append((whole[cut:], patient.score([text[cut:]], behind)[0]))
    apart = rms(pairs)
    return Measured(apart, A_TOKEN, f"texts cut in two are scored within {apart:.2g} nats", NATS)


def _repeated(patient: Patient) -> Measured:
    first, again = patient.score(patient.texts), patient.score(patient.texts)
    apart = rms(list(zip(first, again, strict=True)))
    return Measured(apart, A_TOKEN, f"asked twice, scores differ by {apart:.2g} nats", NATS)


def _behind_a_known_prefix(patient: Patient) -> Measured:
    """Long prompts that begin alike: a cache of prefixes may keep scores back, or old ones."""
    begun = patient.prompt
    length = min(patient.sizes.prefix, patient.model.window - len(begun) - 2)
    if length < 8:
        raise CannotTell("the window is too short for a long prompt")
    long = tuple(itertools.islice(itertools.cycle(_joined(patient.texts)), length))
    first = patient.score([long])[0]
    again = patient.score([long])[0]
    other = (*long[: length - 4], *long[:4])
    beside = patient.score([other])[0]
    apart = rms([(first, again), (first[: length - 4], beside[: length - 4])])
    said = f"{length} tokens, asked again, have scores within {apart:.2g} nats"
    return Measured(apart, A_TOKEN, said, NATS)


def _joined(texts: list[Tokens]) -> Tokens:
    return tuple(token for text in texts for token in text)


def _in_any_order(patient: Patient) -> Measured:
    texts = patient.texts
    forward, backward = patient.score(texts), patient.score(texts[::-1])[::-1]
    apart = rms(list(zip(forward, backward, strict=True)))
    return Measured(apart, A_TOKEN, f"in another order, rows differ by {apart:.2g} nats", NATS)


def _in_any_number(patient: Patient) -> Measured:
    texts = patient.texts
    together = patient.score(texts)
    alone = [patient.score([text])[0] for text in texts]
    apart = rms(list(zip(together, alone, strict=True)))
    return Measured(apart, A_TOKEN, f"alone, rows differ by {apart:.2g} nats", NATS)


CHECKS = (
    Check(
        "scored", "are there log probabilities of given tokens?", _scored,
        "Without them nothing can be weighted, observed or compared.", VLLM,
    ),
    Check(
        "at most zero", "is every log probability 0 or less?", _at_most_zero,
        "What is above 0 is no probability: every weight is wrong.",
        "See what the server adds to log probabilities, and take another one if it cannot be told.",
    ),
    Check(
        "sum to one", "do the probabilities of next tokens sum to one?", _sums_to_one,
        "Scores are no normalised law: evidence and weights are wrong by a factor a token.",
        "Ask for log probabilities after the softmax, without penalties, bias or rounding.",
    ),
    Check(
        "cut anywhere", "is a token's log p the same wherever the prompt ends?", _cut_anywhere,
        "Scores hang on how a text is asked for, so parts of a text do not add up.",
        "Score in float32, or see whether the server reads prompts otherwise than answers.",
    ),
    Check(
        "repeated", "are scores the same when they are asked for again?", _repeated,
        "A density that changes while it is sampled has no posterior.",
        "Serve one model, without speculative decoding, in float32 or batch-invariant.",
    ),
    Check(
        "known prefix", "are scores whole behind a prefix that is cached?", _behind_a_known_prefix,
        "Scores that a cache keeps back are missing from weights, or belong to another text.",
        "Start the server without prefix caching for scores (vLLM: leave it to read none).",
    ),
    Check(
        "batch order", "are scores the same in another order?", _in_any_order,
        "Weights hang on which rows stand beside each other, and runs cannot be repeated.",
        "Serve in float32, or batch-invariant (vLLM on CUDA: VLLM_BATCH_INVARIANT=1).",
    ),
    Check(
        "batch size", "are scores the same alone and together?", _in_any_number,
        "Weights hang on how many rows are asked for at once, and runs cannot be repeated.",
        "Serve in float32, or batch-invariant (vLLM on CUDA: VLLM_BATCH_INVARIANT=1).",
    ),
)  # fmt: skip
