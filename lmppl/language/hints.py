"""What to write instead of a piece that no statement can have: habits of other languages, and words
written wrongly.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

WORDS = ("until", "max", "tokens", "in", "with", "from", "as", "seed", "and", "or", "not", "when")
EXPRESSIONS = r"^(constrain|factor|derive|statistic|param)\b"
SHARPER = (
    'it belongs to a model: lm LM = "…" (temperature = 0.7); a power sharpens whole texts: '
    "LM(…)^(1/0.7)"
)

_HABITS = [  # (what stands before, what is found, what to write); the first that fits
    (r"\bmatches\([^,]*,\s*$", r"'", "a pattern stands between slashes: /…/"),
    (r"", r"'", 'texts stand in double quotes: "…"'),
    (r"", r"&", "write `and`"),
    (EXPRESSIONS, r"\|", "write `or`"),
    (r"", r"!", "write `not`"),
    (r"\*\s*$", r"\*", "write `^` for a power"),
    (r"\b(temperature|top_p|top_k|min_p)\s*$", r"=", SHARPER),
    (r"", r"(temperature|top_p|top_k|min_p)\b", SHARPER),
    (r"^(constrain|factor|(derive|statistic)\s+\w+\s*=)", r"=", "write `==` to compare"),
    (
        r"^\w+\s*$",
        r"=",
        "a latent is drawn with `~`: Z ~ LM(…); a part of it is named by `derive A = …`",
    ),
    (
        EXPRESSIONS,
        r"in\b",
        'compare one by one: Z == " a" or Z == " b"; a choice is drawn: Y ~ LM(…) in [" a", " b"]',
    ),
    (r"(<|>|==|!=)[^<>=]*$", r"[<>=]", "join two comparisons with `and`"),
    (r"\bmax\s*$", r"tokens\b", "the number comes first: max 30 tokens"),
    (r"\bmax\s*[\d.]+\s*$", r"[^\W\d]", "`max` counts tokens: write `max 30 tokens`, or `max 30`"),
    (r"^observe\b", r"given\b", "write `|` before what it is conditioned on: observe Y | X, Z"),
    (r"\bin\s*$", r"[\"(]", 'options stand in brackets: in [" yes", " no"]'),
    (r"\b[a-zA-Z]$", r"\"", "a text has no letter before it; in every context {NAME} is filled in"),
    (
        r"\buntil\s*$",
        r"/",
        "`until` waits for a text in quotes; a pattern is for `constrain matches(Z, /…/)`",
    ),
    (
        r"^(given|param|lm|use|examples|guide|predict|infer|learn)\b",
        r"when\b",
        "`when` stands behind a latent, `observe`, `constrain`, `factor` or `statistic`",
    ),
    (r"\bwhen\b", r"(until|max|in|with)\b", "`when` comes last in its statement"),
    (r"", r"//|/\s", "a comment begins with #"),
    (r"", r";", "a statement ends with its line"),
]


def hint(before: str, found: str, after: str) -> str | None:
    """What to write; None where nothing is known. before, found, after: a statement, cut where it
    cannot go on.
    """
    for behind, here, help in _HABITS:
        if re.search(behind, before) and re.match(here, found + after):
            return help
    close = get_close_matches(found, WORDS, n=1)
    return f"did you mean `{close[0]}`?" if close and close[0] != found else None
