"""Tokens a second of decoding, scoring and training, beside what the machine's memory and arithmetic allow.

    python benchmarks/roofline.py [--model smollm2-135m] [--device auto] [--dtype bfloat16] [--batches 1,8,32]
                                  [--tokens 32] [--prompt 64] [--runs 3] [--backend inductor] [--out TABLE.md]

Bandwidth and arithmetic are measured first: copying a large buffer, multiplying large matrices of the dtype. Of B rows
of N weights, a decoded token takes at least max((weights + keys and values read)/bandwidth, 2 N B/arithmetic) / B, a
scored one 2 N / arithmetic, one that an adapter learns from 4 N / arithmetic. Each line is the median of some runs
after one that is not counted. passes: pushing tokens into a stream and reading the laws. draws: the engine `importance`
from the program's prior, with all that it does around the passes. generate: transformers' own sampling from the whole
law. compiled: with `--torch-compile`; what the compilation took is a line of its own. On a GPU, take --batches
1,8,64,256 and a name for the table.
"""

import argparse
import os
import shlex
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from speed import WORDS, target_of, write_table

from lmppl import ir
from lmppl.decoding.randomness import Randomness
from lmppl.engines.contract import Settings, quiet
from lmppl.engines.importance import Options
from lmppl.engines.importance import run as importance
from lmppl.lm import Rows, nothing, summed
from lmppl.lm.transformers import adapter
from lmppl.lm.transformers.cache import parts
from lmppl.lm.transformers.load import load_model, torch_device
from lmppl.lm.transformers.recorded import CudaGraphs
from lmppl.source import Source, Span

ROOT = Path(__file__).resolve().parent.parent
HEAD = "| | rows | tokens/s | at most | share |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Machine:
    """What was measured of it, and what it runs."""

    device: torch.device
    bandwidth: float  # bytes a second
    arithmetic: float  # floating-point operations a second, of the dtype
    weights: int  # read for a token
    weight_bytes: int
    token_bytes: int  # keys and values of one token

    def decoding(self, rows, prompt, tokens):
        """Tokens a second at most, in the mean over so many."""
        read = self.weight_bytes + self.token_bytes * (prompt + rows * tokens / 2)
        return rows / max(read / self.bandwidth, 2 * self.weights * rows / self.arithmetic)


def seconds(action, device):
    """Of an action, to its end on the device; and its result."""
    start = time.perf_counter()
    result = action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def fastest(action, device, times=5):
    return min(seconds(action, device)[0] for _ in range(times))


def machine_of(model, dtype):
    device = model.device
    large = device.type == "cuda"
    source = torch.empty((2**31 if large else 2**28) // 4, dtype=torch.float32, device=device).zero_()
    goal = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / fastest(lambda: goal.copy_(source), device)
    size = 8192 if large else 2048
    left = torch.randn(size, size, device=device).to(dtype)
    arithmetic = 2 * size**3 / fastest(lambda: left @ left, device)
    network = model.model
    looked_up = network.get_input_embeddings().weight
    tied = network.get_output_embeddings().weight is looked_up
    used = [value for value in network.parameters() if tied or value is not looked_up]
    one = model.prompt(model.begin(()))
    return Machine(
        device, bandwidth, arithmetic, sum(value.numel() for value in used), sum(value.nbytes for value in used),
        sum(part.nbytes for part in parts(one.cache)) // one.length,
    )  # fmt: skip


def passes(model, prompt, rows, tokens):
    """An action that decodes so many tokens in every row, without choosing them."""
    pushed = np.full(rows, prompt[-1])

    def act():
        stream = model.stream(prompt, [()] * rows)
        for _ in range(tokens):
            stream.log_probs()
            stream.push(pushed)
        return rows * tokens

    return act


def draws(model, prompt, rows, tokens):
    target = target_of(model, f'Z ~ LM("{{context}}") max {tokens} tokens\n', prompt, batch_size=rows)

    def act():
        settings = Settings(chains=1, num_samples=rows)
        found = importance(target, settings, Options(), Randomness(0), quiet)
        return sum(target.num_scored("Z", sample.state["Z"]) for sample in found.samples)

    return act


def generated(model, prompt, rows, tokens):
    ids = torch.tensor([prompt] * rows, device=model.device)
    options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": tokens}

    @torch.inference_mode()
    def act():
        torch.manual_seed(0)
        out = model.model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)
        new = out[:, len(prompt) :].tolist()
        return sum(row.index(model.end) + 1 if model.end in row else len(row) for row in new)

    return act


