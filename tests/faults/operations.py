"""File operations of a process, counted one by one as they are about to happen, and what befalls it at the n-th.

Counted is what changes a folder: making, renaming, removing, opening for writing, every write, flush and fsync, and
safetensors files, which another language writes. A write is two operations: its first half, which reaches the disk,
and the rest; so a process that is killed before the second has left a torn file.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

LOG = "operations.txt"
TAKES_ROOM = ("mkdir", "create", "write", "rest")
CHANGING = {"mkdir": "mkdir", "rename": "rename", "replace": "rename", "unlink": "remove", "remove": "remove",
            "rmdir": "remove", "link": "link"}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """kill: the process is killed before its operation number `at`, counted from 1. full: from there on the disk is
    full. none: operations are only counted. All stand in a log, one a line."""

    kind: Literal["none", "kill", "full"]
    at: int = 0

    def __call__(self) -> None:
        """Watch over this process from now on, in the folder that it is in."""
        _Watch(self, os.getcwd()).install()


def logged(folder: Path) -> list[str]:
    """The operations of the last process in a folder, each with its file."""
    return (folder / LOG).read_text(encoding="utf-8").splitlines()


class _Watch:
    def __init__(self, fault: Fault, home: str) -> None:
        self._fault, self._home, self._count = fault, home, 0
        self._log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def install(self) -> None:
        """Put a counting double in the place of what changes files."""
        import safetensors.torch

        for name, kind in CHANGING.items():
            setattr(os, name, self._changing(kind, getattr(os, name)))
        os.open = self._system_open(os.open)
        os.fsync = self._fsync(os.fsync)
        io.open = builtins.open = self._open(io.open)
        safetensors.torch.serialize_file = self._serialize(safetensors.torch.serialize_file)

    def reached(self, kind: str, path: Any) -> None:
        """An operation that is about to happen to a file; those outside the folder are none of ours."""
        name = os.path.abspath(os.fsdecode(path))
        if not name.startswith(self._home + os.sep):
            return
        self._count += 1
        os.write(self._log, f"{kind} {os.path.relpath(name, self._home)}\n".encode())
        if self._fault.kind == "kill" and self._count == self._fault.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault.kind == "full" and self._count >= self._fault.at and kind in TAKES_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    def _changing(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def double(path: Any, *others: Any, dir_fd: int | None = None, **more: Any) -> Any:
            at = path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), os.fsdecode(path))
            self.reached(kind, at)
            return real(path, *others, **more) if dir_fd is None else real(path, *others, dir_fd=dir_fd, **more)

        return double

    def _system_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def double(path: Any, flags: int, *others: Any, **more: Any) -> int:
            if flags & os.O_CREAT:
                self.reached("open" if os.path.exists(path) else "create", path)
            return real(path, flags, *others, **more)

        return double

    def _fsync(self, real: Callable[[Any], None]) -> Callable[[Any], None]:
        def double(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            self.reached("fsync", os.readlink(f"/proc/self/fd/{number}"))
            real(file)

        return double

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def double(file: Any, mode: str = "r", *others: Any, **more: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return real(file, mode, *others, **more)
            self.reached("open" if os.path.exists(file) else "create", file)
            return _File(real(file, mode, *others, **more), file, self)

        return double

    def _serialize(self, real: Callable[..., None]) -> Callable[..., None]:
        def double(tensors: Any, filename: Any, *others: Any, **more: Any) -> None:
            from safetensors import SafetensorError

            try:
                self.reached("write", filename)
                real(tensors, filename, *others, **more)
                whole = Path(filename).read_bytes()
                os.truncate(filename, len(whole) // 2)
                self.reached("rest", filename)
            except OSError as reason:  # as safetensors say it
                problem = f"I/O error: {reason.strerror} (os error {reason.errno})"
                raise SafetensorError(f"Error while serializing: {problem}") from None
            real(tensors, filename, *others, **more)

        return double


class _File:
    """A file that is written, whose writes are counted."""

    def __init__(self, file: Any, path: Any, watch: _Watch) -> None:
        self._file, self._path, self._watch = file, path, watch

    def write(self, data: Any) -> int:
        half = len(data) // 2
        self._watch.reached("write", self._path)
        self._file.write(data[:half])
        self._file.flush()
        self._watch.reached("rest", self._path)
        self._file.write(data[half:])
        self._file.flush()
        return len(data)

    def writelines(self, lines: Any) -> None:
        self.write(type_of(self._file)().join(lines))

    def flush(self) -> None:
        self._watch.reached("flush", self._path)
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *reason: Any) -> Any:
        return self._file.__exit__(*reason)

    def __iter__(self) -> Any:
        return iter(self._file)


def type_of(file: Any) -> type[str] | type[bytes]:
    """What a file takes."""
    return str if isinstance(file, io.TextIOBase) else bytes
