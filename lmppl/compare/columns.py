"""The columns of the table, each explained in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GROUPS = {
    "right": "Is it right?",
    "text": "The text",
    "price": "The price",
}  # of columns, as readers ask


@dataclass(frozen=True)
class Column:
    """A measure. help: one sentence; better: which end is good, None where neither is."""

    key: str
    title: str
    group: Literal["right", "text", "price"]
    help: str
    better: Literal["low", "high"] | None = None
    digits: int = 2
    unit: str = ""
    least: float | None = None  # what no value is below
    most: float | None = None  # or above


COLUMNS = (
    Column(
        "total_variation",
        "TV",
        "right",
        "Total variation to the exact posterior over strings: the largest error "
        "of any probability. 0 is perfect, 1 is nothing in common.",
        "low",
        3,
        least=0,
        most=1,
    ),
    Column(
        "divergence",
        "KL",
        "right",
        "Kullback-Leibler divergence of the draws from the exact posterior, in nats.",
        "low",
        3,
        least=0,
    ),
    Column(
        "kolmogorov",
        "KS",
        "right",
        "Largest difference of the cumulative distributions of the log density, draws "
        "against the reference. 0 is perfect, 1 is apart.",
        "low",
        3,
        least=0,
        most=1,
    ),
    Column(
        "log_evidence",
        "log Ẑ",
        "right",
        "Estimate of the log evidence, log p(what is observed and holds), nats.",
        None,
        2,
    ),
    Column(
        "proposal_divergence",
        "KL of q",
        "right",
        "Divergence of what the engine proposes, where it is possible, from the posterior, "
        "before weights put it "
        "right, nats.",
        "low",
        2,
        least=0,
    ),
    Column(
        "satisfied",
        "possible",
        "right",
        "Share of the draws, by weight, that the program allows.",
        "high",
        2,
        least=0,
        most=1,
    ),
    Column(
        "prediction_error",
        "± p",
        "right",
        "Largest standard error of a probability that is predicted.",
        "low",
        3,
        least=0,
    ),
    Column(
        "entropy",
        "H",
        "right",
        "Entropy of the predicted answer, nats: what is open, and what hangs on the draw.",
        None,
        3,
        least=0,
    ),
    Column(
        "conditional_entropy",
        "H open",
        "right",
        "Entropy of the answer that is left when all other latents are known, nats.",
        None,
        3,
        least=0,
    ),
    Column(
        "mutual_information",
        "I drawn",
        "right",
        "How much of the answer hangs on which values of the other latents were drawn, nats: their "
        "mutual information.",
        None,
        3,
        least=0,
    ),
    Column(
        "slope",
        "slope",
        "right",
        "How the mean of the first statistic moves with a power of the whole density: its "
        "covariance with the log density.",
        None,
        2,
    ),
    Column("log_density", "log p", "text", "Mean log density of the draws, nats.", None, 2),
    Column(
        "log_observed",
        "log p(observed)",
        "text",
        "Mean log probability of what is observed, given the draw, nats.",
    ),
    Column("best", "best log p", "text", "Largest log density among the draws, nats.", None, 2),
    Column("length", "tokens", "text", "Mean length of the latents, in tokens.", None, 1, least=0),
    Column("distinct_texts", "distinct", "text", "Distinct strings among the draws.", None, 0),
    Column(
        "distinct_2",
        "distinct-2",
        "text",
        "Distinct pairs of words over all pairs, in 100 draws at most.",
        None,
        2,
        least=0,
        most=1,
    ),
    Column(
        "self_bleu",
        "self-BLEU",
        "text",
        "BLEU-4 of a draw against the others: 1 where all say the same.",
        None,
        2,
        least=0,
        most=1,
    ),
    Column(
        "embedding_distance",
        "spread",
        "text",
        "Mean cosine distance of the draws' embeddings.",
        None,
        2,
    ),
    Column(
        "bleu",
        "BLEU-4",
        "text",
        "BLEU-4 of the draws against the text held out, 0 to 1.",
        "high",
        3,
        least=0,
        most=1,
    ),
    Column(
        "gleu",
        "GLEU-4",
        "text",
        "GLEU-4 of the draws against the text held out, 0 to 1.",
        "high",
        3,
        least=0,
        most=1,
    ),
    Column(
        "bert_score",
        "BERTScore",
        "text",
        "BERTScore F1 of the draws against the text held out.",
        "high",
        3,
    ),
    Column(
        "accuracy",
        "accuracy",
        "right",
        "Share of the rows whose likeliest option, or predicted text, is the one held out.",
        "high",
        3,
        least=0,
        most=1,
    ),
    Column(
        "one_draw",
        "one draw",
        "right",
        "Mean probability of what is held out: the accuracy to expect of a single draw.",
        "high",
        3,
        least=0,
        most=1,
    ),
    Column(
        "log_loss", "NLL", "right", "Mean −log probability of the label, nats.", "low", 3, least=0
    ),
    Column(
        "brier",
        "Brier",
        "right",
        "Brier score of the predicted probabilities, 0 to 2.",
        "low",
        3,
        least=0,
        most=2,
    ),
    Column(
        "calibration_error",
        "ECE",
        "right",
        "Expected calibration error, ten bins.",
        "low",
        3,
        least=0,
        most=1,
    ),
    Column("draws", "draws", "price", "Draws a data row.", None, 0),
    Column(
        "tokens_decoded",
        "decoded",
        "price",
        "Tokens decoded by language models, a data row.",
        None,
        0,
    ),
    Column(
        "tokens_scored", "scored", "price", "Tokens scored by language models, a data row.", None, 0
    ),
    Column("seconds", "seconds", "price", "Wall-clock time, a data row.", None, 1, least=0),
    Column(
        "training_tokens",
        "trained on",
        "price",
        "Tokens that training took, all rows together.",
        None,
        0,
    ),
    Column(
        "training_seconds",
        "training s",
        "price",
        "Wall-clock time of training, all rows together.",
        None,
        0,
    ),
    Column(
        "efficiency",
        "worth / 1k",
        "price",
        "Independent posterior draws that would estimate means of the log "
        "density and of the length as well, for 1,000 tokens of drawing.",
        "high",
        1,
    ),
)
