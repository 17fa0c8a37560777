"""The frame of the four experiments: one command each, `lmppl compare` underneath, one table at the end.

    python benchmarks/paper/NAME.py --scale smoke|cpu|gpu [--out FOLDER] [--data FILE] [--lm NAME=MODEL]

An experiment is a list of conditions, each a comparison of several arms under several seeds in a folder of its own,
with its page. Together they give a Markdown table, and beside it a line of JSON for every arm, condition and seed.
A command that was cut short goes on when it is given again. `smoke` writes into --out only, the others into results/.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from lmppl.compare import ComparisonRequest, prepare, run
from lmppl.compare.columns import COLUMNS, Column
from lmppl.compare.store import read_json
from lmppl.compare.table import interval
from lmppl.compile import compile as compile_program
from lmppl.lm.transformers.load import torch_device
from lmppl.posterior.store import write_whole
from lmppl.report.page import page_of

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE.parent.parent / "programs"
SCALES = ("smoke", "cpu", "gpu")

Line = dict[str, Any]  # arm, engine, options, condition, seed, and measures; `reason` where there are none


@dataclass
class Experiment:
    """One run of an experiment at one scale. condition: what its comparisons differ in, by name."""

    name: str
    scale: str
    sizes: Any  # the scale's own parameters: a mapping or a dataclass; `models` and `batch_size` are the frame's
    out: Path
    lms: Mapping[str, str] = field(default_factory=dict)
    data: Path | None = None  # rows in place of the experiment's own
    lines: list[Line] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)  # name: identifier and dtype, of what was run

    def compare(self, program: Path, condition: Mapping[str, Any], **asked: Any) -> dict[str, Any]:
        """Run what is not yet run of one comparison; its lines are added, its page is written.

        asked: fields of `ComparisonRequest`.

        Raises LmpplError. An arm that fails is a line with a reason.
        """
        folder = self.folder(condition)
        compiled = compile_program(program)
        batch_size = self.parameters.get("batch_size", ComparisonRequest.batch_size)
        request = ComparisonRequest(**{"lms": self.lms, "batch_size": batch_size, **asked})
        job, _ = prepare(compiled, request)
        title = ", ".join(f"{name}={value}" for name, value in condition.items()) or self.name
        document = run(request, job, folder, self.command, lambda line: say(f"{title}: {line}"))
        for model in job.program.models:
            self.models[model.name] = f"{document['models'][model.name]['identifier']}, {model.dtype or 'float32'}"
        write_whole(folder / "report.html", page_of(folder))
        self.lines += lines_of(document, folder, condition)
        return document

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The scale's parameters by name."""
        return _by_name(self.sizes)

    def folder(self, condition: Mapping[str, Any]) -> Path:
        """Where the comparison of a condition is kept."""
        name = "-".join(f"{key}={value}" for key, value in condition.items())
        return self.out / "".join(c if c.isalnum() or c in "=.-" else "_" for c in name or "all")

    @property
    def command(self) -> str:
        """What gives this table; where its work lies does not matter."""
        flags = ["--scale", self.scale, *(["--data", self.data.name] if self.data else [])]
        lms = [text for name, identifier in self.lms.items() for text in ("--lm", f"{name}={identifier}")]
        return shlex.join(["python", f"benchmarks/paper/{self.name}.py", *flags, *lms])

    def finish(self, title: str, columns: Sequence[Column], notes: Sequence[str] = ()) -> Path:
        """Write the table and the lines, into results/ where they are no smoke test's. Returns the table's path."""
        path = self.out / f"{self.name}-{self.scale}.md"
        body = table(self.lines, columns)
        text = "\n".join([f"# {title}", "", *self._head(), "", *body, "", *(f"{note}\n" for note in notes)])
        write_whole(path, text.rstrip("\n") + "\n")
        write_whole(path.with_suffix(".jsonl"), "".join(json.dumps(line) + "\n" for line in self.lines))
        if self.scale != "smoke":
            (HERE / "results").mkdir(exist_ok=True)
            for written in (path, path.with_suffix(".jsonl")):
                shutil.copyfile(written, HERE / "results" / written.name)
        print(text)
        return path

    def _head(self) -> list[str]:
        return [
            f"`{self.command}`, {machine()}, {date.today()}.",
            "Models: " + "; ".join(f"{name} = {told}" for name, told in self.models.items()) + ".",
            "Scale: " + ", ".join(f"{key} = {value}" for key, value in self.parameters.items()) + ".",
            "Means over seeds ± half of Student's 95 % interval, which one seed has not; – where there is no number.",
        ]


