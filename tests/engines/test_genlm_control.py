"""The engine `genlm-control`: what it can run, what it asks of the other Python, and what it makes of the answers.

A stand-in for that Python speaks the same protocol: it answers with the exact posterior of the tiny model, scattered.
The library itself is asked where LMPPL_GENLM_PYTHON names a Python that has it.
"""

import itertools
import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import tiny

from lmppl.compare.comparison import compare
from lmppl.compare.entries import parse_entries
from lmppl.compare.runs import Job
from lmppl.compare.store import opened
from lmppl.compile import compile as compile_program
from lmppl.data.rows import Row
from lmppl.engines.genlm_control import process as genlm_control_process
from lmppl.engines.genlm_control.programs import SHARED, cannot
from lmppl.engines.genlm_control.side import fingerprint
from lmppl.errors import LmpplError
from lmppl.expressions.patterns import read_pattern
from lmppl.lm import load_models
from lmppl.run import Request, run
from lmppl.settings.budget import Budget

TEXT = 'lm LM = "{model}"\nZ ~ LM(" b a b") until "." max 4 tokens\nconstrain matches(Z, /( a| b)* b\\./)\n'
STAND_IN = """#!{python}
import json, math, random, sys
plan = json.load(open({plan!r}))
print(json.dumps({{"versions": {{"genlm-control": plan["version"]}}}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    with open({asked!r}, "a") as file:
        file.write(line)
    print(json.dumps({{"vocabulary": plan["vocabulary"]}}), flush=True)
    for seed in asked["seeds"]:
        count, texts = asked["particles"], plan["texts"]
        places = [i % len(texts) for i in range(count)]
        random.Random(seed).shuffle(places)
        alive = 0 if seed not in plan["dead"] else -math.inf
        weights = [plan["weights"][p] + math.log(len(texts)) + alive for p in places]
        print(json.dumps({{"log_evidence": 0, "texts": [texts[p] for p in places], "log_weights": weights,
            "ess_shares": [0.125], "lineages": [count // 2], "ancestors": count // 2, "tokens": 5 * count,
            "passes": 7, "seconds": 0.5, "cpu": 0.5}}), flush=True)
"""


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch):
    monkeypatch.delenv("LMPPL_GENLM_PYTHON", raising=False)
    yield
    genlm_control_process.end_all()


@pytest.fixture
def program(tiny_folder, tmp_path):
    path = tmp_path / "prog.lm"
    path.write_text(TEXT.format(model=tiny_folder))
    return compile_program(path)


@pytest.fixture
def models(program):
    return load_models(program.program, {}, "cpu", lambda *_: None)


def possible(model):
    """Every text of the program, and its log density, scored by itself."""
    context = model.begin(model.encode(" b a b", markers=True))
    found = {}
    for length in range(4):
        for body in itertools.product((0, 1), repeat=length):
            if body[-1:] == (1,):
                text = (*body, 2)
                found[text] = tiny.reference_log_prob(model, context, text)
    return found


