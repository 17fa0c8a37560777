"""Sampler bugs, planted one at a time: the laws see each of them."""

from dataclasses import replace

import grid
import numpy as np
import pytest
from test_samplers import ENGINES, check_law

from lmppl.data.rows import Row
from lmppl.engines import annealed, smc
from lmppl.engines.mcmc_kernel import text_moves
from lmppl.engines.mcmc_kernel.chain_state import ChainState
from lmppl.engines.mcmc_kernel.kernel import Kernel
from lmppl.engines.mcmc_kernel.rescoring import Scores
from lmppl.engines.mcmc_kernel.text_moves import TextMoves
from lmppl.run import Request, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models():
    return grid.models()


def caught(cell, models, engine, monkeypatch=None, **settings):
    """The law test fails, which it does not without the bug (test_samplers)."""
    if monkeypatch is not None:
        monkeypatch.setitem(ENGINES, engine, {**ENGINES[engine], **settings})
    with pytest.raises((AssertionError, ValueError, IndexError)):
        check_law(cell, models, engine)


# --- Metropolis-Hastings --------------------------------------------------------------------------


def test_a_dropped_length_term_is_caught(models, monkeypatch):
    """A cut that is uniform over the text's own positions, with no term for it in the ratio."""
    held, plain_step, plain_move = {}, Kernel.step, Kernel.draw_move

    def step(self, chain_states, keys, betas, ends=None):
        held.update(zip((number for number, _ in keys), chain_states, strict=True))
        return plain_step(self, chain_states, keys, betas, ends)

    def draw_move(self, key):
        move = plain_move(self, key)
        if move.latent is None or move.whole or move.kind != "suffix":
            return move
        length = len(held[key[0]].log_prior[move.latent.name])
        return replace(move, cut=int(self.randomness.uniforms(*key, 77, 1)[0] * length))

    monkeypatch.setattr(Kernel, "step", step)
    monkeypatch.setattr(Kernel, "draw_move", draw_move)
    caught(("plain", "free", "factor"), models, "mcmc", monkeypatch, chains=1500)


def test_a_mean_in_place_of_a_sum_is_caught(models, monkeypatch):
    def level(self, beta):
        return self.log_density / max(1, len(self.log_prior["Z"]))

    monkeypatch.setattr(ChainState, "level", level)
    caught(("tempered", "free", "nothing"), models, "mcmc")


def test_scores_computed_anew_with_noise_are_caught(models, monkeypatch):
    rng, plain = np.random.default_rng(0), ChainState.level
    monkeypatch.setattr(ChainState, "level", lambda self, beta: plain(self, beta) + rng.normal(0, 1.5))
    caught(("tempered", "free", "nothing"), models, "mcmc", monkeypatch, chains=1500)


def test_an_off_by_one_cut_is_caught(models, monkeypatch):
    """The ratio leaves out the first token that was drawn."""
    plain = TextMoves.suffixes

    def gap(old, new, move):
        name = move.latent.name
        return float(
            old.log_proposal[name][move.cut, move.component] - new.log_proposal[name][move.cut, move.component]
        )

    def suffixes(self, chain_states, moves, keys, betas, again=None):
        found = plain(self, chain_states, moves, keys, betas)
        return [
            (new, ratio) if new is None or move.whole else (new, ratio - gap(old, new, move))
            for old, move, (new, ratio) in zip(chain_states, moves, found, strict=True)
        ]

    monkeypatch.setattr(TextMoves, "suffixes", suffixes)
    caught(("plain", "free", "nothing"), models, "mcmc", monkeypatch, chains=1500)


def test_stale_scores_after_an_accepted_move_are_caught(models, monkeypatch):
    plain = Scores.moved

    def rescore(self, chain_states, name, values, log_prior, log_proposal):
        moved = plain(self, chain_states, name, values, log_prior, log_proposal)
        return [replace(new, log_density=old.log_density) for new, old in zip(moved, chain_states, strict=True)]

    monkeypatch.setattr(Scores, "moved", rescore)
    caught(("tempered", "free", "nothing"), models, "mcmc")


def test_a_uniform_used_twice_is_caught(models, monkeypatch):
    """The acceptance uniform is the one that drew the first token."""
    plain = Kernel.draw_move

    def draw_move(self, key):
        return replace(plain(self, key), log_uniform=float(np.log1p(-self.randomness.uniforms(*key, 0, 1)[0])))

    monkeypatch.setattr(Kernel, "draw_move", draw_move)
    caught(("plain", "cut", "factor"), models, "mcmc", monkeypatch, chains=3000)


def test_the_density_of_another_temperature_is_caught(models, monkeypatch):
    monkeypatch.setattr(text_moves, "mixture", lambda log_proposal: float(log_proposal[:, -1].sum()))
    caught(("tempered", "free", "nothing"), models, "mcmc", monkeypatch, chains=1500)


# --- weights --------------------------------------------------------------------------------------


def test_a_wrong_mixture_density_is_caught(models, monkeypatch):
    def first_only(log_q):
        return np.array([row[:, 0].sum() for row in log_q])

    monkeypatch.setattr("lmppl.engines.proposals.mixture_log_density", first_only)
    caught(("tempered", "free", "nothing"), models, "importance")


