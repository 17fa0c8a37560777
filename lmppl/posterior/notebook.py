"""A posterior in a notebook: what ran, the answer, the checks that did not pass. Texts are data:
all is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from lmppl.diagnosis import Prediction
from lmppl.posterior.answer import Matrix, legible, likeliest, matrix, told
from lmppl.posterior.result import Result, RowPosterior
from lmppl.screen import in_python, quoted

MOST_ROWS = 10  # data rows that are shown
MOST_TEXTS = 10  # texts that are listed a row
MOST_LINES = 30  # data rows of a matrix


def notebook_html(posterior: Result) -> str:
    """HTML without styles or scripts of its own, so that it looks like the notebook that it stands
    in.
    """
    parts = [f"<p>{_escaped(repr(posterior).strip('<>'))}</p>"]
    table = matrix(posterior)
    if table is not None:
        parts.append(_matrix(table))
    for number, row in enumerate(posterior.rows[: MOST_ROWS if table is None else MOST_LINES], 1):
        heading = f"row {number} of {len(posterior.rows)}: " if len(posterior.rows) > 1 else ""
        if table is None:
            parts += [_heading(heading, row), _law(row), *map(_prediction, row.predictions.items())]
        parts += [f"<p>{_escaped(heading + said)}</p>" for said in _said(row)]
    shown = MOST_ROWS if table is None else MOST_LINES
    if len(posterior.rows) > shown:
        parts.append(f"<p>… and {len(posterior.rows) - shown} rows more</p>")
    return "<div>" + "".join(parts) + "</div>"


def _heading(heading: str, row: RowPosterior) -> str:
    givens = ", ".join(f"{name} = {value!r:.160}" for name, value in row.givens.items())
    evidence = "" if row.log_evidence is None else f"log evidence {row.log_evidence:.3f} nats"
    text = heading + "; ".join(filter(None, (givens, evidence)))
    return f"<p>{_escaped(text)}</p>" if text else ""


def _law(row: RowPosterior) -> str:
    masses = list(row.joint().items())
    if not row.latents:
        return ""
    lines = [(f"{mass:.3f}", *map(quoted, texts)) for texts, mass in masses[:MOST_TEXTS]]
    more = f"<p>… and {len(masses) - MOST_TEXTS} texts more</p>" if len(masses) > MOST_TEXTS else ""
    return _table(("mass", *row.latents), lines) + more


def _prediction(named: tuple[str, Prediction]) -> str:
    name, found = named
    lines = [(share, quoted(option)) for option, share in likeliest(found, MOST_TEXTS)]
    said = f"<p>entropy {_escaped(told(found))}</p>" if told(found) else ""
    return _table((f"p({name})", ""), lines) + said


def _matrix(found: Matrix) -> str:
    """Rows by options; the prior that all rows share stands first."""
    heads = ("", *legible(found.options))
    lines = (
        [("prior", *(f"{found.prior.get(option, 0):.3f}" for option in found.options))]
        if found.prior
        else []
    )
    for line in found.lines[:MOST_LINES]:
        label = ", ".join(map(str, line.givens.values())) or str(line.number)
        lines.append((label, *(f"{line.posterior.get(option, 0):.3f}" for option in found.options)))
    return _table(heads, lines)


def _said(row: RowPosterior) -> list[str]:
    checks = [
        f"{check.status} {check.name}: {in_python(check.message)}"
        for check in row.checks
        if check.status != "pass"
    ]
    return [*checks, *(f"warning: {in_python(warning)}" for warning in row.warnings)]


def _table(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head, body = _line(heads, "th"), "".join(_line(line, "td") for line in lines)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _line(cells: Iterable[str], kind: str) -> str:
    return f"<tr>{''.join(f'<{kind}>{_escaped(cell)}</{kind}>' for cell in cells)}</tr>"


def _escaped(text: str) -> str:
    return (
        escape(text).encode("utf-8", "replace").decode("utf-8")
    )  # half a surrogate pair is no text of a page
