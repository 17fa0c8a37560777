r"""Evidence of a regex posterior on the default model: `smc` against genlm-control 0.4.1, at equal wall-clock, on CPU.

    python benchmarks/rival.py [--env FOLDER] [--runs 16] [--threads 1] [--out benchmarks/results]

    Z ~ LM("Once upon a time there was a small house.") until "." max 14 tokens, under one of two regexes

Each side estimates the evidence again and again; what counts is the standard deviation of log Ẑ. Theirs run first,
then `smc` with as many particles as take at most their fastest sampler's seconds a run. Of the closed regex the
exact evidence is summed up text by text, up to a bound on what was left out.

Both sides get the same folder of weights in float32, the same prompt tokens, and sum over the same token sequences:
a text ends with the first token that brings the full stop in, no end token is scored, and every tokenisation of a text
counts. Loading, compiling the regex and running the prompt are outside the time on both sides. Theirs runs with the
resampling and samplers named in the table; outputs of the model are not kept from one run to the next. The times are
matched in processor seconds, which with one thread are the clock's on an idle machine, and do not vary with its load.

genlm-control lives in an environment of its own, which this makes where it is missing: `python -m venv`, then
`pip install torch==2.13.0` (first, so that a build for the CPU can be had), then `genlm-control==0.4.1`, both under the
versions of constraints.txt, which its own pins allow. Resumable: a finished run is a line of `rival.jsonl`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import lmppl
from lmppl.decoding.randomness import Randomness
from lmppl.engines.contract import Settings, quiet
from lmppl.engines.genlm_control.process import ask
from lmppl.engines.table import engine

HERE = Path(__file__).resolve().parent
PROMPT, UNTIL, TOKENS = "Once upon a time there was a small house.", ".", 14
REGEXES = {
    "closed": r" The (cat|dog|bird) (sat|slept|ran) (on|under|near) the (house|tree|road|river)\.",
    "free": r" The (cat|dog|bird) (sat|slept|ran) (on|under|near) the [a-z]+\.",
}
PROGRAM = (
    'lm LM = "smollm2-135m"\nZ ~ LM("{prompt}") until "{until}" max {tokens} tokens\nconstrain matches(Z, /{regex}/)\n'
)
THEIRS = {  # name: sampler, resampling, particles
    "AWRS": ("awrs", "multinomial", 32),
    "sets": ("sets", "multinomial", 64),
    "sets, systematic": ("sets", "systematic", 64),
}
OURS = {"smc": False, "smc, spread": True}  # name: the option `spread`
CANDIDATES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
DEPTH = 7  # nats below the evidence at which the search for the truth leaves prefixes out
HEAD = """# Evidence of a regex posterior, against genlm-control 0.4.1

`python benchmarks/rival.py --runs 10`, smollm2-135m in float32, a machine of 2 cores without a GPU, one thread,
2026-11-24. `smc` runs as it is by default, and with `-o spread=true`. Its particles are as many as take at most the
processor seconds of their fastest sampler; the machine had other work, which the seconds on the clock show and the
processor's do not. Errors are of ten runs by the delta method, and too small where Ẑ is skewed, as theirs is. AWRS
stays below the truth: its source gives a particle up once all but 1e-5 of the mass is rejected, which may be why.
"""
REQUIRED = ("torch==2.13.0", "genlm-control==0.4.1")


def environment(folder):
    """The python of the rival's environment, made where it is missing."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for required in REQUIRED:
            constraints = str(HERE.parent / "constraints.txt")
            subprocess.run([str(python), "-m", "pip", "install", "-q", "-c", constraints, required], check=True)
        ready.touch()
    return python


def bound(name):
    """The target that `smc` sees: the program with one of the regexes."""
    text = PROGRAM.format(prompt=PROMPT, until=UNTIL, tokens=TOKENS, regex=REGEXES[name])
    return lmppl.compile(text).bind(device="cpu")


