"""What a trained policy is worth as a proposal: effective draws per 1,000 tokens on infilling, and the same evidence.

    python benchmarks/amortised.py [--steps 100] [--num-samples 1000] [--seeds 4] [--out benchmarks/results]

Trains `gflownet` on one row (or goes on from its last checkpoint), then runs `importance` from the prior and from the
policy, mixed with a little of the prior, with as many draws, under several seeds. Tokens are those of drawing and
scoring, not of training, whose price stands apart. Runs that are done are kept in --work and not made again.
"""

import argparse
import json
import os
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

import lmppl
from lmppl.engines.amortised.checkpoint import checkpoints
from lmppl.posterior.store import write_whole

# programs/infill.lm, but what the policy sees ends as the prior's context does: it starts near the prior
PROGRAM = r"""lm LM = "smollm2-135m" (dtype = "bfloat16")
given X, Y

Z ~ LM(X) until "." max 20 tokens
observe Y | X, Z
guide Z | "{Y} {X}"
"""
ROW = {"X": "Anna left the house without an umbrella.", "Y": " She was wet to the skin when she came home."}
OPTIONS = {"objective": "subtb", "prefixes": 8, "draws": 16, "tempered": 0.125}
PRIOR, POLICY, ALONE = "importance from the prior", "importance from the policy", "gflownet"


def measure(compiled, engine, num_samples, seed, **flags):
    """What a run found and cost. Nats."""
    posterior = compiled.infer(engine, num_samples=num_samples, chains=1, seed=seed, **flags, **ROW)
    row, cost = posterior.rows[0], posterior.cost
    tokens = cost["tokens_decoded"] + cost["tokens_scored"]
    return {
        "tokens": tokens, "ess": row.diagnostics.ess, "rate": 1000 * row.diagnostics.ess / tokens,
        "log_evidence": row.log_evidence, "error": row.log_evidence_se, "pareto_k": row.diagnostics.pareto_k,
        "verdict": row.verdict,
    }  # fmt: skip


def train(compiled, arguments):
    """What training cost; done where it is not yet kept. Exits where what is kept was trained otherwise."""
    kept = arguments.work / "trained.json"
    about = {"program": PROGRAM, "options": {"steps": arguments.steps, **OPTIONS}}
    if not kept.exists():
        resume = bool(checkpoints(arguments.work))
        flags = {"options": about["options"], "num_samples": 25, "folder": arguments.work, "resume": resume}
        cost = compiled.infer("gflownet", **flags, **ROW).cost
        tokens = cost["tokens_decoded"] + cost["tokens_scored"]
        write_whole(kept, json.dumps({**about, "tokens": tokens, "seconds": cost["seconds"]}))
    trained = json.loads(kept.read_text())
    if {name: trained[name] for name in about} != about:
        sys.exit(f"{arguments.work} holds another program's policy, or one of other options: give another --work")
    return trained


def measured(compiled, arguments):
    """Per way of drawing, what every seed found; made where it is not yet kept."""
    ways = {
        PRIOR: ("importance", {}),
        POLICY: ("importance", {"options": {"proposal": str(arguments.work)}}),
        ALONE: ("gflownet", {"adapter": arguments.work}),
    }
    found = {name: [] for name in ways}
    for seed in range(1, arguments.seeds + 1):
        for name, (engine, flags) in ways.items():
            kept = arguments.work / f"{name.replace(' ', '-')}-{arguments.num_samples}-{seed}.json"
            if not kept.exists():
                write_whole(kept, json.dumps(measure(compiled, engine, arguments.num_samples, seed, **flags)))
            found[name].append(json.loads(kept.read_text()))
            print(f"seed {seed}, {name}: {found[name][-1]}", flush=True)
    return found


def together(found):
    """Effective size and log evidence, with its error, of the draws of all seeds as one sample; and its tokens."""
    evidences = np.array([run["log_evidence"] for run in found])
    pooled = np.logaddexp.reduce(evidences) - np.log(len(found))
    first = np.exp(evidences - pooled)  # Σ w of each seed, over the mean
    second = first**2 / [run["ess"] for run in found]  # Σ w²
    ess = first.sum() ** 2 / second.sum()
    error = np.sqrt(sum((run["error"] * share) ** 2 for run, share in zip(found, first, strict=True))) / len(found)
    return ess, pooled, error, sum(run["tokens"] for run in found)


def line(name, found, prior):
    """A row of the table."""
    (ess, evidence, error, tokens), (own_ess, _, _, own_tokens) = together(found), together(prior)
    ratio = ess / tokens * own_tokens / own_ess
    ratios = " ".join(f"{own['rate'] / other['rate']:.1f}" for own, other in zip(found, prior, strict=True))
    spread = np.std([run["log_evidence"] for run in found], ddof=1) if len(found) > 1 else np.nan
    cells = [
        name, f"{tokens:,}", f"{ess:.1f}", " ".join(f"{run['ess']:.0f}" for run in found), f"{1000 * ess / tokens:.2f}",
        f"{ratio:.1f}", ratios, f"{evidence:.2f} ± {error:.2f}", f"{spread:.2f}",
        " ".join(f"{run['pareto_k']:.2f}" for run in found),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def table(arguments, trained, found):
    """The page, in Markdown."""
    options = ", ".join(f"{name}={value}" for name, value in OPTIONS.items())
    return "\n".join([
        "# A trained policy as a proposal: infilling, one row, on smollm2-135m",
        "",
        f"`python benchmarks/amortised.py --steps {arguments.steps} --num-samples {arguments.num_samples} "
        f"--seeds {arguments.seeds}`, bfloat16, {os.cpu_count()} cores, {date.today()}.",
        f"Training: {arguments.steps} steps, {options}; {trained['tokens']:,.0f} tokens, {trained['seconds']:,.0f} s.",
        f"{arguments.num_samples:,} draws under each of {arguments.seeds} seeds. ESS and log evidence (± a standard "
        "error, nats) are of all",
        "of them as one sample; beside them those of each seed, and how far log evidences spread (standard deviation).",
        "",
        "| draws of | tokens | ESS | each seed | ESS / 1,000 tokens | over the prior's | each seed | log evidence "
        "| spread | Pareto k̂ |",
        "|" + "---|" * 10,
        *(line(name, runs, found[PRIOR]) for name, runs in found.items()),
    ]) + "\n"  # fmt: skip


def main():
    """Train, draw, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lmppl-amortised")
    arguments = parser.parse_args()
    compiled = lmppl.compile(PROGRAM)
    trained = train(compiled, arguments)
    text = table(arguments, trained, measured(compiled, arguments))
    (arguments.out / "amortised-infill.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
