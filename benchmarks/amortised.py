"""What a trained policy is worth as a proposal: effective draws per 1,000 tokens on infilling, and the same evidence.

    python benchmarks/amortised.py [--steps 100] [--draws 16] [--num-samples 500] [--out benchmarks/results]

Trains `gflownet` on one row of programs/infill.lm (or goes on from its last checkpoint), then runs `importance` from
the prior and from the policy, mixed with a little of the prior, with as many draws. Tokens are those of drawing, not
of training, whose price stands apart.
"""

import argparse
import os
import tempfile
from datetime import date
from pathlib import Path

import lmppl
from lmppl.engines.amortised.checkpoint import checkpoints

PROGRAM = Path(__file__).resolve().parent.parent / "programs" / "infill.lm"
ROW = {"X": "Anna left the house without an umbrella.", "Y": " She was wet to the skin when she came home."}


def measure(compiled, engine, num_samples, **flags):
    """What a run found and cost."""
    posterior = compiled.infer(engine, num_samples=num_samples, batch_size=64, seed=1, **flags, **ROW)
    row, cost = posterior.rows[0], posterior.cost
    tokens = cost["tokens_decoded"] + cost["tokens_scored"]
    ess = row.diagnostics["ess"]
    return {
        "tokens": tokens, "draws": len(row.draws), "ess": ess, "rate": 1000 * ess / tokens,
        "log_evidence": row.log_evidence, "error": row.log_evidence_se, "pareto_k": row.diagnostics["pareto_k"],
        "verdict": row.verdict,
    }  # fmt: skip


def table(arguments, trained, found):
    prior = found["importance from the prior"]
    lines = [
        "# A trained policy as a proposal: programs/infill.lm, one row, on smollm2-135m",
        "",
        f"`python benchmarks/amortised.py --steps {arguments.steps} --draws {arguments.draws}`, float32, "
        f"{os.cpu_count()} cores, {date.today()}.",
        f"Training: {arguments.steps} steps of {arguments.draws} draws, {trained['tokens']:,.0f} tokens, "
        f"{trained['seconds']:,.0f} s.",
        "",
        "| engine | draws | tokens | ESS | ESS / 1,000 tokens | over the prior's | log evidence | Pareto k̂ | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, line in found.items():
        k = "–" if line["pareto_k"] is None else f"{line['pareto_k']:.2f}"
        lines.append(
            f"| {name} | {line['draws']:,} | {line['tokens']:,.0f} | {line['ess']:.1f} | {line['rate']:.2f} "
            f"| {line['rate'] / prior['rate']:.1f} | {line['log_evidence']:.2f} ± {line['error']:.2f} | {k} "
            f"| {line['verdict']} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--num-samples", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lmppl-amortised")
    arguments = parser.parse_args()
    compiled = lmppl.compile(PROGRAM)
    options = {"steps": arguments.steps, "draws": arguments.draws}
    fit = compiled.infer(
        "gflownet",
        options=options,
        num_samples=25,
        folder=arguments.work,
        resume=bool(checkpoints(arguments.work)),
        **ROW,
    )
    cost = fit.cost
    trained = {"tokens": cost["tokens_decoded"] + cost["tokens_scored"], "seconds": cost["seconds"]}
    draws = arguments.num_samples
    found = {
        "importance from the prior": measure(compiled, "importance", draws),
        "importance from the policy": measure(
            compiled, "importance", draws, options={"proposal": str(arguments.work)}
        ),
        "gflownet": measure(compiled, "gflownet", draws, adapter=arguments.work),
    }  # fmt: skip
    text = table(arguments, trained, found)
    (arguments.out / "amortised-infill.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
