"""Errors of `predict` against the truth: biases of the entropies, as they come and put right, and coverage.

    python benchmarks/prediction.py [--runs 300] [--out benchmarks/results/prediction.md]

A program on a table of eight tokens, whose law is enumerated. Each engine makes all draws of all runs at once, on
chains (or replicates) that are independent of each other; four of them are a run, of which the first 4, 16 or 64 draws
are given to what makes predictions of an engine's draws. A bias is the mean over runs less the truth, with its standard
error.
"""

import argparse
import json
import math
import os
import platform
import tempfile
from collections import defaultdict
from dataclasses import replace
from datetime import date
from itertools import groupby
from pathlib import Path

import numpy as np

from lmppl.compile import analyse
from lmppl.data import Row
from lmppl.decoding import Randomness
from lmppl.density import bind
from lmppl.diagnosis import slopes
from lmppl.engines import Settings, engine, predictions, sampling, traits
from lmppl.lm import load_models
from lmppl.posterior import Supported
from lmppl.source import Source

ROOT = Path(__file__).resolve().parent.parent
CHAINS = 4
SIZES = (4, 16, 64)  # draws of a run
PARTICLES = 32  # a replicate
ENGINES = {"rejection": {}, "importance": {}, "mcmc": {"num_warmup": 30}, "smc": {}}
OPTIONS = {"rejection": {"limit": 7200.0}, "smc": {"particles": PARTICLES}}
TABLE = {
    "vocabulary": [" a", " b", " c", "?", "!", " yes", " no", " maybe"],
    "laws": {
        "": {" a": 0.5, " b": 0.2, " c": 0.1, "<end>": 0.2},
        " a": {" a": 0.3, " b": 0.3, "<end>": 0.4},
        " c": {" c": 0.6, " a": 0.2, "<end>": 0.2},
        "?": {" yes": 0.7, " no": 0.2, " maybe": 0.1},
        " a?": {" yes": 0.85, " no": 0.1, " maybe": 0.05},
        " b?": {" yes": 0.1, " no": 0.8, " maybe": 0.1},
        " c?": {" yes": 0.2, " no": 0.2, " maybe": 0.6},
        "!": {" yes": 0.5, " no": 0.5},
        " a!": {" yes": 0.4, " no": 0.6},
        " b!": {" yes": 0.7, " no": 0.3},
        " c!": {" yes": 0.9, " no": 0.1},
    },
}
PROGRAM = """lm LM = "table:chain.json"
Z ~ LM("") max 3
Y ~ LM("{Z}?") in [" yes", " no", " maybe"]
observe " yes" ~ LM("{Z}!")
derive LENGTH = tokens(Z)
statistic length = tokens(Z)
predict Y
predict LENGTH
"""
FIGURES = ("H", "H as it comes", "open", "hangs", "hangs, as it comes", "H of counts", "H of counts, as it comes")
COVERED = ("H", "open", "hangs", "H of counts", "slope")


