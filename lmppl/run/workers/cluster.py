"""Workers that are actors of a Ray cluster, on this machine or on others. Needs the package ray."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from lmppl.errors import LmpplError, first_line
from lmppl.findings import workers as findings
from lmppl.run.workers.crew import Failed, Lost, Opening, Order
from lmppl.run.workers.worker import Worker

LOCAL = "local"  # an address: a cluster of this machine alone, which is started for the run


class Actor:
    """A worker as an actor: all that it has to say of an order comes when that is carried out."""

    def __init__(self, opening: Opening) -> None:
        self._said: list[Any] = []
        self._worker = Worker(opening, self._said.append)

    def obey(self, order: Order) -> list[Any]:
        """Carry out an order: all that was said, and what came of it."""
        self._said.clear()
        done = self._worker.obey(order)
        return [*self._said, done]


class Cluster:
    """A crew of actors. Leave it by `close`."""

    def __init__(self, opening: Opening, size: int, address: str) -> None:
        ray = _ray()
        self._ray, self.size = ray, size
        self._started = not ray.is_initialized()
        if self._started:
            _join(ray, address)
        room = ray.cluster_resources()
        each = {"num_cpus": 1, "num_gpus": 1 if room.get("GPU", 0) >= size else 0}
        if room.get("CPU", 0) < size:
            self.close()
            raise LmpplError(findings.cluster_too_small(size, int(room.get("CPU", 0))))
        actor = ray.remote(**each)(Actor)
        self._actors = [actor.remote(opening) for _ in range(size)]
        self._asked: dict[Any, int] = {}
        self._said: deque[tuple[int, Any]] = deque()

    def send(self, worker: int, order: Order) -> None:
        """See Crew."""
        self._asked[self._actors[worker].obey.remote(order)] = worker

    def receive(self) -> tuple[int, Any]:
        """See Crew. Rows of a shard come together, when all of them are done."""
        while not self._said:
            ready, _ = self._ray.wait(list(self._asked), num_returns=1)
            worker = self._asked.pop(ready[0])
            try:
                self._said.extend((worker, said) for said in self._ray.get(ready[0]))
            except self._ray.exceptions.RayActorError as reason:
                self._said.append((worker, Lost(first_line(reason), by_shard=True)))
            except self._ray.exceptions.RayError as reason:
                self._said.append(
                    (worker, Failed(LmpplError(findings.cluster_fails(first_line(reason)))))
                )
        return self._said.popleft()

    def close(self) -> None:
        """See Crew."""
        for actor in vars(self).get("_actors", []):
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()


def over_cluster(address: str, count: int) -> Callable[[Opening], Cluster]:
    """What starts so many actors of the cluster at an address. Raises LmpplError where ray is not
    installed.
    """
    if find_spec("ray") is None:
        raise LmpplError(findings.no_ray())
    return lambda opening: Cluster(opening, count, address)


def _ray() -> Any:
    """The package, of whose types nothing is asked."""
    import ray  # pyright: ignore[reportMissingImports]

    return ray


def _join(ray: Any, address: str) -> None:
    """Connect to a cluster. Raises LmpplError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        options["include_dashboard"] = False
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as reason:
        raise LmpplError(findings.no_cluster(address, first_line(reason))) from None
