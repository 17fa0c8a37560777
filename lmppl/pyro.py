"""A program as a Pyro model, a trained policy as its guide, and Metropolis-Hastings as a Pyro MCMC
kernel.

The model has one site a latent: `TokenSequence` for texts, `Categorical` over options for choices;
every other factor is a `pyro.factor`. Its log joint is the target's log density. A text's value is
a tensor of token ids of the latent's length `maximum`, padded behind its end with -1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel

from lmppl.decoding import Randomness
from lmppl.density import BoundChoice, BoundTerm, BoundText, State, Target
from lmppl.engines import mcmc
from lmppl.engines.amortised import Policy
from lmppl.engines.mcmc_kernel import ChainState
from lmppl.lm import Tokens

PADDING = -1


class TokenSequence(dist.TorchDistribution):
    """The prior of one text latent given the latents before it, as a distribution over padded token
    ids.

    batch_shape is (), event_shape is (maximum,). Draws come from the model at temperature 1; where
    the prior has a power or is a product, `log_prob` is unnormalised, and so is the model: its log
    joint is right, its forward draws are not, so condition it through a kernel or a guide. by: the
    term that draws in place of the prior's, under the same constraints, as a policy does;
    `log_prob` is then normalised, and has no gradient.
    """

    arg_constraints = {}  # type: ignore[assignment]  # noqa: RUF012  as the base class has it
    support = constraints.integer_interval(PADDING, 2**31)  # type: ignore[assignment]
    has_rsample = False

    def __init__(
        self, target: Target, name: str, state: State, by: BoundTerm | None = None
    ) -> None:
        self.target, self.name, self.state, self.by = target, name, dict(state), by
        maximum = target.text_latent(name).latent.maximum
        super().__init__(event_shape=torch.Size([maximum]), validate_args=False)

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> torch.Tensor:
        """Draws of shape sample_shape + (maximum,); Pyro's global random state decides."""
        shape = torch.Size(sample_shape)
        count, maximum = shape.numel(), self.event_shape[0]
        rollout = self.target.roll_out(
            self.name,
            [self.state] * count,
            temperatures=(1.0,),
            component=np.zeros(count, dtype=np.int64),
            uniforms=torch.rand(count, maximum, dtype=torch.float64).numpy(),
            by=self.by,
        )
        return torch.stack([pad(tokens, maximum) for tokens in rollout.tokens]).reshape(
            *shape, maximum
        )

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log density of padded texts, value.shape[:-1]: the unnormalised log prior, or that of the
        term that draws.
        """
        rows = value.reshape(-1, value.shape[-1])
        states = [{**self.state, self.name: unpad(row)} for row in rows]
        if self.by is None:
            scores = self.target.log_prior(self.name, states)
        else:
            traced = self.target.trace(self.name, states, (1.0,), self.by)
            scores = np.array([row.sum() for row in traced.log_proposal])
        return torch.as_tensor(scores).reshape(value.shape[:-1])


def pad(tokens: Tokens, length: int) -> torch.Tensor:
    """Token ids as a tensor of this length. (length,)"""
    return torch.tensor([*tokens, *[PADDING] * (length - len(tokens))], dtype=torch.long)


def unpad(row: torch.Tensor) -> Tokens:
    """Token ids of a padded row, padding left out."""
    return tuple(int(token) for token in row if token != PADDING)


def _sample_latents(target: Target, terms: Callable[[str], BoundTerm | None]) -> State:
    """One site a latent that is there, in program order, drawn by a term in place of its prior
    where there is one.
    """
    state: dict = {}
    for latent in target.latents:
        if not target.is_there(latent.name, [state])[0]:
            (state[latent.name],) = target.every_value(latent.name, state)
            continue
        site = _Site(target, state, terms(latent.name))
        state[latent.name] = target.latent(latent.name).by_kind(site.text, site.choice)
    return state


@dataclass(frozen=True)
class _Site:
    """Where the next latent of a state is sampled. by: the term that draws, in place of the
    prior's.
    """

    target: Target
    state: State
    by: BoundTerm | None

    def text(self, text: BoundText) -> Tokens:
        """A text, from its tokens."""
        law = TokenSequence(self.target, text.name, self.state, self.by)
        return unpad(pyro.sample(text.name, law))

    def choice(self, choice: BoundChoice) -> int:
        """The number of an option."""
        law = self.target.choice_log_probs(choice.name, [self.state], self.by)[0]
        logits = torch.as_tensor(law)
        return int(pyro.sample(choice.name, dist.Categorical(logits=logits)))


def pyro_guide(target: Target, policy: Policy) -> Callable[[], None]:
    """A trained policy as the guide of `pyro_model(target)`: the same sites, with the policy's log
    q, no gradients.
    """

    def guide() -> None:
        _sample_latents(target, lambda name: policy.term(target, name))

    return guide


def pyro_model(target: Target) -> Callable[[], dict[str, str | None]]:
    """A Pyro model whose log joint is the target's log density. Returns the latents' texts; None
    of those that are not there, which have no site.
    """

    def model() -> dict[str, str | None]:
        state = _sample_latents(target, lambda name: None)
        density = target.log_density([state])
        inferred = {latent.name for latent in target.latents}
        for name, values in density.factors.items():
            if name not in inferred:
                pyro.factor(name, torch.as_tensor(values[0]))
        return target.texts_of(state)

    return model


class SuffixKernel(MCMCKernel):
    """Suffix Metropolis-Hastings of `engines.mcmc` as a kernel for `pyro.infer.MCMC`, one chain a
    kernel.
    """

    def __init__(
        self, target: Target, options: mcmc.Options | None = None, seed: int = 0, chain: int = 0
    ) -> None:
        self.target, self.options = target, options or mcmc.Options()
        self._moves = mcmc.kernel(target, self.options, Randomness(seed))
        # Pyro's driver asks for both; token ids need no transform
        self.model, self.transforms = (
            None,
            {},
        )
        self._number = chain
        self._chain_state: ChainState | None = None
        self._at, self._accepted = 0, 0
        self._lengths = {latent.name: latent.maximum for latent in target.texts}

    def setup(self, warmup_steps: int, *args, **kwargs) -> None:
        """Find a state of positive density; the signature is the base class's."""
        self._chain_state = mcmc.init(self._moves, [self._number], self.options.init_draws)[0]
        self._initial_params = self._params(self._chain_state)

    @property
    def initial_params(self) -> dict[str, torch.Tensor]:
        return self._initial_params

    @initial_params.setter
    def initial_params(self, params: dict[str, torch.Tensor]) -> None:
        self._initial_params = params

    def sample(self, params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One step from the kernel's own state, which `params` mirrors."""
        assert self._chain_state is not None
        after = mcmc.step(self._moves, [self._chain_state], [self._number], self._at)
        self._chain_state = after.chain_states[0]
        self._at += 1
        self._accepted += int(after.accepted[0])
        return self._params(self._chain_state)

    def logging(self) -> dict[str, str]:  # type: ignore[override]  # the base class returns None, callers a dict
        return {"acc. prob": f"{self._accepted / max(1, self._at):.3f}"}

    def diagnostics(self) -> dict[str, float]:
        return {"acceptance rate": self._accepted / max(1, self._at)}

    def _params(self, chain_state: ChainState) -> dict[str, torch.Tensor]:
        return {
            name: pad(value, self._lengths[name])
            if isinstance(value, tuple)
            else torch.tensor(value)
            for name, value in chain_state.state.items()
        }