def model_and_prompt(target):
    """What the other side loads, and the prompt's tokens."""
    term = target.text_latent("Z").terms[0]
    return {
        "model": term.model.model.name_or_path, "dtype": "float32", "device": "cpu", "ends": list(term.model.ends),
        "prompt": list(term.context.prompt), "until": UNTIL, "tokens": TOKENS, "ess": 0.5,
    }  # fmt: skip


def ours(target, particles, seed, spread):
    """One run of `smc`: log Ẑ, and the seconds it took on the clock and of the processor."""
    chosen = engine("smc")
    start, work = time.perf_counter(), time.process_time()
    outcome = chosen.run(
        target, Settings(1, 1), chosen.options(particles=particles, spread=spread), Randomness(seed), quiet
    )
    seconds, work = time.perf_counter() - start, time.process_time() - work
    return {"log_evidence": outcome.log_evidence, "seconds": seconds, "cpu": work}


def theirs(python, asked):
    """Runs of genlm-control, one at a time as they are finished. A run before the first only warms up."""
    seeds = [asked["seeds"][0], *asked["seeds"]]
    with closing(ask(str(python), {**asked, "seeds": seeds}, 1 + len(seeds))) as answers:
        for line in islice(answers, 2, None):
            yield {key: line[key] for key in ("log_evidence", "seconds", "cpu")}


def calibrate(target, seconds, spread):
    """The most particles whose run takes no longer than this, by one run of each number on the way."""
    ours(target, CANDIDATES[0], 10_000, spread)  # warms up
    best = CANDIDATES[0]
    for particles in CANDIDATES:
        if np.mean([ours(target, particles, 10_001 + again, spread)["cpu"] for again in range(2)]) > seconds:
            break
        best = particles
    return best


class Finished:
    """Runs that are done, one a line of a file."""

    def __init__(self, path):
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def add(self, line):
        self.lines.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)

    def of(self, problem, side):
        return [line for line in self.lines if line["problem"] == problem and line["side"] == side]


def measure(problem, arguments, python, finished):
    """Every side of one problem, as far as it is not finished."""
    target = bound(problem)
    common = model_and_prompt(target)
    for name, (sampler, resampling, particles) in THEIRS.items():
        missing = arguments.runs - len(finished.of(problem, name))
        first = 1000 * (1 + arguments.runs - missing)
        asked = {
            **common, "regex": REGEXES[problem], "sampler": sampler, "resampling": resampling, "particles": particles,
            "seeds": [first + run for run in range(missing)], "threads": arguments.threads,
        }  # fmt: skip
        for line in theirs(python, asked) if missing > 0 else ():
            finished.add({"problem": problem, "side": name, "particles": particles, **line})
    measure_ours(problem, arguments, target, finished)
    if problem == "closed" and not finished.of(problem, "exact"):
        finished.add({"problem": problem, "side": "exact", **truth(target)})


def measure_ours(problem, arguments, target, finished):
    """`smc` within the time of the fastest of their samplers."""
    seconds = min(np.mean([line["cpu"] for line in finished.of(problem, name)]) for name in THEIRS)
    for side, spread in OURS.items():
        done = finished.of(problem, side)
        particles = done[0]["particles"] if done else calibrate(target, seconds, spread)
        for seed in range(len(done), arguments.runs):
            line = ours(target, particles, seed, spread)
            finished.add({"problem": problem, "side": side, "particles": particles, **line})


