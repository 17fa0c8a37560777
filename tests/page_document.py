"""Comparisons to show: a small one whose texts are hostile, and one as large as they come."""

import math
import random
from itertools import pairwise

HOSTILE = [
    "<script>window.hacked=1</script>",
    '<img src=x onerror="window.hacked=1">',
    "</script><script>window.hacked=1</script>",
    "<!--<script>{{ 7 * 7 }} {% raw %} ${window.hacked=1} javascript:window.hacked=1",
    " two\nlines\twith \u2028 \u202e signs & \"quotes\" 'both' \ud800 ",
    "",
]
PROGRAM = """\
# infill.lm: the missing middle sentence of a story
lm LM = "smollm2-135m"
given X, Y

Z ~ LM(X) until "." max 20 tokens
observe Y | X, Z
guide Z | "Beginning: {X}\\nEnding:{Y}\\nMiddle:"
"""
COLUMNS = [
    ("total_variation", "TV", "right", "", "low", 3, "Total variation distance to the reference: the largest"
     " error in the probability of any event."),
    ("log_evidence", "log evidence", "right", "nats", None, 2, "How probable the engine finds the data."),
    ("evidence_error", "evidence error", "right", "nats", "low", 2, "How far log evidence is from the reference's."),
    ("ess", "effective draws", "right", "", "high", 0, "How many independent draws the draws are worth."),
    ("distinct", "distinct", "text", "", "high", 2, "Share of draws whose text no other draw has."),
    ("length", "tokens", "text", "", None, 1, "Mean number of tokens of a text."),
    ("tokens", "tokens", "price", "", "low", 0, "Tokens decoded and scored until the last draw."),
    ("seconds", "seconds", "price", "", "low", 1, "Seconds on the clock until the last draw."),
]  # fmt: skip
ENGINES = {"annealed": 0.03, "mcmc": 0.12, "smc": 0.07, "importance": 0.22, "gflownet": 0.10}
SUBJECTS = ["She", "Anna", "The wind", "A stranger", "The rain", "Her brother", "The old dog", "Nobody"]
VERBS = ["ran for the bus", "forgot the time", "stood in the square", "opened the gate", "lost the keys", "waited"]
ENDS = ["in the pouring rain", "without a word", "under a grey sky", "by the river", "until it was dark", "once again"]


def small():
    """Two engines and one that failed, two rows, and whatever a model might write to break out of its place."""
    document = comparison(["annealed", "mcmc"], rows=2, texts=4, points=8, bins=6)
    document["title"] = f"infill.lm {HOSTILE[2]}"
    document["program"]["text"] += f"# {HOSTILE[0]}\n"
    document["advice"]["reasons"].append(HOSTILE[1])
    document["graph"]["nodes"].append({"name": HOSTILE[1], "kind": "constraint"})
    document["graph"]["edges"] += [["Z", HOSTILE[1]], ["nowhere", "Z"]]
    failed = {**engine("exact", 0.0, random.Random(1)), "reason": f"too many values {HOSTILE[0]}", "verdict": None}
    document["engines"].append({**failed, "measures": {}, "curve": [], "findings": []})
    document["engines"][1]["findings"].append(HOSTILE[1])
    for number, row in enumerate(document["rows"]):
        row["givens"]["X"] = HOSTILE[number]
        row["texts"] += [hostile_text(number, text) for text in HOSTILE]
    document["rows"][1] |= {"traces": {}, "log_evidence": None}
    return document


def hostile_text(number, text):
    tokens = {"Z": [[text, -3.25], [HOSTILE[2], None]]}
    mass = {"annealed": 0.01, "mcmc": 0.0001}
    factors = {"Z": -20.5, HOSTILE[0]: -10.25}
    return {"values": {"Z": f"{text} row {number + 1}"}, "log_density": -30.75, "factors": factors, "tokens": tokens,
            "mass": mass, "reference": None}  # fmt: skip


def large():
    """Five engines of four chains, a thousand draws each as histograms and thinned traces, on twenty rows."""
    return comparison(list(ENGINES), rows=20, texts=20, points=150, bins=40)


