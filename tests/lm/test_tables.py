"""Tables of conditional probabilities as language models, and what is said of files that are none."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import lmppl
from lmppl.cli import app
from lmppl.engines import ENGINE_NAMES, engine, needs
from lmppl.errors import LmpplError
from lmppl.lm import BaseScorer, TableModel, capabilities_of
from lmppl.lm.capabilities import Capability
from lmppl.run import require_capabilities

WEATHER = {
    "vocabulary": [" sun", " rain", " dry", "Today:"],
    "laws": {
        "": {" sun": 0.5, " rain": 0.25, "<end>": 0.25},
        "rain": {" rain": 0.5, "<end>": 0.5},
        " rain rain": {"<end>": 1},
    },
}
PROGRAM = 'lm LM = "table:weather.json"\nZ ~ LM("Today:") max 3\nobserve " rain" ~ LM("Today:{Z}")\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "weather.json").write_text(json.dumps(WEATHER), encoding="utf-8")
    (tmp_path / "p.lm").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_longest_ending_that_has_a_law_holds():
    model = TableModel(WEATHER)
    today, rain, end = model.encode("Today:", markers=True), model.encode(" rain", markers=False), (model.end,)
    (alone, once, twice) = model.score(today, [(*rain * n, *end) for n in range(3)], [0, 0, 0])
    np.testing.assert_allclose(np.exp(alone), [0.25])
    np.testing.assert_allclose(np.exp(once), [0.25, 0.5])
    np.testing.assert_allclose(np.exp(twice), [0.25, 0.5, 1.0])
    assert model.cost.forward_passes == 1


def test_the_name_of_the_end_is_the_end_in_programs_only():
    model = TableModel({**WEATHER, "vocabulary": [*WEATHER["vocabulary"], "<", "end", ">"]})
    assert model.encode("<end>", markers=True) == (model.end,)
    assert model.pieces(model.encode("<end>", markers=False)) == ["<", "end", ">"]


def test_a_program_on_a_table_is_what_one_works_out_by_hand(folder):
    row = lmppl.compile(folder / "p.lm").infer("exact").rows[0]
    observed = {"": 0.25, " sun": 0.25, " rain": 0.5, " rain rain": 0.0}
    joint = {"": 0.25 * 0.25, " sun": 0.125 * 0.25, " rain": 0.125 * 0.5}  # p(Z), then p(" rain" | Z)
    longer = {"".join(words): p for words, p in texts() if len(words) > 1}
    joint |= {text: p * observed[text[-len(" rain rain") :] if "rain rain" in text[-10:] else
              " rain" if text.endswith(" rain") else " sun"] for text, p in longer.items()}  # fmt: skip
    assert row.log_evidence == pytest.approx(np.log(sum(joint.values())))
    found = {text: p for (text,), p in ((tuple(s.values.values()), s.probability) for s in row.support)}
    assert found == pytest.approx({t: p / sum(joint.values()) for t, p in joint.items() if p}, abs=1e-9)


def texts(words=()):
    """(words, probability) of all that can be drawn within three tokens."""
    text = "".join(words)
    key = next(k for k in (" rain rain", "rain", "") if text.endswith(k))
    law = WEATHER["laws"][key]
    if len(words) == 3:
        yield words, 1.0
        return
    if "<end>" in law:
        yield words, law["<end>"]
    for word, p in law.items():
        if word != "<end>":
            yield from ((more, p * q) for more, q in texts((*words, word)))


def test_two_tables_are_the_same_by_content(folder):
    moved = {"laws": dict(reversed(WEATHER["laws"].items())), "vocabulary": WEATHER["vocabulary"]}
    other = {**WEATHER, "laws": {**WEATHER["laws"], "": {"<end>": 1}}}
    assert TableModel(WEATHER).fingerprint == TableModel(moved).fingerprint != TableModel(other).fingerprint
    document = lmppl.compile(folder / "p.lm").infer("exact", num_samples=1).models
    assert document["LM"]["table"] == TableModel(WEATHER).fingerprint["table"]


BROKEN = {
    "no JSON": ("{", "Expecting property name"),
    "no object": ([], "no JSON object"),
    "an unknown key": ({**WEATHER, "lows": 1}, "'lows' is unknown"),
    "no vocabulary": ({"laws": WEATHER["laws"]}, '"vocabulary" is no list'),
    "a piece twice": ({**WEATHER, "vocabulary": [" a", " a"]}, "' a' is there twice"),
    "the end as a piece": ({**WEATHER, "vocabulary": ["<end>"]}, "'<end>' is there twice"),
    "no default": ({**WEATHER, "laws": {" sun": {"<end>": 1}}}, 'there is no law ""'),
    "a sum": ({**WEATHER, "laws": {"": {" sun": 0.5}}}, "the law '' adds up to 0.5"),
    "below 0": ({**WEATHER, "laws": {"": {" sun": -1, " rain": 2}}}, "has -1 for ' sun'"),
    "no number": ({**WEATHER, "laws": {"": {" sun": True}}}, "has no number for ' sun'"),
    "no piece": ({**WEATHER, "laws": {"": {" fog": 1}}}, "has ' fog', which is not in the vocabulary"),
    "no ending": ({**WEATHER, "laws": {**WEATHER["laws"], "ain sun!": {"<end>": 1}}}, "ends with 'ain sun!'"),
    "a key twice": ('{"laws": 1, "laws": 2}', "'laws' is there twice"),
    "NaN": ('{"vocabulary": [], "laws": {"": {"<end>": NaN}}}', "NaN is no probability"),
    "half a character": ({**WEATHER, "vocabulary": ["\ud800"]}, '"vocabulary" is no list'),
    "depth": ("[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_check_says_what_is_wrong_with_a_file(folder, name):
    content, said = BROKEN[name]
    (folder / "weather.json").write_text(content if isinstance(content, str) else json.dumps(content))
    findings = checked(folder)
    assert any(finding.code == "bad-table" and said in finding.found for finding in findings), findings
    assert all(finding.source is not None for finding in findings)


def checked(folder):
    with pytest.raises(LmpplError) as raised:
        lmppl.compile(folder / "p.lm")
    return raised.value.diagnostics


@pytest.mark.parametrize("ending", ["rain", "n rain", " rain rain", "ay: sun", ""])
def test_an_ending_that_a_text_can_have_is_one(ending):
    TableModel({**WEATHER, "laws": {**WEATHER["laws"], ending: {"<end>": 1}}})


def test_files_elsewhere_and_options_of_networks_are_refused(folder):
    (folder / "p.lm").write_text(
        'lm A = "table:../x.json"\nlm B = "table:weather.json" (dtype = "float32")\nlm C = "table:none.json"\n'
    )
    assert {(f.code, f.source.position(f.span.start)[0]) for f in checked(folder)} >= {
        ("outside-folder", 1), ("option-of-a-table", 2), ("missing-file", 3),
    }  # fmt: skip


def test_what_no_piece_writes_is_said_with_its_line(folder):
    (folder / "p.lm").write_text(PROGRAM.replace('LM("Today:")', 'LM("Today: fog")'))
    with pytest.raises(LmpplError, match="no piece goes on with ' fog'") as raised:
        lmppl.compile(folder / "p.lm").infer("exact")
    assert raised.value.diagnostics[0].source.position(raised.value.diagnostics[0].span.start)[0] == 2


# --- which models do for which engines ------------------------------------------------------------


def test_an_identifier_tells_what_its_model_can_do():
    laws = {Capability.LAWS, Capability.DRAWS}  # what tells laws can draw by them
    assert capabilities_of("table:weather.json") == laws == capabilities_of(TableModel(WEATHER))
    assert capabilities_of("smollm2-135m") == {*Capability}


def test_what_an_engine_needs_is_said_before_anything_is_loaded(folder, monkeypatch):
    monkeypatch.setattr("lmppl.lm.backends._load_table", None)
    compiled = lmppl.compile(folder / "p.lm")
    for name in ("gflownet", "ppo"):
        with pytest.raises(LmpplError, match="one of the engines annealed, exact, importance, mcmc") as raised:
            compiled.infer(name)
        assert raised.value.diagnostics[0].code == "model-cannot"
        assert raised.value.diagnostics[0].span is not None
    trained = replace(engine("importance").options(), proposal="folder")
    with pytest.raises(LmpplError, match="no weights that can be trained"):
        require_capabilities(compiled.program, engine("importance"), trained, {})


def test_models_that_draw_nothing_need_nothing(folder):
    program = lmppl.compile('lm LM = "x/y"\nlm T = "table:weather.json"\nZ ~ LM("") max 1\nobserve " sun" ~ T("")\n')
    require_capabilities(program.program, engine("gflownet"), engine("gflownet").options(), {})
    choice = lmppl.compile('lm T = "table:weather.json"\nZ ~ T("") in [" sun", " dry"]\npredict Z\n').program
    require_capabilities(choice, engine("exact"), engine("exact").options(), {"T": Scores()})
    with pytest.raises(LmpplError, match="model-cannot"):
        require_capabilities(choice, engine("ppo"), engine("ppo").options(), {"T": Scores()})


class Scores(BaseScorer):
    """A table of which only scores are told."""

    def __init__(self):
        self.model = TableModel(WEATHER)
        super().__init__(self.model.tokenizer)

    def score(self, prompt, continuations, starts):
        return self.model.score(prompt, continuations, starts)


def test_what_scores_alone_can_infer_choices_and_score_as_a_table_does(folder):
    program = lmppl.compile(
        'lm T = "table:weather.json"\nZ ~ T("Today:") in [" sun", " rain"]\nobserve " rain" ~ T("{Z}")\n'
    )
    rows = [program.infer("exact", lms={"T": model}).rows[0] for model in (Scores(), TableModel(WEATHER))]
    assert rows[0].log_evidence == pytest.approx(rows[1].log_evidence)
    asked = (3,), [(0, 1, 1), (1,), ()], [1, 0, 0]
    for mine, other in zip(Scores().score_prefixes(*asked), TableModel(WEATHER).score_prefixes(*asked), strict=True):
        np.testing.assert_allclose(np.concatenate(mine), np.concatenate(other))


def test_a_model_that_is_handed_in_is_used_as_it_is(folder):
    compiled, model = lmppl.compile('lm LM = "smollm2-135m"\nZ ~ LM("Today:") max 1\npredict Z\n'), TableModel(WEATHER)
    posterior = compiled.infer("exact", lms={"LM": model})
    assert posterior.models["LM"]["identifier"] == "table"
    assert model.cost.tokens_scored > 0
    assert compiled.bind(lms={"LM": model}).log_density([{"Z": (0,)}]).total[0] == pytest.approx(np.log(0.5))
    with pytest.raises(LmpplError, match="model-cannot"):
        compiled.infer("ppo", lms={"LM": model})


def test_a_table_takes_no_adapter(folder):
    compiled = lmppl.compile('lm LM = "smollm2-135m" (adapter = "there")\nZ ~ LM("Today:") max 1\npredict Z\n')
    with pytest.raises(LmpplError, match="takes no adapter"):
        compiled.bind(lms={"LM": "table:weather.json"})


# --- what `lmppl check` says of it ----------------------------------------------------------------


def said_by_check(folder, *lines):
    """Findings of `lmppl check` on a program, and its exit code."""
    (folder / "c.lm").write_text("\n".join(('lm LM = "table:weather.json"', 'Z ~ LM("Today:") max 1', *lines, "")))
    done = CliRunner().invoke(app, ["check", str(folder / "c.lm"), "--output-format", "json"])
    return json.loads(done.output), done.exit_code


@pytest.mark.parametrize("name", ["gflownet", "ppo", "sft"])
def test_check_says_which_engine_cannot_use_a_table(folder, name):
    (found,), code = said_by_check(folder, f"infer {name}")
    assert (found["code"], found["line"], code) == ("model-cannot", 3, 1)
    assert "infer annealed" in found["help"]


@pytest.mark.parametrize("name", ["importance", "annealed", "exact", "prompting"])
def test_check_says_nothing_of_engines_that_can(folder, name):
    assert said_by_check(folder, f"infer {name}") == ([], 0)


def test_check_says_that_a_table_learns_nothing(folder):
    (found,), _ = said_by_check(folder, "learn LM")
    assert (found["code"], found["line"]) == ("cannot-adapt", 1)


def test_engines_need_what_their_table_says():
    assert {name: engine(name).needs for name in ENGINE_NAMES} == {name: needs(name) for name in ENGINE_NAMES}


def test_checking_a_table_brings_no_torch(folder):
    (folder / "c.lm").write_text('lm LM = "table:weather.json"\nZ ~ LM("Today:") max 1\ninfer gflownet\n')
    code = (
        "import sys; from lmppl.cli.text import _findings; assert _findings('c.lm');"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    assert done.stdout.strip() == "[]"