def script(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def stand_in(folder, model, **changes):
    """A Python that answers as the library would: particles go through the posterior's texts in turn."""
    law = possible(model)
    plan = {"version": "0.4.1", "vocabulary": fingerprint(model.token_bytes), "texts": list(law),
            "weights": list(law.values()), "dead": [], **changes}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    text = STAND_IN.format(python=sys.executable, plan=str(folder / "plan.json"), asked=str(folder / "asked.jsonl"))
    return script(folder / "python", text)


def asked(folder):
    return [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()]


def draw(program, models, python, rows=1, seed=3, chains=2, num_samples=70, **options):
    settings = {"chains": chains, "num_samples": num_samples}
    request = Request("genlm-control", settings, {"python": python, **options}, seed)
    return run(program.program, [Row({}, {})] * rows, models, request)


# --- which programs -------------------------------------------------------------------------------


def reason(body):
    return cannot(compile_program(f'lm LM = "tiny"\n{body}\n').program)


UNTIL = 'Z ~ LM("x") until "." max 9 tokens\n'
FREE = 'Z ~ LM("x") max 9 tokens\n'


@pytest.mark.parametrize(
    "body",
    [
        UNTIL + r"constrain matches(Z, /[a-z]+\./)",
        UNTIL + r"constrain matches(Z, / The (cat|dog){1,2} [A-Z0-9_']* sat(?: on)? it\./)",
        UNTIL + r"constrain matches(Z, /(1\/2|\(a\)|b\\c|\[d\]|e\n|[\]a-z]|[+*?])\./)",
        FREE + "constrain matches(Z, /(yes|no|perhaps)/)",
        FREE + "constrain matches(Z, /[0-9]{1,8}/)\nstatistic n = number(Z)",
        'given X\nZ ~ LM("{X}") until "!" max 9 tokens\nconstrain matches(Z, /[a-z]+!/)',
    ],
)
def test_programs_that_mean_the_same_there(body):
    assert reason(body) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (UNTIL, "takes one constraint"),
        ('Z ~ LM("x") in [" a", " b"]', "draws one text"),
        (UNTIL + 'Y ~ LM("{Z}") max 3 tokens\nconstrain matches(Z, /a\\./)', "draws one text"),
        ('Z ~ LM("x")^2 until "." max 9 tokens\nconstrain matches(Z, /a\\./)', "another prior"),
        ('Z ~ LM("x") * LM("y") until "." max 9 tokens\nconstrain matches(Z, /a\\./)', "another prior"),
        (UNTIL + 'constrain matches(Z, /a\\./)\nobserve " b" | Z', "takes one constraint"),
        (UNTIL + "constrain matches(Z, /a\\./)\nconstrain matches(Z, /.\\./)", "takes one constraint"),
        (UNTIL + "constrain not matches(Z, /a\\./)", "takes one constraint"),
        (UNTIL + "constrain matches(lower(Z), /a\\./)", "takes one constraint"),
        (UNTIL + 'constrain contains(Z, "a")', "takes one constraint"),
        (UNTIL + "factor tokens(Z)", "takes one constraint"),
        (UNTIL + r"constrain matches(Z, /.+\./)", "reads other texts"),
        (UNTIL + r"constrain matches(Z, /[^a]+\./)", "reads other texts"),
        (UNTIL + r"constrain matches(Z, /\d\./)", "reads other texts"),
        (UNTIL + r"constrain matches(Z, /\w+\./)", "reads other texts"),
        (UNTIL + r"constrain matches(Z, /é\./)", "reads other texts"),
        (UNTIL + r"constrain matches(Z, /(?i:a)\./)", "reads other texts"),
        (UNTIL + r"constrain matches(Z, /[[:alpha:]]\./)", "reads other texts"),
        (UNTIL + r"constrain matches(Z, /^a\.$/)", "reads other texts"),
        (UNTIL + r"constrain matches(Z, /a\.?/)", "`until` ends before they match"),
        (UNTIL + r"constrain matches(Z, /(a\.)+/)", "`until` ends before they match"),
        (UNTIL + r"constrain matches(Z, /a\.b/)", "`until` ends before they match"),
        (FREE + "constrain matches(Z, /[0-9]{1,9}/)", "cut at `max`"),
        (FREE + "constrain matches(Z, /a*/)", "cut at `max`"),
    ],
)
def test_programs_that_do_not(body, said):
    assert said in (reason(body) or "nothing")


@pytest.mark.parametrize("what", ["revision", "adapter"])
def test_models_that_it_cannot_load(what):
    text = f'lm LM = "a/b" ({what} = "c")\n{UNTIL}constrain matches(Z, /a\\./)\n'
    assert what in (cannot(compile_program(text).program) or "nothing")


# --- the whole path -------------------------------------------------------------------------------


