"""From what was found for a row to what a reply says: texts, probabilities, and how far to believe
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmppl.decoding import Purpose, Randomness
from lmppl.diagnosis import ENTROPIES, Estimate, Prediction
from lmppl.posterior import finite, statistics
from lmppl.run import Combination
from lmppl.serve.inference import Answered

if TYPE_CHECKING:
    from lmppl.serve.programs import Served

MOST_LISTED = 100  # texts of one answer whose probabilities are listed


@dataclass(frozen=True)
class Choice:
    """One text that is replied. values: of the answer's names; None: there is none."""

    content: str | None
    values: Mapping[str, str | None]
    share: Estimate

    def document(self) -> dict[str, Any]:
        """What is said beside the text."""
        return {
            "values": dict(self.values),
            "probability": self.share.value,
            "mcse": self.share.error,
        }


def choices(served: Served, found: Answered, likeliest: bool, n: int, seed: int) -> list[Choice]:
    """n replies: the likeliest answer each time, or draws from the answer's law."""
    combinations = [*found.law]
    if likeliest:
        picked = [0] * n
    else:
        mass = np.cumsum([share.value for share in found.law.values()])
        uniforms = Randomness(seed).uniforms(0, 0, Purpose.REPLIES, n)
        places = np.searchsorted(mass, uniforms * mass[-1], side="right")
        picked = np.minimum(places, len(combinations) - 1).tolist()
    return [_choice(served, combinations[place], found) for place in picked]


def _choice(served: Served, combination: Combination, found: Answered) -> Choice:
    values = dict(zip(served.answers, combination, strict=True))
    content = combination[0] if len(values) == 1 else json.dumps(values, ensure_ascii=False)
    return Choice(content, values, found.law[combination])


def about(found: Answered, seed: int, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """What is said of every row: its evidence, its verdict, and how it was found."""
    row = found.posterior
    document = {
        "verdict": row.verdict,
        "log_evidence": row.log_evidence,
        "log_evidence_se": row.log_evidence_se,
        "engine": found.engine,
        "draws": found.draws,
        "seed": seed,
        "checks": [vars(check) for check in row.checks if check.status != "pass"],
        "warnings": [*warnings, *row.warnings],
        "time_over": found.cut_short,
        "seconds": round(found.seconds, 4),
        "rows_together": found.rows,
    }
    if found.reached is not None:
        document["until"] = asdict(found.reached)
    return finite(document)


def usage(found: Answered) -> dict[str, int]:
    """The models' work, in OpenAI's words: prompt tokens are those scored, completion tokens those
    decoded, of all draws together.
    """
    scored, decoded = found.cost.get("tokens_scored", 0), found.cost.get("tokens_decoded", 0)
    total = scored + decoded
    return {"prompt_tokens": scored, "completion_tokens": decoded, "total_tokens": total}


def row_document(served: Served, found: Answered, seed: int) -> dict[str, Any]:
    """The answers of one row for /v1/systemone."""
    answers = {
        name: _answer(prediction, served.options(name) is not None)
        for name, prediction in found.predictions.items()
    }
    numbers = {
        name: {"mean": summary.get("mean"), "mcse": summary.get("mcse")}
        for name, summary in statistics(found.posterior).items()
    }
    return finite({"answers": answers, "statistics": numbers, **about(found, seed)})


def _answer(prediction: Prediction, choice: bool) -> dict[str, Any]:
    """One name's probabilities, with their errors, and how uncertain it is, in nats."""
    present = [*prediction.probabilities.items()]
    listed = present[:MOST_LISTED]
    known = prediction.document()
    uncertainty = {name: known[name] for name in ENTROPIES}
    return {
        "type": "choice" if choice else "text",
        "likeliest": prediction.outcomes[0][0] if prediction.outcomes else None,
        "probabilities": dict(listed),
        "mcse": {text: prediction.errors.get(text) for text, _ in listed},
        "rest": sum(share for _, share in present[MOST_LISTED:]),
        "absent": known.get("absent"),
        **uncertainty,
        "doubts": known["doubts"],
    }