def target():
    """The program on its table."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "chain.json").write_text(json.dumps(TABLE))
        program = analyse(Source("p.lm", PROGRAM), folder).program
        models = load_models(program, {}, "cpu", lambda *_: None)
    return bind(program, models, Row({}, {}))[0]


def plain_entropy(law):
    """H of a law as it comes, in nats."""
    return -sum(share * math.log(share) for share in law.values() if share > 0)


def figures(bound, outcome, name):
    """What one run says: {figure: (value, error)}; the slope and the probabilities as well."""
    places, drawn = sampling(outcome, traits(name))
    found = predictions(bound, outcome, (places, drawn))
    answer, counts = found["Y"], found["LENGTH"]
    come = plain_entropy(answer)
    values = {
        "H": answer.entropy,
        "H as it comes": (come, None),
        "open": answer.conditional_entropy,
        "hangs": answer.mutual_information,
        "hangs, as it comes": (come - answer.conditional_entropy.value, None),
        "H of counts": counts.entropy,
        "H of counts, as it comes": (plain_entropy(counts), None),
        **{f"p{option}": (share, answer.errors[option]) for option, share in answer.items()},
    }
    states = outcome.samples
    if outcome.support is not None:
        densities = bound.log_density([state for state, _ in outcome.support]).total
        pairs = zip(outcome.support, densities, strict=True)
        measured = [measure(bound, state, float(density)) for (state, _), density in pairs]
    else:
        measured = [measure(bound, states[place].state, states[place].log_density) for place in places]
    slope = slopes(measured, drawn).get("length")
    return {**values, **({} if slope is None else {"slope": slope})}


def measure(bound, state, log_density):
    """A state with its statistics."""
    return Supported({}, {}, 0.0, log_density, {}, bound.statistics(state))


def outcomes(bound, name, count):
    """What an engine finds in `count` runs, by their size: shorter runs are the beginnings of longer ones."""
    most, own = max(SIZES) // CHAINS, engine(name)
    settings = Settings(**{"chains": CHAINS * count, "num_samples": most, **ENGINES[name]})
    options = replace(own.options(), **OPTIONS.get(name, {}))
    found = own.run(bound, settings, options, Randomness(0), lambda *_: None)
    ordered = sorted(found.samples, key=lambda sample: (sample.chain, sample.draw))
    runs = [list(run) for _, run in groupby(ordered, key=lambda sample: sample.chain // CHAINS)]
    return {
        size: [replace(found, samples=[one for one in run if one.draw < size // CHAINS]) for run in runs]
        for size in SIZES
    }


def bias(values, truth):
    """Mean less the truth, with the standard error of the mean."""
    values = np.array(values)
    return f"{values.mean() - truth:+.4f} ± {values.std(ddof=1) / math.sqrt(len(values)):.4f}".replace("-", "−")


def coverage(estimates, truth):
    """Share of the runs whose estimate lies within two standard errors of the truth, of those that have an error."""
    known = [(value, error) for value, error in estimates if error is not None]
    if not known:
        return "–"
    near = np.mean([abs(value - truth) <= 2 * error + 1e-9 for value, error in known])
    less = len(estimates) - len(known)
    return f"{near:.2f}" + (f" (without {less / len(estimates):.0%})" if less else "")


def line(name, draws, found, truth):
    """Two lines of cells: biases; coverages."""
    by_figure = defaultdict(list)
    for one in found:
        for key, value in one.items():
            by_figure[key].append(value)
    biases = [bias([value for value, _ in by_figure[key]], truth[key][0]) for key in FIGURES]
    options = [key for key in truth if key.startswith("p ")]
    nears = [coverage(by_figure[key], truth[key][0]) for key in (*options, *COVERED)]
    slope = bias([value for value, _ in by_figure["slope"]], truth["slope"][0])
    return [name, str(draws), *biases, slope], [name, str(draws), *nears]


def table(heads, lines):
    """A table of Markdown."""
    rule = ["---", *["--:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "prediction.md")
    arguments = parser.parse_args()
    bound = target()
    own = engine("exact")
    truth = figures(bound, own.run(bound, Settings(), own.options(), Randomness(0), lambda *_: None), "exact")
    biases, nears = [], []
    for name in ENGINES:
        for draws, found in outcomes(bound, name, arguments.runs).items():
            first, second = line(name, draws, [figures(bound, one, name) for one in found], truth)
            biases.append(first)
            nears.append(second)
            print(first, second, flush=True)
    options = [key for key in truth if key.startswith("p ")]
    page = [
        "# Errors of predictions",
        f"\n{date.today()}, `python benchmarks/prediction.py --runs {arguments.runs}`, on {os.cpu_count()} cores "
        f"({platform.machine()}).\n",
        "The program:\n\n```",
        PROGRAM + "```\n",
        "The truth, by enumeration, in nats: "
        + ", ".join(f"{key} {truth[key][0]:.4f}" for key in (*options, *COVERED))
        + ".\n",
        "H is the entropy of the answer Y, *open* and *hangs* its two parts, *counts* the derived LENGTH, *slope* "
        "Cov(length, log density). What is *as it comes* is the plug-in's: the entropy of the mean law, and that less "
        f"what is open. A run has {CHAINS} chains or replicates, {PARTICLES} particles each. Bias, ± its standard "
        "error:\n",
        table(["engine", "draws", *FIGURES, "slope"], biases),
        "\nShare of the runs in which the truth lies within two standard errors, of those that have an error:\n",
        table(["engine", "draws", *options, *COVERED], nears),
    ]
    arguments.out.write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
