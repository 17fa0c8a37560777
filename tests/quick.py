"""Cells of a large grid: a few that meet every value of every axis stay in the quick part, the others are slow."""

import pytest


def covered(cells, more=1):
    """Parameters of cells, tuples of equal length: those that `cover` leaves out are marked slow."""
    cells = list(cells)
    kept = cover(cells, more)
    return [
        pytest.param(*cell, id="-".join(map(str, cell)), marks=() if cell in kept else pytest.mark.slow)
        for cell in cells
    ]


def cover(cells, more=1):
    """Of cells, in turn those that show a value of an axis which fewer than `more` of the ones before have shown."""
    shown, kept = {}, []
    for cell in cells:
        values = list(enumerate(cell))
        if any(shown.get(value, 0) < more for value in values):
            kept.append(cell)
            for value in values:
                shown[value] = shown.get(value, 0) + 1
    return kept
