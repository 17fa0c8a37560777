"""All checks of one model, one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmppl.compile import compile
from lmppl.doctor import draws, laws, scores, served, texts
from lmppl.doctor.check import Check, failed, judged, passed_over
from lmppl.doctor.found import ORDER, Amiss, CannotTell, Found, Status
from lmppl.doctor.patient import Patient, Sizes
from lmppl.errors import LmpplError, Lost
from lmppl.lm import LanguageModel, load_models
from lmppl.screen import Progress, quiet
from lmppl.shapes import Document

CHECKS: Sequence[Check] = (
    served.ANSWERS, *scores.CHECKS, *draws.CHECKS, *laws.CHECKS, *texts.CHECKS, *served.CHECKS,
)  # fmt: skip
# findings about a server that answers, and not as it should: its failure, and nobody's else
UNTRUE = {
    "server-lies", "server-lacks", "server-breaks", "odd-answer", "other-tokenizer", "several-ends",
}  # fmt: skip
PROGRAM = 'lm LM = "a model"\nlm BASE = "a model"\nZ ~ LM("a") max 1\n'


@dataclass(frozen=True)
class Report:
    """What all checks have found. facts: what the model says of itself, by name."""

    identifier: str
    facts: Mapping[str, str | int]
    checks: Sequence[Found]
    seconds: float

    @property
    def verdict(self) -> Status:
        """That of the worst check."""
        return ORDER[max(ORDER.index(one.status) for one in self.checks)]

    @property
    def document(self) -> Document:
        """JSON form."""
        return {
            "model": self.identifier, "verdict": self.verdict, "facts": dict(self.facts),
            "seconds": round(self.seconds, 1), "checks": [one.document for one in self.checks],
        }  # fmt: skip


def examine(
    identifier: str,
    sizes: Sizes,
    *,
    options: Mapping[str, str | float],
    device: str = "auto",
    progress: Progress = quiet,
) -> Report:
    """Load a model by its identifier and check it. options: of its `lm`, by name, such as
    `adapter` and `dtype`. Raises LmpplError where it cannot be loaded.
    """
    program = compile(PROGRAM).program
    model, base = program.models
    chosen = [replace(model, identifier=identifier, **options)]  # type: ignore[arg-type]
    if "adapter" in options:
        plain = {name: value for name, value in options.items() if name != "adapter"}
        chosen.append(replace(base, identifier=identifier, **plain))  # type: ignore[arg-type]
    own = replace(program, models=tuple(chosen), folder=str(Path.cwd()))
    try:
        loaded = load_models(own, {}, device, progress)
    except LmpplError as reason:
        if reason.diagnostics[0].code not in UNTRUE:
            raise
        return Report(identifier, {}, [failed(served.ANSWERS, _told(reason))], 0.0)
    return examine_model(loaded["LM"], sizes, base=loaded.get("BASE"), progress=progress)


def examine_model(
    model: LanguageModel,
    sizes: Sizes,
    *,
    base: LanguageModel | None = None,
    checks: Sequence[Check] = CHECKS,
    progress: Progress = quiet,
) -> Report:
    """Check a model that is loaded. base: the same without its adapter."""
    began = time.monotonic()
    patient = Patient(model, sizes, base)
    found: list[Found] = []
    lost: Lost | None = None
    for number, check in enumerate(checks):
        if lost is not None:
            found.append(passed_over(check, "the server is gone"))
            continue
        progress(f"checking: {check.asks}", number, len(checks))
        try:
            found.append(_examined(check, patient))
        except Lost as reason:
            lost = reason
            found.append(failed(check, reason.diagnostic.message))
    return Report(model.identifier, _facts(model), found, time.monotonic() - began)


def _examined(check: Check, patient: Patient) -> Found:
    try:
        return judged(check, check.measure(patient))
    except CannotTell as why:
        return passed_over(check, str(why))
    except Amiss as reason:
        return failed(check, str(reason))
    except LmpplError as reason:
        return failed(check, _told(reason))


def _told(reason: LmpplError) -> str:
    first = reason.diagnostics[0]
    return ": ".join(filter(None, [first.message, first.found]))


def _facts(model: LanguageModel) -> dict[str, str | int]:
    able = sorted(one.name.lower() for one in model.capabilities)
    return {
        "revision": model.revision, "vocabulary": model.vocabulary_size, "window": model.window,
        "end": model.pieces([model.end])[0], "tells": ", ".join(["scores", *able]),
    }  # fmt: skip
