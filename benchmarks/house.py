"""How easy the code is to move into: rooms, arrows, kinds, words, measured.

    $ python benchmarks/house.py [--out benchmarks/results/house.md]

Reads the package's files as text. A room is a file; an arrow, a pair of wings of which one imports the other.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from test_structure import FILES, MODULES, PACKAGE, imported, tokens, tree, wing  # noqa: E402  (what the tests hold)

KINDS = ("TextLatent", "ChoiceLatent", "Observation", "Score", "Constraint", "BoundText", "BoundChoice",
         "BoundObservation")  # fmt: skip
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.With, ast.Assert, ast.comprehension)


def arrows() -> set[tuple[str, str]]:
    """Pairs of wings of which the first imports the second, wherever in a file."""
    found = {(wing(name), wing(other)) for name, path in MODULES.items() for other in imported(path)}
    return {(own, other) for own, other in found if own != other}


def functions(module: ast.Module) -> Iterator[ast.FunctionDef]:
    """All functions and methods of a file."""
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef))


def complexity(function: ast.FunctionDef) -> int:
    """Cyclomatic complexity: one, and one for every branch and every `and` or `or`."""
    nodes = [*ast.walk(function)]
    joined = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return 1 + joined + sum(isinstance(node, BRANCHES) for node in nodes)


def isinstance_on_kinds(module: ast.Module) -> int:
    """Calls of isinstance that ask for a kind of latent or factor."""
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call) and len(node.args) == 2]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "isinstance"]
    return sum(any(kind in ast.unparse(call.args[1]) for kind in KINDS) for call in named)


def faces() -> set[str]:
    """Names that wings let others use."""
    stubs = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("__init__.pyi")]
    return {alias.name for stub in stubs for node in stub.body for alias in getattr(node, "names", ())}


def with_any(module: ast.Module, public: set[str]) -> int:
    """Functions that other wings may use and whose signature says Any."""
    mine = [function for function in functions(module) if function.name in public]
    return sum(
        "Any" in ast.unparse(function.args) + ast.unparse(function.returns or ast.Constant("")) for function in mine
    )


def documented(module: ast.Module) -> tuple[int, int]:
    """Public classes and functions at the top level with a docstring, and all of them."""
    public = [
        node for node in module.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]  # fmt: skip
    return sum(ast.get_docstring(node) is not None for node in public), len(public)


def docstring_lines(module: ast.Module) -> int:
    """Lines of all docstrings of a file."""
    holders = [node for node in ast.walk(module) if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)]
    return sum(len(text.splitlines()) for node in holders if (text := ast.get_docstring(node)))


def quantile(values: list[int], share: float) -> int:
    """The value below which this share of them lies."""
    return sorted(values)[int(share * (len(values) - 1))]


def measures() -> list[tuple[str, str, str]]:
    """Name, aim and value of every measure."""
    trees, public = {path: tree(path) for path in FILES}, faces()
    lines = sum(len([line for line in path.read_text("utf-8").splitlines() if line.strip()]) for path in trees)
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    told = [documented(tree) for tree in trees.values()]
    complexities = [complexity(function) for tree in trees.values() for function in functions(tree)]
    comprehensions = sum(isinstance(node, COMPREHENSIONS) for node in nodes)
    kinds = {path: isinstance_on_kinds(tree) for path, tree in trees.items()}
    return [
        ("rooms (files)", "", f"{len(trees)}"),
        ("wings and ground", "", f"{len({*map(wing, MODULES)})}"),
        ("lines that are not empty", "", f"{lines:,}"),
        ("arrows between wings", "", f"{len(arrows())}"),
        ("`isinstance` on kinds", "< 15", f"{sum(kinds.values())} in {sum(map(bool, kinds.values()))} files"),
        ("faces' functions with `Any` in the signature", "< 40", f"{sum(with_any(t, public) for t in trees.values())}"),
        ("tokens a line", "≤ 9", f"{sum(map(tokens, trees)) / lines:.1f}"),
        ("comprehensions per 100 lines", "≤ 4", f"{100 * comprehensions / lines:.1f}"),
        ("public names documented", "> 95 %", f"{100 * sum(t for t, _ in told) / sum(n for _, n in told):.0f} %"),
        ("docstring lines per 100", "≥ 12", f"{100 * sum(map(docstring_lines, trees.values())) / lines:.1f}"),
        ("cyclomatic complexity, 95 % below", "≤ 8", f"{quantile(complexities, 0.95)}"),
        ("largest file, tokens", "≤ 4,000", f"{max(map(tokens, trees)):,}"),
    ]


def main() -> None:
    """Print the table, and write it where asked."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=Path)
    asked = flags.parse_args()
    rows = [f"| {name} | {aim} | {value} |" for name, aim, value in measures()]
    head = [
        "# The house, measured",
        "",
        "`python benchmarks/house.py`. Circles: none, by `tests/test_structure.py`.",
        "",
    ]
    table = "\n".join([*head, "| measure | aim | value |", "|---|---|--:|", *rows, ""])
    print(table)
    if asked.out:
        asked.out.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