def some_rows(model, rows, tokens):
    rng = np.random.default_rng(0)
    return [tuple(int(t) for t in rng.integers(0, model.vocabulary_size, size=tokens)) for _ in range(rows)]


def scoring(model, prompt, rows, tokens):
    asked = some_rows(model, rows, tokens)

    def act():
        model.score(prompt, asked, [0] * rows)
        return rows * tokens

    return act


def training(model, prompt, rows, tokens):
    """An action: gradients of the model's adapter by the log probability of rows, the prompt's pass included."""
    asked = some_rows(model, rows, tokens)

    def act():
        opened = model.open_prompts([prompt])
        some = Rows(prompt, asked, [0] * rows)
        with torch.enable_grad():
            summed(opened.laws([some])[0], some).sum().backward()
        opened.backward()
        return rows * tokens

    return act


def reading(action, device, runs):
    """Median tokens a second, the first run left out."""
    spent = [seconds(action, device) for _ in range(runs + 1)]
    return statistics.median(tokens / took for took, tokens in spent[1:])


def ways(model, backend):
    """How steps may be run, and what begins each."""
    found = {"eager": nothing}
    if model.device.type == "cuda":
        found["recorded"] = lambda: model.record(CudaGraphs(), print)
    if backend != "none":
        found["compiled"] = lambda: model.compile(backend)
    return found


def measure(model, machine, prompt, asked):
    """Lines of the table."""

    def line(what, rows, rate, most):
        return f"| {what} | {rows} | {rate:.0f} | {most:.0f} | {rate / most:.1%} |"

    kinds = {"passes": passes, "draws": draws, "`generate`": generated}
    for way, begin in ways(model, asked.backend).items():
        begin()
        if way != "eager":
            took = seconds(lambda: passes(model, prompt, asked.batches[-1], 1)(), machine.device)[0]
            yield f"| {way}: the first step | {asked.batches[-1]} | {took:.1f} s | | |"
        for what, kind in kinds.items():
            if kind is generated and way != "eager":
                continue
            name = what if kind is generated else f"{what}, {way}"
            for rows in asked.batches:
                rate = reading(kind(model, prompt, rows, asked.tokens), machine.device, asked.runs)
                yield line(name, rows, rate, machine.decoding(rows, len(prompt), asked.tokens))
    added = adapter.add(model, rank=16, alpha=32, targets="all-linear", seed=0)
    for what, kind, work in (("scoring", scoring, 2), ("training", training, 4)):
        for rows in asked.batches:
            network = added.model if kind is training else model
            rate = reading(kind(network, prompt, rows, asked.tokens), machine.device, asked.runs)
            yield line(what, rows, rate, machine.arithmetic / (work * machine.weights))


def parsed(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--batches", default=[1, 8, 32], type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--tokens", default=32, type=int)
    parser.add_argument("--prompt", default=64, type=int)
    parser.add_argument("--runs", default=3, type=int)
    parser.add_argument("--backend", default="inductor", help="of torch.compile; none: nothing is compiled")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "roofline-cpu.md")
    return parser.parse_args(arguments)


def main(arguments=None):
    asked = parsed(arguments)
    declaration = ir.ModelDeclaration("LM", asked.model, Span(0, 1), dtype=asked.dtype)
    model = load_model(declaration, Source("bench", "lm"), Path.cwd(), torch_device(asked.device), quiet)
    machine = machine_of(model, next(model.model.parameters()).dtype)
    prompt = model.begin(model.encode(WORDS * 40, markers=False)[: asked.prompt])
    on_gpu = machine.device.type == "cuda"
    place = torch.cuda.get_device_name(machine.device) if on_gpu else f"CPU, {os.cpu_count()} cores"
    head = [
        f"# What the machine allows, on {Path(asked.model).name} in {asked.dtype}",
        "",
        f"`{shlex.join(['python', *sys.argv])}`; {place}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {date.today()}. {asked.tokens} tokens after a prompt of {len(prompt)}.",
        f"Measured: {machine.bandwidth / 1e9:.0f} GB/s, {machine.arithmetic / 1e12:.2f} TFLOP/s. "
        f"{machine.weights / 1e6:.0f} M weights, {machine.weight_bytes / 1e6:.0f} MB; "
        f"keys and values of a token {machine.token_bytes / 1e3:.0f} kB.",
        "",
        HEAD,
    ]
    write_table(head, measure(model, machine, prompt, asked), asked.out)


if __name__ == "__main__":
    main()
