"""Random numbers (Hu et al. 2024, section 2): a uniform posterior over " 0" … " 100", and who draws from it.

    python benchmarks/random_numbers.py [--steps 60] [--draws 64] [--out benchmarks/results]

The untrained policy, the model without the program's mask, `gflownet` with each objective, and `ppo`. Probabilities of
the 101 answers are exact: log q of each, end token included, by the code that draws; each has one tokenisation.
Resumable: a finished run is a line of `random-numbers.jsonl`, and training goes on from its last checkpoint.
"""

import argparse
import json
import os
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

import lmppl
from lmppl.engines.amortised.checkpoint import checkpoints
from lmppl.engines.amortised.learning import read_policy

PROGRAM = Path(__file__).resolve().parent.parent / "programs" / "numbers.lm"
RUNS = {  # name: engine, options
    "gflownet, vargrad": ("gflownet", {}),
    "gflownet, tb": ("gflownet", {"objective": "tb"}),
    "gflownet, subtb": ("gflownet", {"objective": "subtb"}),
    "ppo": ("ppo", {}),
}


def law(log_q):
    """Divergences from uniform, and the mass of the 101 answers, from their log probabilities (101,)."""
    mass = float(np.exp(log_q).sum())
    shares = np.exp(log_q) / mass
    return {
        "kl_from_uniform": float((shares * np.log(np.maximum(shares, 1e-300) * len(shares))).sum()),
        "kl_to_uniform": float(-np.log(np.maximum(shares, 1e-300) * len(shares)).mean()),
        "valid": mass,
    }


def answers(target):
    return [{"Z": target.models["LM"].encode(f" {n}", markers=False)} for n in range(101)]


def untrained(target):
    """log q of the answers by the model under the program's mask, and without it."""
    states = answers(target)
    traced = target.trace("Z", states, (1.0,), target.guide("Z"))
    bare = lmppl.compile(PROGRAM.read_text().split("\nconstrain ")[0]).bind()
    plain = bare.trace("Z", states, (1.0,), bare.guide("Z"))
    return [np.array([row.sum() for row in rollout.log_proposal]) for rollout in (traced, plain)]


def train(compiled, target, engine, options, folder):
    started = time.perf_counter()
    resume = bool(checkpoints(folder))
    shape = {"chains": 4, "num_samples": 100, "batch_size": 128}
    posterior = compiled.infer(engine, options=options, folder=folder, resume=resume, **shape)
    seconds = time.perf_counter() - started
    policy = read_policy(folder, target, frozenset({"Z"}))
    log_q = policy.trace(target, answers(target)).total
    policy.adapter.remove()
    row = posterior.rows[0]
    return {**law(log_q), "seconds": seconds, "ess": row.diagnostics.ess / len(row.draws)}


def table(arguments, lines):
    head = [
        "# A random integer between 0 and 100, on smollm2-135m",
        "",
        f"`python benchmarks/random_numbers.py --steps {arguments.steps} --draws {arguments.draws}`, float32, "
        f"{os.cpu_count()} cores, {date.today()}.",
        "Exact probabilities of the 101 answers; KL in nats; seconds of training, and of 400 draws with their weights.",
        "",
        "| policy | KL(q‖uniform) | KL(uniform‖q) | valid | importance ESS | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        ess = f"{100 * line['ess']:.1f} %" if "ess" in line else "–"
        seconds = f"{line['seconds']:,.0f}" if "seconds" in line else "–"
        head.append(
            f"| {line['run']} | {line['kl_from_uniform']:.2g} | {line['kl_to_uniform']:.2g} | {line['valid']:.6g} "
            f"| {ess} | {seconds} |"
        )
    return "\n".join(head) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--draws", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lmppl-numbers")
    arguments = parser.parse_args()
    done = arguments.out / "random-numbers.jsonl"
    lines = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    compiled = lmppl.compile(PROGRAM)
    target = compiled.bind(batch_size=128)

    def keep(line):
        lines.append(line)
        with done.open("a") as file:
            file.write(json.dumps(line) + "\n")
        done.with_suffix(".md").write_text(table(arguments, lines))
        print(line, flush=True)

    if not lines:
        masked, bare = untrained(target)
        keep({"run": "the model, no mask", **law(bare)})
        keep({"run": "the model under the mask", **law(masked)})
    for name, (engine, options) in RUNS.items():
        if all(line["run"] != name for line in lines):
            folder = arguments.work / name.replace(", ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            shape = {"steps": arguments.steps, "draws": arguments.draws}
            keep({"run": name, **train(compiled, target, engine, {**shape, **options}, folder)})


if __name__ == "__main__":
    main()
