"""The page that compares engines on one program: a single HTML file that needs no network."""

from lmppl.report.page.render import render

__all__ = ["render"]
