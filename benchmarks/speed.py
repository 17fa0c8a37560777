"""Speed as ratios in one run on one machine, on the default model in float32.

    python benchmarks/speed.py [--pairs 5]

importance: tokens/s of 32 rows × 32 tokens after a shared 64-token prompt, over Hugging Face `generate` on the
same 32 prompts (sampling from the whole law). scoring: 32 × 64 tokens, over a bare forward pass. moves: steps of 16
Metropolis chains after a prompt of 16 tokens, over those after one of 512. early rejection: tokens that chains decode
with it, over those without; and what letting such chains go on at once, and keeping their keys and values, is
worth. masks: their share of the time of a constrained rollout. Then the cold start of the
command. Ratios are medians of alternating pairs; each pair's two sides run one after the other. The table is also
written to `--out`.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch

from lmppl import ir
from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding.masks import MaskRows
from lmppl.decoding.randomness import Randomness
from lmppl.density.binding import bind
from lmppl.engines.contract import Settings, quiet
from lmppl.engines.importance import Options
from lmppl.engines.importance import run as importance
from lmppl.engines.mcmc_kernel.kernel import Kernel
from lmppl.engines.proposals import draw_prior
from lmppl.errors import raise_errors
from lmppl.lm.transformers.load import load_model
from lmppl.source import Source, Span

ROWS, NEW, PROMPT = 32, 32, 64
WORDS = "The old harbour was quiet that evening, and the boats lay still under a sky that promised snow. "
CONSTRAINTS = ('not contains(Z, "boat")', "matches(Z, /[A-Za-z ,.]*/)", 'is_json(Z, "person.json")')
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
        model.forget_prompts()  # the prompt is run in every repetition, as in a new row
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


def target_of(model, statements, context, batch_size=64):
    """A bound program about Z, whose prior reads a context of so many tokens."""
    text = 'lm LM = "x"\n' + statements.format(context=model.decode(context))
    analysis = analyse(Source("bench", text), ROOT / "programs")
    raise_errors(analysis.findings)
    return bind(analysis.program, {"LM": model}, Row({}, {}), batch_size=batch_size)[0]


def moving(model, length, steps=6):
    """An action: Metropolis steps of 16 chains after a prompt of `length` tokens, which has been run before."""
    words = model.encode(WORDS * 40, markers=False)[:length]
    target = target_of(model, 'Z ~ LM("{context}")^2 max 16 tokens\n', words)
    kernel = Kernel(target, Randomness(0), restarts=0.0)
    chain_states = kernel.start([(c, 0) for c in range(16)])

    def act():
        def run():
            now = chain_states
            for at in range(steps):
                now = kernel.step(now, [(c, 1 + at) for c in range(16)], [1.0] * 16).chain_states

        return seconds(run)[0], 16 * steps

    return act


def early_rejection(model, prompt, steps=25):
    """Tokens decoded with early rejection over those without, by 16 chains; and their acceptance."""
    spent = []
    for early in (True, False):
        target = target_of(model, 'Z ~ LM("{context}")^4 max 12 tokens\n', prompt[:16])
        kernel = Kernel(target, Randomness(0), early=early)
        now = kernel.start([(c, 0) for c in range(16)])
        before, accepted = model.cost.tokens_decoded, 0
        for at in range(steps):
            step = kernel.step(now, [(c, 1 + at) for c in range(16)], [1.0] * 16)
            now, accepted = step.chain_states, accepted + int(step.accepted.sum())
        spent.append(model.cost.tokens_decoded - before)
    return spent[0] / spent[1], accepted / (16 * steps)


def chaining(model, length, maximum, steps, *, count=16, power=4, refill=True, remember=True):
    """An action: so many steps of chains as `mcmc` takes them, after a prompt of `length` tokens run before."""
    words = model.encode(WORDS * 40, markers=False)[:length]
    target = target_of(model, f'Z ~ LM("{{context}}")^{power} max {maximum} tokens\n', words)
    kernel = Kernel(target, Randomness(0), remember=remember)
    begun = kernel.start([(c, 0) for c in range(count)])

    def run():
        now, at = list(begun), [1] * count
        while running := [c for c in range(count) if at[c] <= steps]:
            ends = [1 + steps] * len(running) if refill else None
            step = kernel.step([now[c] for c in running], [(c, at[c]) for c in running], [1.0] * len(running), ends)
            for i, c in enumerate(running):
                now[c], at[c] = step.chain_states[i], at[c] + int(step.counts[i])

    return lambda: (seconds(run)[0], count * steps)


def chain_pairs(model):
    """What the two savings of `mcmc` are worth: name, with, without."""
    yield (
        "refill after early rejection, over without; moves/s",
        *(chaining(model, 16, 8, 20, refill=refill) for refill in (True, False)),
    )
    for count, length, maximum in itertools.product((16, 4), (16, 512), (16, 64)):
        name = f"{count} chains, prompt {length}, ≤ {maximum} tokens: cache reuse, over feeding again; moves/s"
        yield (
            name,
            *(
                chaining(model, length, maximum, 64 // maximum, count=count, power=1.2, remember=remember)
                for remember in (True, False)
            ),
        )


def mask_share(model, prompt, constraint):
    """Share of a rollout of 32 rows that masks take."""
    target = target_of(model, 'Z ~ LM("{context}") max 24 tokens\n' + f"constrain {constraint}\n", prompt[:16])
    spent = [0.0]

    def timed(method):
        def call(*arguments):
            took, result = seconds(lambda: method(*arguments))
            spent[0] += took
            return result

        return call

    plain = {name: getattr(MaskRows, name) for name in ("allowed", "push", "keep")}
    try:
        for name, method in plain.items():
            setattr(MaskRows, name, timed(method))
        total = seconds(lambda: draw_prior(target, [(0, i) for i in range(ROWS)], Randomness(0)))[0]
    finally:
        for name, method in plain.items():
            setattr(MaskRows, name, method)
    return spent[0] / total


def cold(*arguments):
    """Median seconds of the command in a new process."""
    command = [sys.executable, "-m", "lmppl", *arguments]
    return statistics.median(
        seconds(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=True))[0] for _ in range(7)
    )


def measure(pairs):
    """Lines of the table: what, ratio, ours, theirs."""
    declaration = ir.ModelDeclaration("LM", "smollm2-135m", Span(0, 1))
    model = load_model(declaration, Source("bench", "lm"), ROOT, torch.device("cpu"), quiet)
    prompt = model.encode(WORDS * 8, markers=False)[:PROMPT]
    for name, actions in [
        ("importance, 32 × 32 after 64, over `generate`; tokens/s", drawing(model, prompt)),
        ("scoring 32 × 64, over a bare forward pass; tokens/s", scoring(model)),
        ("moves after a prompt of 16, over after 512; moves/s", (moving(model, 16), moving(model, 512))),
    ]:
        ratio, left, right = paired(*actions, pairs)
        yield f"| {name} | {ratio:.2f} | {left:.0f} | {right:.0f} |"
    for name, *actions in chain_pairs(model):
        ratio, left, right = paired(*actions, pairs)
        yield f"| {name} | {ratio:.2f} | {left:.1f} | {right:.1f} |"
    ratio, acceptance = early_rejection(model, prompt)
    yield f"| early rejection: tokens decoded, over without, at acceptance {acceptance:.2f} | {ratio:.2f} | | |"
    for constraint in CONSTRAINTS:
        share = mask_share(model, prompt, constraint)
        yield f"| masks of `{constraint}`: share of a rollout of 32 rows | {share:.3f} | | |"
    for arguments in (["--help"], ["check", "programs/haiku.lm"]):
        yield f"| `lmppl {' '.join(arguments)}`, cold; seconds | | {cold(*arguments):.2f} | |"


def write_table(head, measured, out):
    """Print the lines of a table as they are measured, and write them into a file in the end."""
    lines = list(head)
    print("\n".join(lines))
    for line in measured:
        print(line, flush=True)
        lines.append(line)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "speed.md")
    arguments = parser.parse_args()
    threads = f"{torch.get_num_threads()} threads, {os.cpu_count()} cores, CPU, float32"
    head = [
        "# Speed, on smollm2-135m",
        "",
        f"`make bench`; {threads}, torch {torch.__version__}, {arguments.pairs} pairs, {date.today()}.",
        "",
        "| | ratio | ours | theirs |",
        "|---|---|---|---|",
    ]
    write_table(head, measure(arguments.pairs), arguments.out)


if __name__ == "__main__":
    main()