def test_particles_become_draws_that_are_judged_here(program, models, tmp_path):
    model = models["LM"]
    law = possible(model)
    python = stand_in(tmp_path, model)
    found = draw(program, models, python, num_samples=700)
    (row,) = found.rows
    evidence = float(np.logaddexp.reduce(list(law.values())))
    assert row.log_evidence == pytest.approx(evidence, abs=1e-6)  # 700 particles go through 7 texts a hundred times
    for text, mass in row.joint().items():
        tokens = next(z for z in law if model.decode(z) == text[0])
        assert mass == pytest.approx(np.exp(law[tokens] - evidence), abs=0.01)
    assert all(d.log_density == pytest.approx(law[tuple(d.tokens["Z"])], abs=1e-4) for d in row.draws)
    assert row.diagnostics.surviving_ancestors == [350, 350]
    assert row.diagnostics.min_ess_fraction == 0.125
    assert row.diagnostics.lineages == [[700, 350]] * 2
    assert row.diagnostics.ess > 100
    assert found.cost["tokens_decoded"] == 2 * 5 * 700
    prompt = len(model.begin(model.encode(" b a b", markers=True)))
    assert found.cost["tokens_scored"] <= prompt + sum(map(len, law))  # of all densities, the mismatch's alone
    assert {check.name for check in row.checks} >= {"evidence_spread", "surviving_ancestors", "min_ess_fraction"}
    assert found.verdict == "pass"


def test_what_is_asked(program, models, tmp_path):
    python = stand_in(tmp_path, models["LM"])
    draw(program, models, python, rows=2, chains=3, sampler="awrs", resampling="systematic", ess=0.7)
    draw(program, models, python, particles=9)
    draw(program, models, python, seed=4)
    first, second, again, other = asked(tmp_path)
    assert first["model"] == models["LM"].model.name_or_path
    assert first["regex"] == "( a| b)* b\\."
    assert (first["until"], first["tokens"], first["particles"]) == (".", 4, 70)
    assert (first["sampler"], first["resampling"], first["ess"]) == ("awrs", "systematic", 0.7)
    assert (first["dtype"], first["device"], first["ends"]) == ("float32", "cpu", [3])
    assert again["particles"] == 9
    assert again["seeds"] == first["seeds"][:2]  # one more chain leaves the others as they were
    every = [*first["seeds"], *second["seeds"], *other["seeds"]]
    assert len(set(every)) == len(every) == 8


def test_the_same_seed_gives_the_same_draws_and_one_process_answers(program, models, tmp_path):
    python = stand_in(tmp_path, models["LM"])
    once, again = (draw(program, models, python).rows[0] for _ in range(2))
    assert [d.values for d in once.draws] == [d.values for d in again.draws]
    assert once.log_evidence == again.log_evidence
    assert list(genlm_control_process._KEPT) == [python]


def test_a_dead_replicate_fails_the_verdict_and_nothing_alive_is_an_error(program, models, tmp_path):
    python = stand_in(tmp_path, models["LM"])
    plan = json.loads((tmp_path / "plan.json").read_text())
    draw(program, models, python)
    seeds = asked(tmp_path)[0]["seeds"]
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "dead": seeds[:1]}))
    genlm_control_process.end_all()
    found = draw(program, models, python)
    assert found.verdict == "fail"
    assert {d.chain for d in found.rows[0].draws} == {1}
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "dead": seeds}))
    genlm_control_process.end_all()
    with pytest.raises(LmpplError, match="all 140 draws have probability 0"):
        draw(program, models, python)


@pytest.mark.slow
def test_it_can_be_compared(program, models, tmp_path):
    python = stand_in(tmp_path, models["LM"])
    rows = [Row({}, {})]
    entries = parse_entries("importance,rival=genlm-control", [f"rival.python={python}"])
    plan = Job(program.program, rows, rows, rows, [{}], models, entries, Budget(1500), seeds=2)
    with opened(tmp_path / "cmp") as store:
        document = compare(plan, store)
    importance, rival = document["entries"]
    assert rival["reason"] is None
    assert rival["measures"]["satisfied"]["mean"] == pytest.approx(1)
    assert rival["measures"]["total_variation"]["mean"] < 0.1
    assert importance["reason"] is None
    entries = parse_entries("importance,genlm-control", [])
    with opened(tmp_path / "cmp") as store:
        document = compare(Job(**{**vars(plan), "entries": entries}), store)
    assert "LMPPL_GENLM_PYTHON" in document["entries"][1]["reason"]


