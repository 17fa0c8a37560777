"""netCDF files of runs: groups of all rows in one, and what is known of the run as attributes.

Written with xarray alone, since what ArviZ itself writes differs between its versions.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from lmppl.diagnosis import worst
from lmppl.posterior.columns import Run
from lmppl.posterior.groups import Groups, groups, is_weighted, storable_attributes
from lmppl.posterior.result import Result, RowPosterior
from lmppl.version import VERSION

Numbered = tuple[int, RowPosterior]

EQUAL = "all draws have equal weight"
RESAMPLED = (
    "resampled by weight, systematically and over all chains jointly; copies of a draw "
    "stand side by side"
)
NOTE = (
    "the draws are weighted, and ArviZ counts all alike: they were resampled by weight. "
    "For the raw ones and their weights: --to csv, jsonl or parquet"
)


def writers(
    runs: Sequence[Run], final: Path
) -> tuple[dict[Path, Callable[[Path], None]], list[str]]:
    """What writes each file, by its path, and notes for the user. Each run of a comparison has a
    file of its own.
    """
    files: dict[Path, Callable[[Path], None]] = {}
    for run in runs:
        name = f"{final.stem}-{run.labels['run']}" if run.labels else final.stem
        for suffix, tree in _trees(run.posterior).items():
            files[final.with_name(f"{name}{suffix}{final.suffix}")] = functools.partial(
                _write, tree
            )
    weighted = any(is_weighted(row) for run in runs for row in run.posterior.rows)
    return files, [NOTE] if weighted else []


def tree(posterior: Result, row: int | None = None) -> xarray.DataTree | None:
    """The groups of a row, or of all rows in one; None where these differ in shape."""
    chosen = posterior if row is None else replace(posterior, rows=[posterior.rows[row]])
    return _trees(chosen).get("")


def _write(tree: xarray.DataTree, path: Path) -> None:
    tree.to_netcdf(path, engine="h5netcdf")


def _trees(posterior: Result) -> dict[str, xarray.DataTree]:
    """Trees by what is added to a file's name: one of all rows, or one a row where these differ in
    shape.
    """
    rows = [(number, row) for number, row in enumerate(posterior.rows) if row.draws]
    parts = [groups(posterior, number, row) for number, row in rows]
    if len(rows) == 1:
        return {"": _tree(parts[0], posterior, rows)}
    if all(_shape(part) == _shape(parts[0]) for part in parts):
        return {"": _tree(_stacked(parts, rows), posterior, rows)}
    return {
        f"-row{row[0]}": _tree(part, posterior, [row])
        for part, row in zip(parts, rows, strict=True)
    }


def _shape(parts: Groups) -> list[tuple]:
    return [
        (group, name, variable.dims, variable.shape, variable.dtype.kind)
        for group, data in parts.items()
        for name, variable in data.variables.items()
    ]


def _stacked(parts: Sequence[Groups], rows: Sequence[Numbered]) -> Groups:
    """Rows along a dimension `row`, which comes last."""
    found = {}
    for name in parts[0]:
        whole = xarray.concat(
            [part[name] for part in parts],
            "row",
            data_vars="all",
            coords="minimal",
            compat="equals",
            join="exact",
        )
        if whole.variables:
            numbered = whole.assign_coords(row=[number for number, _ in rows])
            found[name] = numbered.transpose("chain", "draw", "row", missing_dims="ignore")
    return found


def _tree(parts: Groups, posterior: Result, rows: Sequence[Numbered]) -> xarray.DataTree:
    about = _attributes(posterior, [row for _, row in rows])
    top = xarray.Dataset(attrs=storable_attributes(about))
    return xarray.DataTree.from_dict(
        {"/": top, **{name: part for name, part in parts.items() if part.variables}}
    )


def _attributes(posterior: Result, rows: Sequence[RowPosterior]) -> dict[str, Any]:
    """Where the draws come from. The log evidence is a number, or one a row; NaN where the engine
    gives none.
    """
    program = posterior.program
    weighted, verdict = any(map(is_weighted, rows)), worst(row.verdict for row in rows)
    return {
        "inference_library": "lmppl",
        "inference_library_version": VERSION,
        "program": program["text"],
        "program_sha256": program["sha256"],
        "engine": posterior.engine,
        "seed": str(posterior.seed),
        "models": _json(posterior.models),
        "options": _json(posterior.options),
        "log_evidence": _numbers([row.log_evidence for row in rows]),
        "log_evidence_se": _numbers([row.log_evidence_se for row in rows]),
        "verdict": verdict,
        "weights": RESAMPLED if weighted else EQUAL,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _numbers(values: Sequence[float | None]) -> Any:
    numbers = np.array(values, np.float64)
    return float(numbers[0]) if len(numbers) == 1 else numbers
