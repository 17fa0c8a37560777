"""What tools write into texts: where it is due, how it is cut, what it costs, and what is said when a tool fails."""

import itertools

import grid
import numpy as np
import pytest
import tiny
from toy import ToyModel

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding.randomness import Randomness
from lmppl.decoding.tools import FREE, MOST_CHARACTERS, Tool, Tools
from lmppl.density.binding import bind
from lmppl.density.prefixes import closing_token, prefix_log_density
from lmppl.engines.proposals import draw_prior, temperature_ladder
from lmppl.errors import LmpplError, raise_errors
from lmppl.pyro import TokenSequence, pad
from lmppl.report.explain import explain_ir
from lmppl.run import Request, run
from lmppl.source import Source
from lmppl.validation.simulate import Simulator

A, B, STOP = range(3)  # of tiny.WORDS; behind " b", the toy of seed 1 says " a" two times in three
SUMS = ("1", "2", "3", "+", "=", ".", " ")
HELPER = 'use echo from "helpers.py"\n'
TOOL = 'Z ~ LM(" b") with echo(trigger = " a")'


def analysed(body):
    analysis = analyse(Source("program", f'lm LM = "tiny"\n{body}\n'), grid.FOLDER)
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return analysis.program


def target(body, write=None, model=None, row=None):
    """A target whose tool `echo` is a function of this test's."""
    used = {"LM": model or ToyModel(1)}
    return bind(analysed(body), used, row or Row({}, {}), helpers={"echo": write} if write else None, batch_size=512)[0]


def texts(count, words=3):
    return [z for size in range(count + 1) for z in itertools.product(range(words), repeat=size)]


def possible(found):
    """Texts of Z that have positive density."""
    name = found.latents[0].name
    states = [{name: z} for z in texts(found.latents[0].maximum)]
    return {s[name] for s, value in zip(states, found.log_density(states).total, strict=True) if np.isfinite(value)}


def tools(*pairs, model=None):
    model = model or ToyModel(1)
    return Tools([Tool(*pair) for pair in pairs], lambda text: model.encode(text, markers=False), model.decode)


# --- where something is due -----------------------------------------------------------------------


def test_what_is_due_follows_the_trigger_token_by_token():
    found = tools((" a", lambda text: " b." if text == " b a" else ""))
    assert found.due((B, A, B, STOP, A)).tolist() == [FREE, FREE, B, STOP, FREE, FREE]
    assert found.due((A, A)).tolist() == [FREE, FREE, FREE]
    assert found.due(()).tolist() == [FREE]


def test_a_trigger_within_an_insertion_is_none():
    asked = []
    found = tools((" a", lambda text: asked.append(text) or (" a a" if text == " a" else ".")))
    assert found.due((A, A, A, A)).tolist() == [FREE, A, A, FREE, STOP]
    assert asked == [" a", " a a a a"]


def test_another_token_than_the_due_one_ends_the_insertion():
    found = tools((" a", lambda text: " b."))
    assert found.due((A, A, A)).tolist() == [FREE, B, FREE, B]  # impossible already: what follows does not matter


def test_of_two_tools_each_has_its_trigger_and_the_first_one_written_goes_first():
    found = tools((" a.", lambda text: " b"), (".", lambda text: " a"))
    assert found.due((A, STOP, B, STOP, A)).tolist() == [FREE, FREE, B, FREE, A, FREE]
    swapped = tools((".", lambda text: " a"), (" a.", lambda text: " b"))
    assert swapped.due((A, STOP)).tolist() == [FREE, FREE, A]


def test_a_trigger_counts_where_the_text_newly_ends_with_it():
    """Not in the middle of a token, and not again at a token without text; part of it may be older than the token."""
    model = tiny.model((" a", "=b", "=", "b"), seed=1)
    found = tools(("=", lambda text: "b"), model=model)
    assert found.due((0, 1)).tolist() == [FREE, FREE, FREE]
    assert found.due((0, 2)).tolist() == [FREE, FREE, 3]
    assert tools(("a=b", lambda text: "b"), model=model).due((0, 1)).tolist() == [FREE, FREE, 3]
    model = tiny.model((" ", "b"), seed=1)
    padding = model.vocabulary_size + 3  # a token that has no text
    assert tools((" ", lambda text: "b "), model=model).due((0, 1, 0, padding)).tolist() == [FREE, 1, 0, FREE, FREE]


