"""Four ways to answer word problems with the capable model, and how far their probabilities can be believed.

    python benchmarks/reasoning.py --out benchmarks/results/word-problems.jsonl [--report]

direct: the most probable answer, read without reasoning. greedy: one chain of thought, the most probable token at each
step; its last number. votes: of 10 chains that are drawn, the last number of most. predict: the average over the same
10 chains of p(answer | chain), among all answers that came up. What a way believes is p of its answer: of the tokens
(direct, greedy), the share of the votes, or the average. A row that the file has is not run again; --report prints the
table of what it has.
"""

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
from word_problems import problems

import lmppl

MODEL, TEMPERATURE, CHAINS = "llama.cpp:qwen2.5-coder-1.5b", 1, 10
WAYS = ("direct", "greedy", "votes", "predict")
TURN, OVER = "<|im_start|>", "<|im_end|>"
# no number stands in these: one that did, as an example, was what the model answered with
TELL = "Think step by step, in at most three short sentences. End with the answer, like this: Answer: NUMBER"
SHORT = "Write only the answer, like this: Answer: NUMBER"
LONGEST, LONGEST_ANSWER = 160, 8  # tokens
SIDE_BY_SIDE = 8  # problems whose single chains grow together


SYSTEM = "You are a careful assistant."
LAW = "" if TEMPERATURE == 1 else f" (temperature = {TEMPERATURE})"
MODELS = f'lm GEN = "{MODEL}"{LAW}\nlm LM = "{MODEL}"\n'
ASKED = f'system "{SYSTEM}", user "{{X}}\\n{TELL}"'
CHAIN = f"{MODELS}given X\nZ ~ GEN({ASKED}) max {LONGEST} tokens\nderive A = group(Z, /(-?[0-9][0-9,]*)[^0-9]*$/)\n"
VOTE = f"{CHAIN}predict A\n"


def read(options):
    """A program that says which of these answers a chain leads to."""
    listed = ", ".join(json.dumps(f" {option}{OVER}") for option in options)
    return f'{CHAIN}Y ~ LM({ASKED}, assistant "{{Z}}\\nAnswer:") in [{listed}]\npredict Y\n'


def chat(question, told, begun=""):
    """The same as a text, for what is read token by token."""
    system = f"{TURN}system\n{SYSTEM}{OVER}\n"
    return f"{system}{TURN}user\n{question}\n{told}{OVER}\n{TURN}assistant\n{begun}"


def number(text):
    """The first whole number of a text; None where there is none."""
    found = re.search(r"-?\d[\d,]*", text or "")
    return int(found[0].replace(",", "")) if found else None


def greedy(model, prompts, longest):
    """The most probable token, again and again, behind each of some prompts: the tokens' texts, and log p of each."""
    stream = model.stream(prompts[0][:1], [prompt[1:] for prompt in prompts])  # all begin alike
    tokens, scores = [[] for _ in prompts], [[] for _ in prompts]
    growing = list(range(len(prompts)))
    while growing:
        law = stream.log_probs().numpy()
        for place, row in enumerate(growing):
            tokens[row].append(int(law[place].argmax()))
            scores[row].append(float(law[place].max()))
        kept = [n for n, row in enumerate(growing) if tokens[row][-1] != model.end and len(tokens[row]) < longest]
        stream.push(np.array([tokens[row][-1] for row in growing]))
        stream.keep(np.array(kept, dtype=np.int64))
        growing = [growing[n] for n in kept]
    return [(model.pieces(row), own) for row, own in zip(tokens, scores, strict=True)]


def answered(pieces, scores, place=-1):
    """The last number of a text, or its first (place 0), and p of its tokens."""
    numbers = list(re.finditer(r"-?\d[\d,]*", "".join(pieces)))
    if not numbers:
        return None, 0.0
    found = numbers[place]
    ends = np.cumsum([len(piece) for piece in pieces])
    first, last = found.start(), found.end()
    within = [n for n, end in enumerate(ends) if end > first and end - len(pieces[n]) < last]
    closing = [n for n in [within[-1] + 1] if n < len(scores)]  # that the number is over
    return number(found[0]), float(np.exp(sum(scores[n] for n in [*within, *closing])))


