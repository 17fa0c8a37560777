"""Subjectivity: is a sentence of a review objective or subjective? Learned from few labels.

    python benchmarks/paper/subjectivity.py --scale smoke|cpu|gpu [--data FOLDER] [--out FOLDER] [--lm LM=MODEL]

FOLDER holds train.50.jsonl and dev.500.jsonl, with the columns `text` and `label_text`; without it,
programs/reviews.jsonl is split. Every seed learns from other rows, as many of either label as there are. Arms without a
chain of thought: asked at once (zero-shot), after worked rows (in-context), and after supervised tuning on the labels,
which is `lmppl em` of a program whose latents are all observed; the first and the last also of a prompt that tells all
that the program with a chain is told. Arms that read the label off a latent chain of thought:
the model's own chains; those of a policy trained as a GFlowNet on the labelled rows; and the same after one round of
expectation-maximisation. All are asked about the same rows, none of which any arm has learned from.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from experiment import HERE, PROGRAMS, Experiment, ahead, columns, say, start

from lmppl.compare.columns import Column
from lmppl.compare.measure import price
from lmppl.compare.measures import labels as measures
from lmppl.compare.store import digest
from lmppl.compile import as_records
from lmppl.compile import compile as compile_program
from lmppl.em.maximise import Fit
from lmppl.em.rounds import POLICY, PUBLISHED, Job, expectation_maximisation, learned_adapters
from lmppl.engines.contract import quiet
from lmppl.lm import load_models
from lmppl.posterior.posterior import Posterior, load
from lmppl.posterior.store import save, write_whole
from lmppl.report.page import page_of
from lmppl.run import Request, run

STEPS = ("steps", "tuning")  # a number for each of `labels`
ALL = CHAIN, DIRECT, TOLD = [HERE / f"subjectivity{name}.lm" for name in ("", "_direct", "_told")]
REVIEWS = PROGRAMS / "reviews.jsonl"

# labels: rows to learn from; seeds: for each of these; test: rows asked about; shots: most worked rows in a prompt;
# chains: drawn for an answer; steps: of the policy, and tuning: of SFT and the M-step, for each of `labels`; rows: of a
# step; draws: of a row, by policies; rate, tuning_rate: of learning
SCALES = {
    "smoke": {"labels": [4], "test": 4, "seeds": [2], "shots": 2, "chains": 3, "steps": [2], "tuning": [2], "rows": 2,
              "draws": 4, "rate": 1e-3, "tuning_rate": 5e-4, "dtype": "float32"},
    "cpu": {"labels": [10, 20, 50], "test": 100, "seeds": [8, 4, 4], "shots": 8, "chains": 10, "steps": [24, 28, 32],
            "tuning": [9, 12, 18], "rows": 10, "draws": 16, "rate": 3e-3, "tuning_rate": 5e-4, "dtype": "bfloat16"},
    "gpu": {"labels": [10, 20, 50], "test": 250, "seeds": [8, 5, 5], "shots": 50, "chains": 10, "steps": [40, 60, 100],
            "tuning": [9, 12, 18], "rows": 10, "draws": 32, "rate": 1e-3, "tuning_rate": 5e-4, "dtype": "float32"},
}  # fmt: skip


def ranked(laws: measures.Laws, labels: Sequence[str]) -> float:
    """Share of pairs of rows with different labels whose order by the first label's probability is right; ties half.

    The area under the curve of true against false positives: what a threshold that is off leaves as it is.
    """
    first = min(labels)
    shares = np.array([law[first] for law in laws])
    own = np.array([label == first for label in labels])
    gaps = shares[own][:, None] - shares[~own]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


QUALITY = {
    "accuracy": measures.accuracy,
    "log_loss": measures.log_loss,
    "brier": measures.brier,
    "calibration_error": measures.calibration_error,
    "ranked": ranked,
}
RANKED = Column("ranked", "AUC", "right", "Share of pairs of an objective and a subjective row ranked rightly.", "high")
COLUMNS = (
    *columns("accuracy"), RANKED, *columns("log_loss", "brier", "calibration_error"),
    *columns("tokens_decoded", "tokens_scored", "seconds"),
)  # fmt: skip

Rows = Sequence[Mapping[str, str]]


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run what is not yet run, and write the table. Returns its path."""
    study = start("subjectivity", SCALES, arguments)
    notes = _explained(study)
    test = test_rows(study.data, study.sizes["test"])
    _untrained(Bench.of(study, [], test))
    for count, seeds in zip(study.sizes["labels"], study.sizes["seeds"], strict=True):
        benches = [Bench.of(study, training_rows(study.data, count, seed), test) for seed in range(seeds)]
        found = [_learned(bench, seed) for seed, bench in enumerate(benches)]
        notes += [*_differences(study, count, range(seeds)), *found]
        path = study.finish("Subjectivity of reviews", COLUMNS, notes)  # what is done can be looked at
    return path


