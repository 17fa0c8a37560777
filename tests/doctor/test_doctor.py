"""Every check passes on a model that is right, and fails where a switch makes it wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from rich.console import Console

from lmppl.cli.app import app
from lmppl.doctor import CHECKS, Sizes, examine_model
from lmppl.doctor.patient import QUESTION
from lmppl.errors import LmpplError, error
from lmppl.lm import BaseScorer, Capability, ChatTemplate, Drawn, TableModel
from lmppl.report import show_report
from lmppl.testing import Traps
from lmppl.testing.server import replies
from lmppl.testing.server.questions import Refused
from lmppl.testing.server.replies import COMPLETIONS, Replies

WORDS = [" a", " b", " c", " d", " e", " f", " g", " h", " i", " j"]
LETTERS = sorted({*QUESTION, *"ua|."})  # which no text has: they are there to spell a question
RARE = {" c": 0.08, " d": 0.07, " e": 0.04, " f": 0.03, **dict.fromkeys(WORDS[6:], 0.0125)}
TABLE = {
    "vocabulary": [*WORDS, *LETTERS],
    "laws": {
        "": {" a": 0.3, " b": 0.2, **RARE, ".": 0.1, "<end>": 0.13},
        " a": {" a": 0.1, " b": 0.4, **RARE, ".": 0.1, "<end>": 0.13},
        ".": {" a": 0.25, "<end>": 0.75},
    },
}
SIZES = Sizes(texts=10, tokens=8, singles=500, prefix=80)


def table():
    return TableModel(TABLE)


class Client(BaseScorer):
    """A model behind a server, in this process: it believes what comes back. Rows are one request's, so that they are
    neighbours.
    """

    capabilities = frozenset({Capability.DRAWS})

    def __init__(self, model, traps=None, name="fake", adapters=None):
        super().__init__(model, window=((traps and traps.claimed_window) or model.window) - 1)
        self.served_name, self.chat = name, model.chat
        self._replies = Replies(model, traps or Traps(), "fake", adapters or {}, None, 20)

    def ask(self, route, body):
        try:
            return self._replies.answer(route, json.loads(json.dumps(body)))
        except Refused as reason:
            raise LmpplError(error("refused", reason.message)) from None

    def _choices(self, **asked):
        plain = {"temperature": 1, "top_p": 1, "logprobs": 0, "return_token_ids": True}
        return self.ask(COMPLETIONS, {**plain, "model": self.served_name, **asked})["choices"]

    def score(self, prompt, continuations, starts):
        rows = [[*prompt, *tokens] for tokens in continuations]
        choices = self._choices(prompt=rows, max_tokens=1, prompt_logprobs=0)
        found = []
        for row, start, one in zip(rows, starts, choices, strict=True):
            if one["prompt_logprobs"] is None:
                raise LmpplError(error("server-lacks", "the server returns no log probabilities"))
            told = zip(row[-len(one["prompt_logprobs"]) :], one["prompt_logprobs"], strict=True)
            scores = [np.nan if law is None else law[str(token)]["logprob"] for token, law in told]
            found.append(np.array(scores[len(prompt) + start - len(row) + len(scores) :]))
        return found

    def sample(self, prompt, suffixes, seeds, maximum, until=None):
        """Runs of seeds that follow each other are one request, whose row i has the seed behind it by i."""
        found = []
        while len(found) < len(seeds):
            first = len(found)
            count = next((i for i in range(1, len(seeds) - first) if seeds[first + i] != seeds[first] + i), None)
            count = len(seeds) - first if count is None else count
            stop = {} if until is None else {"stop": [until], "include_stop_str_in_output": True}
            row = [*prompt, *suffixes[first]]
            for one in self._choices(prompt=row, max_tokens=maximum, seed=seeds[first], n=count, **stop):
                told = one["logprobs"]["token_logprobs"]
                if not told:
                    raise LmpplError(error("odd-answer", "the server answers with no token"))
                found.append(Drawn(tuple(one["token_ids"]), np.array(told)))
        return found


def statuses(report):
    return {one.name: one.status for one in report.checks}


def amiss(report):
    """Names of checks that did not pass though they applied."""
    return {name for name, status in statuses(report).items() if status not in ("pass", "–")}


def applied(report):
    return {name for name, status in statuses(report).items() if status != "–"}


def talking(model):
    model.chat = ChatTemplate(
        "{% for m in messages %}{{ m.role[0] }}{{ m.content }}|{% endfor %}{% if add_generation_prompt %}a{% endif %}"
    )
    return model


# --- what is right --------------------------------------------------------------------------------


def test_a_model_that_is_right():
    report = examine_model(table(), SIZES)
    assert amiss(report) == set()
    assert {"sum to one", "own laws", "masked", "nothing cut", "tails", "ends as often"} <= applied(report)
    assert report.verdict == "pass"


@pytest.mark.slow
def test_a_server_that_is_right():
    report = examine_model(Client(table()), SIZES)
    assert amiss(report) == set()
    assert {"raw or processed", "mask obeyed", "mask told", "masked", "end scored", "tails"} <= applied(report)


@pytest.mark.slow
def test_a_network_that_is_right():
    chosen = tiny.sentencepiece()
    report = examine_model(tiny.model(chosen=chosen), SIZES)
    assert amiss(report) == set()
    assert {"window", "markers in data"} <= applied(report)


def test_there_are_fifteen_checks_and_more():
    assert len({check.name for check in CHECKS}) == len(CHECKS) >= 15


# --- what is wrong --------------------------------------------------------------------------------

# each with the checks that see it; no others may, but where nothing can be told at all
TRAPS = {
    "log p too large": (Traps(offset=1.0), {"at most zero", "sum to one", "ends as often", "mask told", "masked"}),
    "log p a place late": (Traps(shifted=True), {"in place", "drawn as scored", "end scored"}),
    "draws are not as scored": (
        Traps(decoding_noise=0.3), {"drawn as scored", "end scored", "raw or processed", "mask told"},
    ),
    "the end has no log p": (Traps(end_unscored=True), {"end scored", "raw or processed"}),
    "a cache keeps scores back": (Traps(stale_block=32), {"known prefix"}),
    "unmasked log p": (Traps(mask_unscored=True), {"mask told"}),
    "a mask is ignored": (Traps(ignored=frozenset({"structured_outputs"})), {"mask obeyed"}),
    "hidden top_p": (Traps(forced_top_p=0.9), {"nothing cut", "tails"}),
    "another temperature": (Traps(forced_temperature=2.0), {"draws follow scores", "tails", "masked"}),
    "no tails": (Traps(never_below=0.06), {"nothing cut", "tails"}),
    "seeds are ignored": (Traps(seeds_ignored=True), {"seeds alone", "seeds beside"}),
    "seeds move": (Traps(seeds_moved=True), {"seeds beside"}),
    "a false window": (Traps(claimed_window=160), {"window"}),
    "clipped in silence": (Traps(claimed_window=160, clips=True), {"window"}),
    "an empty turn": (Traps(empty_turn=True), {"server's template"}),
}  # fmt: skip
BLINDING = {  # all that hangs on what is missing is lost with it
    "no scores": (Traps(unscored_prompts=True), "scored"),
    "no end": (Traps(hides_end=True), "end scored"),
    "noise of neighbours": (Traps(batch_noise=0.3), "batch order"),
    "noise of neighbours, too": (Traps(batch_noise=0.3), "batch size"),
    "noise of places": (Traps(batch_noise=0.3), "cut anywhere"),
}  # fmt: skip


class Short(TableModel):
    """A table that sees no more than some tokens."""

    def __init__(self, window):
        super().__init__(TABLE)
        self.window = window


def client(traps):
    return Client(talking(Short(150) if traps.claimed_window else table()), traps)


def wrong(traps):
    return examine_model(client(traps), SIZES)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(replies, "MEETING", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_each_trap_is_seen_by_its_checks_and_by_no_other(name):
    traps, expected = TRAPS[name]
    assert amiss(wrong(traps)) == expected


@pytest.mark.parametrize("name", ["hidden top_p"])
def test_some_traps(name):
    traps, expected = TRAPS[name]
    assert amiss(wrong(traps)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", BLINDING)
def test_each_of_these_is_seen(name):
    traps, expected = BLINDING[name]
    assert expected in amiss(wrong(traps))


def one_check(model, name, **more):
    """What one check finds."""
    (one,) = examine_model(model, SIZES, checks=[c for c in CHECKS if c.name == name], **more).checks
    return one


def test_raw_and_processed_are_told_apart():
    for traps, word in ((Traps(), "Raw"), (Traps(processed_logprobs=True), "Processed")):
        one = one_check(client(traps), "raw or processed")
        assert (one.status, one.sentence.partition(":")[0]) == ("pass", word)


def test_a_window_is_filled():
    one = one_check(Short(150), "window")
    assert one.status == "pass"
    assert "150 tokens" in one.sentence


@pytest.mark.parametrize(("inactive", "status"), [(False, "pass"), (True, "fail")])
def test_an_adapter_that_is_active_and_one_that_is_not(inactive, status):
    other = TableModel({**TABLE, "laws": {"": {" a": 0.5, " b": 0.4, "<end>": 0.1}}})
    traps, adapters = Traps(inactive_adapters=inactive), {"own": other}
    own, base = (Client(table(), traps, name, adapters) for name in ("own", "fake"))
    assert one_check(own, "adapter active", base=base).status == status


class Marked(TableModel):
    """Its tokenizer reads markers in data."""

    def encode(self, text, *, markers, opening=False):
        return super().encode(text, markers=True, opening=opening)


class Deaf(TableModel):
    """Its tokenizer drops the space at a text's beginning."""

    def encode(self, text, *, markers, opening=False):
        return super().encode(text.lstrip(" "), markers=markers, opening=opening)


