"""What is compared: entries, each an engine under a label with options of its own. Reads text, runs
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lmppl import ir
from lmppl.engines import ENGINE_NAMES, Settings, engine
from lmppl.errors import LmpplError, did_you_mean, error
from lmppl.findings import run as run_findings
from lmppl.run import Request, configure

SETTINGS = tuple(item.name for item in fields(Settings))


@dataclass(frozen=True)
class Entry:
    """A line of the table. settings and options: what was asked for, by name."""

    label: str
    engine: str
    settings: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def learns(self) -> bool:
        """Whether it is trained before it draws."""
        return engine(self.engine).learn is not None

    @property
    def asked(self) -> dict[str, Any]:
        """Everything that was asked for."""
        return {**self.settings, **self.options}


def parse_entries(engines: str, options: Iterable[str]) -> list[Entry]:
    """Entries from `A,LABEL=B` and `LABEL.KEY=VALUE` texts. Raises LmpplError with all that is
    wrong.
    """
    pairs = [_labelled(part.strip()) for part in engines.split(",") if part.strip()]
    labels = [label for label, _ in pairs]
    findings = [
        run_findings.unknown_engine(name, ENGINE_NAMES)
        for _, name in pairs
        if name not in ENGINE_NAMES
    ]
    if not pairs:
        findings.append(
            error(
                "no-engine",
                "there is nothing to compare",
                help="name engines: --engines exact,mcmc",
            )
        )
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        help = f"give each a label: --engines {label},other={label}"
        findings.append(error("label-twice", f"two entries are called `{label}`", help=help))
    own: dict[str, dict[str, str]] = {label: {} for label in labels}
    for text in options:
        label, key, value = _assignment(text)
        if label in own and key:
            own[label][key] = value
        else:
            findings.append(_bad_assignment(text, label, labels))
    if findings:
        raise LmpplError(*findings)
    return [_entry(label, name, own[label]) for label, name in pairs]


def _labelled(text: str) -> tuple[str, str]:
    label, equals, name = text.partition("=")
    return (label.strip(), name.strip()) if equals else (text, text)


def _assignment(text: str) -> tuple[str, str, str]:
    place, equals, value = text.partition("=")
    label, _, key = place.strip().rpartition(".")
    return label, key if equals else "", value


def _bad_assignment(text: str, label: str, labels: Sequence[str]) -> Any:
    help = (
        did_you_mean(label, labels)
        if label
        else f"write -o {labels[0] if labels else 'LABEL'}.KEY=VALUE"
    )
    return error(
        "bad-option", f"-o {text} sets an option of no entry", expected="LABEL.KEY=VALUE", help=help
    )


def _entry(label: str, name: str, given: Mapping[str, str]) -> Entry:
    settings = {key: _whole(name, key, value) for key, value in given.items() if key in SETTINGS}
    return Entry(
        label, name, settings, {key: value for key, value in given.items() if key not in SETTINGS}
    )


def _whole(name: str, key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise LmpplError(
            run_findings.bad_option(name, key, "a whole number", repr(value))
        ) from None


def require_options(
    program: ir.Program, entries: Sequence[Entry], seed: int = 0, batch_size: int = 64
) -> None:
    """Raise LmpplError where an entry's options are none of its engine's: that is no result of a
    comparison.
    """
    for entry in entries:
        request = Request(entry.engine, entry.settings, entry.options, seed, batch_size)
        configure(program, engine(entry.engine), request)
