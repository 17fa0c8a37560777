"""Workers that are processes of this machine. They are spawned, since torch must not be forked, and
end with the process that has started them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from lmppl.run.workers.crew import Lost, Opening, Order
from lmppl.threads import share_of_threads, use_threads

KILLED = (
    "signal 9, as the system ends a process where memory runs out"  # the usual reason, not the only
)


def over_processes(count: int) -> Callable[[Opening], Processes]:
    """What starts so many processes of this machine."""
    return lambda opening: Processes(opening, count)


class Processes:
    """A crew of processes. Leave them by `close`."""

    def __init__(self, opening: Opening, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.size = size
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._silent: set[int] = set()  # that are there no more
        threads = share_of_threads(size)
        with _interrupts_left_out():
            for number in range(size):
                ours, theirs = context.Pipe()
                work = context.Process(
                    target=_work, args=(theirs, opening, number, threads), daemon=True
                )
                work.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(work)

    def send(self, worker: int, order: Order) -> None:
        """See Crew. That a worker is there no more is told by `receive`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipes[worker].send(order)

    def receive(self) -> tuple[int, Any]:
        """See Crew."""
        listened = {
            id(pipe): number
            for number, pipe in enumerate(self._pipes)
            if number not in self._silent
        }
        pipe = wait([self._pipes[number] for number in listened.values()])[0]
        worker = listened[id(pipe)]
        try:
            return worker, self._pipes[worker].recv()
        except (EOFError, ConnectionResetError):
            self._silent.add(worker)
            return worker, Lost(self._end_of(worker))

    def _end_of(self, worker: int) -> str:
        process = self._processes[worker]
        process.join()
        code = process.exitcode
        if code == -signal.SIGKILL:
            return KILLED
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """See Crew."""
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            pipe.close()


@contextmanager
def _interrupts_left_out() -> Iterator[None]:
    """Processes that are started within it leave Ctrl-C to this one, from their first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, opening: Opening, number: int, threads: int) -> None:
    """What a process does: it obeys until nobody is there to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["LOCAL_RANK"] = str(number)  # by which a GPU is chosen, where there are some
    use_threads(threads)
    from lmppl.run.workers.worker import Worker

    worker = Worker(opening, pipe.send)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(worker.obey(pipe.recv()))
