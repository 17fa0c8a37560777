"""Infilling: the fourth sentence of a five-sentence story, given the others.

    python benchmarks/paper/infilling.py --scale smoke|cpu|gpu [--out FOLDER] [--data STORIES.jsonl] [--lm LM=MODEL]

Arms: prompting with both ends of the story; the same prompt after supervised tuning, and after training as a GFlowNet,
their draws as they come; the GFlowNet's draws weighted; importance from the prior; annealed. All on test stories that
no arm was trained on, once with the fifth sentence of the story (Y given), once with one that the model itself wrote
after a fourth of its own (Y simulated): that fourth sentence is an exact draw from the posterior, so bounds of the
divergence of what was learned can be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiment import HERE, PROGRAMS, Experiment, Line, columns, share_fits, start

from lmppl.compare.columns import Column
from lmppl.compare.store import Store, digest
from lmppl.compile import as_records
from lmppl.compile import compile as compile_program
from lmppl.data.rows import Row
from lmppl.decoding.randomness import Randomness
from lmppl.engines.contract import quiet
from lmppl.lm import load_models
from lmppl.run import Request
from lmppl.validation.bounds import certify
from lmppl.validation.simulate import Simulator

PROGRAM = HERE / "infilling.lm"
SIMULATED = 4_000_000  # seed of the simulated endings, apart from those of the arms

# train, test: stories; seeds: runs of every arm; draws: of an arm and story; particles: of annealed;
# steps, rows, step_draws: of training, micro_batch: draws in one pass; K: draws that bound divergences
SCALES = {
    "smoke": {"train": 6, "test": 2, "seeds": 2, "draws": 12, "particles": 16, "steps": 3, "rows": 2, "step_draws": 4,
              "micro_batch": 4, "K": 8},
    "cpu": {"train": 48, "test": 6, "seeds": 2, "draws": 16, "particles": 16, "steps": 60, "rows": 2, "step_draws": 8,
            "micro_batch": 4, "K": 16},
    "gpu": {"models": {"LM": "HuggingFaceTB/SmolLM2-1.7B"}, "batch_size": 256, "train": 58, "test": 16, "seeds": 5,
            "draws": 200, "particles": 512, "steps": 800, "rows": 8, "step_draws": 32, "micro_batch": 64, "K": 500},
}  # fmt: skip

ARMS = {  # label: engine
    "prompting": "prompting", "sft": "sft", "gflownet": "gflownet", "gflownet-weighted": "gflownet",
    "importance": "importance", "annealed": "annealed",
}  # fmt: skip
MISSED = (
    Column("missed_low", "KL(π‖q) ≥", "right", "Lower bound of the posterior's divergence from what was learned."),
    Column("missed_high", "KL(π‖q) ≤", "right", "Upper bound of it."),
    Column("symmetric", "gap", "right", "Bound of the symmetric divergence of K draws resampled."),
)
COLUMNS = (
    *columns("bleu", "gleu", "bert_score", "log_observed", "log_density", "satisfied", "length"),
    *columns("log_evidence", "kolmogorov", "proposal_divergence"),
    *MISSED,
    *columns("tokens_decoded", "tokens_scored", "seconds", "training_tokens", "training_seconds"),
)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run what is not yet run, and write the table. Returns its path."""
    study = start("infilling", SCALES, arguments)
    train, test = split(study.data or PROGRAMS / "stories.jsonl", study.sizes["train"], study.sizes["test"])
    given, simulated = {"Y": "given"}, {"Y": "simulated"}
    _compare(study, given, train, test)
    share_fits(study.folder(given), study.folder(simulated))
    document = _compare(study, simulated, train, endings(study, test))
    for entry in document["entries"]:
        if entry["label"] in ("importance", "sft", "gflownet"):
            _bound(study, entry, simulated, test)
    return study.finish("Infilling five-sentence stories", COLUMNS, _notes(study))


