"""How far two ways to the same number differ: the log prior of texts as they were drawn, and scored
afresh.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lmppl.density import Repeated, Target
from lmppl.engines.contract import Sample

MOST_COMPARED = 32  # distinct draws that are scored again
LEAST_COMPARED = 4
SHARE_COMPARED = 1 / 8  # of few draws: where scoring is slow, it must not cost as much as drawing


def score_mismatch(target: Target, samples: Sequence[Sample]) -> float | None:
    """Largest difference, in nats, over texts and some distinct possible draws; None where there
    are none.

    A draw carries the log prior that it was decoded with; here it is scored in one pass of its own.
    """
    texts = [latent.name for latent in target.texts]
    compared = _distinct(target, samples) if texts else []
    return max(
        (largest for name in texts for largest in _differences(target, name, compared)),
        default=None,
    )


def _distinct(target: Target, samples: Sequence[Sample]) -> list[Sample]:
    """The first of them. Of a law that is known, its states: which of them were drawn does not
    matter here.
    """
    found: dict[tuple, Sample] = {}
    most = min(MOST_COMPARED, max(LEAST_COMPARED, int(SHARE_COMPARED * len(samples))))
    for sample in samples.kinds if isinstance(samples, Repeated) else samples:
        if len(found) == most:
            break
        if math.isfinite(sample.log_density):
            found.setdefault(tuple(sample.state[latent.name] for latent in target.latents), sample)
    return list(found.values())


def _differences(target: Target, name: str, samples: Sequence[Sample]) -> Iterator[float]:
    for start in range(0, len(samples), target.batch_size):
        block = samples[start : start + target.batch_size]
        scored = target.log_prior(name, [sample.state for sample in block])
        for sample, value in zip(block, scored, strict=True):
            yield abs(sample.factors[name] - float(value))