def start(name: str, scales: Mapping[str, Any], arguments: Sequence[str] | None = None) -> Experiment:
    """An experiment from its command line. scales: parameters of each of SCALES."""
    parser = argparse.ArgumentParser(prog=f"{name}.py")
    parser.add_argument("--scale", choices=SCALES, required=True)
    parser.add_argument("--out", type=Path, help=f"folder of the work [default: benchmarks/paper/work/{name}-SCALE]")
    parser.add_argument("--data", type=Path, help="rows in place of the experiment's own")
    parser.add_argument("--lm", action="append", default=[], metavar="NAME=MODEL", help="another model for NAME")
    flags = parser.parse_args(arguments)
    if any("=" not in text for text in flags.lm):
        parser.error("--lm: expected NAME=MODEL")
    out = flags.out or HERE / "work" / f"{name}-{flags.scale}"
    out.mkdir(parents=True, exist_ok=True)
    named = dict(text.split("=", 1) for text in flags.lm)
    lms = {**_by_name(scales[flags.scale]).get("models", {}), **named}
    return Experiment(name, flags.scale, scales[flags.scale], out, lms, flags.data)


def _by_name(sizes: Any) -> Mapping[str, Any]:
    return asdict(sizes) if is_dataclass(sizes) and not isinstance(sizes, type) else sizes


def share_fits(first: Path, folder: Path) -> None:
    """What was learned for the comparison in one folder serves another beside it, whose lessons are the same."""
    for place in (first / "fits", folder):
        place.mkdir(parents=True, exist_ok=True)
    if not (folder / "fits").exists():
        (folder / "fits").symlink_to(Path("..") / first.name / "fits", target_is_directory=True)


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def machine() -> str:
    """The kind of machine that this is."""
    place = torch_device("auto")
    kind = torch.cuda.get_device_name(place) if place.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{os.cpu_count()} cores, {kind}"


# --- lines and tables -----------------------------------------------------------------------------


def lines_of(document: Mapping[str, Any], folder: Path, condition: Mapping[str, Any]) -> list[Line]:
    """One line an arm and seed of a comparison; one line with a reason for an arm that has no runs."""
    lines: list[Line] = []
    for entry in document["entries"]:
        top = {
            "arm": entry["label"],
            "engine": entry["engine"],
            "options": entry["options"],
            "condition": dict(condition),
        }
        if entry["reason"] is not None:
            lines.append({**top, "seed": None, "reason": entry["reason"]})
        for number, place in enumerate(entry["runs"]):
            found = read_json(folder / place / "measures.json")["value"]
            seed = read_json(folder / place / "run.json")["seed"]
            trained = _trained(folder / entry["fits"][number]) if entry["fits"] else {}
            lines.append({**top, "seed": seed, "verdict": found["verdict"], **found["measures"], **trained})
    return lines


def _trained(fit: Path) -> dict[str, float]:
    """What the training of one seed has cost."""
    from lmppl.engines.amortised.checkpoint import spent

    return {"training_tokens": spent(fit) or 0, "training_seconds": read_json(fit / "run.json")["cost"]["seconds"]}


def table(lines: Sequence[Line], columns: Sequence[Column]) -> list[str]:
    """Markdown: a line for every condition and arm, as they were run; columns without numbers are left out."""
    shown = [column for column in columns if any(line.get(column.key) is not None for line in lines)]
    names = list(dict.fromkeys(name for line in lines for name in line["condition"]))
    groups: dict[tuple, list[Line]] = {}
    for line in lines:
        groups.setdefault((*(line["condition"].get(name, "–") for name in names), line["arm"]), []).append(line)
    head = [*names, "arm", "seeds", *(column.title for column in shown)]
    rows = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    reasons = []
    for key, own in groups.items():
        count = sum(line["seed"] is not None for line in own)
        cells = [cell([line.get(column.key) for line in own], column.digits) for column in shown]
        rows.append("| " + " | ".join([*map(str, key), str(count), *cells]) + " |")
        reasons += [f"{', '.join(map(str, key))}: {line['reason']}" for line in own if line.get("reason")]
    return rows + (["", *(f"- {reason}" for reason in reasons)] if reasons else [])


def cell(values: Sequence[float | None], digits: int) -> str:
    """Mean ± half of the interval over seeds."""
    found = interval(values)
    if found["mean"] is None:
        return "–"
    text = f"{found['mean']:,.{digits}f}"
    return text if found["low"] is None else f"{text} ± {found['mean'] - found['low']:,.{digits}f}"


def ahead(own: Sequence[float], rivals: Mapping[str, Sequence[float]]) -> str:
    """By how much the numbers of one arm are above those of others, seed by seed; those that failed are left out."""
    told = {name: theirs for name, theirs in rivals.items() if len(theirs) == len(own)}
    return ", ".join(
        f"{name} {cell([a - b for a, b in zip(own, theirs, strict=True)], 3)}" for name, theirs in told.items()
    )


def columns(*keys: str) -> list[Column]:
    """Columns of `lmppl compare`, by key."""
    known = {column.key: column for column in COLUMNS}
    return [known[key] for key in keys]
