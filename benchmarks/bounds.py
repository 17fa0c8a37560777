"""Two-sided bounds of log evidence against tokens, on data that a program simulates: infilling, reasoning.

    python benchmarks/bounds.py [--program programs/infill.lm] [--simulations 4] [--sizes 8,32,128]

Each simulation pins one exact posterior draw; `importance` with K draws bounds the evidence from both sides. The gap
bounds the symmetric KL of K-draw resampling. Resumable: a finished K is a line of `bounds-PROGRAM.jsonl`.
"""

import argparse
import json
import os
from datetime import date
from pathlib import Path

import lmppl
from lmppl.compile import as_records
from lmppl.engines.contract import quiet
from lmppl.lm import load_models
from lmppl.run import Request
from lmppl.validation.bounds import certify

COLUMNS = "| K | tokens a simulation | lower | upper | gap | KL(q‖π) | KL(π‖q) |"


def measure(program, rows, models, simulations, size):
    """One line: the bounds with K = size, and what they cost."""
    before = spent(models)
    found = certify(program, rows, models, Request("importance", {"chains": 1, "num_samples": size}), simulations)
    return {"K": size, "tokens": (spent(models) - before) / simulations, **found.document()}


def spent(models):
    costs = {id(model): model.cost for model in models.values()}.values()
    return sum(cost.tokens_decoded + cost.tokens_scored for cost in costs)


def table(name, simulations, lines):
    head = [
        f"# Bounds of log evidence on simulated data: {name}",
        "",
        f"`python benchmarks/bounds.py --program {name} --simulations {simulations}`, smollm2-135m, float32,",
        f"{os.cpu_count()} cores, {date.today()}. Means over simulations ± one standard error, nats.",
        "",
        COLUMNS,
        "|---|---|---|---|---|---|---|",
    ]
    for line in sorted(lines, key=lambda line: line["K"]):
        kl = [shown(line[key][0]) for key in ("proposal_from_posterior", "posterior_from_proposal")]
        cells = [shown(line[key]) for key in ("lower", "upper", "gap")]
        head.append(f"| {line['K']} | {line['tokens']:,.0f} | " + " | ".join([*cells, *kl]) + " |")
    return "\n".join(head) + "\n"


def shown(estimate):
    if estimate["mean"] is None:
        return "∞"
    return f"{estimate['mean']:.2f}" + ("" if estimate["error"] is None else f" ± {estimate['error']:.2f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, default=Path("programs/infill.lm"))
    parser.add_argument("--simulations", type=int, default=4)
    parser.add_argument("--sizes", default="8,32,128")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    compiled = lmppl.compile(arguments.program)
    program, rows, _ = compiled.configure({}, as_records(arguments.program.with_suffix(".jsonl")))
    models = load_models(program, {}, "cpu", quiet)
    done = arguments.out / f"bounds-{arguments.program.stem}.jsonl"
    lines = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    for size in map(int, arguments.sizes.split(",")):
        if all(line["K"] != size for line in lines):
            lines.append(measure(program, rows, models, arguments.simulations, size))
            with done.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
        done.with_suffix(".md").write_text(table(arguments.program, arguments.simulations, lines))
    print(done.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
