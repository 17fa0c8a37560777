"""Arithmetic with a tool: sums and differences of one-digit numbers, by a rationale whose results a calculator writes.

    python benchmarks/paper/arithmetic.py --scale smoke|cpu|gpu [--out FOLDER] [--data WORKED.json] [--lm LM=MODEL]

The prior and the reward see three worked questions; what is learned sees the question alone. Arms: prompting with the
three worked questions; supervised tuning on the worked rows; PPO and GFlowNet, which imitate the same worked rows first
and then learn from questions with the answer alone. Trained on questions of three and four numbers, measured on others
of three, four and five. --data: worked questions in the format of the paper's own, in place of generated ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiment import Experiment, ahead, cell, columns, share_fits, start

DEMONSTRATIONS = 3  # worked questions that the prior and the reward see
TRAINED = (4, 3)  # numbers in a question that is trained on …
MEASURED = (3, 4, 5)  # … and in one that is measured
POWER = 3  # of the answer's probability in the reward: at 1, short rationales with a wrong answer outweigh right ones

# worked: rows with a rationale; pairs: rows with the answer alone; test: questions of each length; seeds: runs of every
# arm; draws: of an arm and question, the answer being what most of them say; tuning, tuning_rows, tuning_rate: steps,
# rows and learning rate of sft; steps, imitation among them, step_draws, rate: of gflownet and ppo, which has its own
# ppo_steps; rows: of gflownet, ppo has half as many and two passes; most: tokens
SCALES = {
    "smoke": {"worked": 2, "pairs": 2, "test": 2, "seeds": 2, "draws": 4, "tuning": 3, "tuning_rows": 2,
              "tuning_rate": 1e-3, "steps": 4, "ppo_steps": 3, "imitation": 2, "rows": 2, "step_draws": 4, "rate": 1e-3,
              "most": 48, "dtype": "float32"},
    "cpu": {"worked": 4, "pairs": 60, "test": 20, "seeds": 5, "draws": 10, "tuning": 40, "tuning_rows": 4,
            "tuning_rate": 1e-3, "steps": 60, "ppo_steps": 30, "imitation": 9, "rows": 4, "step_draws": 8, "rate": 7e-4,
            "most": 48, "dtype": "bfloat16"},
    "gpu": {"worked": 4, "pairs": 1000, "test": 200, "seeds": 5, "draws": 10, "tuning": 40, "tuning_rows": 4,
            "tuning_rate": 1e-3, "steps": 400, "ppo_steps": 400, "imitation": 9, "rows": 16, "step_draws": 32,
            "rate": 7e-4, "most": 48, "dtype": "float32"},
}  # fmt: skip

ARMS = ("prompting", "sft", "gflownet", "ppo")  # each the name of its engine
COLUMNS = columns(
    "accuracy", "one_draw", "satisfied", "length", "log_density",
    "tokens_decoded", "tokens_scored", "seconds", "training_tokens", "training_seconds",
)  # fmt: skip

QUESTION = "Question: {X} = ? Answer:"
PROGRAM = """# A rationale whose results a calculator writes, and the answer; after three worked questions.
lm LM = "smollm2-135m" (dtype = "{dtype}")
given X

Z ~ LM("{worked}Question: {{X}} = ? Answer:") with calculator(trigger = "=", operands = 2) until "." max {most} tokens
Y ~ LM("{worked}Question: {{X}} = ? Answer:{{Z}} The answer is"){power} until "." max 5 tokens
predict Y
"""
GUIDES = """guide Z | "Question: {X} = ? Answer:"
guide Y | "Question: {X} = ? Answer:{Z} The answer is"
"""

Question = dict[str, str]  # X: `6 - 0 - 4`; Z: ` 6 - 0 = 6, 6 - 4 = 2.`; Y: ` 2.`


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run what is not yet run, and write the table. Returns its path."""
    study = start("arithmetic", SCALES, arguments)
    data = questions(study.sizes, read(study.data) if study.data else [])
    for arm in ARMS:
        run(study, arm, data)
    study.lines.sort(key=lambda line: line["condition"]["operands"])
    return study.finish("Arithmetic with a tool", COLUMNS, [*_notes(study), *_differences(study)])


