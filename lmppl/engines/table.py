"""The engine table: names here, one module each, imported when used. A new engine is a module and
an entry, which says of its draws what their judges ask.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from lmppl.diagnosis import Alternatives, Traits
from lmppl.lm import Capabilities, Capability

if TYPE_CHECKING:
    from lmppl.engines.contract import Engine

USUAL = Alternatives(
    apart=("annealed",),
    still=("importance", "annealed", "mcmc"),
    few=("mcmc", "annealed"),
    heavy=("annealed", "mcmc"),
    fresh=("importance",),
    general=("annealed", "mcmc", "importance", "smc"),
)
MISSES = (
    "what its policy never draws is missing from draws, weights and evidence, and no weight "
    "shows it"
)
PROPOSAL = (
    "Give its --out folder to another engine as -o proposal=, which adds a share of the prior."
)
TRAIN_ON = "train on with more -o steps=."


def _of(name: str, **own: bool | str | Alternatives) -> Traits:
    return replace(Traits(name, alternatives=USUAL), **own)


ENTRIES = [
    _of("annealed", longer="Take more with -o particles= or -o moves="),
    _of("exact", independent=True, whole=True),
    _of("genlm-control"),
    _of("gflownet", nearer=TRAIN_ON),
    _of("importance", independent=True, nearer="flatten the proposal with -o temperatures=."),
    _of("mcmc", longer="Take more --num-warmup and --num-samples"),
    _of(
        "ppo",
        caveat=f"ppo seeks modes: {MISSES}. {PROPOSAL}",
        alternatives=replace(USUAL, heavy=("gflownet",)),
    ),
    _of(
        "prompting",
        independent=True,
        inferred=False,
        caveat=(
            "prompting gives what the model writes, no draws of the posterior. Use another "
            "--engine to infer."
        ),
    ),
    _of("rejection", independent=True),
    _of(
        "sft",
        caveat=f"sft imitates the texts that it was given: {MISSES}. {PROPOSAL}",
        nearer=TRAIN_ON,
    ),
    _of("smc"),
]
POLICY = frozenset({Capability.LAWS, Capability.GRADIENTS})  # an adapter, drawn token by token
# of models that draw latents, where it is not the laws of next tokens alone
_NEEDS: dict[str, Capabilities] = {
    "genlm-control": frozenset({Capability.LAWS, Capability.FOLDER}),
    "gflownet": POLICY,
    "importance": frozenset({Capability.DRAWS}),
    "ppo": POLICY,
    "prompting": frozenset({Capability.DRAWS}),
    "rejection": frozenset({Capability.DRAWS}),
    "sft": POLICY,
}
_BY_NAME = {own.name: own for own in ENTRIES}
ENGINE_NAMES = tuple(_BY_NAME)


def engine(name: str) -> Engine:
    """The engine of this name, which must be in ENGINE_NAMES. Its module is `lmppl.engines.NAME`,
    `_` for `-`.
    """
    return import_module(f"lmppl.engines.{name.replace('-', '_')}").ENGINE


def needs(name: str) -> Capabilities:
    """What the engine of this name needs of models that draw latents, under its usual options. Told
    without importing the engine.
    """
    return _NEEDS.get(name, frozenset({Capability.LAWS}))


def traits(name: str) -> Traits:
    """What the engine of this name says of its draws; the usual, where another version made them
    by an engine that is not known here.
    """
    return _BY_NAME.get(name) or _of(name)
