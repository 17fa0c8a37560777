"""Run folders as files that others open: netCDF for ArviZ, and tables. Each file is written whole
or not at all.

Where several files belong together, none takes its place before all are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from lmppl.compare import DOCUMENT, load_comparison
from lmppl.errors import LmpplError, error
from lmppl.posterior import Run, load

SUFFIXES = {"arviz": ".nc", "csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet"}
PACKAGES = {
    "arviz": ("xarray", "h5netcdf", "h5py"),
    "parquet": ("pyarrow",),
}  # those of the extra of this name
OWN = ("run.json", "draws.jsonl", DOCUMENT)  # files that an export must not replace


def export(folder: str | Path, form: str, out: str | Path | None = None) -> list[str]:
    """Write the run or the comparison in a folder in a form of SUFFIXES; says what it wrote. Raises
    LmpplError.

    By default into FOLDER/export, under the folder's name: a new run there removes what the old one
    exported.
    """
    _require_packages(form)
    runs = list(_runs(Path(folder)))
    if not any(row.draws for run in runs for row in run.posterior.rows):
        raise LmpplError(error("no-draws", f"`{folder}` holds no draws"))
    resolved = Path(folder).resolve()
    final = (
        Path(folder) / "export" / f"{resolved.name or 'run'}{SUFFIXES[form]}"
        if out is None
        else Path(out)
    )
    _require_file(final)
    if form == "arviz":
        from lmppl.posterior import writers

        files, notes = writers(runs, final)
    else:
        from lmppl.posterior import writer

        files, notes = {final: writer(runs, form)}, []
    _write_whole(files)
    return [*(f"wrote {path}" for path in files), *notes]


def _runs(folder: Path) -> Iterator[Run]:
    """The run of a folder, or those of a comparison, which get columns that tell them apart."""
    if not (folder / DOCUMENT).is_file():
        yield Run(load(folder))
        return
    for label, name in _compared(folder):
        posterior = load(folder / name)
        yield Run(posterior, {"label": label, "engine": posterior.engine, "run": Path(name).name})


def _compared(folder: Path) -> list[tuple[str, str]]:
    """Label and folder of every run of a comparison. Raises LmpplError."""
    entries = load_comparison(folder)["entries"]
    return [(entry["label"], name) for entry in entries for name in entry["runs"]]


def _require_packages(form: str) -> None:
    missing = [name for name in PACKAGES.get(form, ()) if find_spec(name) is None]
    if missing:
        message = (
            f"--to {form} needs the package{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        )
        raise LmpplError(
            error("missing-package", message, help=f'pip install "lmppl-lang[{form}]"')
        )


def _require_file(final: Path) -> None:
    if final.is_dir():
        message = f"`{final}` is a folder"
        raise LmpplError(error("folder-in-use", message, help="name a file with --out"))
    if final.name in OWN and final.exists():
        message = f"`{final}` is a part of a run: it is left as it is"
        raise LmpplError(error("file-in-use", message, help="name another file with --out"))


def _write_whole(files: Mapping[Path, Callable[[Path], None]]) -> None:
    """Write every file beside its place, then put all in place. Raises LmpplError."""
    partials = {final: final.with_name(f".{final.name}.partial") for final in files}
    final = next(iter(files))
    try:
        for final, write in files.items():
            final.parent.mkdir(parents=True, exist_ok=True)
            write(partials[final])
        for final, partial in partials.items():
            partial.replace(final)
    except OSError as reason:
        message = f"`{final}` cannot be written: {reason.strerror or reason}"
        raise LmpplError(
            error("unwritable-file", message, help="name another file with --out")
        ) from None
    finally:
        for partial in partials.values():
            with suppress(OSError):
                partial.unlink()
