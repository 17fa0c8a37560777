"""Evidence estimates by genlm-control, run by `rival.py` in an environment of its own; imports nothing of lmppl.

    python rival_side.py '{"model": FOLDER, "prompt": [ids], "regex": …, "until": …, "tokens": N, "sampler": …,
                           "resampling": …, "particles": N, "runs": N, "seed": N, "threads": N}'

Prints one JSON line a run, and one before the first about the versions. A text ends with the first token that brings
`until` in, as in a program with `until`. Between runs the cache of language model outputs is emptied, and the prompt's
keys and values are put back, outside the time; what the automaton has cached stays. The first run only warms up.
"""

import asyncio
import json
import sys
import time
from importlib.metadata import version

import numpy as np
import torch
from genlm.control import AWRS, BoolFSA, PromptedLLM, direct_token_sampler, eager_token_sampler

WAIT = 0.001  # seconds that a batch waits for late callers; all callers of a step come at once


def sampler_of(name, model, automaton):
    """A token sampler: by adaptive weighted rejection, by exact masks, or by sets of the trie."""
    if name == "sets":
        return eager_token_sampler(model, automaton)
    coerced = automaton.coerce(model, f=b"".join)
    return AWRS(model, coerced) if name == "awrs" else direct_token_sampler(model * coerced)


def load(asked):
    """The language model in float32 on the CPU, batches as large as the particles are many."""
    options = {"device_map": None, "torch_dtype": torch.float32}
    model = PromptedLLM.from_name(
        asked["model"], backend="hf", hf_opts=options, batch_size=asked["particles"], timeout=WAIT
    )
    model.prompt_ids = asked["prompt"]
    return model


def forget(model, prompt):
    """Empty the cache of the language model's outputs, and run the prompt again."""
    model.model.clear_cache()
    model.model.cache_kv(prompt)


async def estimate(sampler, asked):
    """One run of sequential Monte Carlo: log Ẑ, and the seconds it took on the clock and of the processor."""
    until = asked["until"].encode()
    start, work = time.perf_counter(), time.process_time()
    sequences = await sampler.smc(
        n_particles=asked["particles"],
        ess_threshold=0.5,
        max_tokens=asked["tokens"] + 1,  # theirs counts the end, which `until` puts after the last token
        resampling_method=asked["resampling"],
        terminate_when=lambda context: until in b"".join(bytes(token) for token in context),
    )
    seconds, work = time.perf_counter() - start, time.process_time() - work
    return {"log_evidence": float(sequences.log_ml), "seconds": seconds, "cpu": work}


def main():
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    model = load(asked)
    sampler = sampler_of(asked["sampler"], model, BoolFSA.from_regex(asked["regex"]))
    names = ("genlm-control", "genlm-backend", "torch", "transformers")
    print(json.dumps({name: version(name) for name in names}), flush=True)
    for run in range(-1, asked["runs"]):
        np.random.seed(asked["seed"] + run + 1)
        torch.manual_seed(asked["seed"] + run + 1)
        forget(model, asked["prompt"])
        result = asyncio.run(estimate(sampler, asked))
        if run >= 0:
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