def test_a_forgotten_mask_weight_is_caught(models, monkeypatch):
    """Draws obey the mask, and log q is the unmasked model's."""
    from lmppl.decoding import rollout
    from lmppl.decoding.proposal_law import Laws

    plain = rollout._record

    def record(rows, held, growing, drawn, log_prior, laws, plan):
        plain(rows, held, growing, drawn, log_prior, Laws(log_prior, (1.0,)), plan)

    monkeypatch.setattr(rollout, "_record", record)
    caught(("plain", "until", "grammar"), models, "importance")


def test_a_forgotten_mask_weight_is_caught_in_smc(models, monkeypatch):
    from lmppl.decoding.growth import Growth

    plain = Growth.laws
    monkeypatch.setattr(Growth, "laws", lambda self: (plain(self)[1],) * 2)
    caught(("plain", "until", "grammar"), models, "smc")


def test_evidence_that_is_not_accumulated_is_caught(models, monkeypatch):
    plain = annealed._resample

    def resample(replicate, log_weights, count, randomness):
        before = replicate.log_evidence
        plain(replicate, log_weights, count, randomness)
        replicate.log_evidence = before

    monkeypatch.setattr(annealed, "_resample", resample)
    caught(("tempered", "free", "observe"), models, "annealed")


def test_replicates_pooled_equally_are_caught(models, monkeypatch):
    """Small replicates are biased one by one; only their evidence makes the pool right."""
    plain = annealed.sample
    monkeypatch.setattr(annealed, "sample", lambda *key: plain(*key[:3], 0.0))
    monkeypatch.setattr("test_samplers.SMALL", {"annealed": {"particles": 2, "waste_free": 2, "last": 0, "search": 0}})
    caught(("tempered", "free", "constraint"), models, "annealed", monkeypatch, chains=1000)


def test_an_ess_from_weights_after_resampling_is_caught(models, monkeypatch):
    """What is reported is the size before: an independent record of the weights says so."""
    cell, seen = ("tempered", "free", "constraint"), []

    def recording(plain):
        def resample(log_weights, *others):
            doubled = np.logaddexp.reduce(2 * log_weights)
            seen.append(float(np.exp(2 * np.logaddexp.reduce(log_weights) - doubled) / len(log_weights)))
            return plain(log_weights, *others)

        return resample

    for name in ("resample", "resample_apart"):
        monkeypatch.setattr(smc, name, recording(getattr(smc, name)))

    def reported():
        seen.clear()
        used = grid.used_models(cell, models)
        request = Request("smc", {"chains": 1, "num_samples": 40}, {}, 3, 64)
        row = run(grid.program(*cell), [Row({}, {})], used, request).rows[0]
        return row.diagnostics.min_ess_fraction

    assert reported() == pytest.approx(min(seen))
    monkeypatch.setattr(smc, "effective_share", lambda log_weights: 1.0)
    assert reported() != pytest.approx(min([*seen, 0.99]))


def test_an_ignored_observation_is_caught(models, monkeypatch):
    from lmppl.density.kinds.observation import BoundObservation
    from lmppl.density.scoring import Entry

    nothing = lambda self, views: Entry([], lambda answers, fold: np.zeros(len(views)))  # noqa: E731
    monkeypatch.setattr(BoundObservation, "entry", nothing)
    caught(("plain", "free", "observe"), models, "exact")


# --- tokens ---------------------------------------------------------------------------------------


def test_top_k_left_on_is_caught(models, monkeypatch):
    from lmppl.decoding import rollout

    def truncated(law, stopping, allowed, original=rollout.possible_law):
        base = original(law, stopping, allowed)
        return base.masked_fill(base < base.topk(2).values[:, -1:], -np.inf).log_softmax(-1)

    monkeypatch.setattr(rollout, "possible_law", truncated)
    caught(("plain", "free", "nothing"), models, "importance")


def test_an_unscored_end_token_is_caught(models, monkeypatch):
    from lmppl.decoding.stopping import Stopping

    monkeypatch.setattr(Stopping, "scored", lambda self, tokens: tokens)
    caught(("plain", "free", "observe"), models, "exact")


def test_a_doubled_beginning_token_is_caught(monkeypatch):
    import tiny

    models = {"LM": tiny.model(seed=6, bos=True), "OTHER": tiny.model(seed=1, bos=True)}
    cell = ("plain", "free", "nothing")

    class WithBeginning(grid.Reference):
        def log_prob(self, name, context, tokens):
            start = self.words["<start>"]
            return tiny.reference_log_prob(self.models[name], [start, *context], tokens)

        def texts(self):
            self.words = {w: t for w, t in self.words.items() if w != "<start>"} | {"<start>": self.words["<start>"]}
            yield from super().texts()

    reference = WithBeginning(cell, models)
    states = list(reference.states())
    expected = [reference.log_density(state) for state in states]
    np.testing.assert_allclose(grid.target(cell, models).log_density(states).total, expected, atol=1e-4)
    monkeypatch.setattr(
        "lmppl.lm.transformers.huggingface.HuggingFaceModel.begin",
        lambda self, tokens: (self._beginning, self._beginning, *tokens),
    )
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(grid.target(cell, models).log_density(states).total, expected, atol=1e-4)
