"""Total variation against tokens on the default model: LM("The weather in London today is")^α until "." max N tokens.

    python benchmarks/tempered.py [--power 4] [--tokens 6] [--seeds 2] [--evaluations 60000] [--out benchmarks/results]

The truth comes from certified search. Every engine runs at three budgets of tokens, around what `annealed` spends at
its default options. Resumable: a finished run is a line of `tempered-POWER-TOKENS.jsonl`, and is not repeated. The
table is written beside it.
"""

import argparse
import json
import os
import time
from datetime import date
from pathlib import Path

import lmppl

TEMPERATURES = "1,0.7,0.5,0.25"
PROGRAM = 'lm LM = "smollm2-135m"\nZ ~ LM("The weather in London today is")^{power:g} until "." max {tokens} tokens\n'
RUNS = {  # name: engine, flags, options; three budgets of tokens each
    **{f"annealed, {n} particles{' (default)' if n == 256 else ''}": ("annealed", {}, {"particles": n})
       for n in (64, 256, 768)},
    **{f"annealed, {n} particles, all kept": ("annealed", {"num_samples": n}, {"particles": n}) for n in (256, 768)},
    "annealed without search": ("annealed", {}, {"search": 0}),
    **{f"importance, default, {4 * n:,} draws": ("importance", {"num_samples": n}, {}) for n in (256, 600, 1500)},
    **{f"importance, temperatures, {4 * n:,} draws": ("importance", {"num_samples": n}, {"temperatures": TEMPERATURES})
       for n in (256, 600, 1500)},
    **{f"importance, prior, {4 * n:,} draws": ("importance", {"num_samples": n}, {"temperatures": "1"})
       for n in (256, 600, 1500)},
    **{f"mcmc, 64 chains × {n}": ("mcmc", {"chains": 64, "num_samples": n, "num_warmup": 20}, {})
       for n in (10, 40, 120)},
    "smc": ("smc", {"num_samples": 600}, {}),
}  # fmt: skip


def truth(compiled, evaluations):
    row = compiled.infer("exact", options={"max_evaluations": evaluations}, batch_size=128).rows[0]
    law = {tuple(state.tokens["Z"]): state.probability for state in row.support}
    about = {
        key: vars(row.diagnostics)[key]
        for key in ("prefix_evaluations", "total_variation_bound", "log_evidence_interval")
    }
    return law, about


def kept_truth(compiled, arguments, path):
    """The truth, found once: it may take longer than a run."""
    if not path.exists():
        law, about = truth(compiled, arguments.evaluations)
        path.write_text(json.dumps([list(law.items()), about]))
    items, about = json.loads(path.read_text())
    return {tuple(tokens): probability for tokens, probability in items}, about


def total_variation(row, law):
    found = {}
    for draw, weight in zip(row.draws, row.weights, strict=True):
        key = tuple(draw.tokens["Z"])
        found[key] = found.get(key, 0.0) + float(weight)
    return 0.5 * sum(abs(found.get(key, 0.0) - law.get(key, 0.0)) for key in found.keys() | law.keys())


def measure(compiled, name, seed, law):
    engine, flags, options = RUNS[name]
    start = time.perf_counter()
    posterior = compiled.infer(engine, options=options, seed=seed, batch_size=256, **flags)
    row, cost = posterior.rows[0], posterior.cost
    tokens = cost["tokens_decoded"] + cost["tokens_scored"]
    return {
        "run": name, "seed": seed, "tv": total_variation(row, law), "tokens": tokens, "draws": len(row.draws),
        "log_evidence": row.log_evidence, "error": row.log_evidence_se, "verdict": row.verdict,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def table(power, tokens, about, lines):
    low, high = about["log_evidence_interval"]
    head = [
        f"# LM(\"The weather in London today is\")^{power:g} until \".\" max {tokens} tokens, on smollm2-135m",
        f"\n`python benchmarks/tempered.py --power {power:g} --tokens {tokens}`, float32, "
        f"{os.cpu_count()} cores, {date.today()}.",
        f"\nTruth: {about['prefix_evaluations']} prefix evaluations, total variation at most "
        f"{about['total_variation_bound']:.4f}, log evidence {low:.3f} to {high:.3f}.\n",
        "| run | seeds | tokens | tokens a draw | TV (mean) | TV (worst) | log evidence | verdicts |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in RUNS:
        own = [line for line in lines if line["run"] == name]
        if not own:
            continue
        mean = lambda key, own=own: sum(line[key] for line in own) / len(own)  # noqa: E731
        evidence = f"{mean('log_evidence'):.2f}" if own[0]["log_evidence"] is not None else "–"
        verdicts = ", ".join(line["verdict"] for line in own)
        head.append(
            f"| {name} | {len(own)} | {mean('tokens'):,.0f} | {mean('tokens') / mean('draws'):.1f} | {mean('tv'):.3f} "
            f"| {max(line['tv'] for line in own):.3f} | {evidence} | {verdicts} |"
        )
    return "\n".join(head) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--power", type=float, default=4)
    parser.add_argument("--tokens", type=int, default=6)
    parser.add_argument("--evaluations", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    done = arguments.out / f"tempered-{arguments.power:g}-{arguments.tokens}.jsonl"
    compiled = lmppl.compile(PROGRAM.format(power=arguments.power, tokens=arguments.tokens))
    law, about = kept_truth(compiled, arguments, done.with_name(f"{done.stem}-truth.json"))
    lines = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    for seed in range(arguments.seeds):
        for name in RUNS:
            if any(line["run"] == name and line["seed"] == seed for line in lines):
                continue
            lines.append(measure(compiled, name, seed, law))
            with done.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            text = table(arguments.power, arguments.tokens, about, lines)
            done.with_suffix(".md").write_text(text)
            print(lines[-1], flush=True)


if __name__ == "__main__":
    main()
