"""What a run answers, as plain values: rows × options of one choice, prior beside posterior;
declared statistics.

The terminal, the page and notebooks show the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmppl.diagnosis import Estimate, Prediction, Status, Values
from lmppl.posterior.result import Result, RowPosterior

Law = Mapping[str, float]  # option -> probability


@dataclass(frozen=True)
class Line:
    """A data row of a matrix. A row whose choice is observed has no prior, and all mass on what was
    observed.
    """

    number: int  # from 1
    givens: Values
    prior: Law
    posterior: Law
    log_evidence: float | None
    verdict: Status


@dataclass(frozen=True)
class Matrix:
    """One choice over several data rows. `prior` is the rows' common one; empty where they
    differ.
    """

    latent: str
    options: tuple[str, ...]
    lines: tuple[Line, ...]
    prior: Law

    @property
    def told(self) -> list[str]:
        """Givens that tell the rows apart."""
        names = self.lines[0].givens
        return [name for name in names if self._differs(name)]

    def _differs(self, name: str) -> bool:
        return len({line.givens.get(name) for line in self.lines}) > 1


def matrix(posterior: Result) -> Matrix | None:
    """Rows × options, where every row of several has the same one choice to infer, and nothing is
    derived from it; None elsewhere.
    """
    rows = posterior.rows
    free = [row for row in rows if row.draws and row.draws[0].values]
    if any(row.derived for row in free):
        return None
    names = {tuple(row.draws[0].values) for row in free}
    if len(rows) < 2 or len(names) != 1 or not all(row.prior for row in free):
        return None
    (latent, *others) = names.pop()
    if others or any(latent not in row.givens for row in rows if row not in free):
        return None
    options = dict.fromkeys(option for row in free for option in row.prior[latent])
    lines = tuple(_line(number, row, latent) for number, row in enumerate(rows, 1))
    priors = [line.prior for line in lines if line.prior]
    shared = all(_same(prior, priors[0]) for prior in priors)
    return Matrix(latent, tuple(options), lines, priors[0] if shared else {})


def _line(number: int, row: RowPosterior, latent: str) -> Line:
    givens = {name: "" if value is None else str(value) for name, value in row.givens.items()}
    if latent in row.givens:
        observed = givens.pop(latent)
        return Line(number, givens, {}, {observed: 1.0}, row.log_evidence, row.verdict)
    return Line(
        number, givens, row.prior[latent], row.probabilities(latent), row.log_evidence, row.verdict
    )


def _same(one: Law, other: Law) -> bool:
    """Whether two laws differ by rounding only: rows are scored in batches of their own."""
    return one.keys() == other.keys() and all(abs(one[key] - other[key]) < 1e-4 for key in one)


def statistics(row: RowPosterior) -> dict[str, Mapping[str, float | None]]:
    """Summaries of the statistics that the program declares: part of the answer, unlike those of
    its factors.
    """
    declared = set(row.draws[0].statistics) if row.draws else set()
    return {name: summary for name, summary in row.summary().items() if name in declared}


def with_error(estimate: Estimate, digits: int = 3) -> str:
    """A number and its standard error: a dash where draws are too few to tell it, none where the
    number is exact.
    """
    shown = f"{estimate.value:z.{digits}f}"
    if estimate.error is None:
        return f"{shown} ± –"
    return f"{shown} ± {estimate.error:.{digits}f}" if estimate.error else shown


def likeliest(prediction: Prediction, most: int) -> list[tuple[str | None, str]]:
    """What is predicted with most probability, and the probability with its error; None is that
    there is none.
    """
    return [(option, with_error(share)) for option, share in prediction.outcomes[:most]]


def told(prediction: Prediction) -> str:
    """How uncertain a prediction is, in a line; "" where that is not known."""
    if prediction.entropy is None:
        return ""
    line = f"{with_error(prediction.entropy)} nats"
    settled = prediction.conditional_entropy == Estimate(0.0, 0.0)  # by what was drawn: no split
    if prediction.conditional_entropy and prediction.mutual_information and not settled:
        still_open = with_error(prediction.conditional_entropy)
        hanging = with_error(prediction.mutual_information)
        line += f": {still_open} is open, {hanging} hangs on what was drawn"
    if prediction.doubts:
        line += f"; errors are not to be believed ({', '.join(prediction.doubts)})"
    return line


def steep(row: RowPosterior, name: str) -> str:
    """The slope of a statistic, in a few words; "" where it is not known."""
    slope = row.slopes.get(name)
    return f", slope in the power {with_error(slope, 2)}" if slope is not None else ""


def is_exact(row: RowPosterior) -> bool:
    """Whether the whole law is known, so that nothing about draws tells more. A search may leave
    some of it unseen.
    """
    return row.support is not None and not row.diagnostics.total_variation_bound


def legible(options: tuple[str, ...] | list[str]) -> list[str]:
    """Options as the heads of columns: without spaces at their ends, where they stay distinct
    so.
    """
    bare = [option.strip() for option in options]
    return bare if all(bare) and len(set(bare)) == len(bare) else list(options)


def evidence_interval(row: RowPosterior) -> tuple[float | None, float] | None:
    """Student's 95 % interval for the log evidence, in nats, where a row's error is that of a few
    replicates.

    Of four, it reaches 3.2 standard errors to each side, not 2. The lower end is None where the
    evidence may be 0.
    """
    found = row.diagnostics.log_evidence_interval if row.log_evidence_se else None
    return None if found is None or found[1] is None else (found[0], found[1])
