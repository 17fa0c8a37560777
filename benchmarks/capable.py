"""What the capable model takes: time to load, memory, tokens a second, and how near its ways to run are.

    python benchmarks/capable.py >> benchmarks/results/capable.md

Each way is a process of its own, whose peak memory is told. The alias is fetched where it is not here. Needs the extra
[gguf]. Times are of the processor, in seconds of all threads, then of the clock: of a busy machine, go by the first.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

NAME = "qwen2.5-coder-1.5b"
WAYS = {"float32": (NAME, ' (dtype = "float32")'), "bfloat16": (NAME, ' (dtype = "bfloat16")'),
        "llama.cpp": (f"llama.cpp:{NAME}", "")}  # fmt: skip
SYSTEM = "You are a helpful assistant."
QUESTION = "Why is the sky blue? Answer in two sentences."
TURN, OVER = "<|im_start|>", "<|im_end|>\n"
PROMPT = f"{TURN}system\n{SYSTEM}{OVER}{TURN}user\n{QUESTION}{OVER}{TURN}assistant\n"
TEXT = (
    "The sky looks blue because molecules of the air scatter short waves of sunlight much more than long ones. Blue"
    " light therefore reaches our eyes from all directions, while red light mostly passes straight through."
)
ROWS, TOKENS = 16, 24


def clock():
    return time.process_time(), time.perf_counter()


def since(start):
    return [round(now - then, 2) for now, then in zip(clock(), start, strict=True)]


def loaded(way):
    import lmppl

    identifier, options = WAYS[way]
    program = lmppl.compile(f'lm LM = "{identifier}"{options}\nZ ~ LM("a") max 1\n')
    return program.bind().models["LM"]


def written(model, prompt):
    """The most probable token, again and again."""
    stream, tokens = model.stream(prompt, [()]), []
    while len(tokens) < 60:
        tokens.append(int(stream.log_probs().argmax()))
        if tokens[-1] == model.end:
            break
        stream.push(np.array(tokens[-1:]))
    return model.decode(tokens)


def decode(model, prompt, rows):
    """Steps of a batch of rows."""
    stream = model.stream(prompt, [()] * rows)
    start = clock()
    for _ in range(TOKENS):
        laws = stream.log_probs().double().cpu().numpy()
        stream.push(np.array(laws.argsort(1)[np.arange(rows), -1 - np.arange(rows) % 4]))
    return since(start)


def measure(way, laws):
    start = clock()
    model = loaded(way)
    found = {"way": way, "load": since(start), "loaded": peak()}
    prompt = model.begin(model.encode(PROMPT, markers=True, opening=True))
    text = model.encode(TEXT, markers=False)
    start = clock()
    law = model.laws(prompt, [text], [0])[0].double().numpy()
    found |= {"scored": len(prompt) + len(text), "scoring": since(start)}
    np.save(laws, law)
    found |= {f"decode {rows}": decode(model, prompt, rows) for rows in (1, ROWS)}
    found |= {"peak": peak(), "says": written(model, prompt), "tokens": [int(token) for token in text]}
    print(json.dumps(found))


def peak():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def nearness(laws, tokens):
    names = list(laws)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            a, b = laws[first], laws[second]
            with np.errstate(invalid="ignore"):
                kl = np.where(np.isfinite(b), np.exp(a) * (a - b), 0).sum(-1)
            at = np.arange(len(tokens))
            apart = b[at, tokens] - a[at, tokens]
            print(f"| {first} | {second} | {kl.mean():.5f} | {kl.max():.4f} | {np.sqrt((apart**2).mean()):.3f} "
                  f"| {np.abs(apart).max():.3f} | {apart.sum():+.2f} |")  # fmt: skip


def rate(count, spent):
    return " / ".join(f"{count / max(one, 1e-9):.1f}" for one in spent)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--laws", type=Path)
    asked = parser.parse_args()
    if asked.way:
        measure(asked.way, asked.laws)
        return
    found, laws = [], {}
    for way in WAYS:
        file = Path(f"/tmp/laws-{os.getpid()}.npy")
        command = [sys.executable, __file__, "--way", way, "--laws", file]
        found.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
        laws[way] = np.load(file)
        file.unlink()
        print(json.dumps(found[-1]), file=sys.stderr)
    print(
        "| way | load, s | memory after it, GB | at most, GB | tokens/s, scored | one row | 16 rows |\n|" + "---|" * 7
    )
    for one in found:
        print(f"| {one['way']} | {' / '.join(map(str, one['load']))} | {one['loaded']} | {one['peak']} "
              f"| {rate(one['scored'], one['scoring'])} | {rate(TOKENS, one['decode 1'])} "
              f"| {rate(TOKENS * ROWS, one[f'decode {ROWS}'])} |")  # fmt: skip
    print("\n| law | other law | KL a token | at most | log p apart, rms | at most | in all |\n|" + "---|" * 7)
    nearness(laws, found[0]["tokens"])
    print()
    for one in found:
        print(f"{one['way']}: {one['says']!r}\n")


if __name__ == "__main__":
    main()
