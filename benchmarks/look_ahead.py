"""Three rare words within thirty tokens, by smc: how far its evidence is from the exact one.

The model is a table of pairs of tokens, so that the evidence is known: summed over the automaton's states and the last
token. `--pilot 0` looks nowhere.

python benchmarks/look_ahead.py --particles 64 --runs 3
"""

import argparse
import time

import numpy as np

import lmppl
from lmppl.data import make_rows
from lmppl.density import bind
from lmppl.lm import BaseDecoder, PieceTokenizer
from lmppl.run import Request, run

USUAL, RARE = 200, {" river": -7.0, " bridge": -8.0, " dog": -6.0, ".": -0.5}
WORDS = [*(f" w{i:03d}" for i in range(USUAL)), *RARE]
REPLICATES = 4
PROGRAM = """lm LM = "pairs"
Z ~ LM(" w000") until "." max 30 tokens
constrain contains(Z, "river") and contains(Z, "bridge") and contains(Z, "dog")
"""


class Words(PieceTokenizer):
    """Texts are words of the list; what is none is passed over."""

    def encode(self, text: str, *, markers: bool, opening: bool = False) -> tuple[int, ...]:
        tokens = []
        while text:
            known = next((i for i, word in enumerate(WORDS) if text.startswith(word)), None)
            tokens += [] if known is None else [known]
            text = text[1 if known is None else len(WORDS[known]) :]
        return tuple(tokens)


class Pairs(BaseDecoder):
    """Words as often as in Zipf's law, times how much each likes the word before it."""

    def __init__(self) -> None:
        super().__init__(Words([*(word.encode() for word in WORDS), b"<end>"], len(WORDS)), identifier="pairs")
        often = np.concatenate([-np.log(np.arange(1, USUAL + 1)), list(RARE.values()), [-6.0]])
        logits = often + np.random.default_rng(0).normal(0, 2.0, (len(often), len(often)))
        self.table = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    def next_laws(self, rows):
        return [self.table[list(tokens[first - 1 :])] for tokens, first in rows]


def exact(model: Pairs, target) -> float:
    """Log evidence, by recursion over how many tokens are left."""
    ends = target.text_latent("Z").look_ahead().ends
    states, size = ends.after.shape
    value = np.broadcast_to(ends.cut.astype(float)[:, None], (states, size)).copy()  # by state and last token
    for _ in range(target.text_latent("Z").latent.maximum):
        value = np.stack([np.exp(model.table) @ value[ends.after[s], np.arange(size)] for s in range(states)])
        value[-2], value[-1] = 1.0, 0.0
    return float(np.log(value[0, 0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pilot", type=int, default=32)
    asked = parser.parse_args()
    model, program = Pairs(), lmppl.compile(PROGRAM).program
    rows, _ = make_rows(program, [], {})
    target, _ = bind(program, {"LM": model}, rows[0])
    truth = exact(model, target)
    print(f"exact {truth:.2f}")
    for seed in range(asked.runs):
        began = time.process_time()
        options = {"particles": asked.particles, "pilot": asked.pilot}
        request = Request("smc", {"chains": REPLICATES, "num_samples": asked.particles}, options, seed, 4096)
        row = run(program, rows, {"LM": model}, request).rows[0]
        logs = ", ".join(f"{log:.2f}" for log in row.diagnostics.log_evidence_by_replicate)
        seconds = time.process_time() - began
        print(f"seed {seed}: {row.log_evidence:.2f} ({row.log_evidence - truth:+.2f}); {logs}; {seconds:.1f} s")


if __name__ == "__main__":
    main()