def test_a_tool_is_asked_once_a_text():
    asked = []
    found = target(HELPER + TOOL + " max 3", lambda text: asked.append(text) or " b")
    draws = draw_prior(found, [(0, i) for i in range(200)], Randomness(0))
    found.log_density(draws.states)
    assert len(asked) == len(set(asked)) > 1


# --- what is possible -----------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [cell for cell in grid.CELLS if cell[2] == "tool"], ids="-".join)
def test_the_possible_texts_are_those_of_the_process(cell):
    reference = grid.Reference(cell, grid.models())
    found = grid.target(cell, grid.models())
    assert possible(found) == set(reference.texts())


def test_an_insertion_is_cut_at_max():
    found = target(HELPER + TOOL + " max 3", lambda text: " b b b b")
    assert {z for z in possible(found) if A in z} == {(A, B, B), (B, A, B), (STOP, A, B)} | {
        (x, y, A) for x in (B, STOP) for y in (B, STOP)
    }


def test_an_insertion_is_cut_at_until():
    found = target(HELPER + TOOL + ' until "." max 4', lambda text: " b. b")
    assert {z for z in possible(found) if A in z} == {(A, B, STOP), (B, A, B, STOP)}


def test_an_insertion_that_leaves_no_room_for_until_is_impossible():
    found = target(HELPER + TOOL + ' until "." max 3', lambda text: " b b b b")
    assert not any(A in z for z in possible(found))


def test_the_outcomes_add_up_to_one():
    found = target(HELPER + TOOL + " max 4", lambda text: " b a" if len(text) < 3 else ".")
    density = found.log_density([{"Z": z} for z in texts(4)]).total
    assert np.exp(density).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.slow
def test_where_a_constraint_forbids_what_is_due_the_text_is_impossible():
    """The mask cannot see it coming; engines meet it, and draw from what is left."""
    body = HELPER + TOOL + " max 3\nconstrain matches(Z, /( a| b)*/)"
    write = lambda text: "." if text == " a" else " b"  # noqa: E731
    found = target(body, write)
    left = possible(found)
    assert (B, A, B) in left
    assert not any(z[:1] == (A,) for z in left)
    program = analysed(body)
    exact = found.log_density([{"Z": z} for z in left]).total
    for engine in ("exact", "importance", "smc", "annealed"):
        options = {} if engine in ("exact", "importance") else {"particles": 64}
        request = Request(engine, {"num_samples": 400, "chains": 4}, options, 3, 512)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lmppl.density.binding.load_helpers", lambda program: {"echo": write})
            row = run(program, [Row({}, {})], {"LM": ToyModel(1)}, request).rows[0]
        assert row.log_evidence == pytest.approx(np.logaddexp.reduce(exact), abs=0.15), engine
        assert {tuple(d.tokens["Z"]) for d, w in zip(row.draws, row.weights, strict=True) if w > 0} <= left


# --- what it costs --------------------------------------------------------------------------------


@pytest.mark.parametrize("power", ["", "^2.5", "^0.4"])
def test_insertions_have_log_prior_and_log_q_of_0_at_every_temperature(power):
    found = target(f'{HELPER}Z ~ LM(" b"){power} * LM("")^0.5 with echo(trigger = " a") max 4', lambda text: " b.")
    ladder = (*temperature_ladder(found, found.latents[0]), 0.3)
    drawn = draw_prior(found, [(0, i) for i in range(60)], Randomness(1), ladder)
    stopping, counts = found.text_latent("Z").stopping, []
    traced = found.trace("Z", drawn.states, ladder)
    for i, state in enumerate(drawn.states):
        due = stopping.due_when_scored(state["Z"]) != FREE
        counts.append(due.sum())
        for rollout in (drawn.rollouts["Z"], traced):
            assert (rollout.log_prior[i][due] == 0).all()
            assert (rollout.log_proposal[i][due] == 0).all()
            assert (rollout.log_proposal[i][~due] < 0).all()
    assert sum(counts) > 20
    prior = [row.sum() for row in drawn.rollouts["Z"].log_prior]
    np.testing.assert_allclose(found.log_prior("Z", drawn.states), prior, atol=1e-9)
    for state, prefixes in zip(drawn.states, found.prefixes("Z", drawn.states), strict=True):
        due = stopping.due(state["Z"]) != FREE
        assert (np.diff(prefixes.running)[due[:-1]] == 0).all()
        assert np.isneginf(prefixes.stop[due & (np.arange(len(due)) < 4)]).all()


