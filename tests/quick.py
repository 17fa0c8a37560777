"""Cells of a large grid: a few that meet every value of every axis stay in the quick part, the others are slow."""

import random

import pytest


def covered(cells, lengthy=()):
    """Parameters of cells, tuples of equal length: those that `cover` leaves out, or with a lengthy value, are slow."""
    cells = list(cells)
    kept = cover(cell for cell in cells if not {*cell} & {*lengthy})
    return [
        pytest.param(*cell, id="-".join(map(str, cell)), marks=() if cell in kept else pytest.mark.slow)
        for cell in cells
    ]


def marked(cells, lengthy=()):
    """Cells as one parameter each: those that `cover` leaves out, and those of `lengthy`, are slow."""
    cells = list(cells)
    kept = cover(cell for cell in cells if cell not in lengthy)
    return [pytest.param(cell, id="-".join(cell), marks=() if cell in kept else pytest.mark.slow) for cell in cells]


def cover(cells):
    """Of cells in a mixed order, those that show a value of an axis which none of the ones before has shown."""
    shown, kept, mixed = set(), [], list(cells)
    random.Random(1).shuffle(mixed)  # in order, all but one axis would stay at their first values
    for cell in mixed:
        if values := {*enumerate(cell)} - shown:
            kept.append(cell)
            shown |= values
    return kept
