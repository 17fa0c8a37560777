"""Intervals for log evidence from replicates cover the truth as often as they say."""

import grid
import numpy as np
import pytest
from test_samplers import truth

from lmppl.data import Row
from lmppl.driver import Request, run
from lmppl.engines.resampling import replicate_evidence

GROUPS, REPLICATES = 300, 4
CASES = {
    "annealed": (("tempered", "free", "observe"), {"particles": 24, "waste_free": 4, "search": 0}),
    "smc": (("plain", "until", "grammar"), {"particles": 24}),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", CASES)
def test_intervals_cover_the_truth(engine):
    cell, options = CASES[engine]
    models = grid.models()
    _, evidence = truth(cell, models)
    request = Request(engine, {"chains": GROUPS * REPLICATES, "num_samples": 1}, options, 5, 2048)
    row = run(grid.program(*cell), [Row({}, {})], grid.used_models(cell, models), request).rows[0]
    logs = np.array(row.diagnostics["log_evidence_by_replicate"]).reshape(GROUPS, REPLICATES)
    covered = 0
    for group in logs:
        _, _, (low, high) = replicate_evidence(group)
        covered += (low is None or low <= evidence) and evidence <= high
    assert 0.90 <= covered / GROUPS <= 0.99