def test_prefixes_do_not_stop_within_an_insertion():
    found = target(HELPER + TOOL + ' max 4\nobserve " b" | " a", Z', lambda text: " b b")
    (reward,) = prefix_log_density(found, "Z", [{"Z": (B, A, B, B)}])
    assert np.isfinite(reward.total).tolist() == [True, True, False, False, True]
    assert reward.prior[2] == reward.prior[3] == reward.prior[4]
    naive = found.log_density([{"Z": (B, A, B, B)[:t]} for t in range(5)]).total
    np.testing.assert_allclose(reward.total, naive, atol=1e-9)


def test_prefixes_with_until_within_an_insertion():
    """The canonical end can be what the tool writes itself: it costs nothing there, and stops nothing elsewhere."""
    found = target(HELPER + TOOL + ' until "." max 4', lambda text: " b.")
    closing = closing_token(found.text_latent("Z").stopping, ToyModel(1))
    assert closing == STOP
    whole = (B, A, B, STOP)
    (reward,) = prefix_log_density(found, "Z", [{"Z": whole}])
    naive = [found.log_density([{"Z": (*whole[:t], STOP)}]).total[0] for t in range(4)]
    naive.append(found.log_density([{"Z": whole}]).total[0])
    np.testing.assert_allclose(reward.total, naive, atol=1e-9)
    assert np.isfinite(reward.total).tolist() == [True, True, False, True, True]
    assert reward.total[3] == reward.total[4]


def test_a_later_text_with_a_tool():
    body = f'{HELPER}V ~ LM(" a") max 2\nZ ~ LM("{{V}} b")^1.5 with echo(trigger = " a") max 3'
    found = target(body, lambda text: " b")
    states = [{"V": v, "Z": z} for v in texts(2) for z in ((A, B, B), (B, A, B), (STOP,), (A,), (A, A))]
    rewards = prefix_log_density(found, "V", states)
    for state, reward in zip(states, rewards, strict=True):
        naive = found.log_density([{**state, "V": state["V"][:t]} for t in range(len(state["V"]) + 1)]).total
        np.testing.assert_allclose(reward.total, naive, atol=1e-9)


