"""How the code is laid out: imports go one way, nothing is unpickled or evaluated, files stay small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lmppl"
FILES = sorted(PACKAGE.rglob("*.py"))
ORDER = [
    "interrupts", "threads", "ranges", "visible", "repeated", "progress", "source", "wording", "errors",
    "fingerprints", "whole", "shapes", "locked", "folders", "budget", "ir", "calculator", "automata", "regular",
    "token_tables", "patterns", "values", "functions", "necessary", "comparisons", "findings", "syntax", "engines",
    "run_findings", "learning_findings", "records", "tables", "check_files", "check_patterns", "check_tools", "check",
    "lower", "data", "lm", "tools", "stopping", "context", "masks", "laws", "beginnings", "rollout", "tracing",
    "scoring", "diagnose", "draws", "statistics", "density", "bound", "views", "randomness", "sampler", "target",
    "bind", "prefix_rewards", "imports", "origin", "engines.*", "simulate", "ranks", "verdict",
    "undefined_statistics", "posterior", "bound_rows", "course", "sizing", "memory", "automatic", "planning",
    "driver", "calibrate", "certificates", "run_shape", "results", "em", "compile", "explain", "graph", "pyro_bridge",
    "measures", "compare", "export", "report", "cli",
]  # fmt: skip


def layer(module):
    parts = module.split(".")
    if parts[0] == "engines" and len(parts) > 1:
        return ORDER.index("engines.*")
    return ORDER.index(parts[0])


def imports(path):
    """Modules of lmppl that a file imports at its top level; imports within functions are there for speed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lmppl"):
            inner = node.module.removeprefix("lmppl").removeprefix(".")
            for alias in node.names:
                joined = f"{inner}.{alias.name}" if inner else alias.name
                yield joined if (PACKAGE / (joined.replace(".", "/") + ".py")).exists() else inner


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.name not in ("__init__.py", "__main__.py")], ids=lambda p: p.stem
)
def test_imports_go_one_way(path):
    own = str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".")
    for other in imports(path):
        if other:
            assert layer(other) <= layer(own), f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_eval_no_pickle_and_small(path):
    text = path.read_text(encoding="utf-8")
    calls = [
        node.func.id
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert not {"eval", "exec", "__import__"} & set(calls)
    assert "pickle" not in text
    assert "torch.load" not in text
    assert len(text.splitlines()) < 500


SPEAKING = (
    "cli/say.py",
    "__main__.py",
    "progress.py",
    "genlm_control_side.py",
)  # where all that is printed goes through


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_all_that_is_printed_goes_through_one_gate(path):
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    names = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}
    bare = {call.id for call in calls if isinstance(call, ast.Name)}
    if not str(path).endswith(SPEAKING):
        assert not (names & {"echo", "Console"} | bare & {"print"})