def comparison(labels, *, rows, texts, points, bins):
    chance = random.Random(0)
    made = [engine(label, ENGINES[label], chance) for label in labels]
    keys = ("key", "title", "group", "unit", "better", "digits", "help")
    return {
        "title": "infill.lm", "made": "2026-11-24 22:10 UTC", "version": "0.1.0", "folder": "cmp/",
        "command": f"lmppl compare infill.lm --engines {','.join(labels)} --seeds 4 --data infill.jsonl --out cmp/",
        "program": {"path": "programs/infill.lm", "text": PROGRAM, "sha256": "3f" * 32},
        "graph": {
            "nodes": [{"name": "X", "kind": "given"}, {"name": "Y", "kind": "given"}, {"name": "Z", "kind": "text"},
                      {"name": "observe Y", "kind": "observation"}],
            "edges": [["X", "Z"], ["X", "observe Y"], ["Z", "observe Y"], ["Y", "observe Y"]],
        },
        "models": [{"name": "LM", "identifier": "smollm2-135m", "revision": "7e27bd9f95328f0f3b08"}],
        "versions": {"lmppl": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "reference": {"kind": "gold", "title": "a long run of annealed",
                      "note": "The reference is annealed with 4,096 particles; its own error is about 0.01."},
        "bounds": {"lower": {"mean": -36.2, "error": 0.21}, "upper": {"mean": -35.7, "error": 0.19},
                   "gap": {"mean": 0.5, "error": 0.12}, "simulations": 4, "num_samples": 100},
        "budget": {"amount": 20000, "unit": "tokens"}, "seeds": 4,
        "advice": {
            "label": "annealed", "headline": "Use annealed.",
            "reasons": ["It is closest to the reference: total variation 0.030, and the next, smc, is at 0.070.",
                        "It passes its own checks on all rows.",
                        "It costs what the others cost: 20,000 tokens, 61 s."],
        },
        "columns": [dict(zip(keys, (k, t, g, u, b, d, h), strict=True)) for k, t, g, u, b, d, h in COLUMNS],
        "engines": made, "quality": "total_variation", "log_evidence": "log_evidence",
        "rows": [data_row(number, labels, chance, texts, points, bins) for number in range(rows)],
    }  # fmt: skip


def engine(label, error, chance):
    measures = {
        "total_variation": spread(error, 0.2 * error), "log_evidence": spread(-37.6 - 8 * error, 6 * error + 0.05),
        "evidence_error": spread(8 * error, 2 * error), "ess": spread(40 / (error + 0.01), 30), "distinct": None,
        "length": spread(11.2, 0.4), "tokens": spread(20000.0 + 100 * chance.random(), 90),
        "seconds": spread(60 + 80 * chance.random(), 3.0),
    }  # fmt: skip
    curve = [
        {
            "tokens": 20000 / 2**k,
            "seconds": 70 / 2**k,
            "measures": {"total_variation": spread(error * 1.3**k, error / 4)},
        }
        for k in reversed(range(5))
    ]
    learns, worth = label == "gflownet", round(1 / (error + 0.001))
    return {
        "label": label, "engine": label, "options": {"particles": 256} if label in ("annealed", "smc") else {},
        "reason": None, "verdict": {"annealed": "pass", "importance": "fail"}.get(label, "warn"),
        "findings": [] if label == "annealed" else [f"ess: draws are worth {worth}. Take more draws, or `mcmc`."],
        "measures": measures, "curve": curve, "training": training(chance) if learns else None,
    }  # fmt: skip


def training(chance):
    curve = [
        {"step": step, "loss": 60 * math.exp(-step / 60) + 2 + chance.random(),
         "variance": 90 * math.exp(-step / 50) + 3 + chance.random(), "ess": min(0.9, 0.02 + step / 500)}
        for step in range(1, 300, 2)
    ]  # fmt: skip
    return {"tokens": 1e6, "seconds": 800.0, "curve": curve}


def spread(mean, half):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def data_row(number, labels, chance, texts, points, bins):
    centre = -68.0 - number % 5
    return {
        "givens": {"X": f"{chance.choice(SUBJECTS)} left without an umbrella.", "Y": " She came home wet to the skin."},
        "log_evidence": -37.67 - number * 0.1,
        "densities": {label: histogram(centre, ENGINES.get(label, 0), bins) for label in [*labels, "(reference)"]},
        "traces": {label: [trace(centre, chance, points) for _ in range(4)] for label in labels if label != "smc"},
        "ranks": {"mcmc": [[chance.randrange(40, 62) for _ in range(20)] for _ in range(4)]},
        "lineages": {label: [lineage(chance) for _ in range(4)] for label in labels if label in ("smc", "annealed")},
        "texts": listed(labels, chance, texts),
        "hidden": {label: {"texts": 812, "mass": 0.07} for label in labels},
    }


def listed(labels, chance, number):
    """Texts by a power law of masses; each engine lists `number` of them, with errors of its own."""
    truths = sorted((0.3 / (rank + 1) ** 1.1 for rank in range(3 * number // 2)), reverse=True)
    made = [text(labels, chance, truth) for truth in truths]
    for label in labels:
        for left_out in chance.sample(made, len(made) - number):
            del left_out["mass"][label]
    return made


def text(labels, chance, truth):
    value = f" {chance.choice(SUBJECTS)} {chance.choice(VERBS)} {chance.choice(ENDS)}."
    tokens = [[f" {word}", -round(chance.expovariate(0.5), 3)] for word in value.split()]
    prior = sum(number for _, number in tokens)
    mass = {label: truth * math.exp(chance.gauss(-0.1, 4 * ENGINES[label])) for label in labels}
    return {"values": {"Z": value}, "log_density": prior - 34.2, "factors": {"Z": prior, "observe Y": -34.2},
            "tokens": {"Z": tokens}, "mass": mass, "reference": truth}  # fmt: skip


def histogram(centre, error, bins):
    """An engine with an error lies lower and is wider."""
    middle, width = centre - 20 * error, 4 + 15 * error
    edges = [middle - 4 * width + 8 * width * number / bins for number in range(bins + 1)]
    heights = [math.exp(-0.5 * (((left + right) / 2 - middle) / width) ** 2) for left, right in pairwise(edges)]
    return [[*ends, height / sum(heights)] for ends, height in zip(pairwise(edges), heights, strict=True)]


def lineage(chance):
    return [max(3, round(256 / (step + 1) ** chance.uniform(0.9, 1.1))) for step in range(20)]


def trace(centre, chance, points):
    value, path = centre, []
    for step in range(points):
        value += 0.4 * (centre - value) + chance.gauss(0, 3)
        path.append([step * 1000 // points, value])
    return path
