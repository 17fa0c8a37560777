"""Does what is learned transfer? One adapter for two tasks at once, measured on each of them and on a third.

    python benchmarks/paper/transfer.py --scale smoke|cpu|gpu [--out FOLDER] [--lm LM=MODEL]

Tasks: the missing fourth sentence of a story; a sentence on a review before it is called objective or subjective; the
steps of a sum before its answer. Arms: the model asked by the policy's prompt; a GFlowNet trained on rows of the task
itself; one trained on as many rows of the stories and of the reviews together, in as many steps. All are asked about
the same rows, from which none has learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from arithmetic import QUESTION, generated
from experiment import HERE, PROGRAMS, Experiment, columns, share_fits, start

from lmppl.compile import as_records

PROGRAM = HERE / "transfer.lm"
TRAINED = ("stories", "reviews")  # together
REVIEW = 'Review: "{X}"\nIn a few words, this text is'

# train, test: rows of a task; seeds: runs of every arm; draws: of an arm and row; steps, rows, step_draws: of training
SCALES = {
    "smoke": {"train": 4, "test": 1, "seeds": 1, "draws": 6, "steps": 2, "rows": 2, "step_draws": 3},
    "cpu": {"train": 12, "test": 6, "seeds": 3, "draws": 16, "steps": 40, "rows": 2, "step_draws": 8},
    "gpu": {"train": 48, "test": 16, "seeds": 5, "draws": 200, "steps": 600, "rows": 8, "step_draws": 32},
}  # fmt: skip

COLUMNS = columns(
    "log_observed", "log_density", "satisfied", "length", "distinct_2",
    "tokens_decoded", "tokens_scored", "training_tokens", "training_seconds",
)  # fmt: skip

Rows = Sequence[Mapping[str, str]]


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run what is not yet run, and write the table. Returns its path."""
    study = start("transfer", SCALES, arguments)
    sizes, tasks = study.sizes, rows_by_task()
    train = {task: rows[: sizes["train"]] for task, rows in tasks.items()}
    test = {task: rows[len(rows) - sizes["test"] :] for task, rows in tasks.items()}
    half = sizes["train"] // len(TRAINED)
    both = [row for pair in zip(*(train[task][:half] for task in TRAINED), strict=True) for row in pair]
    first = study.folder({"task": TRAINED[0], "trained on": "both"})
    for task in tasks:
        _compare(study, {"task": task, "trained on": "itself"}, train[task], test[task], "prompting,gflownet")
        condition = {"task": task, "trained on": "both"}
        if task != TRAINED[0]:  # what was learned serves all tasks
            share_fits(first, study.folder(condition))
        _compare(study, condition, both, test[task], "gflownet")
    note = f"both: {half} rows each of {' and '.join(TRAINED)}. The sums are a task that it has never seen."
    return study.finish("One policy for two tasks", COLUMNS, [note])


def rows_by_task() -> dict[str, list[dict[str, str]]]:
    """Rows of each task, always in the same order: those to learn from come first, those to ask about last."""
    stories = [{name: str(value) for name, value in r.values.items()} for r in as_records(PROGRAMS / "stories.jsonl")]
    reviews = [{name: str(value) for name, value in r.values.items()} for r in as_records(PROGRAMS / "reviews.jsonl")]
    return {
        "stories": [{"P": r["X"], "G": f"Beginning: {r['X']}\nEnding:{r['Y']}\nMiddle:", "Y": r["Y"]} for r in stories],
        "reviews": [{"P": REVIEW.format(**r), "G": REVIEW.format(**r), "Y": f" So it is{r['Y']}."} for r in reviews],
        "sums": [
            {"P": QUESTION.format(**r), "G": QUESTION.format(**r), "Y": f" The answer is{r['Y']}"}
            for r in generated(3, 60, 7)
        ],
    }


def _compare(study: Experiment, condition: Mapping[str, str], train: Rows, test: Rows, engines: str) -> None:
    sizes = study.sizes
    shape = {"chains": 1, "num_samples": sizes["draws"]}
    learned = {"steps": sizes["steps"], "rows": sizes["rows"], "draws": sizes["step_draws"], "weighted": "false"}
    options = [f"gflownet.{key}={value}" for key, value in {**shape, **learned}.items()]
    if "prompting" in engines:
        options += [f"prompting.{key}={value}" for key, value in shape.items()]
    study.compare(
        PROGRAM, condition, engines=engines, options=options, data=test, train=train, seeds=sizes["seeds"],
        against="none",
    )  # fmt: skip


if __name__ == "__main__":
    main()
