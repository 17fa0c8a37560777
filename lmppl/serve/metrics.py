"""Figures of a service, as Prometheus reads them. Labels are programs and routes, never what a
request says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from lmppl.serve.inference import Answered

MEDIA_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300)
ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts of one service."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter(
            "lmppl_requests", "Requests, by route and status.", ["route", "status"], registry=own
        )
        self.seconds = Histogram(
            "lmppl_request_seconds", "Until a request had its reply.", ["route"],
            buckets=SECONDS, registry=own,
        )  # fmt: skip
        self.rows = Counter(
            "lmppl_rows", "Rows that were answered, by program and verdict.",
            ["program", "verdict"], registry=own,
        )  # fmt: skip
        self.draws = Counter("lmppl_draws", "Draws, by program.", ["program"], registry=own)
        self.tokens = Counter(
            "lmppl_tokens", "Tokens that models have run, by program and kind.",
            ["program", "kind"], registry=own,
        )  # fmt: skip
        self.waiting = Gauge("lmppl_rows_waiting", "Rows that wait.", registry=own)
        self.batch_rows = Histogram(
            "lmppl_batch_rows", "Rows of one inference.", buckets=ROWS, registry=own
        )
        self.inference_seconds = Counter(
            "lmppl_inference_seconds", "Seconds that the thread has inferred.", registry=own
        )

    def count(self, program: str, found: Answered) -> None:
        """Count what was found for a row."""
        self.rows.labels(program, found.posterior.verdict).inc()
        self.draws.labels(program).inc(found.draws)
        for kind in ("decoded", "scored"):
            self.tokens.labels(program, kind).inc(found.cost.get(f"tokens_{kind}", 0))

    def text(self) -> bytes:
        """All of them, in Prometheus' form."""
        return generate_latest(self._registry)
