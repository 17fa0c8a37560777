"""What is predicted, and how uncertain it is: probabilities with their errors, and the entropy of
the answer, split into what stays open and what hangs on the draw.

With p the mean over draws z of p(y | z): H[p] = E H[p(y | z)] + I(Y; Z). Both parts are means of
one number a draw, so their errors are those of means: of H[p(y | z)], and of the divergence of
p(y | z) from p. The entropy of a mean is too small on average, by Σ var p(y) / (2 p(y)), which is
added (Miller 1955, for counts).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmppl.diagnosis.sampling import Estimate, Sampling
from lmppl.diagnosis.shares import share_variances
from lmppl.diagnosis.summary import Floats


@dataclass(frozen=True, eq=False)
class Prediction(Mapping[str, float]):
    """The probability of every option or text, largest first, as a mapping; and how sure it is.

    errors: standard errors of the probabilities. entropy: of the answer, in nats. It is the sum of
    conditional_entropy, what stays open when all other latents are known, and mutual_information,
    what hangs on which values of them were drawn; both None where draws do not tell. doubts: checks
    that say that the errors are not to be believed. absent: the probability that there is no text,
    where there may be none: the others add up to the rest.
    """

    probabilities: Mapping[str, float]
    errors: Mapping[str, float | None]
    entropy: Estimate | None = None  # runs of earlier versions kept none
    conditional_entropy: Estimate | None = None
    mutual_information: Estimate | None = None
    doubts: tuple[str, ...] = ()
    absent: Estimate | None = None

    @property
    def outcomes(self) -> list[tuple[str | None, Estimate]]:
        """Options or texts with their probabilities, largest first; None is that there is none."""
        known: list[tuple[str | None, Estimate]] = [
            (option, Estimate(share, self.errors.get(option, 0.0)))  # earlier versions kept none
            for option, share in self.probabilities.items()
        ]
        if self.absent is not None:
            known.append((None, self.absent))
        return sorted(known, key=lambda one: -one[1].value)

    def document(self) -> dict[str, Any]:
        """What is known beside the probabilities, for JSON."""
        return {
            "standard_errors": self.errors,
            **{name: _plain(getattr(self, name)) for name in ENTROPIES},
            "doubts": self.doubts,
            **({} if self.absent is None else {"absent": self.absent.document()}),
        }

    def __getitem__(self, option: str) -> float:
        return self.probabilities[option]

    def __iter__(self) -> Iterator[str]:
        return iter(self.probabilities)

    def __len__(self) -> int:
        return len(self.probabilities)


ENTROPIES = ("entropy", "conditional_entropy", "mutual_information")


def prediction_of(law: Mapping[str, float], found: Mapping[str, Any]) -> Prediction:
    """The prediction of a file: its law, and its document, which may be empty."""
    entropies = {name: _estimate(found.get(name)) for name in ENTROPIES}
    doubts = tuple(found.get("doubts", ()))
    errors, absent = found.get("standard_errors", {}), _estimate(found.get("absent"))
    return Prediction(law, errors, **entropies, doubts=doubts, absent=absent)


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else estimate.document()


def _estimate(found: Mapping[str, float] | None) -> Estimate | None:
    return None if found is None else Estimate.of(found)


def averaged(options: Sequence[str | None], laws: Floats, sampling: Sampling) -> Prediction:
    """The prediction of a choice. laws: (N, K) p(option | the other latents) of every draw."""
    law = sampling.mass @ laws
    surprises = laws @ -_log(law)
    still_open = -(laws * _log(laws)).sum(1)
    conditional = Estimate(
        max(sampling.mean(still_open) - sampling.drift(still_open), 0.0), sampling.error(still_open)
    )
    hanging = surprises - still_open
    variances = [sampling.variance(column) for column in laws.T]
    lost = _lost(law, variances)
    found = sampling.mean(hanging) - sampling.drift(hanging) + lost
    most = max(math.log(len(options)) - conditional.value, 0.0)
    mutual = Estimate(min(max(found, 0.0), most), _error(sampling, hanging, lost))
    entropy = Estimate(conditional.value + mutual.value, _error(sampling, surprises, lost))
    return _prediction(options, law, variances, entropy, conditional, mutual)


def counted(texts: Sequence[str | None], sampling: Sampling, derived: bool = False) -> Prediction:
    """The prediction of a text: the share of each among the draws, (N,). None: there is none.

    derived: the other latents say what the text is, so that all its entropy hangs on them. Where it
    was drawn itself, draws do not tell how the entropy splits.
    """
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    which = np.array([places[text] for text in texts])
    law = np.bincount(which, sampling.mass).astype(np.float64)
    surprises = -_log(law)[which]
    variances = share_variances(sampling, which)
    lost = _lost(law, variances)
    found = sampling.mean(surprises) - sampling.drift(surprises) + lost
    entropy = Estimate(max(found, 0.0), _error(sampling, surprises, lost))
    split = (Estimate(0.0, 0.0), entropy) if derived else (None, None)
    if len(places) == 1:
        variances = [_agreed(sampling)]
    return _prediction(list(places), law, variances, entropy, *split)


def _agreed(sampling: Sampling) -> float | None:
    """Variance of a share of 1: draws that all agree do not say that no other would differ.

    That of Jeffreys' law of a probability after n draws that agree, a Beta(n + 1/2, 1/2).
    """
    n = sampling.weights_size
    if sampling.origin == "law":
        return 0.0
    return (n + 0.5) * 0.5 / ((n + 1) ** 2 * (n + 2))


def _prediction(
    options: Sequence[str | None],
    law: Floats,
    variances: Iterable[float | None],
    entropy: Estimate,
    conditional: Estimate | None,
    mutual: Estimate | None,
) -> Prediction:
    errors = [None if variance is None else math.sqrt(variance) for variance in variances]
    found = map(Estimate, law.tolist(), errors)
    known = dict(sorted(zip(options, found, strict=True), key=lambda one: -one[1].value))
    absent = known.pop(None, None)
    return Prediction(
        {option: share for option, (share, _) in known.items() if option is not None},
        {option: error for option, (_, error) in known.items() if option is not None},
        entropy,
        conditional,
        mutual,
        absent=absent,
    )


def _lost(law: Floats, variances: Sequence[float | None]) -> float:
    """By how much the entropy of a mean is too small on average: Σ var p(y) / (2 p(y))."""
    pairs = zip(law.tolist(), variances, strict=True)
    return sum(variance / (2 * share) for share, variance in pairs if variance and share)


def _error(sampling: Sampling, values: Floats, lost: float) -> float | None:
    """Standard error of an entropy that is the mean of (N,) values, to the second order.

    Where all options are alike, or nothing hangs on the draw, the first order is nothing. What is
    left is a sum of squares of errors, whose mean is `lost`: of one alone, the variance is 2 lost².
    """
    variance = sampling.variance(values)
    return None if variance is None else math.sqrt(variance + 2 * lost**2)


def _log(values: Floats) -> Floats:
    """Logarithms; 0 where the value is 0, whose share in an entropy is nothing."""
    return np.log(np.where(values > 0, values, 1.0))