def truth(target):
    """Bounds of the log evidence: the sum over all texts, token by token, with what was left out as the gap.

    Prefixes of less than exp(-DEPTH) of a rough estimate are left out; their mass bounds that of their texts.
    """
    cut = ours(target, 256, 20_000, True)["log_evidence"] - DEPTH
    text = target.text_latent("Z")
    found, lost, level, expanded = -np.inf, -np.inf, {(): 0.0}, 0
    while level:
        expanded += len(level)
        following = {}
        for prefix, tokens, logs in children(target, text, level):
            low = logs < cut
            lost = np.logaddexp(lost, np.logaddexp.reduce(logs[low], initial=-np.inf))
            for token, log in zip(tokens[~low].tolist(), logs[~low].tolist(), strict=True):
                longer = (*prefix, token)
                if not text.stopping.closes(longer):
                    following[longer] = log
                elif text.stopping.legal(longer) and target.holds(target.constraints_on("Z"), {"Z": longer}):
                    found = np.logaddexp(found, log)
        level = following
    return {"interval": [float(found), float(np.logaddexp(found, lost))], "prefixes": expanded}


def children(target, text, level):
    """Per prefix, the tokens that its mask leaves and the log probability of the prefix with each."""
    prefixes = list(level)
    for start in range(0, len(prefixes), target.batch_size):
        some = prefixes[start : start + target.batch_size]
        laws = target.next_log_probs("Z", [{} for _ in some], some)
        allowed = text.masks.start(some).allowed().numpy()
        for prefix, law, mask in zip(some, laws, allowed, strict=True):
            tokens = np.flatnonzero(mask & np.isfinite(law) & (np.arange(len(law)) != text.stopping.end))
            yield prefix, tokens, level[prefix] + law[tokens]


def table(finished):
    """Markdown: a table a problem, the ratios below it."""
    parts = [HEAD]
    for problem, regex in REGEXES.items():
        if not finished.of(problem, "smc"):
            continue
        parts.append(f'## {problem}\n\n`/{regex}/` after "{PROMPT}", at most {TOKENS} tokens.\n')
        for line in finished.of(problem, "exact"):
            low, high = line["interval"]
            parts.append(f"Log evidence summed over {line['prefixes']} prefixes: {low:.4f} to {high:.4f}.\n")
        names = ("side", "particles", "runs", "seconds a run", "processor seconds", "mean log Ẑ", "sd of log Ẑ")
        parts.append("| " + " | ".join((*names, "log of mean Ẑ ± error")) + " |")
        parts.append("|---|---|---|---|---|---|---|---|")
        parts += [row(name, finished.of(problem, name)) for name in (*THEIRS, *OURS)]
        parts += ["\n" + "; ".join(ratio(problem, own, name, finished) for name in THEIRS) + ".\n" for own in OURS]
    return "\n".join(parts)


def row(name, lines):
    """One line of the table. Error by the delta method."""
    logs = np.array([line["log_evidence"] for line in lines])
    seconds, work = (np.mean([line[key] for line in lines]) for key in ("seconds", "cpu"))
    pooled = np.logaddexp.reduce(logs) - np.log(len(logs))
    error = np.exp(logs - pooled).std(ddof=1) / np.sqrt(len(logs))
    label = f"**lmppl `{name}`**" if name in OURS else f"genlm-control, {name}"
    return (
        f"| {label} | {lines[0]['particles']} | {len(lines)} | {seconds:.2f} | {work:.2f} | {logs.mean():.3f} "
        f"| {logs.std(ddof=1):.3f} | {pooled:.3f} ± {error:.3f} |"
    )


def ratio(problem, own, name, finished):
    """How our standard deviation relates to theirs."""
    spread = {side: np.std([x["log_evidence"] for x in finished.of(problem, side)], ddof=1) for side in (own, name)}
    return f"sd of `{own}` / sd of {name}: {spread[own] / spread[name]:.2f}"


def main():
    parser = argparse.ArgumentParser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--env", type=Path, default=cache / "lmppl" / "rival")
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--problems", default=",".join(REGEXES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # which the other side inherits
    python, finished = environment(arguments.env), Finished(arguments.out / "rival.jsonl")
    for problem in arguments.problems.split(","):
        measure(problem, arguments, python, finished)
        print(table(finished), flush=True)
        (arguments.out / "rival.md").write_text(table(finished))


if __name__ == "__main__":
    main()
