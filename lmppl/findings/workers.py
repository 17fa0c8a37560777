"""Findings of runs whose rows are drawn by several processes."""

from __future__ import annotations

from collections.abc import Sequence

from lmppl.errors import Diagnostic, error, warning
from lmppl.storage import Difference


def worker_lost(worker: int, rows: str | None, how: str) -> Diagnostic:
    """A process has ended before it was told to. rows: that it was at, in words."""
    at = "before it drew a row" if rows is None else f"while it was at {rows} of the data"
    return error(
        "worker-lost",
        f"worker {worker + 1} has ended {at}: {how}",
        help="rows that were done are kept; with fewer --workers or a smaller --batch-size each "
        'has more memory. A script that asks for workers needs `if __name__ == "__main__":` '
        "around what it does",
    )


def learns_from_all_rows(engine: str) -> Diagnostic:
    """Training is one process's: gradients of all rows go into the same weights."""
    return error(
        "engine-not-spread",
        f"`{engine}` learns from all rows together, which one process does",
        help="train without --workers, with --out FOLDER; then draw by workers, with "
        "--adapter FOLDER",
    )


def one_clock(budget: str) -> Diagnostic:
    """Seconds of several processes are no one's."""
    return error(
        "budget-of-one-clock",
        f"a budget of {budget} is measured by one clock, and workers have one each",
        help="say it in tokens, as --budget 100000tokens, or say --num-samples",
    )


def model_of_this_process(name: str) -> Diagnostic:
    """A model that is an object of Python cannot be loaded by another process."""
    return error(
        "model-not-spread",
        f"the model `{name}` is an object of this process, and workers load models themselves",
        help=f'name a folder, a hub id or a file: lms={{"{name}": "./model"}}',
    )


def workers_differ(found: Sequence[Difference]) -> Diagnostic:
    """Workers, on several machines, say, have loaded other models under one name."""
    places = ", ".join(f"`{where}`" for where, *_ in found)
    return error(
        "workers-differ",
        f"workers have loaded different models: they differ in {places:.200}",
        help="each machine needs the same files under the same names",
    )


def rows_begun_anew(folder: str) -> Diagnostic:
    """A note: a run that was to go on had kept nothing yet, and begins."""
    return warning("begun-anew", f"`{folder}` holds no row yet: the run begins with the first")


def nothing_left(folder: str) -> Diagnostic:
    """A run that is to be gone on with has ended."""
    return error(
        "nothing-to-resume",
        f"the run in `{folder}` has ended: every row of it is done",
        help=f"look at it with `lmppl summary {folder}`; --out {folder} --force runs it anew",
    )


def no_ray() -> Diagnostic:
    """The package that clusters need is not installed."""
    help = 'pip install "lmppl-lang[ray]"'
    return error("missing-package", "--ray needs the package ray", help=help)


def no_cluster(address: str, reason: str) -> Diagnostic:
    """Nothing that answers as a cluster does."""
    help = "start one with `ray start --head`, and name its address; `local` is this machine alone"
    return error("no-cluster", f"no Ray cluster answers at `{address}`", found=reason, help=help)


def cluster_too_small(workers: int, cores: int) -> Diagnostic:
    """Ray would wait for ever for the rest."""
    help = "take fewer --workers, or add machines with `ray start --address=…`"
    message = f"{workers} workers need a core each, and the cluster has {cores}"
    return error("cluster-too-small", message, help=help)


def cluster_fails(reason: str) -> Diagnostic:
    """Ray itself has failed at an order."""
    return error("cluster-failed", "the Ray cluster has failed", found=reason)
