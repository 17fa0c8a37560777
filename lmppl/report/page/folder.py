"""From a folder, of a comparison or of a run, to its page."""

from __future__ import annotations

from pathlib import Path

from lmppl.compare import DOCUMENT
from lmppl.report.page.document import page_document
from lmppl.report.page.rendering import render, render_run
from lmppl.report.page.run import run_document


def page_of(folder: Path) -> str:
    """The page, one HTML file, of what a folder holds. Raises LmpplError where it holds neither."""
    if (folder / DOCUMENT).exists():
        return render(page_document(folder))
    return render_run(run_document(folder))
