"""A program that can be simulated on the tiny model, and its rows: what calibration and certificates are tested on."""

import tiny

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.errors import raise_errors
from lmppl.source import Source

TEXT = """lm LM = "tiny"
given X, Y
Z ~ LM(X) max 3 tokens
observe Y ~ LM(" a{Z}")
"""
ROW = Row({"X": " a b", "Y": " b. a b"}, {})


def program(text=TEXT):
    analysis = analyse(Source("simulated", text), ".")
    raise_errors(analysis.findings)
    return analysis.program


def models():
    return {"LM": tiny.model(seed=6)}
