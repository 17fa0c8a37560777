"""Pages on a comparison of engines or on a run: a single HTML file that needs no network."""

from lmppl.report.page.folder import page_of
from lmppl.report.page.render import render, render_run

__all__ = ["page_of", "render", "render_run"]
