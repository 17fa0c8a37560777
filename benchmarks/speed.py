"""Speed as ratios in one run on one machine, on the default model in float32.

    python benchmarks/speed.py [--pairs 5]

importance: tokens/s of 32 rows × 32 tokens after a shared 64-token prompt, over Hugging Face `generate` on the
same 32 prompts (sampling from the whole law). scoring: 32 × 64 tokens, over a bare forward pass. Then the cold
start of the command. Ratios are medians of alternating pairs; each pair's two sides run one after the other.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from lmppl import ir
from lmppl.bind import bind
from lmppl.compile import analyse
from lmppl.data import Row
from lmppl.engines.contract import Settings, quiet
from lmppl.engines.importance import Options
from lmppl.engines.importance import run as importance
from lmppl.lm.load import load_model
from lmppl.randomness import Randomness
from lmppl.source import Source, Span

ROWS, NEW, PROMPT = 32, 32, 64
WORDS = "The old harbour was quiet that evening, and the boats lay still under a sky that promised snow. "
ROOT = Path(__file__).resolve().parent.parent


def seconds(action):
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def paired(ours, theirs, pairs):
    """Median ratio of rates ours / theirs, and both medians. Actions return (seconds, tokens)."""
    ours(), theirs()
    rates = [(tokens / spent, other_tokens / other) for _ in range(pairs)
             for (spent, tokens), (other, other_tokens) in [(ours(), theirs())]]  # fmt: skip
    ratios = [left / right for left, right in rates]
    return statistics.median(ratios), *(statistics.median(side) for side in zip(*rates, strict=True))


def drawing(model, prompt):
    """Two actions that draw ROWS texts of NEW tokens: the importance engine's, and generate's."""
    text = f'lm LM = "x"\nZ ~ LM("{model.decode(prompt)}") max {NEW} tokens\n'
    program = analyse(Source("bench", text), ".").program
    assert program is not None
    seeds = iter(range(10**6))

    def ours():
        model._prompts.clear()  # the prompt is run in every repetition, as in a new row
        target, _ = bind(program, {"LM": model}, Row({}, {}))
        settings = Settings(chains=1, num_samples=ROWS)
        spent, outcome = seconds(lambda: importance(target, settings, Options(), Randomness(next(seeds)), quiet))
        return spent, sum(target.num_scored("Z", sample.state["Z"]) for sample in outcome.samples)

    def theirs():
        ids = torch.tensor([prompt] * ROWS)
        options = {
            "do_sample": True,
            "top_k": 0,
            "top_p": 1.0,
            "temperature": 1.0,
            "max_new_tokens": NEW,
            "pad_token_id": 0,
        }
        with torch.inference_mode():
            spent, out = seconds(lambda: model.model.generate(ids, attention_mask=torch.ones_like(ids), **options))
        new = out[:, len(prompt) :].tolist()
        return spent, sum(row.index(model.end) + 1 if model.end in row else len(row) for row in new)

    return ours, theirs


def scoring(model):
    """Two actions over ROWS × 64 tokens: scoring them, and one forward pass that makes their logits."""
    rng = np.random.default_rng(0)
    rows = [tuple(int(t) for t in rng.integers(100, 40_000, size=64)) for _ in range(ROWS)]
    prompt = (rows[0][0],)

    def ours():
        return seconds(lambda: model.score(prompt, rows, [0] * ROWS))[0], ROWS * 64

    def theirs():
        with torch.inference_mode():
            return seconds(lambda: model.model(input_ids=torch.tensor(rows)))[0], ROWS * 64

    return ours, theirs


def cold(*arguments):
    """Median seconds of the command in a new process."""
    command = [sys.executable, "-m", "lmppl", *arguments]
    return statistics.median(
        seconds(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=True))[0] for _ in range(7)
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    declaration = ir.ModelDeclaration("LM", "smollm2-135m", Span(0, 1))
    model = load_model(declaration, Source("bench", "lm"), ROOT, torch.device("cpu"), quiet)
    prompt = model.encode(WORDS * 8, markers=False)[:PROMPT]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {pairs} pairs")
    print(f"{'':<46}{'ratio':>7}{'ours':>9}{'theirs':>9}   tokens/s")
    for name, actions in [
        ("importance, 32 × 32 after 64, over generate", drawing(model, prompt)),
        ("scoring 32 × 64, over a bare forward pass", scoring(model)),
    ]:
        ratio, left, right = paired(*actions, pairs)
        print(f"{name:<46}{ratio:>7.2f}{left:>9.0f}{right:>9.0f}")
    for arguments in (["--help"], ["check", "programs/haiku.lm"]):
        print(f"{'lmppl ' + ' '.join(arguments) + ', cold':<46}{cold(*arguments):>7.2f} s")


if __name__ == "__main__":
    main()
