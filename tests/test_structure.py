"""How the house is laid out: arrows go one way, through faces; files stay small; nothing is unpickled or evaluated."""

import ast
import re
import tokenize
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from lmppl.engines import ENGINE_NAMES

PACKAGE = Path(__file__).parent.parent / "lmppl"
FILES = sorted(PACKAGE.rglob("*.py"))
ORDER = [  # wings and ground, from what everyone may name to what names everyone; a line is a floor
    ["interrupts", "threads", "version", "shapes", "source", "screen", "settings"],
    ["errors", "ir"],
    ["storage", "expressions"],
    ["findings"],
    ["data", "lm"],
    ["language", "decoding"],
    ["density"],
    ["diagnosis"],
    ["engines"],
    ["posterior", "pyro"],
    ["run"],
    ["em", "validation"],
    ["compile"],
    ["compare", "testing"],
    ["doctor"],
    ["report", "export", "serve"],
    ["cli"],
    [""],  # `import lmppl` and the command
]
FLOOR = {wing: floor for floor, wings in enumerate(ORDER) for wing in wings}
MOST_TOKENS = 4000  # a file: what no width of lines can hide
SPEAKING = ("cli/say.py", "__main__.py", "screen/progress.py", "genlm_control/side.py")  # what prints, and no other


def module(path):
    """The dotted name of a file within the package; the package itself is ""."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path):
    """All that a file's tree is made of: every rule goes over it."""
    return [*ast.walk(tree(path))]


@cache
def stated(path):
    """(module, name) of everything of the package that a file imports, wherever in the file it does."""
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("lmppl.") for alias in node.names), "import names from a face"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lmppl":
            inner = node.module.removeprefix("lmppl").removeprefix(".")
            found += [(inner, alias.name) for alias in node.names]
    return found


@cache
def face(package):
    """What a face lists: names, and the modules that they come from."""
    path = MODULES[package].with_suffix(".pyi")
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []:
        for alias in node.names:
            found[alias.name] = f"{package}.{node.module or alias.name}"
    return found


def imported(path):
    """The modules that a file imports from, behind the faces that it names."""
    for inner, name in stated(path):
        full = f"{inner}.{name}".removeprefix(".")
        yield full if full in MODULES else face(inner).get(name, inner) if inner in PACKAGES else inner


def wing(name):
    return name.split(".")[0] if name != "__main__" else ""


def test_imports_go_one_way():
    arrows = [(name, other) for name, path in MODULES.items() for other in imported(path)]
    between = [(name, other) for name, other in arrows if wing(other) != wing(name)]
    assert between
    wrong = [(name, other) for name, other in between if FLOOR[wing(other)] >= FLOOR[wing(name)]]
    assert not wrong, "each imports what stands above it"


def test_other_wings_are_named_by_their_faces():
    past = []
    for name, path in MODULES.items():
        for inner, imported_name in stated(path):
            home = inner.rpartition(".")[0]
            inside = name == home or name.startswith(f"{home}.")
            if not (inside or inner in PACKAGES or "." not in inner):
                past.append(f"{name} imports {imported_name} past a face, from {inner}")
    assert past == []


def test_nothing_imports_itself_in_a_circle():
    graph = {name: {*imported(path)} - {name} for name, path in MODULES.items()}
    below = {name: reached(graph, name) for name in graph}
    assert not [name for name in graph if name in below[name]]


def reached(graph, name):
    found, left = set(), [*graph[name]]
    while left:
        if (other := left.pop()) not in found:
            found.add(other)
            left += graph[other]
    return found


@pytest.mark.parametrize("package", sorted(PACKAGES - {""}))
def test_faces_say_what_they_are_for_and_name_what_is_there(package):
    assert ast.get_docstring(tree(MODULES[package]))
    for name, home in face(package).items():
        assert home in MODULES
        assert home == f"{package}.{name}" or name in names_of(home), f"{home} has no {name}"


def names_of(name):
    """Names that a module defines at its top level."""
    found = set()
    for node in nodes(MODULES[name]):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_nothing_is_evaluated_or_unpickled():
    wrong = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        bare, _ = called(path)
        wrong += [(path, name) for name in {"eval", "exec", "__import__"} & bare]
        wrong += [(path, name) for name in ("pickle", "torch.load") if name in text]
    assert wrong == []


