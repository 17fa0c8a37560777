"""docs/programs.md: every program in programs/, its data, the commands that run it, and what they printed.

    python benchmarks/outputs.py [NAME ...] [--again]

Those that are named are run; where none is, all whose text, data or commands are not in the page as they are, or with
--again all. The page is written after every program, so that what was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "programs.md"
WIDTH = 100
HEAD = f"""# Programs and what they print

Every program in [programs](../programs/) with its data, and the output of `lmppl run` with no options, {WIDTH} columns
wide, on the default model; one is run with a trained policy as well. `make outputs` makes this page; times are those of
the machine that made it.
"""
POLICY = "--engine gflownet -o steps=12 -o draws=32 --num-samples 100"
MORE = {"numbers": [POLICY.split()]}  # options of further runs of a program


def main() -> None:
    """Run what has changed, and write the page."""
    parser = argparse.ArgumentParser(description="Make docs/programs.md.")
    parser.add_argument("names", nargs="*", help="programs to run again, without .lm")
    parser.add_argument("--again", action="store_true", help="run all of them again")
    asked = parser.parse_args()
    for program in programs():
        kept = sections()
        stale = asked.again or not is_current(program, kept.get(program.stem, ""))
        if program.stem in asked.names if asked.names else stale:
            started = time.perf_counter()
            blocks = [f"```\n{shown(command)}\n{printed(command)}\n```\n" for command in commands(program)]
            kept[program.stem] = "\n".join([opening(program), *blocks])
            write(kept)
            print(f"{program.stem}: {time.perf_counter() - started:.0f} s", flush=True)


def programs() -> list[Path]:
    """The shipped programs, in the order of the page."""
    return sorted((ROOT / "programs").glob("*.lm"))


def data_of(program: Path) -> Path | None:
    """The rows that come with a program."""
    return next((path for end in (".jsonl", ".csv") if (path := program.with_suffix(end)).exists()), None)


def commands(program: Path) -> list[list[str]]:
    """The arguments of lmppl that run a program, by default first."""
    data = data_of(program)
    plain = ["run", f"programs/{program.name}", *(["--data", f"programs/{data.name}"] if data else [])]
    return [plain, *([*plain, *options] for options in MORE.get(program.stem, ()))]


def shown(command: Sequence[str]) -> str:
    """A command as one would type it."""
    return f"$ lmppl {' '.join(command)}"


def is_current(program: Path, section: str) -> bool:
    """Whether a section is of the program, the data and the commands that there are now."""
    return section.startswith(opening(program)) and all(f"\n{shown(c)}\n" in section for c in commands(program))


def opening(program: Path) -> str:
    """A section up to the commands: it says from what their output was made."""
    data = data_of(program)
    rows = (
        f"\n[{data.name}](../programs/{data.name}):\n\n```\n{data.read_text(encoding='utf-8').strip()}\n```\n"
        if data
        else ""
    )
    text = program.read_text(encoding="utf-8").strip()
    return f"## {program.stem}\n\n```\n{text}\n```\n{rows}"


def sections() -> dict[str, str]:
    """The page's sections by their program's name."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    found = re.split(r"^(?=## )", text, flags=re.M)[1:]
    return {section.split()[1]: section.rstrip() + "\n" for section in found}


def printed(command: Sequence[str]) -> str:
    """What a command prints, findings and notices included."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-m", "lmppl", *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    lines = done.stdout.replace("```", "'''").splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def write(found: dict[str, str]) -> None:
    """The page, with the sections of the programs that there are."""
    names = [program.stem for program in programs() if program.stem in found]
    PAGE.write_text("\n".join([HEAD, *(found[name] for name in names)]), encoding="utf-8")


if __name__ == "__main__":
    main()
