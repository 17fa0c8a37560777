"""Flags of the command as a program in Python says them: findings are written once, for both.

A finding names flags (`--num-samples`, `-o KEY=VALUE`); from Python the same settings are arguments
of `infer`. Texts in quotes are a user's, and stay as they are; so does a command that is quoted
whole.
"""

from __future__ import annotations

import re

ARGUMENTS = (
    "engine", "data", "columns", "chains", "num_samples", "num_warmup", "thin", "budget", "seed",
    "options", "lms",
    "learned", "device", "torch_compile", "cuda_graphs", "batch_size", "folder", "adapter",
    "resume", "progress", "workers", "ray",
    "givens",
)  # fmt: skip
NAMED = {
    "out": "folder",
    "set": "givens",
    "lm": "lms",
    "column": "columns",
    "force": "force",
}  # flags by other names
TEXTS = ("engine", "device", "budget")  # arguments whose values are texts
# texts, and whole commands: what is run in a shell is run there from Python, too
_QUOTED = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`lmppl [^`]*`)""")
_OPTION = re.compile(r"(?<![\w-])-o (?P<key>\w+)=(?P<value>[^\s,;`]*[^\s,;`.])?")
_PAIR = re.compile(r"--(?P<flag>set|lm|column) (?P<name>[\w{}]+)=(?P<value>[^\s,;`]*[^\s,;`.])?")
_ABOUT = re.compile(r"--(?:set|column) (?P<name>\w+):")
_RESUME = re.compile(r"--resume (?P<folder>[A-Z]+\b|[~./]\S*)")
_VALUE = re.compile(r"--(?P<flag>[a-z][a-z-]*) (?P<value>[A-Z]+\b|\d[\w.]*|auto|cpu|cuda|ENGINES)")
_BARE = re.compile(r"(?P<tick>`?)--(?P<flag>[a-z][a-z-]*)(?P<end>`?)(?![\w-])")
ENGINES = "exact|rejection|importance|mcmc|annealed|smc|gflownet|ppo|sft|prompting"


def in_python(text: str) -> str:
    """The text with arguments in place of flags."""
    pieces = _QUOTED.split(text)
    return "".join(
        piece if number % 2 else _translated(piece) for number, piece in enumerate(pieces)
    )


def _translated(text: str) -> str:
    text = _ABOUT.sub(lambda found: f"{found['name']}:", text)
    text = _OPTION.sub(lambda found: f'options={{"{found["key"]}": {found["value"] or "…"}}}', text)
    text = _PAIR.sub(_pair, text)
    text = _RESUME.sub(lambda found: f"folder={found['folder']}, resume=True", text)
    text = re.sub(_VALUE.pattern.replace("ENGINES", ENGINES), _value, text)
    return _BARE.sub(_bare, text)


def _argument(flag: str) -> str | None:
    name = NAMED.get(flag, flag.replace("-", "_"))
    return name if name in (*ARGUMENTS, "force") else None


def _pair(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"] or "…"
    if found["flag"] == "set" and name not in ARGUMENTS:
        return f"{name}={value}"
    return f'{NAMED[found["flag"]]}={{"{name}": {value}}}'


def _value(found: re.Match[str]) -> str:
    argument, value = _argument(found["flag"]), found["value"]
    if argument is None:
        return found[0]
    quoted = argument in TEXTS and not value.isupper()
    return f'{argument}="{value}"' if quoted else f"{argument}={value}"


def _bare(found: re.Match[str]) -> str:
    argument = _argument(found["flag"])
    if argument is None:
        return found[0]
    shown = (
        f"{argument}=True"
        if argument in ("resume", "force") and not found["tick"]
        else f"`{argument}`"
    )
    return shown