def test_files_are_small():
    large = [path for path in FILES if most_tokens(path) > MOST_TOKENS]
    assert large  # else nothing is counted
    sizes = {str(path.relative_to(PACKAGE)): tokens(path) for path in large}
    assert not {name: size for name, size in sizes.items() if size > MOST_TOKENS}


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
MOST_COMPREHENSIONS = 2  # of a statement, side by side; the inner one of two has a name, or is a loop
DENSE = {"engines": 20}  # folders that are to be mended, and may not get worse


def own_nodes(statement):
    """What a statement is made of, without the statements in it."""
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from ast.walk(child)


def is_dense(statement):
    """Whether a statement has a comprehension in another one, or too many side by side."""
    found = [node for node in own_nodes(statement) if isinstance(node, COMPREHENSIONS)]
    inner = [node for one in found for node in ast.walk(one) if isinstance(node, COMPREHENSIONS)]
    return len(inner) > len(found) or len(found) > MOST_COMPREHENSIONS


def dense_statements():
    """Places of dense statements, by wing."""
    places = {}
    for name, path in MODULES.items():
        dense = [node for node in nodes(path) if isinstance(node, ast.stmt) and is_dense(node)]
        lines = [f"{name}:{node.lineno}" for node in dense]
        places.setdefault(wing(name), []).extend(lines)
    return places


@pytest.mark.parametrize(
    ("text", "dense"),
    [
        ("x = [[b for b in a] for a in c]", True),
        ("x = [a for a in c if any(b for b in a)]", True),
        ("x = [a for a in {b for b in c}]", True),
        ("f([a for a in c], [b for b in c], [d for d in c])", True),
        ("x = [a for a in c], [b for b in c]", False),
        ("for a in [b for b in c]:\n  x = [d for d in a], [e for e in a]", False),
    ],
)
def test_what_is_dense(text, dense):
    assert any(is_dense(node) for node in ast.parse(text).body) == dense


def test_one_comprehension_an_expression():
    crowded = {name: found for name, found in dense_statements().items() if len(found) > DENSE.get(name, 0)}
    assert crowded == {}


JUDGES = ("diagnosis", "report")  # they go by what an engine says of itself, not by its name
WORDS = {"exact", "importance"}  # engines whose names are words of the field as well


@pytest.mark.parametrize("path", [path for path in FILES if wing(module(path)) in JUDGES], ids=lambda path: path.stem)
def test_judges_name_no_engine(path):
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.findall(r"[\w-]+", node.value)
            assert not set(named) & (set(ENGINE_NAMES) - WORDS), f"names an engine: {node.value}"


TESTS = Path(__file__).parent
ASIDE = {"faults", "laws"}  # folders of tests that go across wings


def test_tests_lie_by_wing_under_names_of_their_own():
    files = [path for path in TESTS.rglob("*.py") if path.name != "__init__.py" and "golden" not in path.parts]
    assert {path.parent.name for path in files if path.parent != TESTS} <= {wing(name) for name in PACKAGES} | ASIDE
    names = Counter(path.name for path in files)
    assert [name for name, count in names.items() if count > 1] == []


def most_tokens(path):
    """No file has more tokens than words and signs, and these are counted in no time."""
    return len(re.findall(r"\w+|[^\w\s]", path.read_text(encoding="utf-8")))


def tokens(path):
    """Tokens of a file's code: no comments, and no commas that stand only where lines are broken."""
    left_out = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
    }  # fmt: skip
    with path.open(encoding="utf-8") as file:
        kept = [token for token in tokenize.generate_tokens(file.readline) if token.type not in left_out]
    return len(kept) - sum(a.string == "," and b.string in tuple(")]}") for a, b in pairwise(kept))


@cache
def called(path):
    """Names that a file calls as they are, and those that it calls of something."""
    calls = [node.func for node in nodes(path) if isinstance(node, ast.Call)]
    bare = {call.id for call in calls if isinstance(call, ast.Name)}
    return bare, {call.attr for call in calls if isinstance(call, ast.Attribute)}


def test_all_that_is_printed_goes_through_one_gate():
    wrong = []
    for path in FILES:
        bare, of_something = called(path)
        speaks = (bare | of_something) & {"echo", "Console"} | bare & {"print"}
        wrong += [(path, name) for name in speaks if not str(path).endswith(SPEAKING)]
    assert wrong == []