# --- what can be wrong ----------------------------------------------------------------------------


def failure(program, models, python, **options):
    with pytest.raises(LmpplError) as caught:
        draw(program, models, python, **options)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.help or diagnostic.code == "bad-option"
    assert "\n" not in diagnostic.message
    assert not genlm_control_process._KEPT
    return f"{diagnostic.message}. {diagnostic.help}"


def test_no_python_and_bad_ones(program, models, tmp_path):
    said = failure(program, models, "")
    assert "pip install genlm-control==0.4.1" in said
    assert "LMPPL_GENLM_PYTHON" in said
    assert "No such file" in failure(program, models, str(tmp_path / "nowhere"))
    assert "ermission" in failure(program, models, str(tmp_path))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("exit 0", "ended without an answer"),
        ("echo oh >&2; echo 'no luck' >&2; exit 3", "exit code 3: no luck"),
        ("kill -9 $$", "exit code -9"),
        ("echo hello", "does not answer as it should, but `hello`"),
        ("echo '[1]'", "does not answer as it should"),
        ("echo '{}'", "does not answer as it should"),
        ("printf '\\377\\n'", "does not answer as it should"),
        ('echo \'{"versions": {"genlm-control": null}}\'', "has no genlm-control"),
        ('echo \'{"versions": {"genlm-control": "0.3.0"}}\'', "0.3.0, not 0.4.1"),
    ],
)
def test_pythons_that_do_not_answer(body, said, program, models, tmp_path):
    assert said in failure(program, models, script(tmp_path / "python", f"#!/bin/sh\n{body}\n"))


GREETING = 'echo \'{"versions": {"genlm-control": "0.4.1"}}\'\nread line\n'
POPULATION = {"texts": [[2]], "log_weights": [0.0], "ess_shares": [], "lineages": [], "ancestors": 1,
              "tokens": 1, "passes": 1, "seconds": 0.1}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "ended without an answer"),  # after the first of two
        ({"texts": [[2], [2]]}, "does not answer as it should: particles"),
        ({"texts": [["a"]]}, "does not answer as it should"),
        ({"texts": 3}, "does not answer as it should"),
        ({"log_weights": [[0]]}, "does not answer as it should: particles"),
        ({"log_weights": [float("nan")]}, "does not answer as it should: particles"),
    ],
)
def test_answers_that_are_none(change, said, program, models, tmp_path):
    vocabulary = json.dumps({"vocabulary": fingerprint(models["LM"].token_bytes)})
    answer = json.dumps({**POPULATION, **change})
    body = f"#!/bin/sh\n{GREETING}echo '{vocabulary}'\necho '{answer}'\n"
    assert said in failure(program, models, script(tmp_path / "python", body), num_samples=1)


def test_other_tokens_there(program, models, tmp_path):
    assert "do not stand for the same bytes" in failure(
        program, models, stand_in(tmp_path, models["LM"], vocabulary="x")
    )


def test_a_model_that_is_nowhere(program, tmp_path):
    assert "no folder" in failure(program, {"LM": tiny.model()}, stand_in(tmp_path, tiny.model()))


@pytest.mark.parametrize("options", [{"sampler": "best"}, {"resampling": "none"}, {"ess": 1.5}])
def test_bad_options(options, program, models, tmp_path):
    (name,) = options
    assert f"the option `{name}`" in failure(program, models, stand_in(tmp_path, models["LM"]), **options)


