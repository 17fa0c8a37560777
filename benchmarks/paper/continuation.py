"""Continuation: the next sentence with density p(Z | X)^(1/T), T from 1 downwards: how likely, and how diverse.

    python benchmarks/paper/continuation.py --scale smoke|cpu|gpu [--out FOLDER] [--data STORIES.jsonl] [--lm LM=MODEL]

Decoding (ancestral, token temperature, nucleus, beam, diverse beam) writes equally many texts, at about equal tokens;
annealed, mcmc and a policy trained as a GFlowNet draw from the density itself, at prices that stand beside. X are the
beginnings of stories, those that are measured apart from those that are trained on. A last condition has short texts
and a high power, where a certified search knows the posterior: there the distance of every arm to it is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment import HERE, PROGRAMS, Experiment, columns, start
from infilling import split

from lmppl.compare.columns import Column

LONG, SHORT = HERE / "continuation.lm", HERE / "continuation_short.lm"

# train, test: stories; short: prompts of the short condition; draws: texts of an arm and prompt, beams as many;
# particles: of annealed; warmup: steps of mcmc before it keeps one text a chain; steps, rows, step_draws: of training
SCALES = {
    "smoke": {"T": (0.8,), "train": 4, "test": 2, "short": 1, "seeds": 2, "draws": 8, "particles": 16, "warmup": 4,
              "steps": 3, "rows": 2, "step_draws": 4, "micro_batch": 4, "evaluations": 3000},
    "cpu": {"T": (0.8, 0.9, 1.0), "train": 48, "test": 4, "short": 2, "seeds": 2, "draws": 16, "particles": 32,
            "warmup": 8, "steps": 25, "rows": 2, "step_draws": 8, "micro_batch": 4, "evaluations": 3000},
    "gpu": {"models": {"LM": "HuggingFaceTB/SmolLM2-1.7B"}, "batch_size": 256, "T": (0.8, 0.85, 0.9, 0.95, 1.0),
            "train": 50, "test": 24, "short": 2, "seeds": 5, "draws": 100, "particles": 1024, "warmup": 200,
            "steps": 600, "rows": 8, "step_draws": 32, "micro_batch": 64, "evaluations": 20000},
}  # fmt: skip

ARMS = {  # label: engine and its own options; T and the scale's sizes are filled in
    "ancestral": ("prompting", {}),
    "temperature": ("prompting", {"temperature": "{T}"}),
    "nucleus": ("prompting", {"method": "nucleus", "top_p": "0.9"}),
    "beam": ("prompting", {"method": "beam", "beams": "{draws}"}),
    "diverse-beam": ("prompting", {"method": "diverse_beam", "beams": "{draws}", "groups": "4"}),
    "annealed": ("annealed", {"particles": "{particles}"}),
    "mcmc": ("mcmc", {"chains": "{draws}", "num_samples": "1", "num_warmup": "{warmup}"}),
    "gflownet": ("gflownet", {"steps": "{steps}", "rows": "{rows}", "draws": "{step_draws}",
                              "micro_batch": "{micro_batch}", "weighted": "false"}),
}  # fmt: skip
LIKELIHOOD = Column("likelihood", "log p at T = 1", "text", "Mean log probability under the model itself, nats.")
COLUMNS = (
    LIKELIHOOD,
    *columns("distinct_2", "self_bleu", "embedding_distance", "distinct_texts", "length", "satisfied"),
    *columns("total_variation", "divergence", "kolmogorov", "proposal_divergence"),
    *columns("draws", "tokens_decoded", "tokens_scored", "seconds", "training_tokens", "training_seconds"),
)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run what is not yet run, and write the table. Returns its path."""
    study = start("continuation", SCALES, arguments)
    train, test = split(study.data or PROGRAMS / "stories.jsonl", study.sizes["train"], study.sizes["test"])
    for temperature in study.sizes["T"]:
        condition = {"T": temperature, "most tokens": 20}
        _compare(study, LONG, condition, ARMS, _beginnings(test), _beginnings(train))
    short, _ = split(PROGRAMS / "tempered.jsonl", study.sizes["short"], 0)
    untrained = {arm: own for arm, own in ARMS.items() if arm != "gflownet"}  # one or two prompts are no lessons
    searched = {**untrained, "exact": ("exact", {"max_evaluations": "{evaluations}"})}
    _compare(study, SHORT, {"T": 0.25, "most tokens": 6}, searched, short, None)
    for line in study.lines:
        if line.get("log_density") is not None:
            line["likelihood"] = line["log_density"] * line["condition"]["T"]
    return study.finish("Continuing stories by a sentence, sharper than the model", COLUMNS, NOTES)


def _beginnings(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"X": row["X"]} for row in rows]


def _compare(
    study: Experiment,
    program: Path,
    condition: Mapping[str, Any],
    arms: Mapping[str, tuple[str, Mapping[str, str]]],
    data: Sequence[Mapping[str, Any]],
    train: Sequence[Mapping[str, Any]] | None,
) -> None:
    values = {**study.sizes, "T": condition["T"]}
    shape = {"chains": "1", "num_samples": "{draws}"}
    options = [
        f"{arm}.{key}={text.format(**values)}"
        for arm, (_, own) in arms.items()
        for key, text in {**shape, **own}.items()
    ]
    study.compare(
        program, condition, engines=",".join(f"{arm}={engine}" for arm, (engine, _) in arms.items()), options=options,
        settings={"T": str(condition["T"])}, data=data, train=train, seeds=study.sizes["seeds"], bounds=False,
    )  # fmt: skip


NOTES = [
    "log p at T = 1 is the mean over draws that are possible: those that end with a full stop in time. Beams are as "
    "many texts as others draw; they have one mass each, and no seed changes them. gflownet is drawn from as it comes.",
    "distinct-2 and self-BLEU depend on how many texts there are: all arms have as many, but annealed's repeat where "
    "particles have common ancestors, and beams may find fewer that end.",
    "Distances: KS is of the log density, against a run of annealed under a seed of its own where T is 0.8 and more, "
    "against the exact posterior at T = 0.25. TV is over strings and has a floor: few draws cannot show many strings.",
]


if __name__ == "__main__":
    main()
