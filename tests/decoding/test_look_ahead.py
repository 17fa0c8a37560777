"""Looking ahead to words that must come up: tables against enumeration, and evidence and law against brute force."""

import itertools
import math

import numpy as np
import pytest
import torch

import lmppl
from lmppl.data.rows import Row
from lmppl.decoding.look_ahead import DEFENSIVE, AheadRows
from lmppl.density.binding import bind
from lmppl.lm.base import BaseDecoder
from lmppl.lm.pieces import PieceTokenizer
from lmppl.run import Request, run

WORDS = (" ri", "ver", " dog", "do", "g", " the", ".", "<end>")
END = len(WORDS) - 1
CASES = {  # endings and constraints: across tokens, many times, overlapping, forbidden, in other cases, either
    "words": ('until "." max 4', 'contains(Z, "river") and contains(Z, "dog")'),
    "count": ("max 4", 'count(Z, "dog") >= 2'),
    "overlapping": ("max 4", 'contains(Z, "dogd") and contains(Z, "gdog")'),
    "forbidden": ('until "." max 4', 'contains(Z, "dog") and not contains(Z, "the")'),
    "at most": ("max 4", 'contains(Z, "river") and count(Z, "dog") <= 1 and words(Z) <= 2'),
    "either": ('until "." max 4', 'contains(lower(Z), "river") or count(Z, "g") == 3'),
    "across the end": ('until "g." max 4', 'contains(Z, "dog")'),
    "more than is seen": ("max 4", 'contains(Z, "dog") and chars(Z) >= 8'),
}
QUICK = ("words", "count", "across the end")
CHAINS = 60
POWERS = {"plain": "", "sharp": "^2"}


class Pairs(BaseDecoder):
    """The law of a token hangs on the token before it."""

    def __init__(self, seed=0, alike=False):
        pieces = [*(word.encode() for word in WORDS[:-1]), b"<end>"]
        super().__init__(_Longest(pieces, END), identifier="pairs")
        logits = np.random.default_rng(seed).normal(0, 1.2, (1 if alike else len(WORDS), len(WORDS)))
        logits = np.broadcast_to(logits, (len(WORDS), len(WORDS)))
        self.table = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    def next_laws(self, rows):
        return [self.table[list(tokens[first - 1 :])] for tokens, first in rows]


class _Longest(PieceTokenizer):
    def encode(self, text, *, markers, opening=False):
        tokens = []
        while text:
            known = [i for i in range(END) if text.startswith(WORDS[i])]
            token = max(known, key=lambda i: len(WORDS[i]), default=END)  # what no piece has is passed over
            tokens += [token] if known else []
            text = text[len(WORDS[token]) if known else 1 :]
        return tuple(tokens)


def program(case, power=""):
    ending, constraint = CASES[case]
    return lmppl.compile(f'lm LM = "m"\nZ ~ LM(" the"){power} {ending}\nconstrain {constraint}\n').program


def bound(case, model):
    target, findings = bind(program(case), {"LM": model}, Row({}, {}))
    assert [finding.code for finding in findings] == ["unguided"] * (case == "more than is seen")
    return target


def texts(target):
    """Every text that may end as it does, whatever the constraint."""
    stopping = target.text_latent("Z").stopping
    for length in range(stopping.maximum + 1):
        yield from filter(stopping.legal, itertools.product(range(END), repeat=length))


def truth(case, model, power):
    """Log density of every text that is possible."""
    target, _ = bind(program(case, power), {"LM": model}, Row({}, {}))
    states = [{"Z": tokens} for tokens in texts(target)]
    density = target.log_density(states).total
    return {state["Z"]: value for state, value in zip(states, density, strict=True) if value > -np.inf}


@pytest.mark.parametrize("case", CASES)
def test_a_path_ends_in_the_language_where_the_text_meets_the_constraint(case):
    target = bound(case, Pairs())
    stopping, ends = target.text_latent("Z").stopping, target.text_latent("Z").look_ahead().ends
    inside, outside = len(ends.cut) - 2, len(ends.cut) - 1
    for tokens in texts(target):
        state, scored = 0, stopping.scored(tokens)
        for token in scored:
            assert state not in (inside, outside)
            state = int(ends.after[state, token])
        holds = target.holds(target.program.constraints, {"Z": tokens})
        over = bool(ends.cut[state])
        assert over == holds or (case == "more than is seen" and over)


