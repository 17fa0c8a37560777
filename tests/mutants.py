"""Mutated programs through every stage that runs no model: whatever the text, findings come back, and no exception.

python tests/mutants.py --count 100000 --seed 0
"""

import argparse
import json
import random
import re
import sys
import time
import traceback
from pathlib import Path

from lmppl.compile import analyse
from lmppl.data.records import read_text
from lmppl.errors import LmpplError
from lmppl.errors.rendering import render_concise, render_full, to_document
from lmppl.language.formatting import format_program
from lmppl.language.graph import graph_mermaid, graph_text
from lmppl.report.explain import explain_ir, explain_tree
from lmppl.source import Source

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "programs").glob("*.lm"))
SEEDS = [*SHIPPED, *sorted((Path(__file__).parent / "golden" / "check").glob("*.lm"))]
TOKEN = re.compile(r'\s+|"""|"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|[^\W\d]\w*|\d+(?:\.\d*)?|.', re.DOTALL)
ODD = [  # what nobody writes, or everybody once
    "9" * 400, "1e3086", "1e-400", "-1", "0", ".5", "nan", "inf", '"\\ud800"', '"\\u0000"', '""', '"{Z}"', '"{"', "{}",
    '"' + "a" * 300 + '"', '"../.."', '"/dev/null"', '"."', "/(/", r"/\b/", "/a{,3}/", "/[[:alpha:]&&b]/",
    r"/(a)\1{99999}/", "(", ")", "[", "]", "((((((((", "not not not", "- - - -", "2^2^2^2^9", "^", "*", "|", "~",
    "=", "==", "&&", "||", "'a'", "#", "\x00", "\u2028", "\ufeff", "é", "😀", "\t", "\r\n", "\n", " until ", " max ",
    " in ", " with ", " seed ", "lm", "given", "param", "use", "examples", "observe", "constrain", "factor",
    "statistic", "guide", "predict", "infer", "learn", "matches", "in_grammar", "is_json", "number", "Z", "LM",
    "text", "from", '"""', '"""\n  a\n  {X}"""',
]  # fmt: skip


def mutant(rng: random.Random) -> tuple[Path, bytes]:
    """A program with a few mutations, and the folder that its files lie in."""
    path = rng.choice(SHIPPED if rng.random() < 0.5 else SEEDS)
    raw = path.read_bytes()
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        raw = rng.choice((_bytes, _bytes, _tokens, _tokens, _tokens, _lines))(raw, rng)
    return path.parent, raw


def _bytes(raw: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(raw) + 1)
    until = place + rng.choice((0, 1, 1, 2, 20))
    new = bytes(rng.choice((rng.randrange(256), rng.randrange(32, 127))) for _ in range(rng.choice((0, 1, 1, 3))))
    return raw[:place] + new + raw[until:]


def _tokens(raw: bytes, rng: random.Random) -> bytes:
    tokens = TOKEN.findall(raw.decode("utf-8", "replace"))
    if not tokens:
        return raw
    place, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    kind = rng.randrange(5)
    if kind == 0:
        del tokens[place]
    elif kind == 1:
        tokens[place], tokens[other] = tokens[other], tokens[place]
    elif kind == 2:
        tokens.insert(place, tokens[other])
    elif kind == 3:
        tokens[place] = rng.choice(ODD)
    else:
        theirs = TOKEN.findall(rng.choice(SEEDS).read_text(encoding="utf-8"))
        tokens[place] = rng.choice(theirs or [""])
    return "".join(tokens).encode("utf-8", "replace")


def _lines(raw: bytes, rng: random.Random) -> bytes:
    lines = raw.splitlines(keepends=True) or [b""]
    place = rng.randrange(len(lines))
    lines[place] = rng.choice((b"", lines[place] * 2, rng.choice(lines), rng.choice(SEEDS).read_bytes()))
    return b"".join(lines)


def stages(folder: Path, raw: bytes, scratch: Path) -> str:
    """Runs a mutant through every stage, and says how far it came: unreadable, findings or clean."""
    try:
        source = Source("mutant.lm", raw.decode("utf-8"))
    except UnicodeDecodeError:
        scratch.write_bytes(raw)
        try:
            read_text(scratch, "program")
        except LmpplError:
            return "unreadable"
        raise AssertionError("bytes that are no UTF-8 were read") from None
    analysis = analyse(source, folder)
    for finding in analysis.findings:
        assert finding.span is not None, finding
        shown = render_full(finding) + render_concise(finding)
        assert all(c.isprintable() or c == "\n" for c in shown), shown
        json.dumps(to_document(finding), allow_nan=False)
    written, problems = format_program(source)
    if not problems:
        again, more = format_program(Source("mutant.lm", written))
        assert (again, more) == (written, ()), "formatting twice is not formatting once"
    explain_tree(analysis.tree)
    if analysis.program is None:
        return "findings"
    for show in (explain_ir, graph_text, graph_mermaid):
        show(analysis.program)
    return "clean"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("build/mutants"), help="folder of those that break something")
    asked = parser.parse_args()
    asked.keep.mkdir(parents=True, exist_ok=True)
    seen: dict[str, int] = {}
    slowest, started = 0.0, time.monotonic()
    for number in range(asked.count):
        if number and number % 10_000 == 0:
            print(f"{number} done: {seen}", flush=True)
        folder, raw = mutant(random.Random(f"{asked.seed} {number}"))
        before = time.process_time()
        try:
            kind = stages(folder, raw, asked.keep / "scratch.lm")
        except Exception as reason:
            kind = f"broken: {type(reason).__name__}"
            (asked.keep / f"{asked.seed}-{number}.lm").write_bytes(raw)
            print(f"{number} in {folder.name}: {reason!r:.300}", file=sys.stderr)
            traceback.print_exc(limit=-2)
        slowest = max(slowest, time.process_time() - before)
        seen[kind] = seen.get(kind, 0) + 1
    for kind, times in sorted(seen.items()):
        print(f"{kind:<12} {times}")
    print(f"slowest      {slowest:.2f} s of processor time; all of them {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
