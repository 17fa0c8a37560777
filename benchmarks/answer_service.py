"""What an answer service's probabilities are worth: movie reviews, objective or subjective, three ways.

    python benchmarks/answer_service.py --data FOLDER/dev.500.jsonl --out FILE.jsonl [--rows 200] [--report]

first: p of the answer's first token, read without reasoning, as a server gives it to whoever asks for `logprobs`.
votes: 10 chains of thought are drawn, each with an answer behind it, and p is the share of the votes. predict: the mean
over the same 10 chains of p(answer | chain), which is what `/v1/systemone` replies for the program. votes and predict
cost the same tokens; those of first are beside them, and a fourth way, firsts, spends about as many: the mean of
the first token's p over as many wordings of the question as 10 chains cost, at most all there are. A row that the file
has is not run again; --report prints the table of what it has.

The data have `text` and `label`, 1 for subjective; rows are taken evenly from the file.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
from reasoning import errors

import lmppl

MODEL, CHAINS, LONGEST = "llama.cpp:qwen2.5-coder-1.5b", 10, 60
OPTIONS = (" objective", " subjective")
WAYS = ("first", "firsts", "votes", "predict")
SYSTEM = "You say whether a sentence about a film is objective (it tells the plot) or subjective (it gives an opinion)."
WORDINGS = (
    "Sentence: {X}\\nIs it objective or subjective?",
    "Sentence: {X}\\nIs it subjective or objective?",
    "{X}\\nWhat is this sentence, objective or subjective?",
    "Does this sentence tell a plot (objective) or give an opinion (subjective)?\\n{X}",
    "Does this sentence give an opinion (subjective) or tell a plot (objective)?\\n{X}",
    "A film page says: {X}\\nObjective or subjective?",
    "A film page says: {X}\\nSubjective or objective?",
    "Label the sentence as objective or subjective: {X}",
)
THINK = "Think in at most two short sentences."
HEAD = f'lm LM = "{MODEL}"\ngiven X\n'
CHOICE = 'in [" objective", " subjective"]\npredict Y\n'


def first(wording):
    """A program that reads the answer without reasoning."""
    return f'{HEAD}Y ~ LM(system "{SYSTEM}", user "{wording}", assistant "It is") {CHOICE}'


def reasoned():
    """A program that thinks first; the thought is summed out."""
    asked = f'system "{SYSTEM}", user "{WORDINGS[0]} {THINK}"'
    answer = f'{asked}, assistant Z, user "So which of the two?", assistant "It is"'
    return f"{HEAD}Z ~ LM({asked}) max {LONGEST} tokens\nY ~ LM({answer}) {CHOICE}"


def run(row, models, seed):
    """p(subjective) by each way, and the tokens that each has cost."""
    found, tokens = {}, {}

    def infer(program, engine, **more):
        posterior = lmppl.compile(program).infer(engine, lms=models, X=row["text"], budget="none", **more)
        spent = posterior.cost["tokens_decoded"] + posterior.cost["tokens_scored"]
        return posterior.rows[0], spent

    thought, spent = infer(reasoned(), "importance", chains=1, num_samples=CHAINS, seed=seed)
    votes = Counter(draw.values["Y"] for draw in thought.draws)
    found["predict"], tokens["predict"] = thought.predictions["Y"][OPTIONS[1]], spent
    found["votes"], tokens["votes"] = votes[OPTIONS[1]] / CHAINS, spent
    reads, paid = [], 0
    for wording in WORDINGS:
        read, cost = infer(first(wording), "exact")
        reads.append(read.predictions["Y"][OPTIONS[1]])
        paid += cost
        tokens.setdefault("first", cost)
        if paid >= spent:
            break
    found["first"] = reads[0]
    found["firsts"], tokens["firsts"] = float(np.mean(reads)), paid
    error = thought.predictions["Y"].errors[OPTIONS[1]]
    return {"found": found, "tokens": tokens, "error": error, "verdict": thought.verdict}


# --- what is reported -----------------------------------------------------------------------------


def scores(shares, labels, bins=10):
    """Accuracy, Brier score of p(subjective), and the expected calibration error of the answer's probability."""
    shares, labels = np.array(shares), np.array(labels, dtype=float)
    answers = shares > 0.5
    _, _, ece = errors(np.where(answers, shares, 1 - shares), answers == labels, bins)
    return (answers == labels).mean(), ((shares - labels) ** 2).mean(), ece


def spread(shares, labels, times=1000):
    """Standard error of the Brier score over rows, by bootstrap."""
    squares = (np.array(shares) - np.array(labels)) ** 2
    rng = np.random.default_rng(0)
    return rng.choice(squares, (times, len(squares))).mean(1).std()


def report(rows):
    print(f"{len(rows)} rows, {sum(row['label'] for row in rows)} of them subjective; {CHAINS} chains a row\n")
    print("| way | tokens a row | accuracy | Brier | ± | ECE | log loss |\n|" + "---|" * 7)
    labels = [row["label"] for row in rows]
    for way in WAYS:
        shares = [row["found"][way] for row in rows]
        accuracy, brier, ece = scores(shares, labels)
        true = np.where(np.array(labels) == 1, shares, 1 - np.array(shares))
        loss = -np.log(np.maximum(true, 1e-3)).mean()  # a vote of 0 for what is true would be infinite
        tokens = np.mean([row["tokens"][way] for row in rows])
        print(f"| {way} | {tokens:,.0f} | {accuracy:.3f} | {brier:.4f} | {spread(shares, labels):.4f} "
              f"| {ece:.3f} | {loss:.3f} |")  # fmt: skip


def taken(path, count):
    """Rows of the file, evenly."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [rows[place] for place in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    done = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    if given.report:
        report(done)
        return
    known = {row["text"] for row in done}
    left = [(n, row) for n, row in enumerate(taken(given.data, given.rows)) if row["text"] not in known]
    models = lmppl.compile(reasoned()).bind(X="").models if left else {}
    for n, row in left:
        started = time.perf_counter()
        made = run(row, models, seed=n)
        line = {"text": row["text"], "label": row["label"], **made, "seconds": round(time.perf_counter() - started, 1)}
        with given.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(n, row["label"], made["found"], made["tokens"], line["seconds"], flush=True)


if __name__ == "__main__":
    main()
