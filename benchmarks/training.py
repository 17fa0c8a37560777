"""Training a policy for infilling, against a double of the published procedure; smollm2-135m, latents of 25 tokens.

    python benchmarks/training.py [--draws 16] [--steps 2] [--out benchmarks/results]

The double does what the code of Hu et al. (2024) does, as its descriptions say: the prompt is repeated in every row;
tokens are decoded one by one with gradients; every prefix is rewarded by a pass of its own over prompt, prefix and
observation, without a cache; modified subtrajectory balance. Both sides train an adapter of rank 16 on the same row
with as many draws. Each side runs in a process of its own, in turn; samples per second are medians over its steps, the
first left out, and memory is the process's peak. A last line: one draw of a trained policy over one plain decode.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

import lmppl
from lmppl.decoding.randomness import Randomness
from lmppl.engines import gflownet
from lmppl.engines.amortised.policy import Policy
from lmppl.engines.amortised.processes import Processes
from lmppl.engines.amortised.trainer import Task, learner_of
from lmppl.lm.transformers import adapter

TOKENS = 25
TEXT = f'lm LM = "smollm2-135m"\ngiven X, Y\nZ ~ LM(X) max {TOKENS} tokens\nobserve Y | X, Z\n'
ROW = {
    "X": "Anna left the house without an umbrella, although the sky was grey and the wind had been rising all morning.",
    "Y": " She was wet to the skin when she came home, and her shoes were full of water.",
}
SIDES = {  # name: options of gflownet; None for the double
    "vargrad": {},
    "vargrad, micro_batch=4": {"micro_batch": 4},
    "vargrad, micro_batch=2": {"micro_batch": 2},
    "subtb": {"objective": "subtb"},
    "subtb, micro_batch=4": {"objective": "subtb", "micro_batch": 4},
    "subtb, prefixes=8": {"objective": "subtb", "prefixes": 8},
    "subtb, prefixes=8, micro_batch=2": {"objective": "subtb", "prefixes": 8, "micro_batch": 2},
    "published": None,
}


def fresh_policy(target):
    base = target.models["LM"]
    return Policy(adapter.add(base, rank=16, alpha=32, targets="all-linear", seed=0), frozenset({"Z"}))


def ours(own, draws, steps):
    """Seconds of every step of the trainer."""
    target = lmppl.compile(TEXT).bind(batch_size=draws, **ROW)
    options = gflownet.Options(steps=steps + 1, draws=draws, **own)
    task = Task([(0, target)], options, gflownet.recipe(options), 0, Processes())
    learner = learner_of(fresh_policy(target), task)
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        task.step(learner, task.rows)
        learner.step += 1
        seconds.append(time.perf_counter() - started)
    return seconds


# --- the published procedure ----------------------------------------------------------------------


def published(draws, steps):
    """Seconds of every step of the double."""
    target = lmppl.compile(TEXT).bind(**ROW)
    model, policy = target.models["LM"], fresh_policy(target)
    network, switch = policy.adapter.network, policy.adapter.switch
    prompt = torch.tensor([target.guide("Z").context.prompt] * draws)
    observed = torch.tensor([target.scored_text("observe Y").tokens[0]] * draws)
    optimiser = torch.optim.AdamW(list(policy.adapter.parameters.values()), lr=1e-3)
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        switch.turn(True)
        tokens, log_q, log_stop = decode_with_gradients(network, prompt, model.end)
        switch.turn(False)
        rewards = torch.stack(
            [prefix_reward(network, prompt, tokens[:, :t], observed, model.end) for t in range(TOKENS + 1)], 1
        )
        switch.turn(True)
        loss = subtrajectory_balance(log_q, log_stop, rewards)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seconds.append(time.perf_counter() - started)
    return seconds


def decode_with_gradients(network, prompt, end):
    """Tokens (N, T), log q of each and of stopping before each and at the end (N, T + 1), one token at a time."""
    cache, logits = None, None
    tokens, log_q, log_stop = [], [], []
    for _ in range(TOKENS):
        output = network(
            input_ids=prompt if cache is None else tokens[-1][:, None], past_key_values=cache, use_cache=True
        )
        cache, logits = output.past_key_values, output.logits[:, -1]
        law = torch.log_softmax(logits.float(), -1)
        going_on = law.detach().exp()
        going_on[:, end] = 0  # no draw ends early, so that both sides do the same work
        tokens.append(torch.multinomial(going_on, 1)[:, 0])
        log_q.append(law.gather(1, tokens[-1][:, None])[:, 0])
        log_stop.append(law[:, end])
    output = network(input_ids=tokens[-1][:, None], past_key_values=cache, use_cache=True)
    log_stop.append(torch.log_softmax(output.logits[:, -1].float(), -1)[:, end])
    return torch.stack(tokens, 1), torch.stack(log_q, 1), torch.stack(log_stop, 1)


@torch.no_grad()
def prefix_reward(network, prompt, prefix, observed, end):
    """(N,) log p(prefix, end | prompt) + log p(observation | prompt, prefix), from one pass without a cache."""
    whole = torch.cat([prompt, prefix, observed], 1)
    law = torch.log_softmax(network(input_ids=whole, use_cache=False).logits.float(), -1)
    scores = law[:, :-1].gather(2, whole[:, 1:, None])[..., 0]
    return scores[:, prompt.shape[1] - 1 :].sum(1) + law[:, prompt.shape[1] + prefix.shape[1] - 1, end]


def subtrajectory_balance(log_q, log_stop, rewards):
    flow = rewards - log_stop - torch.nn.functional.pad(log_q.cumsum(1), (1, 0))
    differences = flow[:, None, :] - flow[:, :, None]
    return (differences**2).triu(1).sum() / (len(flow) * TOKENS * (TOKENS + 1) / 2)


# --- a draw ---------------------------------------------------------------------------------------


def drawing(draws):
    """Seconds of drawing from a policy over those of drawing from the model, by the same code; median of pairs."""
    target = lmppl.compile(TEXT).bind(batch_size=draws, **ROW)
    policy = fresh_policy(target)
    bare = Policy(policy.adapter, frozenset())
    ratios = []
    for i in range(4):
        spent = []
        for each in (policy, bare):
            started = time.perf_counter()
            drawn = each.draw(target, [(k, i) for k in range(draws)], Randomness(0))
            spent.append((time.perf_counter() - started) / sum(len(row) for row in drawn.log_q["Z"]))
        ratios.append(spent[0] / spent[1])
    return statistics.median(ratios[1:])


# --- the table ------------------------------------------------------------------------------------


def side(name, draws, steps):
    """What one process finds."""
    torch.manual_seed(0)
    if name == "drawing":
        return {"ratio": drawing(draws)}
    own = SIDES[name]
    seconds = published(draws, steps) if own is None else ours(own, draws, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"rate": draws / statistics.median(seconds[1:]), "peak": peak}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--side", choices=[*SIDES, "drawing"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.side:
        print(json.dumps(side(arguments.side, arguments.draws, arguments.steps)))
        return
    found = {}
    for name in (*SIDES, "drawing"):
        command = [sys.executable, __file__, "--side", name, "--draws", str(arguments.draws), "--steps"]
        done = subprocess.run([*command, str(arguments.steps)], capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, found[name], flush=True)
    (arguments.out / "training.md").write_text(table(arguments, found))


def table(arguments, found):
    theirs = found["published"]
    lines = [
        "# Training a policy for infilling, on smollm2-135m",
        "",
        f"`python benchmarks/training.py --draws {arguments.draws} --steps {arguments.steps}`; latents of at most "
        f"{TOKENS} tokens, {os.cpu_count()} cores, {torch.get_num_threads()} threads, CPU, float32, {date.today()}.",
        "",
        "| side | samples trained a second | over the published procedure | peak memory, GiB | share of it |",
        "|---|---|---|---|---|",
    ]
    for name in SIDES:
        rate, peak = found[name]["rate"], found[name]["peak"]
        lines.append(
            f"| {name} | {rate:.2f} | {rate / theirs['rate']:.1f} | {peak:.2f} | {peak / theirs['peak']:.2f} |"
        )
    lines += ["", f"A token drawn from a policy costs {found['drawing']['ratio']:.2f} of one drawn from the model."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