class Jumpy(TableModel):
    """Its growing texts have other laws than its scores."""

    def stream(self, prompt, suffixes):
        made = super().stream(prompt, [(*suffix, 0) for suffix in suffixes])
        return made


@pytest.mark.parametrize(("made", "name"), [(Marked, "markers in data"), (Deaf, "there and back"), (Jumpy, "own laws")])
def test_models_that_are_wrong_here(made, name):
    assert one_check(made(TABLE), name).status == "fail"


def test_a_template_that_does_not_close_turns():
    model = table()
    model.chat = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    one = one_check(model, "conversations")
    assert (one.status, one.number) == ("fail", pytest.approx(1 / 3))


# --- the command ----------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["doctor", *arguments])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("doctor") / "table.json"
    path.write_text(json.dumps(TABLE))
    return path


def test_the_command(file):
    done = run(f"table:{file}", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["verdict"] == "pass"
    assert {one["name"] for one in document["checks"]} == {check.name for check in CHECKS}
    assert document["facts"]["vocabulary"] == len(TABLE["vocabulary"]) + 1


def test_the_table_on_the_terminal(capsys):
    checks = [check for check in CHECKS if check.name in ("nothing cut", "scored")]
    report = examine_model(client(Traps(forced_top_p=0.5)), SIZES, checks=checks)
    report = replace(report, identifier="\x1b[2Jevil")
    show_report(report, Console(width=120))
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "Hidden truncation" in shown
    assert "verdict fail: 1 fail of 2 checks; 0 did not apply" in shown


def test_a_model_that_is_not_there():
    done = run("table:nowhere.json")
    assert isinstance(done.exception, LmpplError)