def _learned(bench: Bench, seed: int) -> str:
    """All arms that learn. Returns what expectation-maximisation says of itself."""
    _in_context(bench, seed)
    _tuned(bench, seed)
    return _trained(bench, seed)


# --- rows -----------------------------------------------------------------------------------------


def training_rows(folder: Path | None, count: int, seed: int) -> list[dict[str, str]]:
    """Rows to learn from, of `train.50.jsonl` of a folder or of half of our own; labels in turn. Raises ValueError."""
    pool = _read(folder / "train.50.jsonl") if folder is not None else _own()[: len(_own()) // 2]
    if count > len(pool):
        raise ValueError(f"there are {len(pool)} rows to learn from, fewer than {count}")
    seen: Counter[str] = Counter()
    turns = []
    for row in random.Random(seed).sample(pool, len(pool)):
        turns.append((seen[row["Y"]], len(turns), row))
        seen[row["Y"]] += 1
    return [row for _, _, row in sorted(turns, key=lambda turn: turn[:2])[:count]]


def test_rows(folder: Path | None, count: int) -> list[dict[str, str]]:
    """Rows to be asked about. Of dev.500.jsonl every second row: the others were there to choose settings."""
    rows = _read(folder / "dev.500.jsonl")[1::2] if folder is not None else _own()[len(_own()) // 2 :]
    if count > len(rows):
        raise ValueError(f"there are {len(rows)} rows to ask about, fewer than {count}")
    return rows[:count]


def _own() -> list[dict[str, str]]:
    return [json.loads(line) for line in REVIEWS.read_text(encoding="utf-8").splitlines()]


def program_of(path: Path, dtype: str) -> str:
    """A program with weights of this type, and worked rows from the folder that it lies in."""
    text = path.read_text(encoding="utf-8").replace("../../programs/reviews.jsonl", "worked.jsonl")
    return text.replace('"smollm2-135m"', f'"smollm2-135m" (dtype = "{dtype}")', 1)


def _read(path: Path) -> list[dict[str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{"X": row["text"], "Y": f" {row['label_text']}"} for row in rows]


# --- runs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Rows to learn from and rows to ask about, and the folder where what is run on them is kept."""

    study: Experiment
    train: Rows
    test: Rows
    folder: Path

    @classmethod
    def of(cls, study: Experiment, train: Rows, test: Rows) -> Bench:
        """With programs and worked rows in its folder. Raises ValueError where rows to ask about are learned from."""
        if {row["X"] for row in train} & {row["X"] for row in test}:
            raise ValueError("a row to ask about is among those to learn from")
        texts = [program_of(path, study.sizes["dtype"]) for path in ALL]
        shape = {name: value for name, value in study.sizes.items() if name not in ("labels", "seeds", *STEPS)}
        bench = cls(study, train, test, study.out)
        steps = [bench.steps(name) for name in STEPS]
        made = digest([shape, steps, study.lms, train, test, texts])
        bench = replace(bench, folder=study.out / f"labels={len(train)}-{made}")
        bench.folder.mkdir(parents=True, exist_ok=True)
        worked = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in train or _own())
        (bench.folder / "worked.jsonl").write_text(worked, encoding="utf-8")
        for path, text in zip(ALL, texts, strict=True):
            (bench.folder / path.name).write_text(text, encoding="utf-8")
        return bench

    def steps(self, name: str) -> int:
        """Steps of the policy, or of `tuning`, for so many labels; 0 without labels."""
        known = dict(zip(self.study.sizes["labels"], self.study.sizes[name], strict=True))
        return known.get(len(self.train), 0)

    def ask(
        self, arm: str, program: Path, request: Request, params: Mapping[str, Any] | None = None,
        learned: Mapping[str, Path] | None = None,
    ) -> Posterior:  # fmt: skip
        """The run of an arm on all rows to ask about, made first where it is not."""
        place = self.folder / f"{arm}-{request.seed}"
        asked = [{"X": row["X"]} for row in self.test]
        lowered, rows, _ = compile_program(self.folder / program.name).configure(params or {}, as_records(asked))
        if not (place / "run.json").exists():
            models = load_models(lowered, self.study.lms, "auto", quiet, learned)
            save(run(lowered, rows, models, request), place)
            say(f"labels={len(self.train)}: {place.name}")
        found = load(place)
        for model in lowered.models:
            self.study.models[model.name] = f"{found.models[model.name]['identifier']}, {model.dtype or 'float32'}"
        return found

    def learn(self, name: str, program: Path, request: Request) -> Path:
        """The folder of one round of expectation-maximisation on the labelled rows, made first where it is not."""
        place = self.folder / f"learned-{name}-{request.seed}"
        lowered, rows, _ = compile_program(self.folder / program.name).configure({}, as_records(self.train))
        sizes = self.study.sizes
        fit = Fit(steps=self.steps("tuning"), rows=sizes["rows"], learning_rate=sizes["tuning_rate"])
        plan = Job(
            lowered, rows, rows, lambda learned: load_models(lowered, self.study.lms, "auto", quiet, learned), request,
            fit, rounds=1, told=lambda line: say(f"labels={len(self.train)}, {place.name}: {line}"),
        )  # fmt: skip
        expectation_maximisation(plan, place)
        return place

    def show(self, *runs: str) -> None:
        """Write pages of runs, where there are none."""
        for place in (self.folder / name for name in runs):
            if not (place / "report.html").exists():
                write_whole(place / "report.html", page_of(place))

    def add(self, arm: str, found: Posterior, laws: Sequence[measures.Laws]) -> None:
        """Add the line of an arm and seed: means of what its predictions, one set or several, are worth."""
        own = [row["Y"] for row in self.test]
        values = {name: float(np.mean([measured(law, own) for law in laws])) for name, measured in QUALITY.items()}
        top = {"arm": arm, "engine": found.engine, "condition": {"labels": len(self.train)}, "seed": found.seed}
        self.study.lines.append({**top, "verdict": found.verdict, **values, **price(found)})

    def answer(
        self, arm: str, program: Path, seed: int = 0, params: Mapping[str, Any] | None = None,
        learned: Mapping[str, Path] | None = None,
    ) -> None:  # fmt: skip
        """Add the line of an arm that answers at once."""
        found = self.ask(_name(arm), program, Request("exact", seed=seed), params, learned)
        self.add(arm, found, [_predicted(found)])

    def add_chains(self, arm: str, found: Posterior) -> None:
        """Add lines for answers from one chain, the mean over those drawn, and from the average of all."""
        self.add(f"{arm}, one chain", found, one_chain(found))
        self.add(f"{arm}, {self.study.sizes['chains']} chains", found, [_predicted(found)])


def one_chain(found: Posterior) -> list[measures.Laws]:
    """Per draw, the law of Y given that draw's chain alone, of every row."""
    options = list(found.rows[0].predictions["Y"])
    count = len(found.rows[0].draws)
    return [[_law(row.draws[place], options) for row in found.rows] for place in range(count)]


def _predicted(found: Posterior) -> measures.Laws:
    return [row.predictions["Y"] for row in found.rows]


def _law(draw: Any, options: Sequence[str]) -> dict[str, float]:
    """The law of a label of two options, from the probability of the one that was drawn."""
    own = float(np.exp(draw.factors["Y"]))
    return {option: own if option == draw.values["Y"] else 1 - own for option in options}


def _name(arm: str) -> str:
    """What an arm's folders are called."""
    return arm.lower().replace(", ", "-")


# --- arms -----------------------------------------------------------------------------------------


def _untrained(bench: Bench) -> None:
    """Without labels: the answer at once, and through chains of thought of the model's own."""
    for arm, program in (("zero-shot", DIRECT), ("zero-shot, told", TOLD)):
        bench.answer(arm, program)
    bench.add_chains("chain of thought", bench.ask("chains", CHAIN, _drawing("importance", bench, 0)))


def _in_context(bench: Bench, seed: int) -> None:
    """After worked rows, another choice and order of them every seed."""
    params = {"shots": min(bench.study.sizes["shots"], len(bench.train)), "order": seed}
    bench.answer("in-context", DIRECT, seed, params)


def _tuned(bench: Bench, seed: int) -> None:
    """After tuning on the labels."""
    for arm, program in (("SFT", DIRECT), ("SFT, told", TOLD)):
        folder = bench.learn(_name(arm), program, Request("exact", seed=seed))
        bench.answer(arm, program, seed, learned=learned_adapters(folder))


def _trained(bench: Bench, seed: int) -> str:
    """Through chains of a trained policy, of the first E-step and of the best. Returns what the rounds have found."""
    sizes = bench.study.sizes
    options = {"steps": bench.steps("steps"), "tempered": 0, "replay": 0, "learning_rate": sizes["rate"]}
    options |= {name: sizes[name] for name in ("rows", "draws")}
    request = Request("gflownet", {"chains": 1, "num_samples": 32}, options, seed)
    folder = bench.learn("gflownet", CHAIN, request)
    first = _drawing("gflownet", bench, seed, folder / "rounds" / "0" / "draws")
    bench.add_chains("GFlowNet", bench.ask("gflownet", CHAIN, first))
    last = _drawing("gflownet", bench, seed, folder / PUBLISHED / POLICY)
    found = bench.ask("gflownet-em", CHAIN, last, learned=learned_adapters(folder))
    bench.add_chains("GFlowNet + EM", found)
    if seed == 0:
        bench.show("gflownet-0", "gflownet-em-0")
    document = json.loads((folder / "em.json").read_text(encoding="utf-8"))
    return f"EM, {len(bench.train)} labels, seed {seed}: {document['finding']}"


def _drawing(engine: str, bench: Bench, seed: int, adapter: Path | None = None) -> Request:
    return Request(engine, {"chains": 1, "num_samples": bench.study.sizes["chains"]}, {}, seed, adapter=adapter)


# --- notes ----------------------------------------------------------------------------------------


def _differences(study: Experiment, count: int, seeds: Sequence[int]) -> list[str]:
    """By how much the accuracy of trained chains is above that of the other arms, seed by seed."""
    found = {(line["condition"]["labels"], line["arm"], line["seed"]): line["accuracy"] for line in study.lines}
    chains = f"chain of thought, {study.sizes['chains']} chains"
    rivals = {
        **{arm: [found[0, arm, 0] for _ in seeds] for arm in ("zero-shot", "zero-shot, told", chains)},
        **{arm: [found[count, arm, seed] for seed in seeds] for arm in ("in-context", "SFT", "SFT, told")},
    }
    notes = []
    for arm in ("GFlowNet", "GFlowNet + EM"):
        own = [found[count, f"{arm}, {study.sizes['chains']} chains", seed] for seed in seeds]
        notes.append(f"Accuracy of {arm} with {count} labels above that of: {ahead(own, rivals)}.")
    return notes


def _explained(study: Experiment) -> list[str]:
    return [
        "All arms are asked about the same rows; ± is over seeds (other labelled rows, another adapter, other draws), "
        "not over rows to ask about. Rows to learn from are as many of either label as the 50 of the pool allow.",
        "One chain: the mean over the chains drawn, each answering by itself.",
    ]


if __name__ == "__main__":
    main()
