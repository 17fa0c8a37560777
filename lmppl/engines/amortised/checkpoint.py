"""Checkpoints: all that training needs to go on as it would have, written whole or not at all.

`FOLDER/training/step-000050/` holds the adapter's weights, those that were best on held-out rows
and the optimiser's state as safetensors, every process's buffer and the seeds as JSON lines, and
the rest as JSON. A new one is written beside its place and renamed; then PEFT's adapter files in
FOLDER are replaced; then older checkpoints go. So a kill at any moment leaves the last whole one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lmppl.density import State
from lmppl.engines.amortised.buffer import Buffer
from lmppl.engines.amortised.learner import Learner
from lmppl.engines.amortised.policy import Policy
from lmppl.engines.amortised.reward import Rewarded
from lmppl.errors import LmpplError, error
from lmppl.findings import run as run_findings
from lmppl.lm.transformers import FILES
from lmppl.storage import checkpoints, differences, is_broken, sealed

TRAINING = "training"
KEPT = 2  # whole checkpoints that are kept
ARRAYS = ("total", "priors", "level", "others", "broken")
NUMBERS = ("step", "beta", "best", "idle", "spent", "finished")


def save(
    folder: Path, learner: Learner, about: Mapping[str, object], buffers: Sequence[str]
) -> None:
    """Write a checkpoint and the adapter. buffers: `lines` of every process's.

    Raises LmpplError where there is no room; what was there before stays.
    """
    final = folder / TRAINING / f"step-{learner.step:06d}"
    partial = final.with_name(f"{final.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(partial, learner, about, buffers)
        if final.exists():  # of an earlier run, or damaged
            shutil.rmtree(final)
        partial.rename(final)
        publish_best(folder, learner)
    except (OSError, SafetensorError) as reason:
        shutil.rmtree(partial, ignore_errors=True)
        why = getattr(reason, "strerror", None) or reason
        message = f"the checkpoint of step {learner.step} cannot be written to `{folder}`: {why}"
        raise LmpplError(
            error("unwritable-folder", message, help="earlier checkpoints are as they were")
        ) from None


def publish_best(folder: Path, learner: Learner) -> None:
    """Put the adapter into the folder that training would end with now, and leave the last
    checkpoints only.
    """
    with learner.at_best():
        publish(folder, learner.policy)
    found = checkpoints(folder)
    kept = [path for path in found if path.name <= f"step-{learner.step:06d}"][
        -KEPT:
    ]  # later ones: an earlier run's
    for old in found:
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)


def publish(folder: Path, policy: Policy) -> None:
    """Put PEFT's adapter files into the folder, each whole."""
    beside = folder / TRAINING / "adapter.partial"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    document = {"trained": sorted(policy.trained)}
    (beside / "policy.json").write_text(json.dumps(document), encoding="utf-8")
    policy.adapter.save(beside)
    for name in (*FILES, "policy.json"):
        os.replace(beside / name, folder / name)
    shutil.rmtree(beside, ignore_errors=True)


