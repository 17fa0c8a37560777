"""Served models: what is asked of a server, what comes back, and what a run does where nothing does."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import tiny
from completions_server import CompletionsServer, serving

import lmppl
from lmppl.data import Row
from lmppl.errors import LmpplError
from lmppl.lm import load_models
from lmppl.lm.http import wire as wires
from lmppl.run import Request
from lmppl.testing import FakeServer, Traps
from lmppl.validation import calibrate, certify

WORDS = (" a", " b", ".")
PROGRAMS = {
    "evidence": 'Z ~ LM(" a") max 2\nobserve "." ~ LM(" b{Z}")\n',
    "until": 'Z ~ LM(" b") until "." max 3\n',
    "power": 'Z ~ LM(" b")^1.5 max 3\nfactor -0.7 * count(Z, "a")\n',
    "constraint": 'Z ~ LM(" a") max 2\nconstrain matches(Z, / [ab].*/)\n',
    "choice": 'Y ~ LM(" a") in [" b", "."]\nZ ~ LM("{Y}") max 2\nobserve " b" ~ LM("{Y}{Z}")\n',
}
DRAWS = {"importance": 25, "prompting": 25, "rejection": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("model"), WORDS)


@pytest.fixture(scope="module")
def local(folder):
    return load(str(folder))


@pytest.fixture(scope="module")
def address(folder, local):
    with serving(CompletionsServer(local, folder)) as found:
        yield found


@contextmanager
def fake(local, **traps):
    with FakeServer(local, Traps(**traps)) as server:
        yield server


def load(identifier, options="", report=lambda *said: None):
    program = lmppl.compile(f'lm LM = "{identifier}" {options}\nZ ~ LM(" a") max 1\n')
    return load_models(program.program, {}, "cpu", report)["LM"]


def evidence(engine, body, identifier, options="", **more):
    program = lmppl.compile(f'lm LM = "{identifier}" {options}\n{body}')
    return program.infer(engine, **{"num_samples": DRAWS.get(engine, 100), **more}).rows[0]


def require_evidence(engine, body, folder, identifier):
    exact, found = evidence("exact", body, folder), evidence(engine, body, identifier)
    assert abs(found.log_evidence - exact.log_evidence) < 4 * found.log_evidence_se + 1e-4


# --- the same numbers as here ---------------------------------------------------------------------


def test_texts_are_drawn_and_scored_as_the_model_would(local, address):
    served = load(address)
    prompt, suffixes = served.encode(" a b", markers=False), [(), (1,), (0, 2)] * 5
    drawn = served.sample(prompt, suffixes, range(15), 4)
    assert len({one.tokens for one in drawn}) > 5
    rows = [(*suffix, *one.tokens) for suffix, one in zip(suffixes, drawn, strict=True)]
    starts = [len(suffix) for suffix in suffixes]
    expected = local.score(prompt, rows, starts)
    for one, own, again in zip(drawn, expected, served.score(prompt, rows, starts), strict=True):
        np.testing.assert_allclose(one.log_probs, own, atol=1e-5)
        np.testing.assert_allclose(again, own, atol=1e-5)
        assert served.end not in one.tokens[:-1]


@pytest.mark.parametrize(
    ("body", "engine"),
    [
        ("evidence", "importance"),
        *(
            pytest.param(body, engine, marks=pytest.mark.slow)
            for body in PROGRAMS
            for engine in DRAWS
            if engine != "importance" or body != "evidence"
        ),
    ],
)
def test_evidence_is_that_of_enumeration(body, engine, folder, address):
    require_evidence(engine, PROGRAMS[body], folder, address)


def test_choices_are_exact(folder, address):
    body = 'Y ~ LM(" a") in [" b", "."]\nW ~ LM("{Y}") in [" a", " b b"]\nobserve " b" ~ LM("{Y}{W}")\npredict Y\n'
    ours, theirs = (evidence("exact", body, one) for one in (folder, address))
    assert theirs.log_evidence == pytest.approx(ours.log_evidence, abs=1e-5)
    assert theirs.predictions["Y"].probabilities == pytest.approx(ours.predictions["Y"].probabilities, abs=1e-5)


@pytest.mark.slow
def test_predictions_are_those_of_the_posterior(folder, address):
    body = 'Z ~ LM(" a") max 2\nY ~ LM("{Z}") in [" a", " b"]\nobserve "." ~ LM("{Y}{Z}")\npredict Y\n'
    ours, theirs = evidence("exact", body, folder), evidence("importance", body, address)
    found = theirs.predictions["Y"]
    assert abs(found.probabilities[" a"] - ours.predictions["Y"].probabilities[" a"]) < 4 * found.errors[" a"]


@pytest.mark.slow
def test_calibration_and_bounds(local, address):
    """Observed texts are simulated by the server, also behind an end token, which is a token as others are."""
    program = lmppl.compile(f'lm LM = "{address}"\ngiven X\nZ ~ LM(" a") max 2\nobserve X ~ LM(" b{{Z}}")\n').program
    rows, models = [Row({"X": " a."}, {})], {"LM": load(address)}
    request = Request("importance", {"chains": 2, "num_samples": 8}, {}, seed=2)
    assert calibrate(program, rows, models, request, 12).verdict == "pass"
    found, apart = (certify(program, rows, one, request, 4) for one in (models, {"LM": local}))
    assert found.gap.mean > -4 * found.gap.error
    assert abs(found.lower.mean - apart.lower.mean) < 4 * (found.lower.error + apart.lower.error)


def test_texts_that_are_there_are_traced_as_they_would_be_drawn(local, address):
    program = lmppl.compile('lm LM = "x"\nZ ~ LM(" a") max 2\n')
    targets = [program.bind(lms={"LM": model}) for model in (local, load(address))]
    states = [{"Z": text} for text in ((), (0,), (1, 2))]
    found = [target.trace("Z", states, (1.0,)).log_proposal for target in targets]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.slow
def test_draws_do_not_depend_on_their_batch(address):
    program = lmppl.compile(f'lm LM = "{address}"\n{PROGRAMS["evidence"]}')
    runs = [program.infer("importance", num_samples=10, batch_size=size).rows[0] for size in (64, 3)]
    assert [draw.tokens for draw in runs[0].draws] == [draw.tokens for draw in runs[1].draws]


@pytest.mark.slow
def test_several_ends_are_one_event(tmp_path):
    """The server knows them apart; in the model they are one, whose probability is the sum."""
    folder = tiny.save(tmp_path / "model", WORDS, ends=("<end>", "<stop>", "<turn>"))
    local = load(folder)
    server = CompletionsServer(local, folder)
    with serving(server) as address:
        served = load(address)
        prompt = served.encode(" a", markers=False)
        drawn = served.sample(prompt, [()] * 40, range(40), 3)
        assert sum(one.tokens[-1] == served.end for one in drawn) > 5
        rows = [one.tokens for one in drawn]
        rows += [(0, local.ends[1]), (0, local.end, 1), (local.ends[2],), (local.end,), ()]
        starts = [0] * len(rows)
        expected = local.score(prompt, rows, starts)
        for own, found in zip(expected, served.score(prompt, rows, starts), strict=True):
            np.testing.assert_allclose(found, own, atol=1e-5)
        for one, own in zip(drawn, expected, strict=False):
            np.testing.assert_allclose(one.log_probs, own, atol=1e-5)
        require_evidence("importance", PROGRAMS["evidence"], folder, address)
    server.numbered = False
    with serving(server) as address, pytest.raises(LmpplError, match="ends texts by several tokens"):
        load(address)


@pytest.mark.slow
def test_what_a_server_stops_at_by_itself_ends_no_text(folder, local):
    """As with stop tokens of its own: the text goes on under another seed, and the evidence is right."""
    server = CompletionsServer(local, folder, stops=(1,))
    with serving(server) as address:
        require_evidence("importance", PROGRAMS["evidence"], folder, address)
        require_evidence("importance", PROGRAMS["until"], folder, address)


# --- servers that do it wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traps", "said"),
    [
        ({"unscored_prompts": True}, "returns no log probabilities of given tokens"),
        ({"ignored": frozenset({"return_token_ids"})}, "returns no drawn tokens"),
        ({"ignored": frozenset({"return_tokens_as_token_ids"})}, "returns no drawn tokens"),
        ({"forced_temperature": 4.0, "processed_logprobs": True}, "from another law than it scores"),
        ({"shifted": True}, "from another law than it scores"),
        ({"doubles_beginning": True}, "returns no log probabilities of given tokens"),
    ],
)
def test_a_server_that_weights_cannot_be_made_of_is_refused(local, traps, said):
    with fake(local, **traps) as server, pytest.raises(LmpplError) as raised:
        load(server.identifier)
    (finding,) = raised.value.diagnostics
    assert said in finding.message
    assert finding.source.position(finding.span.start)[0] == 1


def test_ends_that_are_kept_back_are_missed(local):
    """Else a text would go on behind its end."""
    with fake(local, hides_end=True) as server, pytest.raises(LmpplError, match=r"answers otherwise|returns no"):
        load(server.identifier).sample((0,), [()] * 30, range(30), 5)


def test_every_request_says_all_that_changes_the_law(local):
    """A server's own defaults cut nothing away, as a model's generation_config.json would."""
    with fake(local, default_top_p=0.5, processed_logprobs=True) as server:
        served = load(server.identifier)
        drawn = served.sample((0,), [()] * 20, range(20), 3)
        expected = local.score((0,), [one.tokens for one in drawn], [0] * 20)
        for one, own in zip(drawn, expected, strict=True):
            np.testing.assert_allclose(one.log_probs, own, atol=1e-5)
        bodies = [body for path, body in server.requests if path == "/v1/completions"]
    for name, value in {"temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}.items():
        assert all(body[name] == value for body in bodies)
    assert all(isinstance(body["seed"], int) and body["n"] == 1 for body in bodies)


def test_the_right_model_of_several_is_found(local, folder):
    with FakeServer(local, adapters={"other": local}) as server:
        assert load(server.url).revision == "fake by 0.32.0"
        assert load(server.url, '(adapter = "other")').revision == "other by 0.32.0"
        assert load(f"{server.url}#other").tokenizer.end == local.end
        with pytest.raises(LmpplError, match="has no model `nobody`") as raised:
            load(f"{server.url}#nobody")
        assert "fake, other" in raised.value.diagnostics[0].expected


def test_tokenizers_have_to_be_the_servers(local, tmp_path):
    other = tiny.save(tmp_path / "other", (" b", " a", "."))
    with fake(local) as server:
        assert load(server.url, f'(tokenizer = "{local.identifier}")').end == local.end
        with pytest.raises(LmpplError, match="is not the server's"):
            load(server.url, f'(tokenizer = "{other}")')
    unnamed = CompletionsServer(local, "/nowhere/at/all")
    with serving(unnamed) as address, pytest.raises(LmpplError, match="is not on this machine"):
        load(address)


@pytest.mark.slow
def test_keys_come_from_the_environment_and_stay_there(local, monkeypatch):
    with FakeServer(local, key="s3cret") as server:
        with pytest.raises(LmpplError, match="with status 401") as raised:
            load(server.url)
        assert 'key = env "NAME"' in raised.value.diagnostics[0].help
        options = '(key = env "LMPPL_TEST_KEY")'
        monkeypatch.delenv("LMPPL_TEST_KEY", raising=False)
        with pytest.raises(LmpplError, match="LMPPL_TEST_KEY"):
            load(server.url, options)
        monkeypatch.setenv("LMPPL_TEST_KEY", "s3cret")
        found = lmppl.compile(f'lm LM = "{server.url}" {options}\n{PROGRAMS["until"]}').infer("importance")
        assert "s3cret" not in str(found.document())


@pytest.mark.parametrize(
    "identifier",
    ["http://", "http://:8000/v1", "http://host:x/v1", "http://a b/v1", "http://u:p@host/v1", "http://host/v1?key=1"],
)
def test_what_is_no_address(identifier):
    with pytest.raises(LmpplError, match="is no address of a server"):
        load(identifier)


def test_engines_that_need_laws_say_what_would_do(address):
    with pytest.raises(LmpplError, match="it has no probabilities of every next token") as raised:
        evidence("smc", PROGRAMS["evidence"], address)
    assert raised.value.diagnostics[0].expected == "one of the engines importance, prompting, rejection"
    with pytest.raises(LmpplError, match="cannot be run under a local law"):
        load(address, "(temperature = 0.5)")


# --- servers that die -----------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(wires, "PAUSES", (0.01, 0.05))
    monkeypatch.setattr(wires, "QUIET_SECONDS", 0.1)


@pytest.mark.slow
def test_a_server_that_is_started_again_costs_nothing_but_time(local, hurried):
    """It dies in the middle, with requests in flight: the draws are those of a run without that."""
    body = PROGRAMS["evidence"]
    with fake(local) as server:
        expected = evidence("importance", body, server.identifier)
    told = []
    with fake(local) as server:
        program = lmppl.compile(f'lm LM = "{server.identifier}"\n{body}')
        models = load_models(program.program, {}, "cpu", lambda what, *_: told.append(what))
        server.replies._traps = server.traps
        object.__setattr__(server.traps, "dies_after", 60)
        reviving = threading.Thread(target=revived, args=(server,))
        reviving.start()
        found = program.infer("importance", num_samples=DRAWS["importance"], lms=models).rows[0]
        reviving.join()
    assert [draw.tokens for draw in found.draws] == [draw.tokens for draw in expected.draws]
    np.testing.assert_allclose([d.log_weight for d in found.draws], [d.log_weight for d in expected.draws], atol=1e-6)
    assert any("waiting for the server" in what for what in told)
    assert any("answers again" in what for what in told)


def revived(server):
    while server.is_alive:
        time.sleep(0.01)
    time.sleep(0.5)
    object.__setattr__(server.traps, "dies_after", None)
    server.revive()


@pytest.mark.slow
def test_a_run_ends_with_what_it_has_where_a_server_stays_away(local, hurried):
    with fake(local) as server:
        program = lmppl.compile(f'lm LM = "{server.identifier}" (patience = 0.5)\n{PROGRAMS["evidence"]}')
        models = load_models(program.program, {}, "cpu", lambda *said: None)
        object.__setattr__(server.traps, "dies_after", 60)
        with pytest.raises(LmpplError, match=r"has not answered for \d s") as raised:
            program.infer("importance", lms=models, batch_size=16)
    (row,) = raised.value.posterior.rows
    assert 16 <= len(row.draws) <= 60
    assert row.log_evidence is not None
    assert "has not answered" in raised.value.posterior.interrupted.reason


def test_another_model_in_its_place_is_not_taken_for_it(local, tmp_path, hurried):
    other = load(tiny.save(tmp_path / "other", WORDS, seed=5))
    other.identifier = local.identifier  # a model with the same name, and other weights
    server = FakeServer(local).start()
    served = load(server.identifier)
    server.stop()
    second = FakeServer(other)
    second.port = server.port
    with second, pytest.raises(LmpplError, match="is not the same as it was"):
        served.score((0,), [(1, 2)], [0])


@pytest.mark.slow
def test_a_request_that_breaks_a_server_again_and_again_is_reported(local, folder, hurried):
    server = CompletionsServer(local, folder)
    with serving(server) as address:
        served = load(address)
        poison = [0, 1, 2, 1, 2]
        server.trouble = lambda path, body: (None, None) if body and body.get("prompt") == poison else None
        with pytest.raises(LmpplError, match="a request of 6 tokens breaks the server") as raised:
            served.score((0,), [(1, 2), (1, 2, 1, 2), (2, 2)], [0, 0, 0])
    assert raised.value.diagnostics[0].code == "server-breaks"


def test_the_clock_and_control_c_end_what_is_waited_for(local, hurried):
    with fake(local) as server:
        served = load(server.identifier)
        object.__setattr__(server.traps, "slow", 30.0)

        def watch():
            raise KeyboardInterrupt

        served.cost.watch = watch
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            served._wire.post_all("/completions", [wires.Asked({"prompt": [0]}, 1)], watch)
        assert time.monotonic() - began < 5


def test_refusals_are_shown_in_the_servers_words_and_cut(local, folder):
    server = CompletionsServer(local, folder)
    with serving(server) as address:
        served = load(address)
        server.trouble = lambda path, body: (400, {"error": {"message": "no \x1b[31mway " + "x" * 5000}})
        with pytest.raises(LmpplError, match="with status 400") as raised:
            served.score((0,), [(1,)], [0])
    assert "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 2000


def test_without_what_speaks_http_it_is_said_what_to_install(address, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)
    with pytest.raises(LmpplError, match="not installed") as raised:
        load(address)
    assert "lmppl-lang[http]" in raised.value.diagnostics[0].help


def test_a_server_that_has_never_answered_is_an_error_at_its_line_and_soon(monkeypatch):
    monkeypatch.setattr(wires, "FIRST_PATIENCE", 0.2)
    with pytest.raises(LmpplError, match="has not answered") as raised:
        load("http://127.0.0.1:9/v1#small")
    (found,) = raised.value.diagnostics
    assert found.code == "server-silent"
    assert "lm LM = " in str(raised.value)  # its line is shown