@pytest.mark.parametrize("case", [case for case in CASES if case != "more than is seen"])
def test_chances_of_tokens_that_come_by_themselves_are_exact(case):
    model = Pairs(alike=True)
    target = bound(case, model)
    ahead = target.text_latent("Z").look_ahead()
    states = np.arange(len(ahead.ends.cut) - 2)
    laws = torch.as_tensor(np.broadcast_to(model.table[0], (len(states), len(WORDS))).copy())
    for _ in range(3):
        ahead.learn(states, laws, np.full(len(states), 10**12))
    evidence = np.logaddexp.reduce(list(truth(case, model, "").values()))
    assert ahead.chances[-1, 0] == pytest.approx(evidence)


@pytest.mark.parametrize("case", CASES)
def test_a_text_that_is_cut_where_it_may_not_be_has_no_end_in_the_language(case):
    target = bound(case, Pairs())
    stopping, ends = target.text_latent("Z").stopping, target.text_latent("Z").look_ahead().ends
    for tokens in itertools.product(range(END), repeat=stopping.maximum):
        if not any(stopping.closes(tokens[:length]) for length in range(stopping.maximum)):
            state = 0
            for token in tokens:
                state = int(ends.after[state, token])
            assert ends.cut[state] <= stopping.legal(tokens)


@pytest.mark.parametrize("case", [case for case in CASES if case != "more than is seen"])
def test_tokens_that_come_by_themselves_are_drawn_by_the_law_that_meets_the_constraint(case):
    """But for the share that looks at nothing: the chance of a token then is what is left of the posterior's."""
    model = Pairs(alike=True)
    target = bound(case, model)
    stopping, ahead = target.text_latent("Z").stopping, target.text_latent("Z").look_ahead()
    states = np.arange(len(ahead.ends.cut) - 2)
    whole = torch.as_tensor(model.table[:1].copy())
    ahead.learn(states, whole.expand(len(states), -1), np.full(len(states), 10**12))
    density = truth(case, model, "")
    scored = {stopping.scored(tokens): math.exp(value) for tokens, value in density.items()}
    for prefix in {text[:n] for text in scored for n in range(len(text))}:
        rows = AheadRows(ahead, np.array([0]))
        for token in prefix:
            rows.push(np.array([token]))
        mass = np.zeros(len(WORDS))
        for text, share in scored.items():
            if text[: len(prefix)] == prefix:
                mass[text[len(prefix)]] += share
        plain = np.exp(model.table[0]) * (mass > 0)
        expected = DEFENSIVE * plain / plain.sum() + (1 - DEFENSIVE) * mass / mass.sum()
        np.testing.assert_allclose(rows.twisted(whole).exp()[0], expected, atol=1e-6)


def test_what_has_begun_is_taken_to_go_on():
    """Behind " ri" a usual token loses what has begun of "river": what goes on is taken to be likelier than it is."""
    ahead = bound("words", Pairs()).text_latent("Z").look_ahead()
    law = np.full(len(WORDS), 0.01)
    law[WORDS.index(" the")] = 0.93
    ahead.learn(np.array([0]), torch.as_tensor(np.log(law))[None], np.array([1]))
    begun = int(ahead.ends.after[0, WORDS.index(" ri")])
    met = int(ahead.ends.after[begun, WORDS.index("ver")])
    assert ahead.chances[3, begun] - ahead.chances[2, met] > np.log(5 * 0.01)


RUNS = [pytest.param(case, power, marks=() if case in QUICK and power == "plain" else pytest.mark.slow)
        for case in CASES for power in POWERS]  # fmt: skip


@pytest.mark.parametrize(("case", "power"), RUNS)
def test_evidence_and_law_are_unbiased(case, power):
    """The mean weight of each text is its density, whatever was learned on the way."""
    model = Pairs(seed=3)
    density = truth(case, model, POWERS[power])
    request = Request("smc", {"chains": CHAINS, "num_samples": 1}, {"particles": 6, "pilot": 24}, 1, 512)
    row = run(program(case, POWERS[power]), [Row({}, {})], {"LM": model}, request).rows[0]
    weights = np.zeros((CHAINS, len(density)))
    place = {tokens: i for i, tokens in enumerate(density)}
    logs = np.array(row.diagnostics.log_evidence_by_replicate, dtype=float)
    for draw in row.draws:
        weights[draw.chain, place[tuple(draw.tokens["Z"])]] = np.exp(logs[draw.chain])
    masses = np.exp(list(density.values()))
    most = np.argsort(-masses)[:3]
    told = np.column_stack([np.exp(logs), weights[:, most]])
    expected = np.array([masses.sum(), *masses[most]])
    error = told.std(0, ddof=1) / np.sqrt(CHAINS)
    met = (told > 0).sum(0) >= 10  # a text that hardly a replicate has met has no error that can be told
    assert met[0]
    assert (np.abs(told.mean(0) - expected) < 3.5 * error + 1e-12)[met].all()
    assert error[0] < 0.4 * expected[0]