def test_an_interrupt_ends_the_process(program, models, tmp_path):
    python = stand_in(tmp_path, models["LM"])
    processes = []

    def interrupt(what, done, total):
        if done:
            processes.append(genlm_control_process._KEPT[python].process)
            raise KeyboardInterrupt

    request = Request("genlm-control", {"chains": 3, "num_samples": 5}, {"python": python})
    with pytest.raises(KeyboardInterrupt):
        run(program.program, [Row({}, {})], models, request, interrupt)
    assert processes[0].returncode is not None
    assert not genlm_control_process._KEPT


# --- the library ----------------------------------------------------------------------------------

LIBRARY = os.environ.get("LMPPL_GENLM_PYTHON")
needs_library = pytest.mark.skipif(not LIBRARY, reason="LMPPL_GENLM_PYTHON names no Python that has genlm-control")


PATTERNS = [
    "(a|)b", "a{2}", "a{2,}b", "a{1,3}b", r"[a\-z]", r"\/", "(?:ab)+", r"\.", r"[.]", "[+*?]", "[ -,]", r"\[\]", "a b",
    r"\{\}", "\"'", "#a", "(a)(b)", r"[\]]", r"[\^a]", r"a\nb", "(a|b)?c*", r"\\", "(a*)*b", "[A-Za-z0-9_]", "@%_`;:<>",
]  # fmt: skip
STRINGS = [
    "", *map(chr, range(1, 128)), "ab", "aab", "aaab", "abab", "a b", "#a", "a\nb", "[]", "{}", "\"'", "ac", "bcc",
    "aa", "aaa", "@%_`;:<>", "é",
]  # fmt: skip
ASK_AUTOMATA = """
import asyncio, json, sys
from genlm.control import BoolFSA
patterns, strings = json.load(sys.stdin)
async def accepted(pattern):
    automaton = BoolFSA.from_regex(pattern)
    return [string for string in strings if await automaton.complete(list(string.encode())) == 0]
print(json.dumps([asyncio.run(accepted(pattern)) for pattern in patterns]))
"""


@needs_library
def test_both_sides_read_patterns_alike():
    asked = json.dumps([PATTERNS, STRINGS])
    done = subprocess.run([str(LIBRARY), "-I", "-c", ASK_AUTOMATA], input=asked, capture_output=True, text=True)
    for pattern, theirs in zip(PATTERNS, json.loads(done.stdout), strict=True):
        assert SHARED.fullmatch(pattern), pattern
        assert theirs == [string for string in STRINGS if read_pattern(pattern).matches(string)], pattern


@needs_library
@pytest.mark.model
@pytest.mark.parametrize(
    ("rest", "options"),
    [
        ('until "." max 9 tokens\nconstrain matches(Z, / The (cat|dog) (sat|ran) on the (house|tree)\\./)', {}),
        ("max 12 tokens\nconstrain matches(Z, / (The|A) cat/)", {"ess": 0}),  # its resampling loses texts that end
    ],
    ids=["until", "end"],
)
def test_the_library_agrees_on_the_evidence(rest, options, smollm2):
    text = f'lm LM = "smollm2-135m"\nZ ~ LM("Once upon a time there was a house.") {rest}\n'
    program = compile_program(text).program

    def result(name, chains, num_samples, **own):
        request = Request(name, {"chains": chains, "num_samples": num_samples}, own, 1)
        return run(program, [Row({}, {})], {"LM": smollm2}, request).rows[0]

    known = result("smc", 4, 64, spread=True)
    found = result("genlm-control", 6, 16, python=LIBRARY, **options)
    fewer = result("genlm-control", 1, 16, python=LIBRARY, **options)
    error = np.hypot(found.log_evidence_se, known.log_evidence_se)
    assert abs(found.log_evidence - known.log_evidence) < 4 * error + 1e-3
    assert found.diagnostics.log_evidence_by_replicate[:1] == fewer.diagnostics.log_evidence_by_replicate
    assert all(np.isfinite(draw.log_density) for draw in found.draws)