def asked(model, questions, told, begun="", longest=LONGEST):
    """The answer to each question, and p of its tokens."""
    prompts = [model.begin(model.encode(chat(one, told, begun), markers=True, opening=True)) for one in questions]
    return [answered(*found, 0 if begun else -1) for found in greedy(model, prompts, longest)]


def read_alone(questions, models):
    """Answers without draws, of several problems side by side: by each way, (answer, what it believes)."""
    direct = asked(models["LM"], questions, SHORT, "Answer:", LONGEST_ANSWER)
    chains = asked(models["LM"], questions, TELL)
    return [{"direct": one, "greedy": other} for one, other in zip(direct, chains, strict=True)]


def run(row, alone, models, seed):
    """Answers to one problem: by each way, (answer, what it believes)."""
    found, question = dict(alone), row["X"]
    row = lmppl.compile(VOTE).infer(
        "importance", lms=models, X=question, chains=1, num_samples=CHAINS, seed=seed, budget="none"
    ).rows[0]  # fmt: skip
    votes = Counter({number(text): share for text, share in row.predictions["A"].items() if number(text) is not None})
    found["votes"] = votes.most_common(1)[0] if votes else (None, 0.0)
    chains = [draw.values["Z"] for draw in row.draws]
    options = sorted({*votes, *(answer for answer, _ in found.values() if answer is not None)})
    found["predict"] = predicted(options, chains, question, models)
    return {"found": found, "votes": dict(votes), "chains": chains}


def predicted(options, chains, question, models):
    """The average of p(answer | chain), of the answer where it is largest."""
    if len(options) < 2 or not chains:
        return (options[0], 1.0) if options and chains else (None, 0.0)
    data = [{"X": question, "Z": chain} for chain in chains]
    posterior = lmppl.compile(read(options)).infer("exact", lms=models, data=data)
    laws = [row.predictions["Y"] for row in posterior.rows]
    shares = {option: float(np.mean([law[f" {option}{OVER}"] for law in laws])) for option in options}
    best = max(options, key=shares.__getitem__)
    return best, shares[best]


# --- what is reported -----------------------------------------------------------------------------


def errors(beliefs, right, bins=10):
    """Accuracy, Brier score and expected calibration error of answers, each with what was believed of it."""
    beliefs, right = np.array(beliefs), np.array(right, dtype=float)
    slot = np.minimum((beliefs * bins).astype(int), bins - 1)
    gaps = [(slot == one).mean() * abs(beliefs[slot == one].mean() - right[slot == one].mean()) for one in set(slot)]
    return right.mean(), ((beliefs - right) ** 2).mean(), sum(gaps)


def report(rows):
    print("| way | problems | accuracy | of two steps | of three | mean belief | Brier | ECE |\n|" + "---|" * 8)
    for way in WAYS:
        beliefs = [row["found"][way][1] for row in rows]
        right = [row["found"][way][0] == row["answer"] for row in rows]
        accuracy, brier, ece = errors(beliefs, right)
        by_steps = [
            np.mean([ok for row, ok in zip(rows, right, strict=True) if row["steps"] == n] or [0]) for n in (2, 3)
        ]
        print(f"| {way} | {len(rows)} | {accuracy:.3f} | {by_steps[0]:.2f} | {by_steps[1]:.2f} "
              f"| {np.mean(beliefs):.3f} | {brier:.4f} | {ece:.3f} |")  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    done = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    if given.report:
        report(done)
        return
    known = {row["X"] for row in done}
    left = [(n, row) for n, row in enumerate(problems()[: given.rows]) if row["X"] not in known]
    models = lmppl.compile(VOTE).bind(X="").models if left else {}
    alone = {}
    for place, (n, row) in enumerate(left):
        start = time.perf_counter(), time.process_time()
        if row["X"] not in alone:
            questions = [other["X"] for _, other in left[place : place + SIDE_BY_SIDE]]
            alone |= zip(questions, read_alone(questions, models), strict=True)
        made = run(row, alone[row["X"]], models, seed=n)
        spent = {"seconds": round(time.perf_counter() - start[0]), "processor": round(time.process_time() - start[1])}
        with given.out.open("a") as file:
            file.write(json.dumps({**row, **made, **spent}) + "\n")
        print(n, row["answer"], made["found"], spent, flush=True)


if __name__ == "__main__":
    main()
