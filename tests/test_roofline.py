"""The benchmark that sets rates beside what the machine allows runs as it is told to, on any model and device."""

import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import roofline


@pytest.mark.slow
def test_every_line_has_a_rate_that_the_machine_allows(tiny_folder, tmp_path):
    out = tmp_path / "table.md"
    small = ["--batches", "2,4", "--tokens", "4", "--prompt", "8", "--runs", "1", "--backend", "eager"]
    roofline.main(["--model", str(tiny_folder), "--device", "cpu", *small, "--out", str(out)])
    lines = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \| (.+?)% \|$", out.read_text(), re.M)
    kinds = [
        "passes, eager", "draws, eager", "`generate`", "passes, compiled", "draws, compiled", "scoring", "training",
    ]  # fmt: skip
    assert [(what, int(rows)) for what, rows, *_ in lines] == [(what, rows) for what in kinds for rows in (2, 4)]
    for _, _, rate, most, share in lines:
        assert 0 < int(rate) < int(most)
        assert float(share) <= 100


@pytest.mark.parametrize(("rows", "expected"), [(1, 1 / 1.04), (100, 100 / 4.0)])
def test_a_step_waits_for_memory_or_for_arithmetic(rows, expected):
    """One row reads weights and its cache; a hundred rows multiply longer than they read."""
    machine = roofline.Machine(torch.device("cpu"), 100.0, 500.0, 10, 100, 1)
    assert machine.decoding(rows, 3, 2) == pytest.approx(expected)
