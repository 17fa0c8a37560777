"""How well predicted laws fit labels: accuracy, log loss, Brier score, calibration error. One law
and label a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

BINS = 10  # of confidence, equally wide

Law = Mapping[str, float] | Mapping[str | None, float]  # None: that there is no answer
Laws = Sequence[Law]


def accuracy(laws: Laws, labels: Sequence[str]) -> float:
    """Share of rows whose likeliest option is the label; a law without options is wrong."""
    return float(np.mean([_best(law) == label for law, label in zip(laws, labels, strict=True)]))


def one_draw(laws: Laws, labels: Sequence[str]) -> float:
    """Mean probability of the label: the accuracy to expect of a single draw."""
    return float(np.mean([law.get(label, 0.0) for law, label in zip(laws, labels, strict=True)]))


def log_loss(laws: Laws, labels: Sequence[str]) -> float:
    """Mean of −log p(label), nats; infinite where a label was given no probability."""
    losses = [
        -math.log(law[label]) if law.get(label, 0.0) > 0 else math.inf
        for law, label in zip(laws, labels, strict=True)
    ]
    return float(np.mean(losses))


def brier(laws: Laws, labels: Sequence[str]) -> float:
    """Mean over rows of Σ (p − 1[label])² over options (Brier 1950): 0 to 2."""
    return float(np.mean([_squares(law, label) for law, label in zip(laws, labels, strict=True)]))


def calibration_error(laws: Laws, labels: Sequence[str]) -> float:
    """Expected calibration error (Naeini et al. 2015): |accuracy − confidence|, by bins of
    confidence.
    """
    confidence = np.array([max(law.values()) for law in laws])
    right = np.array(
        [_best(law) == label for law, label in zip(laws, labels, strict=True)], dtype=float
    )
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(float((right - confidence)[bins == number].sum())) for number in range(BINS)]
    return sum(gaps) / len(labels)


def _best(law: Law) -> str | None:
    return max(law.items(), key=lambda one: one[1], default=(None, 0.0))[0]


def _squares(law: Law, label: str) -> float:
    missing = 1.0 if label not in law else 0.0
    return sum((share - (option == label)) ** 2 for option, share in law.items()) + missing