def run(study: Experiment, arm: str, data: Questions) -> None:
    """One arm on questions of every length, in a folder of its own, so that arms can be run side by side."""
    own = replace(study, out=study.out / arm)
    own.out.mkdir(exist_ok=True)
    program = own.out / "arithmetic.lm"
    learned = arm != "prompting"
    text = program_of(data.demonstrations, study.sizes, f"^{POWER}" if learned else "") + (GUIDES if learned else "")
    program.write_text(text, encoding="utf-8")
    for operands in MEASURED:
        if learned and operands != MEASURED[0]:  # what was learned serves all lengths
            share_fits(own.folder({"operands": MEASURED[0]}), own.folder({"operands": operands}))
        _compare(own, program, arm, operands, data)


def _compare(study: Experiment, program: Path, arm: str, operands: int, data: Questions) -> None:
    sizes = study.sizes
    seeded = {
        "seed_from": "rows", "steps": sizes["steps"], "imitation": sizes["imitation"], "rows": sizes["rows"],
        "draws": sizes["step_draws"], "learning_rate": sizes["rate"], "weighted": "false",
    }  # fmt: skip
    own: dict[str, dict[str, Any]] = {
        "sft": {
            "steps": sizes["tuning"], "rows": sizes["tuning_rows"], "draws": 1, "learning_rate": sizes["tuning_rate"],
            "weighted": "false",
        },
        "ppo": {**seeded, "steps": sizes["ppo_steps"], "rows": max(1, sizes["rows"] // 2), "epochs": 2},
        # hurry would show it short rationales, all of them worthless; a wrong answer costs 20 nats, and where residuals
        # count linearly long before that, a short wrong rationale is worth as much above a long one as a right one is
        "gflownet": {
            **seeded, "buffer_by": "reward", "replay": 0.375, "tempered": 0.375, "temperature": 2, "min_p": 1e-3,
            "huber": 60, "hurry": "false",
        },
    }  # fmt: skip
    shape = {"chains": 1, "num_samples": sizes["draws"]}
    options = [f"{arm}.{key}={value}" for key, value in {**shape, **own.get(arm, {})}.items()]
    test = [{"X": row["X"], "Y": row["Y"]} for row in data.test[operands]]
    study.compare(
        program, {"operands": operands}, engines=arm, options=options, data=test, train=data.train,
        hold_out=["Y"], seeds=sizes["seeds"], against="none",
    )  # fmt: skip


# --- questions ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Questions:
    """All of them apart. train: worked ones first, then those without a rationale; test: by numbers in a question."""

    demonstrations: Sequence[Question]
    train: Sequence[Question]
    test: Mapping[int, Sequence[Question]]


def questions(sizes: Mapping[str, Any], worked: Sequence[Question] = ()) -> Questions:
    """The questions of a scale, the same every time. worked: what to take worked ones from, as far as it goes."""
    test = {operands: generated(operands, sizes["test"], operands) for operands in MEASURED}
    taken = {row["X"] for rows in test.values() for row in rows}
    known = [row for row in worked if row["X"] not in taken]
    count = DEMONSTRATIONS + sizes["worked"] + sizes["pairs"]
    taken |= {row["X"] for row in known}
    pool = [*known, *_mixed(count, taken)]
    demonstrations, pool = pool[:DEMONSTRATIONS], _with_sign(pool[DEMONSTRATIONS:count], sizes["worked"])
    pairs = [{"X": row["X"], "Y": row["Y"]} for row in pool[sizes["worked"] :]]
    return Questions(demonstrations, [*pool[: sizes["worked"]], *pairs], test)


def _with_sign(pool: Sequence[Question], worked: int) -> list[Question]:
    """The pool, with a negative number on the way in the last of the worked questions, if none shows one but others do.

    A third of all questions has one, and a policy that imitated none such drops the sign.
    """
    places = [index for index, row in enumerate(pool) if _below_zero(row)]
    rows = list(pool)
    if places and places[0] >= worked:
        rows[worked - 1], rows[places[0]] = rows[places[0]], rows[worked - 1]
    return rows


def _below_zero(question: Question) -> bool:
    """Whether a step before the last one has a negative result."""
    return any("= -" in step for step in question["Z"].split(",")[:-1])


def _mixed(count: int, taken: set[str]) -> list[Question]:
    """Questions of the lengths that are trained on, in turn, none of them among those taken."""
    rows = [generated(operands, 2 * count, 100 + operands) for operands in TRAINED]
    mixed = [row for pair in zip(*rows, strict=True) for row in pair if row["X"] not in taken]
    return mixed[:count]


def generated(operands: int, count: int, seed: int) -> list[Question]:
    """Distinct questions with so many numbers."""
    stream = random.Random(seed)
    found: dict[str, Question] = {}
    while len(found) < count:
        numbers = [stream.randint(0, 9) for _ in range(operands)]
        question = solved(numbers, [stream.choice("+-") for _ in numbers[1:]])
        found[question["X"]] = question
    return list(found.values())


def solved(numbers: Sequence[int], signs: Sequence[str]) -> Question:
    """A question with its rationale and its answer."""
    text, total, steps = str(numbers[0]), numbers[0], []
    for sign, number in zip(signs, numbers[1:], strict=True):
        result = total + number if sign == "+" else total - number
        text += f" {sign} {number}"
        steps.append(f"{total} {sign} {number} = {result}")
        total = result
    return {"X": text, "Z": f" {', '.join(steps)}.", "Y": f" {total}."}


def read(path: Path) -> list[Question]:
    """Worked questions in the format of the paper's own: str_query, str_rationale, num_sol. Raises ValueError."""
    return list(_read(json.loads(path.read_text(encoding="utf-8"))))


def _read(entries: Sequence[Mapping[str, Any]]) -> Iterator[Question]:
    for entry in entries:
        query = str(entry["str_query"])
        text = query.removeprefix("Question: ").removesuffix(" = ? Answer:")
        if query != QUESTION.format(X=text):
            raise ValueError(f"no question of the paper's format: {query!r:.80}")
        yield {"X": text, "Z": f" {entry['str_rationale']}.", "Y": f" {int(entry['num_sol'])}."}


def program_of(demonstrations: Sequence[Question], sizes: Mapping[str, Any], power: str) -> str:
    """The program, with its worked questions written out."""
    worked = "".join(f"Question: {q['X']} = ? Answer:{q['Z']} The answer is{q['Y']}\\n\\n" for q in demonstrations)
    return PROGRAM.format(worked=worked, most=sizes["most"], dtype=sizes["dtype"], power=power)


def _differences(study: Experiment) -> list[str]:
    """By how much gflownet is above the others in accuracy, seed by seed: of each length, and of those trained on."""
    notes = []
    for lengths in (*((operands,) for operands in MEASURED), sorted(TRAINED)):
        found = {arm: _accuracies(study, arm, lengths) for arm in ARMS}
        named = " and ".join(map(str, lengths))
        if len(lengths) > 1:
            told = ", ".join(f"{arm} {cell(values, 3)}" for arm, values in found.items())
            notes.append(f"{named} numbers together, accuracy: {told}.")
        own = found.pop("gflownet")
        notes.append(f"{named} numbers: accuracy of gflownet above that of {ahead(own, found)}.")
    return notes


def _accuracies(study: Experiment, arm: str, lengths: Sequence[int]) -> list[float]:
    """Per seed, over questions of these lengths, of which there are as many of each."""
    found: dict[int, list[float]] = {}
    for line in study.lines:
        if line["arm"] == arm and line["condition"]["operands"] in lengths and line.get("accuracy") is not None:
            found.setdefault(line["seed"], []).append(line["accuracy"])
    return [sum(values) / len(values) for values in found.values() if len(values) == len(lengths)]


def _notes(study: Experiment) -> list[str]:
    sizes = study.sizes
    return [
        f"{sizes['worked']} worked rows for sft, ppo and gflownet, {sizes['pairs']} more with the answer alone for the "
        "last two; all of three and four numbers. Test questions, training questions and the three demonstrations are "
        "apart. accuracy: the answer that most draws give is right; one draw: how often a single one is.",
        "Where no worked row has a negative number on the way, as a third of all questions has, the first other "
        "question that has one takes the place of the last of them.",
        f"{sizes['draws']} draws a question count as they come, those without an end among them. The reward of ppo and "
        f"gflownet is the density of the program after three worked questions, the answer's at power {POWER}.",
    ]


if __name__ == "__main__":
    main()