def spent(folder: Path) -> int | None:
    """Tokens that training into a folder has taken in all its runs; None where no checkpoint says
    so.
    """
    for path in reversed(checkpoints(folder)):
        try:
            return int(json.loads((path / "state.json").read_text(encoding="utf-8"))["spent"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def load(folder: Path, learner: Learner, about: Mapping[str, object], process: int = 0) -> bool:
    """Put the last checkpoint that can be read into the learner of a process; whether there was
    one.

    A process that the run before did not have begins with an empty buffer.
    Raises LmpplError where it was made by another program, model, data or options, or where none
    can be read.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            if (
                is_broken(state)
                or state["files"] != _checksums(path)
                or not {"about", *NUMBERS} <= set(state)
            ):
                continue
            weights, best = (
                load_file(str(path / f"{name}.safetensors")) for name in ("adapter", "best")
            )
            moments = load_file(str(path / "optimiser.safetensors"))
            own = path / f"buffer-{process}.jsonl"
            buffer = dict(_read_states(own)) if own.name in state["files"] else {}
            seeds = dict(_read_states(path / "seeds.jsonl"))
        except Exception:  # damaged: safetensors, JSON and the system each have errors of their own
            continue
        _require_same(folder, state["about"], about)
        _restore(learner, state, weights, moments)
        learner.best_weights, learner.buffer, learner.seeds = (
            best,
            Buffer(learner.buffer.size, buffer),
            seeds,
        )
        return True
    if found:
        message = f"no checkpoint in `{folder}` can be read"
        help = "they are damaged; the adapter may still be whole: use it with --adapter"
        raise LmpplError(error("broken-checkpoint", message, help=help))
    return False


# --- parts ----------------------------------------------------------------------------------------


def _write(
    folder: Path, learner: Learner, about: Mapping[str, object], buffers: Sequence[str]
) -> None:
    save_file(learner.policy.adapter.weights(), folder / "adapter.safetensors")
    save_file(learner.best_weights, folder / "best.safetensors")
    save_file(_moments(learner), folder / "optimiser.safetensors")
    for process, buffer in enumerate(buffers):
        (folder / f"buffer-{process}.jsonl").write_text(buffer, encoding="utf-8")
    (folder / "seeds.jsonl").write_text(lines(learner.seeds), encoding="utf-8")
    numbers = {name: _plain(vars(learner)[name]) for name in NUMBERS}
    about = {"cost": learner.cost, "about": about}
    state = json.loads(json.dumps({**numbers, **about, "files": _checksums(folder)}))
    document = json.dumps(sealed(state), ensure_ascii=False, indent=1)
    (folder / "state.json").write_text(document, encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint but the one that holds these."""
    paths = sorted(path for path in folder.iterdir() if path.suffix != ".json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _moments(learner: Learner) -> dict[str, torch.Tensor]:
    """The optimiser's state by name, and the log evidences."""
    named = {**learner.policy.adapter.parameters, "log_evidence": learner.log_evidence}
    found = {"log_evidence": learner.log_evidence.detach().clone()}
    for name, parameter in named.items():
        for key, value in learner.optimiser.state.get(parameter, {}).items():
            found[f"{key} {name}"] = torch.as_tensor(value).detach().clone().contiguous()
    return found


def _restore(
    learner: Learner,
    state: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
) -> None:
    named = {**learner.policy.adapter.parameters, "log_evidence": learner.log_evidence}
    learner.policy.adapter.put(weights)
    learner.log_evidence.data.copy_(moments["log_evidence"])
    for joined, value in moments.items():
        key, _, name = joined.partition(" ")
        if name:
            value = value if key == "step" else value.to(named[name].device)
            learner.optimiser.state[named[name]][key] = value
    learner.cost = dict(state.get("cost", {}))
    for name in NUMBERS:
        setattr(learner, name, state[name] if state[name] is not None else math.inf)


def _require_same(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(now))  # as it would be read back
    known = {name: value for name, value in then.items() if name in now}
    if found := list(differences(known, now)):
        raise LmpplError(
            run_findings.made_from_others(
                "checkpoint-differs", f"the training in `{folder}` was", found
            )
        )


def lines(rows: Mapping[int, Rewarded]) -> str:
    """States by row number as JSON lines."""
    written = []
    for number, rewarded in rows.items():
        for i, state in enumerate(rewarded.states):
            numbers = {name: _plain(float(vars(rewarded)[name][i])) for name in ARRAYS}
            written.append(json.dumps({"row": number, "state": state, **numbers}) + "\n")
    return "".join(written)


def _read_states(path: Path) -> Iterator[tuple[int, Rewarded]]:
    by_row: dict[int, list[dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        by_row.setdefault(entry["row"], []).append(entry)
    for number, entries in by_row.items():
        states = [_state(entry["state"]) for entry in entries]
        arrays = [
            np.array([-np.inf if e[name] is None else e[name] for e in entries]) for name in ARRAYS
        ]
        yield number, Rewarded(states, *arrays)


def _state(document: Mapping[str, Any]) -> State:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }


def _plain(value: float) -> float | None:
    """JSON has no infinity: null stands for it."""
    return value if not isinstance(value, float) or math.isfinite(value) else None
