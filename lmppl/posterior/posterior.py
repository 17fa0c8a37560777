"""What people hold in Python: a run's result that can be kept, shown in a notebook, and taken to
pandas or ArviZ.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lmppl.errors import LmpplError, error
from lmppl.posterior.columns import Run
from lmppl.posterior.notebook import notebook_html
from lmppl.posterior.result import Result
from lmppl.posterior.store import read
from lmppl.posterior.store import save as write
from lmppl.storage import writing


@dataclass(frozen=True, repr=False)
class Posterior(Result):
    """A run's result, with what a person in Python asks of it."""

    def _repr_html_(self) -> str:
        """What notebooks show: the answer, and the checks that did not pass."""
        return notebook_html(self)

    def to_pandas(self) -> Any:
        """A pandas DataFrame of a line a draw, with the columns of exported tables; `weight` adds
        up to 1 in a row.

        Raises LmpplError where pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise LmpplError(
                error(
                    "missing-package",
                    "a DataFrame needs the package pandas",
                    help="pip install pandas",
                )
            )
        import pandas

        from lmppl.posterior.table import table

        return pandas.DataFrame(table([Run(self)]))

    def to_arviz(self, row: int | None = None) -> Any:
        """An xarray DataTree with ArviZ's groups, which ArviZ takes as it is; weighted draws are
        resampled by weight.

        row: of this data row alone, from 0; all rows by default. Raises LmpplError where xarray is
        not installed, there are no draws, or the rows differ in shape.
        """
        if find_spec("xarray") is None:
            message = "ArviZ's groups need the package xarray"
            raise LmpplError(
                error("missing-package", message, help='pip install "lmppl-lang[arviz]"')
            )
        if not any(one.draws for one in (self.rows if row is None else [self.rows[row]])):
            raise LmpplError(error("no-draws", "there are no draws"))
        from lmppl.posterior.netcdf import tree

        found = tree(self, row)
        if found is None:
            message = "the rows differ in what was drawn, so they do not fit into one"
            raise LmpplError(error("rows-differ", message, help="ask for one: to_arviz(row=0)"))
        return found

    def save(self, folder: str | Path, force: bool = False) -> None:
        """Write a run folder, for `lmppl summary` and others. force: in place of another run.
        Raises LmpplError.
        """
        with writing(folder, force=force) as place:
            write(self, place)


def load(folder: str | Path) -> Posterior:
    """The posterior of a run folder; draws that are impossible have density -inf again. Raises
    LmpplError.
    """
    return Posterior(**vars(read(folder)))