@pytest.mark.parametrize("method", ["greedy", "beam", "diverse_beam", "sample", "nucleus"])
def test_prompted_texts_hold_what_the_tool_writes(method):
    model = ToyModel(1)
    found = target(HELPER + TOOL + " max 4", lambda text: " b.", model)
    options = {"method": method, "beams": 8, "groups": 2 if method == "diverse_beam" else 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmppl.density.binding.load_helpers", lambda program: {"echo": lambda text: " b."})
        request = Request("prompting", {"num_samples": 30, "chains": 1}, options, 0)
        row = run(found.program, [Row({}, {})], {"LM": model}, request).rows[0]
    drawn = {tuple(draw.tokens["Z"]) for draw in row.draws}
    assert drawn <= possible(found)
    assert row.diagnostics.impossible_draws == 0
    assert any(z[:3] == (A, B, STOP) for z in drawn)
    assert row.diagnostics.score_mismatch < 1e-9


# --- other ways in --------------------------------------------------------------------------------


def test_an_observed_text_is_cut_at_triggers_and_scored_without_the_insertion():
    model = tiny.model(SUMS, seed=2)
    body = 'Z ~ LM("1+1=2.")^2 with calculator until "." max 12'
    seen = target(body, model=model, row=Row({}, {"Z": "1+2=3."}))
    tokens = seen.observed["Z"]
    assert model.pieces(tokens) == ["1", "+", "2", "=", "3", "."]
    prompt = model.begin(model.encode("1+1=2.", markers=True))
    chosen = [(t, token) for t, token in enumerate(tokens) if t != 4]
    naive = sum(2 * tiny.reference_log_prob(model, [*prompt, *tokens[:t]], [token]) for t, token in chosen)
    assert seen.log_density([{}]).total[0] == pytest.approx(naive, abs=1e-4)


@pytest.mark.parametrize("text", ["1+2=2.", "1+2=.", "1+2"])
def test_an_observed_text_that_the_tool_would_not_write_is_a_finding(text):
    model = tiny.model(SUMS, seed=2)
    with pytest.raises(LmpplError) as caught:
        target('Z ~ LM("1+1=2.") with calculator until "." max 12', model=model, row=Row({}, {"Z": text}))
    (finding,) = caught.value.diagnostics
    assert finding.code == "observed-impossible"
    assert "with what `calculator` writes behind '='" in finding.expected


def test_tokens_of_a_text_that_is_there_already():
    model = tiny.model(("1", "+", "=", "2", "1+", "=1"), seed=2)
    found = tools(("=", lambda text: "2" if text.endswith("1+1=") else ""), model=model)
    for text, pieces in {
        "1+1=2": ["1+", "1", "=", "2"],
        "1+1=2=1": ["1+", "1", "=", "2", "=", "1"],  # cut behind the second trigger too
        "1+1=": ["1+", "1", "="],
        "1+1=1": ["1+", "1", "=1"],  # not what the tool writes: as it is
        "": [],
    }.items():
        assert model.pieces(found.tokens_of(text)) == pieces, text


@pytest.mark.slow
def test_simulated_texts_are_exact_draws():
    body = HELPER + TOOL + ' max 3\nobserve X | " a", Z'
    program = analysed(f"given X\n{body}")
    simulator = Simulator(program, {"LM": ToyModel(1)}, Row({"X": " b."}, {}), {"echo": lambda text: " b"})
    found = target(HELPER + TOOL + " max 3", lambda text: " b")
    drawn = [simulator.draw(Randomness(seed)).state["Z"] for seed in range(300)]
    assert set(drawn) <= possible(found)
    law = {z: np.exp(found.log_density([{"Z": z}]).total[0]) for z in possible(found)}
    shares = {z: drawn.count(z) / len(drawn) for z in law}
    assert 0.5 * sum(abs(law[z] - shares[z]) for z in law) < 0.12


def test_pyro_scores_and_draws_them():
    found = target(HELPER + TOOL + " max 3", lambda text: " b")
    law = TokenSequence(found, "Z", {})
    drawn = law.sample((50,))
    assert np.isfinite(law.log_prob(drawn).numpy()).all()
    assert np.isneginf(float(law.log_prob(pad((A, A), 3))))


def test_the_meaning_is_explained():
    assert "(calculator writes behind '=', which is not scored)" in explain_ir(analysed('Z ~ LM("1") with calculator'))


# --- tools that fail ------------------------------------------------------------------------------


def raises(text):
    raise KeyError("nothing of that name")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (raises, "`echo` raised KeyError: 'nothing of that name'"),
        (lambda text: 7, "`echo` must return a text, it returned int 7"),
        (lambda text: None, "`echo` must return a text, it returned NoneType None"),
        (lambda text: " a" * MOST_CHARACTERS, "it returned one of 20,000 characters; at most 10,000"),
        (lambda text: "\ud800", "half of a surrogate pair"),
    ],
)
def test_what_a_tool_does_wrong_is_told_with_its_place_and_text(write, message):
    found = target(HELPER + TOOL + " max 5", write)
    with pytest.raises(LmpplError) as caught:
        draw_prior(found, [(0, i) for i in range(100)], Randomness(0))
    (finding,) = caught.value.diagnostics
    assert finding.code == "tool-failed"
    assert message in finding.message
    assert finding.source.slice(finding.span) == 'echo(trigger = " a")'
    assert finding.found.startswith("Z = '")
    assert finding.found.endswith(" a'")


def test_a_tool_that_takes_too_long_is_told(monkeypatch):
    import time

    monkeypatch.setattr("lmppl.expressions.functions.SECONDS_PER_HELPER", 0.05)
    found = target(HELPER + TOOL + " max 5", lambda text: time.sleep(1) or "")
    with pytest.raises(LmpplError, match="took more than"):
        draw_prior(found, [(0, i) for i in range(100)], Randomness(0))


def test_a_trigger_that_no_token_completes_is_a_finding():
    with pytest.raises(LmpplError) as caught:
        target('Z ~ LM(" a") with calculator', model=tiny.model())
    assert caught.value.diagnostics[0].code == "trigger-unreachable"


def test_checking_never_runs_a_tool(tmp_path):
    (tmp_path / "tool.py").write_text("raise SystemExit('was run')\n\ndef echo(text):\n    return text\n")
    text = 'lm LM = "tiny"\nuse echo from "tool.py"\nZ ~ LM("a") with echo(trigger = "!")\n'
    assert analyse(Source("program", text), tmp_path).findings == ()


def test_the_calculator_s_name_can_be_given_to_another():
    body = 'use calculator from "helpers.py"\nZ ~ LM(" b") with calculator(trigger = " a") max 3'
    analysis = analyse(Source("program", f'lm LM = "tiny"\n{body.replace("calculator", "echo")}\n'), grid.FOLDER)
    assert analysis.program.latents[0].tools[0].options == ()
