"""From a job to the document of a comparison, `compare.json`: what was run, the table, curves and
advice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmppl.compare.advice import QUALITY, advise
from lmppl.compare.columns import COLUMNS
from lmppl.compare.reference import Reference
from lmppl.compare.runs import (
    Job,
    Result,
    evidence_bounds,
    find_reference,
    measured,
    run_entry,
    shown_texts,
)
from lmppl.compare.store import DOCUMENT, FORMAT, Store, read_json, write_json
from lmppl.compare.table import efficiency, interval, intervals, verdict
from lmppl.diagnosis import revised
from lmppl.engines import traits
from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.language import graph_document
from lmppl.lm import describe_model
from lmppl.posterior import finite, versions
from lmppl.run import describe_program
from lmppl.settings import Budget
from lmppl.storage import differences, sealed

OVER = 1.2  # budgets that a run may cost before that is said


def compare(job: Job, store: Store, command: str = "") -> dict[str, Any]:
    """Run what is not yet run, and write the document anew.

    Raises LmpplError where there is no reference, and where a file of the program's has changed
    meanwhile.
    """
    begun = job.content(job.rows)
    reference = find_reference(job, store)
    bounds = evidence_bounds(job, store) if job.bounds and reference.kind != "exact" else None
    results, entries = [], []
    for entry in job.entries:
        results.append(run_entry(job, store, entry))
        entries = _revised([*entries, _entry(job, store, reference, results[-1])])
        document = _document(
            job, store, reference, bounds, entries, command
        )  # what is done can be looked at
        write_json(store.folder / DOCUMENT, sealed(document))
    shown_texts(job, store, results)
    if changed := list(differences(begun, job.content(job.rows))):
        raise LmpplError(
            run_findings.made_from_others(
                "changed-meanwhile", "some runs of this table were", changed
            )
        )
    document = {**_document(job, store, reference, bounds, entries, command), "complete": True}
    write_json(store.folder / DOCUMENT, sealed(document))
    return document


def _document(
    job: Job,
    store: Store,
    reference: Reference,
    bounds: Any,
    entries: Sequence[Any],
    command: str,
) -> dict[str, Any]:
    shown = {
        name
        for entry in entries
        for name, found in entry["measures"].items()
        if found["mean"] is not None
    }
    models = {name: describe_model(model) for name, model in job.models.items()}
    columns = [asdict(column) for column in COLUMNS if column.key in shown]
    return finite(
        {
            "format": FORMAT,
            "complete": False,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "versions": versions(),
            "program": describe_program(job.program),
            "graph": graph_document(job.program),
            "params": dict(job.program.params),
            "models": models,
            "budget": None if job.budget is None else asdict(job.budget),
            "seeds": job.seeds,
            "reference": _reference(reference, store),
            "bounds": bounds,
            "quality": QUALITY.get(reference.kind, "log_evidence"),
            "columns": columns,
            "entries": entries,
            "advice": advise(entries, reference.kind),
            "rows": [_row(job, reference, number) for number in range(len(job.rows))],
        }
    )


def _reference(reference: Reference, store: Store) -> dict[str, Any]:
    place = None if reference.place is None else str(reference.place.relative_to(store.folder))
    return {"kind": reference.kind, "title": reference.title, "note": reference.note, "run": place}


def _row(job: Job, reference: Reference, number: int) -> dict[str, Any]:
    row, truth = job.rows[number], reference.truths[number]
    return {
        "givens": {**row.givens, **row.observed},
        "log_evidence": None if truth is None else truth.log_evidence,
    }


def _entry(job: Job, store: Store, reference: Reference, result: Result) -> dict[str, Any]:
    entry = result.entry
    top = {
        "label": entry.label,
        "engine": entry.engine,
        "options": entry.asked,
        "reason": result.reason,
    }
    if result.reason is not None:
        empty = {
            "bug": result.bug,
            "verdict": None,
            "findings": [],
            "over": None,
            "measures": {},
            "curve": [],
            "training": None,
            "runs": [],
        }
        return {**top, **empty}
    found = []
    for places in result.places:
        found.append([measured(job, store, place, reference) for place in places])
    training = _training(result.fits)
    measures = {**intervals(found[-1]), **_efficiency(found[-1], reference)}
    if training is not None:
        measures |= {f"training_{name}": interval([value]) for name, value in training.items()}
    said, findings = verdict(found[-1])
    over = overrun(job.budget, found[-1])
    runs = [str(place.relative_to(store.folder)) for place in result.last()]
    curve = [_point(runs) for runs in found]
    return {
        **top,
        "verdict": said,
        "findings": findings,
        "over": over,
        "measures": measures,
        "curve": curve,
        "training": training,
        "fits": [str(fit.relative_to(store.folder)) for fit in result.fits],
        "runs": runs,
    }


def _revised(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries, their advice naming no engine that fails in this comparison."""
    failing = {
        entry["engine"]
        for entry in entries
        if entry["reason"] is not None or entry["verdict"] == "fail"
    }
    sound = {entry["engine"] for entry in entries if entry["verdict"] in ("pass", "warn")}
    failed = failing - sound
    return [_advised(entry, failed) for entry in entries]


def _advised(entry: dict[str, Any], failed: Collection[str]) -> dict[str, Any]:
    general = traits(entry["engine"]).alternatives.general
    wrong = {*failed, entry["engine"]}
    return {**entry, "findings": [revised(one, general, wrong) for one in entry["findings"]]}


def _efficiency(runs: Sequence[Mapping[str, Any]], reference: Reference) -> dict[str, Any]:
    return {"efficiency": interval([efficiency(runs, reference.truths)])}


def _point(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = intervals(runs)
    tokens = sum(found[name]["mean"] or 0 for name in ("tokens_decoded", "tokens_scored"))
    return {"tokens": tokens, "seconds": found["seconds"]["mean"], "measures": found}


def overrun(budget: Budget | None, runs: Sequence[Mapping[str, Any]]) -> str | None:
    """What is said where the runs of an entry, one a seed, have cost clearly more than they might;
    None elsewhere.
    """
    if budget is None:
        return None
    units = ("seconds",) if budget.unit == "seconds" else ("tokens_decoded", "tokens_scored")
    spent = Budget(
        sum(run["measures"][unit] for run in runs for unit in units) / len(runs), budget.unit
    )
    if spent.amount <= OVER * budget.amount:
        return None
    return (
        f"took {spent} a data row, more than the budget of {budget}: its smallest run, or a "
        f"search, costs that"
    )


def _training(fits: Sequence[Path]) -> dict[str, float] | None:
    """Tokens of training in all its runs, and seconds of the last run, the means over seeds."""
    if not fits:
        return None
    from lmppl.engines.amortised import spent

    tokens = [spent(fit) or 0 for fit in fits]
    seconds = [read_json(fit / "run.json")["cost"]["seconds"] for fit in fits]
    return {"tokens": sum(tokens) / len(fits), "seconds": sum(seconds) / len(fits)}