def split(path: Path, train: int, test: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The first rows of a file, and its last ones. Raises ValueError where they would overlap."""
    rows = [dict(record.values) for record in as_records(path)]
    if train + test > len(rows):
        raise ValueError(f"{path} has {len(rows)} rows, fewer than {train} to train on and {test} to test on")
    return rows[:train], rows[len(rows) - test :]


def _compare(study: Experiment, condition: Mapping[str, str], train: Sequence, test: Sequence) -> dict[str, Any]:
    sizes = study.sizes
    learning = {"steps": sizes["steps"], "rows": sizes["rows"]}
    drawn = {"draws": sizes["step_draws"], "micro_batch": sizes["micro_batch"]}
    own: dict[str, dict[str, Any]] = {
        "sft": {**learning, "draws": 1, "weighted": "false"},
        "gflownet": {**learning, **drawn, "weighted": "false"},
        "gflownet-weighted": {**learning, **drawn},
        "annealed": {"particles": sizes["particles"]},
    }
    shape = {"chains": 1, "num_samples": sizes["draws"]}
    options = [f"{arm}.{key}={value}" for arm in ARMS for key, value in {**shape, **own.get(arm, {})}.items()]
    return study.compare(
        PROGRAM, condition, engines=",".join(f"{label}={engine}" for label, engine in ARMS.items()), options=options,
        data=test, train=train, hold_out=["Z"], seeds=sizes["seeds"], bounds=False,
    )  # fmt: skip


# --- endings by the model -------------------------------------------------------------------------


def endings(study: Experiment, test: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Test rows with Z and Y drawn by the model after X: Z is an exact posterior draw given that Y."""
    program, rows, models = _loaded(study, test)

    def make() -> list[dict[str, Any]]:
        found = []
        for number, row in enumerate(rows):
            drawn = Simulator(program, models, row).draw(Randomness(SIMULATED, number))
            text = drawn.target.text("Z", drawn.state["Z"])
            ending = models["LM"].decode(drawn.target.scored_text("observe Y").tokens[0])
            found.append({"X": row.givens["X"], "Z": text, "Y": ending})
        return found

    return Store(study.out).kept(study.out / "endings.json", _key(study, test), make)


def _key(study: Experiment, test: Sequence[Mapping[str, Any]], *more: Any) -> str:
    """What is kept beside the comparisons depends on this."""
    return digest([PROGRAM.read_text(encoding="utf-8"), study.lms, list(test), *map(str, more)])


def _loaded(study: Experiment, test: Sequence[Mapping[str, Any]]) -> tuple[Any, list[Row], Any]:
    """Program, rows without Z, and models."""
    compiled = compile_program(PROGRAM)
    program, rows, _ = compiled.configure({}, as_records([{"X": row["X"], "Y": row["Y"]} for row in test]))
    return program, rows, load_models(program, study.lms, "auto", quiet)


def _bound(study: Experiment, entry: Mapping[str, Any], condition: Mapping[str, str], test: Sequence) -> None:
    """Add bounds of the posterior's divergence from an arm's proposal to the arm's lines, one seed after another."""
    own = [line for line in study.lines if line["arm"] == entry["label"] and line["condition"] == condition]
    folder = study.folder(condition)
    for number, line in enumerate(line for line in own if line["seed"] is not None):
        fit = folder / entry["fits"][number] if entry["fits"] else None
        line.update(_bounds_of(study, fit, line, test))


def _bounds_of(study: Experiment, fit: Path | None, line: Line, test: Sequence) -> dict[str, float | None]:
    options = {} if fit is None else {"proposal": str(fit), "defensive": 0.01}
    request = Request("importance", {"chains": 1, "num_samples": study.sizes["K"]}, options, line["seed"])

    def make() -> dict[str, float | None]:
        program, rows, models = _loaded(study, test)
        found = certify(program, rows, models, request, len(rows)).document()
        low, high = found["posterior_from_proposal"]
        return {"missed_low": low["mean"], "missed_high": high["mean"], "symmetric": found["gap"]["mean"]}

    kept = study.out / f"bounds-{line['arm']}-{line['seed']}.json"
    return Store(study.out).kept(kept, _key(study, test, request), make)


def _notes(study: Experiment) -> list[str]:
    notes = [
        "sft and gflownet are drawn from as they come; gflownet-weighted weights the same policy's draws by posterior "
        "over policy. KL of q is of what an arm proposes, impossible proposals apart, against the log evidence of a "
        "run of annealed with a seed of its own.",
        f"KL(π‖q) is bounded on simulated endings, as `lmppl bounds` does, with K = {study.sizes['K']} "
        "and 1 % of the prior mixed into what was learned; for importance, q is the prior.",
        "BLEU-4 and GLEU-4 are against the fourth sentence of the story or of the simulation: one of many good ones.",
    ]
    if find_spec("bert_score") is None:
        notes.append("BERTScore is left out: the package `bert-score` is not installed.")
    return notes


if __name__ == "__main__":
    main()
