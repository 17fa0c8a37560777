"""The other side of `genlm-control`: a script for a Python that has that library. It needs nothing
of lmppl.

It first prints the `versions` of libraries. Then it reads requests from stdin, a JSON object a
line:

    model, dtype, device   what transformers loads, and where to
    threads                of torch
    prompt, ends           token ids: of the prompt, and of the tokens that end a text
    regex, until, tokens   the text's language; the text that ends it, or null; most tokens
    sampler                sets (exact masks, by the trie), direct (exact masks, token by token) or
    awrs (rejection) resampling, ess        method, and the share of the particles below which they
    are resampled particles, seeds       one run of sequential Monte Carlo a seed

and prints a JSON object a line: `vocabulary`, a fingerprint of the tokens' bytes; then what each
run found. Before each run the language model's outputs are forgotten and the prompt is run anew,
outside the seconds; what the automaton has cached stays. Whatever else libraries print goes to
stderr.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

LIBRARIES = ("genlm-control", "genlm-backend", "torch", "transformers")
WAIT = 0.001  # seconds that a batch waits for late callers; all callers of a step come at once
MOST_AT_ONCE = 512  # texts in one batch of the language model


def fingerprint(vocabulary: Iterable[bytes]) -> str:
    """Equal for vocabularies whose tokens have the same bytes under the same numbers."""
    digest = hashlib.sha256()
    for piece in vocabulary:
        digest.update(len(piece).to_bytes(4, "big") + piece)
    return digest.hexdigest()


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _say(answers, {"versions": {name: _version(name) for name in LIBRARIES}})
    for line in sys.stdin:
        _answer(json.loads(line), answers)


def _say(answers: TextIO, line: dict[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _answer(asked: dict[str, Any], answers: TextIO) -> None:
    import torch

    torch.set_num_threads(asked["threads"])
    model = _model(asked["model"], asked["dtype"], asked["device"], tuple(asked["ends"]))
    model.prompt_ids = asked["prompt"]
    model.model.batch_size = min(asked["particles"], MOST_AT_ONCE)
    _say(answers, {"vocabulary": fingerprint(bytes(token) for token in model.token_maps.decode)})
    sampler = _sampler(model, asked["sampler"], asked["regex"])
    for seed in asked["seeds"]:
        _say(answers, _run(model, sampler, asked, seed))


# --- what is sampled from, kept for requests of the same kind -------------------------------------


@functools.lru_cache(maxsize=1)
def _model(place: str, dtype: str, device: str, ends: tuple[int, ...]) -> Any:
    """The language model, whose prompt may be set anew."""
    import torch
    from genlm.control import PromptedLLM  # pyright: ignore[reportMissingImports]

    options = {"device_map": None if device == "cpu" else device, "torch_dtype": vars(torch)[dtype]}
    model = PromptedLLM.from_name(place, backend="hf", hf_opts=options, timeout=WAIT)
    return model.spawn_new_eos([bytes(model.token_maps.decode[token]) for token in ends])


@functools.lru_cache(maxsize=1)
def _sampler(model: Any, kind: str, regex: str) -> Any:
    """The library's token sampler of the model's texts that the regular expression matches."""
    from genlm.control import (  # pyright: ignore[reportMissingImports]
        AWRS,
        BoolFSA,
        direct_token_sampler,
        eager_token_sampler,
    )

    automaton = BoolFSA.from_regex(regex)
    if kind == "sets":
        return eager_token_sampler(model, automaton)
    coerced = automaton.coerce(model, f=b"".join)
    return AWRS(model, coerced) if kind == "awrs" else direct_token_sampler(model * coerced)


# --- one run --------------------------------------------------------------------------------------


def _run(model: Any, sampler: Any, asked: dict[str, Any], seed: int) -> dict[str, Any]:
    """What one run of sequential Monte Carlo finds. tokens: laws of a next token that the model
    worked out.
    """
    from genlm.control import EOS  # pyright: ignore[reportMissingImports]

    _sow(sampler, seed)
    network = model.model
    network.clear_cache()
    network.cache_kv(asked["prompt"])
    work = _Work()
    counting = network.model.register_forward_pre_hook(work.count)
    resampling = _Resampling(asked["resampling"], asked["particles"])
    start, start_cpu = time.perf_counter(), time.process_time()
    try:
        found = asyncio.run(_sample(sampler, asked, resampling))
    finally:
        counting.remove()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    log_weights = [float(weight) for weight in found.log_weights]
    return {
        "log_evidence": float(found.log_ml),
        "log_weights": log_weights,
        "texts": [
            [token.token_id for token in context if token is not EOS] for context in found.contexts
        ],
        "ess_shares": resampling.shares,
        "lineages": resampling.lineages,
        "ancestors": resampling.left(log_weights),
        "tokens": work.tokens,
        "passes": work.passes,
        "seconds": seconds,
        "cpu": cpu,
    }


def _sow(sampler: Any, seed: int) -> None:
    """Seed every generator that the library draws from."""
    import numpy as np
    import torch
    from genlm.control import AWRS  # pyright: ignore[reportMissingImports]

    np.random.seed(seed)
    torch.manual_seed(seed)
    if isinstance(sampler, AWRS):
        sampler.rng = np.random.default_rng(seed)


async def _sample(sampler: Any, asked: dict[str, Any], resampling: _Resampling) -> Any:
    """The library's particles. Its limit counts the end of a text, which `until` puts after the
    last token.
    """
    until = asked["until"] and asked["until"].encode()
    return await sampler.smc(
        n_particles=asked["particles"],
        ess_threshold=asked["ess"],
        max_tokens=asked["tokens"] + (1 if until else 0),
        resampling_method=resampling.register(),
        terminate_when=(lambda context: until in b"".join(map(bytes, context))) if until else None,
    )


class _Work:
    """Counts what a network is asked: every row of a batch gives the law of one next token."""

    def __init__(self) -> None:
        self.tokens = self.passes = 0

    def count(self, network: Any, arguments: tuple[Any, ...]) -> None:
        self.tokens += len(arguments[0])
        self.passes += 1


class _Resampling:
    """One of the library's resampling methods, which notes what each resampling leaves."""

    def __init__(self, method: str, particles: int) -> None:
        from genlm.control.sampler.resampling import get_resampling_fn  # pyright: ignore[reportMissingImports]

        self.method: Callable[..., Any] = get_resampling_fn(method)
        self.ancestors = list(range(particles))
        self.shares: list[
            float
        ] = []  # effective sample size as a share of the particles, before each
        self.lineages: list[
            int
        ] = []  # of the first particles, how many have descendants after each

    def register(self) -> str:
        """The name that the library knows this by."""
        from genlm.control.sampler.resampling import RESAMPLING_METHODS  # pyright: ignore[reportMissingImports]

        RESAMPLING_METHODS["noted"] = self
        return "noted"

    def __call__(self, shares: Any) -> Any:
        index = self.method(shares)
        self.shares.append(float(1 / (shares**2).sum() / len(shares)))
        self.ancestors = [self.ancestors[i] for i in index]
        self.lineages.append(len(set(self.ancestors)))
        return index

    def left(self, log_weights: list[float]) -> int:
        """Of the first particles, how many have descendants of positive weight."""
        pairs = zip(self.ancestors, log_weights, strict=True)
        return len({ancestor for ancestor, weight in pairs if weight > -float("inf")})


if __name__ == "__main__":
    main()
