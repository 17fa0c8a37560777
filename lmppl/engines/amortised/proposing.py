"""A policy from a folder, lent to targets as what engines may propose from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmppl import ir
from lmppl.decoding import Randomness
from lmppl.density import Floats, State, Target
from lmppl.engines.amortised.learning import cannot, read_policy
from lmppl.engines.amortised.policy import Policy
from lmppl.errors import LmpplError
from lmppl.findings import learning as learning_findings
from lmppl.lm.transformers import adapter


@dataclass(frozen=True)
class Trained:
    """A policy as the sampler of one target's states."""

    policy: Policy
    target: Target

    def draw(
        self, keys: Sequence[tuple[int, int]], randomness: Randomness
    ) -> tuple[list[State], Floats]:
        """One state a key, and log q. (N,)"""
        drawn = self.policy.draw(self.target, keys, randomness)
        return drawn.states, drawn.total

    def log_prob(self, states: Sequence[State]) -> Floats:
        """(N,) log q of states, by the code that draws."""
        return self.policy.trace(self.target, states).total


def require_proposal(program: ir.Program, options: object) -> None:
    """Raise LmpplError where an engine's options ask for a proposal that cannot be had. Loads no
    model.
    """
    folder = vars(options).get("proposal")
    if not folder:
        return
    if problem := cannot(program):
        raise LmpplError(learning_findings.no_proposal(folder, problem))
    require_learned(program, Path(folder))


def require_learned(program: ir.Program, folder: Path) -> None:
    """Raise LmpplError where a folder holds no adapter, or one that draws none of the program's
    latents.
    """
    adapter.require(folder)
    latents, trained = [latent.name for latent in program.latents], adapter.trained_latents(folder)
    if trained is not None and not trained & set(latents):
        raise LmpplError(
            learning_findings.learned_of_other_latents(folder, sorted(trained), latents)
        )


@contextmanager
def lender(program: ir.Program, options: Any) -> Iterator[Callable[[Target], None]]:
    """What gives a target the policy that an engine's options name. It is read with the first
    target that asks.

    Afterwards the models are as they were. Raises LmpplError where the folder holds no adapter of
    the model.
    """
    folder = vars(options).get("proposal")
    policies: list[Policy] = []

    def lend(target: Target) -> None:
        if not folder:
            return
        if not policies:
            policies.append(
                read_policy(
                    Path(folder), target, frozenset(latent.name for latent in program.latents)
                )
            )
        target.proposal = Trained(policies[0], target)

    try:
        yield lend
    finally:
        for policy in policies:
            policy.adapter.remove()
