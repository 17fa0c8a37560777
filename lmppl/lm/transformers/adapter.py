"""A low-rank adapter on a language model: one set of weights in memory, seen as two models.

The model that was loaded goes on without the adapter; `Adapter.model` is the same network with it.
A switch sets the network before every pass. The adapter is PEFT's LoRA (Hu et al. 2022) without
dropout, and is written and read in PEFT's own format, safetensors only. Knows no programs and no
training.
"""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from lmppl.errors import LmpplError, error, first_line
from lmppl.findings import run as run_findings
from lmppl.lm.protocol import nothing
from lmppl.lm.transformers.seal import damage, read_seal, seal
from lmppl.lm.transformers.silence import quiet
from lmppl.lm.transformers.weights import not_numbers, wrong_names

FILES = ("adapter_config.json", "adapter_model.safetensors")


class Adaptable(Protocol):
    """A language model on a network that an adapter can be put on."""

    model: PreTrainedModel
    identifier: str
    fingerprint: Mapping[str, str]
    root: Any  # what holds `before_pass`, which puts the network into this model's state

    def beside(self, before_pass: Callable[[], None]) -> Self:
        """The same network in another state, as a model of its own."""
        ...

    def forget_prompts(self) -> None:
        """The network's weights have changed."""
        ...


M = TypeVar("M", bound=Adaptable)


@dataclass
class Switch:
    """Whether the adapter takes part in the network's next pass."""

    network: Any  # a PEFT model
    on: bool = True

    def turn(self, on: bool) -> None:
        if on != self.on:
            tuner = self.network.base_model
            tuner.enable_adapter_layers() if on else tuner.disable_adapter_layers()
            self.on = on


@dataclass(frozen=True)
class Adapter(Generic[M]):
    """An adapter on a network, and the network with it as a language model. Implements
    lm.protocol.Adapter.
    """

    base: M
    model: M
    network: Any  # the PEFT model around the base's network
    switch: Switch

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The adapter's weights by name, in an order that is always the same."""
        self.switch.turn(True)
        named = [
            (name, value) for name, value in self.network.named_parameters() if value.requires_grad
        ]
        return dict(sorted(named))

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of what the adapter has learned so far."""
        return {
            name: value.detach().clone().contiguous() for name, value in self.parameters.items()
        }

    def put(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over weights by name, all or some."""
        parameters = self.parameters
        for name, value in weights.items():
            parameters[name].data.copy_(value)
        self.model.forget_prompts()

    def save(self, folder: Path) -> None:
        """Write PEFT's files into a folder that exists: the weights with what they are and what
        they were fitted to.

        Raises OSError where they cannot be written.
        """
        for config in self.network.peft_config.values():
            if isinstance(
                config.target_modules, set
            ):  # whose order is another one in every process
                config.target_modules = sorted(config.target_modules)
        try:
            with quiet():
                self.network.save_pretrained(str(folder), safe_serialization=True)
        except SafetensorError as reason:  # what the system would not do, as safetensors say it
            raise OSError(errno.EIO, first_line(reason), str(folder / FILES[1])) from None
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card, which says nothing
        seal(folder, self.base.fingerprint.get("weights"))

    def remove(self) -> None:
        """Leave the network as it was loaded."""
        self.network.unload()
        self.base.root.before_pass = nothing
        self.base.forget_prompts()


def add(base: M, *, rank: int, alpha: int, targets: str, seed: int) -> Adapter[M]:
    """A fresh adapter, which changes nothing yet. targets: names of layers, comma separated, or
    "all-linear".

    Raises LmpplError where the network has no such layers.
    """
    from peft import LoraConfig, get_peft_model

    chosen = targets if targets == "all-linear" else [name.strip() for name in targets.split(",")]
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=chosen, task_type="CAUSAL_LM"
    )
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            network = get_peft_model(base.model, config)
    except ValueError as reason:
        message = f"an adapter cannot be put on the layers `{targets}` of `{base.identifier}`"
        raise LmpplError(error("bad-adapter-targets", message, found=first_line(reason))) from None
    return _around(base, network)


def load(base: M, folder: Path) -> Adapter[M]:
    """The adapter that a folder holds. Raises LmpplError where there is none, or one of another
    model.

    Whatever goes wrong, the network is left as it was loaded.
    """
    from peft import PeftConfig, get_peft_model

    require(folder)
    weights = _whole_weights(folder)
    network = None
    try:
        with quiet(), warnings.catch_warnings(action="ignore"):
            config = PeftConfig.from_pretrained(str(folder))
            config.inference_mode = False
            network = get_peft_model(base.model, config)
            _put_weights(network, weights)
    except Exception as reason:  # whatever PEFT and safetensors make of a damaged or foreign file
        if network is not None:
            network.unload()
        message = f"the adapter in `{folder}` does not fit `{base.identifier}`, or is damaged"
        raise LmpplError(error("adapter-unusable", message, found=first_line(reason))) from None
    return _around(base, network)


def _whole_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in a folder. Raises LmpplError where they, or the files beside them, are not as
    they were written.
    """
    from safetensors.torch import load_file

    path = folder / FILES[1]
    try:
        weights = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as reason:
        problem = f"`{path}` cannot be read: {first_line(reason)}"
        raise LmpplError(run_findings.adapter_damaged(str(folder), problem)) from None
    if problem := damage(folder, weights):
        raise LmpplError(run_findings.adapter_damaged(str(folder), problem))
    return weights


def _put_weights(network: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Put weights into an adapter; ValueError where they are not all of its weights and no
    others.
    """
    from peft import set_peft_model_state_dict

    result = set_peft_model_state_dict(network, dict(weights))
    missing = [name for name in result.missing_keys if "lora_" in name]
    if problem := wrong_names(missing, result.unexpected_keys) or not_numbers(weights):
        raise ValueError(problem)


def merged(network: Any, folder: Path, base: str | None = None) -> Any:
    """A network with a folder's adapter, of whatever kind PEFT knows, added to its weights. base:
    their fingerprint.

    Raises LmpplError where the folder's weights are not all of the adapter's and no others, are
    damaged, or were fitted to another base, and whatever PEFT raises.
    """
    from peft import PeftModel

    weights = _whole_weights(folder)
    fitted = read_seal(folder).get("base")
    if base is not None and fitted is not None and fitted != base:
        raise LmpplError(run_findings.adapter_of_another(str(folder), fitted, base))
    with warnings.catch_warnings(action="ignore"):  # of missing weights, among others
        adapted = PeftModel.from_pretrained(network, str(folder))
    result = adapted.load_adapter(
        str(folder), "default"
    )  # again, as only this says what was missing
    if problem := wrong_names(result.missing_keys, result.unexpected_keys) or not_numbers(weights):
        raise LmpplError(run_findings.weights_not_whole(str(folder), problem))
    return adapted.merge_and_unload()


def require(folder: Path) -> None:
    """Raise LmpplError where a folder holds no adapter."""
    if not all((folder / name).is_file() for name in FILES):
        message = f"there is no adapter in `{folder}`"
        raise LmpplError(error("adapter-missing", message, expected=" and ".join(FILES)))


def trained_latents(folder: Path) -> frozenset[str] | None:
    """Names of the latents that an adapter was trained for; None where it does not say."""
    path = folder / "policy.json"
    try:
        return frozenset(json.loads(path.read_text(encoding="utf-8"))["trained"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _around(base: M, network: Any) -> Adapter[M]:
    switch = Switch(network)
    network.eval()
    adapted = base.beside(lambda: switch.turn(True))
    base.root.before_pass = lambda: switch.turn(False)
    return Adapter(base, adapted, network, switch)
