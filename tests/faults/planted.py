"""Bugs to plant, one at a time, and the tests that must see them: `make faults` does it, and writes a table.

A bug is one place of the package with other text in it. The table grows: a bug that a test has missed is added here,
with the test that sees it from then on.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """One change of a file of the package, and the tests that are run on it."""

    file: str
    old: str  # stands in the file once
    new: str
    what: str  # the fault, in a few words
    tests: str  # arguments of pytest, in tests/


HAND = "test_by_hand.py"
LAWS = "test_laws.py"
KERNEL = "laws/test_kernel.py -m 'slow or not slow' -k 'invariant or mixture or choice_moves or other_law'"
DENSITY = "laws/test_density.py"
FORMS = "laws/test_forms.py laws/test_samplers.py -k exact_support"


def drawn(engine: str, cells: str = "") -> str:
    """The tests of the law that an engine draws from."""
    return f"laws/test_samplers.py -m 'slow or not slow' -k 'draws_follow and {engine}{cells and f' and ({cells})'}'"


BUGS = [
    # --- laws of the next token
    Bug("laws.py", "before >= top_p", "before + ordered.exp() >= top_p", "the nucleus is one token short", LAWS),
    Bug("laws.py", "base.gather(1, tokens)) / temperature", "base.gather(1, tokens))", "no temperature in log q", LAWS),
    Bug("laws.py", "mixed = plain + np.log1p(-HURRY)", "mixed = plain", "a hurried law adds up to more than 1", LAWS),
    Bug("laws.py", "clamp(max=law.shape[-1] - 1).cpu()", "clamp(max=law.shape[-1] - 2).cpu()",
        "the last token is never drawn", LAWS),
    Bug("laws.py", "base.amax(-1, keepdim=True) + np.log(min_p)", "base.amax(-1, keepdim=True) - np.log(min_p)",
        "min_p keeps what it should leave out", "test_tracing.py test_laws.py"),
    # --- stopping, density, masks
    Bug("stopping.py", "if self.end_allowed and len(tokens) < self.maximum else", "if self.end_allowed else",
        "a text that was cut is scored with an end", DENSITY),
    Bug("stopping.py", "self.until in self.decode(tokens) and self.until not in self.decode(tokens[:-1])",
        "self.until in self.decode(tokens)", "a text may go on behind its `until`", HAND),
    Bug("masks.py", "np.logical_or.reduce(known) if known", "np.logical_and.reduce(known) if known",
        "a mask of `or` is that of `and`", HAND),
    Bug("masks.py", "return np.logical_and.reduce(known) if len(known) == len(parts) else None",
        "return np.logical_or.reduce(known) if len(known) == len(parts) else None", "a mask of `and` is that of `or`",
        HAND),
    Bug("masks.py", "self._table.after[self._state]] < left", "self._table.after[self._state]] < left - 1",
        "a mask thinks that it has a token less", drawn("importance", "regex or constraint")),
    Bug("masks.py", "kept.append(self._rows[row].copy() if row in seen else self._rows[row])",
        "kept.append(self._rows[row])", "copies of a row share their mask", drawn("smc", "regex or grammar")),
    Bug("prefix_rewards.py", "(closed[t] if len(stopping.scored(stopped.value)) > t else 0.0)", "closed[t]",
        "a text that was cut is paid for an end, as a prefix", "test_prefix_rewards.py"),
    Bug("prefix_rewards.py", "running[i][1:] += term.power * np.cumsum", "running[i][1:] += np.cumsum",
        "a prior's power is left out of prefixes", "test_prefix_rewards.py"),
    # --- importance, rejection
    Bug("engines/importance.py", "float(density.total[i] - log_proposal[i]),", "float(density.total[i]),",
        "weights without the proposal", drawn("importance")),
    Bug("engines/weights.py", "np.logaddexp.reduce(log_weights) - np.log(len(log_weights))",
        "np.logaddexp.reduce(log_weights) - np.log(np.isfinite(log_weights).sum())",
        "impossible draws left out of the evidence", HAND),
    Bug("engines/weights.py", "relative.std() / np.sqrt(len(relative))", "relative.std() / len(relative)",
        "an error of the evidence far too small", HAND),
    Bug("engines/rejection.py", "drawn.log_proposal - bound\n", "drawn.log_proposal\n",
        "rejection forgets its bound", drawn("rejection")),
    Bug("engines/rejection.py", "log_ratios.append(log_ratio + bound)", "log_ratios.append(log_ratio)",
        "the bound is missing in rejection's evidence", drawn("rejection")),
    Bug("engines/defensive.py", "np.log1p(-self.share) + log_learned", "log_learned",
        "a mixture that adds up to more than 1", "laws/test_proposals.py test_amortised.py -m 'slow or not slow'"),
    # --- the kernel and chains
    Bug("engines/kernel.py", "float(law[i, int(walker.state[name])] - law[i, new[i]])", "0.0",
        "a choice's move without its ratio", KERNEL),
    Bug("engines/kernel.py",
        "old[move.cut :, move.component].sum() - new[move.cut :, move.component].sum()",
        "old[:, move.component].sum() - new[move.cut :, move.component].sum()",
        "a suffix's ratio counts what was kept", KERNEL),
    Bug("engines/kernel.py", "float(old[span, component].sum() - new[span, component].sum())",
        "float(new[span, component].sum() - old[span, component].sum())", "a span's ratio upside down", KERNEL),
    Bug("engines/kernel.py", "                moved = self._retrace(moved, latent)", "                pass",
        "later texts keep scores of an old context", HAND),
    Bug("engines/kernel.py", "log_proposal={**walker.log_proposal, **({name: log_proposal[i]} if log_proposal else {})},",
        "log_proposal=walker.log_proposal,", "a moved text keeps the old log q", KERNEL),
    Bug("engines/kernel.py", "log_learned=None,\n                factors", "factors",
        "a moved state keeps what a sampler said of the old", HAND),
    Bug("engines/kernel.py", "return [(new, old.log_start - new.log_start) for old, new in zip(walkers, fresh, strict=True)]\n\n    def _found",
        "return [(new, 0.0) for old, new in zip(walkers, fresh, strict=True)]\n\n    def _found",
        "a restart without its ratio", f"{HAND} laws/test_kernel.py -m 'slow or not slow'"),
    Bug("engines/mcmc.py", "samples += [sample(c, draw, now[i]) for draw", "samples += [sample(c, draw, after.walkers[i]) for draw",
        "steps that were passed over get a later state", HAND),
    Bug("engines/mcmc.py", "kept = [at - settings.num_warmup for at in steps if at >= settings.num_warmup]",
        "kept = [at for at in steps]", "warm-up is kept", HAND),
    Bug("engines/moves.py", "return self.cut < len(walker.log_prior[self.latent.name])",
        "return self.cut < len(walker.log_prior[self.latent.name]) - 1", "the last position is never redrawn", KERNEL),
    Bug("engines/moves.py", "self.cut + self.length <= len(tokens_of(walker, self.latent.name))",
        "self.cut + self.length < len(tokens_of(walker, self.latent.name))", "spans never reach the last token", KERNEL),
    Bug("engines/tempering.py", "(warm.log_density - warm.log_start) - (cold.log_density - cold.log_start)",
        "warm.log_density - cold.log_density", "an exchange without q₀",
        "laws/test_chains.py -m 'slow or not slow' -k 'exchange or tempered'"),
    Bug("engines/coupling.py", "ceil((time - self.lag - after) / self.lag)", "ceil((time - self.lag - after) / self.lag) - 1",
        "a bound on the distance from the law, one too low", "laws/test_chains.py -m 'slow or not slow' -k bound"),
    Bug("engines/walker.py", "np.logaddexp(np.log1p(-FOUND) + drawn, np.log(FOUND) + self.finds.log_prob(self.state))",
        "drawn", "q₀ without what a search found", "laws/test_kernel.py -k restarts"),
    Bug("engines/walker.py", "np.logaddexp.reduce(log_proposal.sum(0)) - np.log(log_proposal.shape[1])",
        "log_proposal.sum(0).mean()", "a mixture of temperatures by the mean of logs",
        "laws/test_kernel.py -k restarts"),
    # --- annealing and particles
    Bug("engines/annealed.py", "log_weights = step * slopes", "log_weights = replicate.beta * slopes",
        "a step of β weighs with all of β", drawn("annealed", "until-nothing")),
    Bug("engines/annealed.py", "sample(replicate.number, draw, replicate.walkers[i], replicate.log_evidence)",
        "sample(replicate.number, draw, replicate.walkers[i])", "replicates of annealing are pooled alike", HAND),
    Bug("engines/smc.py", "k not in inferred and k not in replicate.judged}", "k not in inferred}",
        "factors that were judged early count again", HAND),
    Bug("engines/smc.py", "float(density.total[i]), factors, log_mean)", "float(density.total[i]), factors, 0.0)",
        "replicates of particles are pooled alike", HAND),
    Bug("engines/smc.py", "left + np.log(good.mean()) if good.any()", "left if good.any()",
        "the share of good tries is left out", HAND),
    Bug("engines/smc.py", "gain = gained - law[place, tokens].double().cpu().numpy()",
        "gain = gained * 0", "particles without their weights", drawn("smc", "observe")),
    Bug("engines/smc.py", "weights[rows] = np.logaddexp.reduce(log_weights) - np.log(len(rows))", "weights[rows] = 0.0",
        "resampling forgets the weight so far", drawn("smc", "observe or constraint")),
    Bug("engines/smc.py", "log_share[same] = float(torch.logsumexp(left[place].double(), -1))", "pass",
        "tokens that are left out take no weight", drawn("smc", "constraint")),
    Bug("engines/resampling.py", "pooled = float(np.logaddexp.reduce(values) - np.log(len(values)))",
        "pooled = float(values.mean())", "the evidence by the mean of logs", HAND),
    Bug("engines/resampling.py", "(np.arange(count) + uniform) / count", "(np.arange(count) + uniform**4) / count",
        "systematic resampling leans to the first", HAND),
    # --- search and prediction
    Bug("engines/search.py", "self._branch(node, law - node.negative_bound)",
        "self._branch(node, np.minimum(law - node.negative_bound, 0.0))", "a search's bound is cut at 1", HAND),
    Bug("engines/search.py", "np.logaddexp.reduce([self.pruned, *others])) if len(others)", "self.pruned) if len(others)",
        "pruned mass is left out of the interval", HAND),
    Bug("engines/predict.py", "(mass[kept] @ law).tolist()", "(law.mean(0)).tolist()",
        "a prediction that forgets the draws' mass", "test_predict.py"),
    # --- learning
    Bug("engines/amortised/objectives.py", "weight = shape.decay **", "weight = 1.0 **", "λ of SubTB acts on nothing", HAND),
    Bug("engines/amortised/objectives.py", "flow = torch.where(valid, batch.prefix_reward, 0.0) - torch.where(valid, batch.log_stop, 0.0) - before",
        "flow = torch.where(valid, batch.prefix_reward, 0.0) - before", "SubTB without the stop", HAND),
    Bug("engines/amortised/objectives.py", "residual - residual.mean()", "residual",
        "VarGrad is not taken around the mean", HAND),
    Bug("engines/amortised/objectives.py", "width * (2 * size - width)", "width * size",
        "Huber's loss has a step", HAND),
    Bug("engines/amortised/recipe.py", "self.first_epsilon + step / max(1, steps - 1)", "self.first_epsilon - step / max(1, steps - 1)",
        "ε goes up", HAND),
    Bug("engines/amortised/reward.py", "beta * (self.priors + self.others) + (1 - beta) * self.level",
        "beta * self.priors + self.others + (1 - beta) * self.level", "β tempers the prior alone", "test_amortised.py"),
    Bug("engines/amortised/buffer.py", "np.flatnonzero(judged.broken == 0)", "np.flatnonzero(judged.broken >= 0)",
        "forbidden states are replayed", "test_amortised.py"),
    # --- numbers about draws
    Bug("diagnose.py", "_split_r_hat(rank_normalise(folded))", "_split_r_hat(folded)", "folded values keep their scale", HAND),
    Bug("diagnose.py", '{"ess_mean": variance / spread if spread > 0 else kish,', '{"ess_mean": kish,',
        "the error of a weighted mean by Kish's size", HAND),
    Bug("diagnose.py", "split = np.concatenate([values[:, :half], values[:, -half:]])\n    within",
        "split = values\n    within", "R-hat does not split chains", HAND),
    Bug("measures/labels.py", "(confidence * BINS).astype(int)", "np.rint(confidence * BINS).astype(int)",
        "bins of confidence by rounding", HAND),
    Bug("measures/labels.py", "-math.log(law[label])", "-math.log2(law[label])", "a log loss in bits", "test_measures.py"),
    Bug("compare/reference.py", "return Truth(row.log_evidence, log_density, lengths, row.weights)",
        "return Truth(row.log_evidence, log_density, lengths, np.ones(len(row.weights)) / len(row.weights))",
        "gold forgets its draws' weights", HAND),
    Bug("certificates.py", "together = np.append(drawn[:-1], own)", "together = np.append(drawn, own)",
        "an upper bound from one draw too many", "test_certificates.py -m 'slow or not slow'"),
    Bug("ranks.py", "return below + int(uniform * (equal + 1))", "return below", "ranks of ties are the lowest", "test_sbc.py"),
    Bug("simulate.py", "target = self._bind(replace(self.row, givens=givens, observed=observed), tokens)",
        "target = self._bind(replace(self.row, givens=givens, observed=observed), {})",
        "simulated texts are read again as text", "test_simulate.py"),
]  # fmt: skip
