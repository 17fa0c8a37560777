"""How near llama.cpp on the default model's GGUF file is to its dequantised weights, and what it costs.

    python benchmarks/quantised.py >> benchmarks/results/llama-cpp.md

Needs the extra [gguf]. Times are of the processor: seconds of all threads, so that a busy machine does not matter.
"""

import math
import time

import numpy as np

import lmppl

ALIASES = ("smollm2-135m", "llama.cpp:smollm2-135m")
CAPITAL = (
    'lm LM = "smollm2-135m"\nZ ~ LM("The capital of France is") in [" Paris", " Lyon", " London", " a"]\n'
    'observe ", on the Seine" ~ LM("The capital of France is{Z}")\n'
)
TEXT = (
    " is often quite different from that in the south, where the sun shines for most of the year. People there"
    " grow olives, oranges and grapes, and in the evening they sit outside. In the north it rains a great deal."
)
OPPOSITES = "programs/opposites.lm"


def models():
    found = lmppl.compile("".join(f'lm M{i} = "{name}"\n' for i, name in enumerate(ALIASES)) + OBSERVED).bind()
    return found


OBSERVED = 'Z ~ M0("a") in [" b", " c"]\nobserve " d" ~ M1("{Z}")\n'


def nearness():
    """Laws along a text under both."""
    names = dict(zip(ALIASES, ("M0", "M1"), strict=True))
    target = models()
    loaded = {alias: target.models[name] for alias, name in names.items()}
    model = loaded[ALIASES[0]]
    prompt = model.begin(model.encode("The weather in the north of the country", markers=True))
    text = model.encode(TEXT, markers=False)
    laws = [one.laws(prompt, [text], [0])[0].double().numpy() for one in loaded.values()]
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isfinite(laws[1]), np.exp(laws[0]) * (laws[0] - laws[1]), 0)
    kl = terms.sum(-1)
    own = [law[np.arange(len(text)), list(text)] for law in laws]
    apart = own[1] - own[0]
    print(f"{len(text)} tokens of a text: KL(dequantised ‖ llama.cpp) {kl.mean():.4f} a token, at most {kl.max():.4f};")
    print(
        f"log p of the text's tokens apart by {np.sqrt((apart**2).mean()):.3f} rms, at most {np.abs(apart).max():.3f},"
    )
    print(f"on average {apart.mean():+.4f}, in all {apart.sum():+.2f}.\n")


def run(name, program, engine, **options):
    compiled = lmppl.compile(program)
    for alias in ALIASES:
        bound = {"LM": alias}
        compiled.infer(engine, lms=bound, seed=0, **options)  # loads, and fills caches
        cpu, wall = time.process_time(), time.perf_counter()
        posterior = compiled.infer(engine, lms=bound, seed=1, **options)
        row = posterior.rows[0]
        spent = time.process_time() - cpu, time.perf_counter() - wall
        top = sorted(posterior["Z"].items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"`{text!r}` {mass:.3f}" for text, mass in top)
        evidence = "none" if row.log_evidence is None else f"{row.log_evidence:.3f}"
        assert row.log_evidence is None or math.isfinite(row.log_evidence)
        print(
            f"| {name} | `{engine}` | `{alias}` | {evidence} | {shown} | {spent[0]:.1f} | {spent[1]:.1f} |", flush=True
        )


if __name__ == "__main__":
    nearness()
    print("| program | engine | model | log evidence | most of the posterior | processor, s | wall, s |")
    print("|---|---|---|---|---|---|---|")
    run("capital", CAPITAL, "exact")
    run("opposites", OPPOSITES, "importance", data=[{"X": "hot"}], num_samples=64)
