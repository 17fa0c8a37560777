"""The grid of programs that every law is tested on, and what each denotes, computed by other code.

Endings: "free" may end by itself or be cut at max; "cut" is nearly always cut; "until" must reach a full stop.
"""

import itertools
import math

import tiny

from lmppl.bind import bind
from lmppl.compile import analyse
from lmppl.data import Row
from lmppl.errors import raise_errors
from lmppl.source import Source

ENDINGS = {"free": "max 3 tokens", "cut": "max 1", "until": 'until "." max 3 tokens'}
PRIORS = {
    "plain": [("LM", " a b", 1.0)],
    "tempered": [("LM", " a b", 2.5)],
    "flat": [("LM", " a b", 0.6)],
    "product": [("LM", " a b", 1.4), ("OTHER", " b", 0.5), ("LM", "", -0.3)],
}
EXTRAS = {
    "nothing": [],
    "constraint": ['constrain not contains(Z, "a b") and tokens(Z) >= 1'],
    "factor": ['factor -1.5 * count(Z, "a") + 0.5 * tokens(Z)'],
    "observe": ['observe " b." ~ LM(" a{Z}")^0.7'],
    "choice": ['Y ~ LM(" b{Z}") in [" a", " b a", "."]', "predict Y"],
}
CELLS = [
    (prior, ending, extra)
    for prior, ending, extra in itertools.product(PRIORS, ENDINGS, EXTRAS)
    if extra == "nothing" or prior in ("plain", "tempered")
]


def models():
    return {"LM": tiny.model(seed=6), "OTHER": tiny.model(seed=1)}


def text(prior, ending, extra):
    product = " * ".join(f'{name}("{context}")^{power:g}' for name, context, power in PRIORS[prior])
    other = '\nlm OTHER = "tiny"' if prior == "product" else ""
    lines = [f'lm LM = "tiny"{other}', f"Z ~ {product} {ENDINGS[ending]}", *EXTRAS[extra]]
    return "\n".join(lines) + "\n"


def program(prior, ending, extra):
    analysis = analyse(Source(f"{prior}-{ending}-{extra}", text(prior, ending, extra)), ".")
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return analysis.program


def target(cell, language_models, **options):
    denoted = program(*cell)
    used = {declaration.name: language_models[declaration.name] for declaration in denoted.models}
    return bind(denoted, used, Row({}, {}), **options)[0]


class Reference:
    """The density of a cell, token by token without a cache, written from the language's definition alone."""

    def __init__(self, cell, language_models):
        self.prior, self.ending, self.extra = cell
        self.models = language_models
        self.lm = language_models["LM"]
        self.words = self.lm.tokenizer.get_vocab()
        self.end = self.words[tiny.END]

    def ids(self, string):
        """Tokens of a string over the tiny vocabulary, by longest match."""
        result = []
        while string:
            word = max((w for w in self.words if string.startswith(w)), key=len)
            result.append(self.words[word])
            string = string[len(word) :]
        return result

    def string(self, tokens):
        names = {token: word for word, token in self.words.items()}
        return "".join(names[token] for token in tokens)

    def texts(self):
        """Every legal text, by brute force over all token sequences of at most max tokens."""
        maximum = 1 if self.ending == "cut" else 3
        ordinary = [token for token in self.words.values() if token != self.end]
        for length in range(maximum + 1):
            for tokens in itertools.product(ordinary, repeat=length):
                string = self.string(tokens)
                if self.ending != "until" or (string.endswith(".") and string.count(".") == 1):
                    yield tokens

    def states(self):
        options = range(3) if self.extra == "choice" else [None]
        for tokens in self.texts():
            for option in options:
                yield {"Z": tokens} if option is None else {"Z": tokens, "Y": option}

    def log_prob(self, name, context, tokens):
        return tiny.reference_log_prob(self.models[name], context or [self.end], tokens)

    def log_density(self, state):
        tokens = list(state["Z"])
        maximum = 1 if self.ending == "cut" else 3
        scored = tokens if self.ending == "until" or len(tokens) == maximum else [*tokens, self.end]
        total = 0.0
        for name, context, power in PRIORS[self.prior]:
            total += power * self.log_prob(name, self.ids(context), scored)
        return total + self.log_extra(self.string(tokens), tokens, state)

    def log_extra(self, string, tokens, state):
        if self.extra == "constraint":
            return 0.0 if "a b" not in string and len(tokens) >= 1 else -math.inf
        if self.extra == "factor":
            return -1.5 * string.count("a") + 0.5 * len(tokens)
        if self.extra == "observe":
            return 0.7 * self.log_prob("LM", [*self.ids(" a"), *tokens], self.ids(" b."))
        if self.extra == "choice":
            context = [*self.ids(" b"), *tokens]
            scores = [self.log_prob("LM", context, self.ids(option)) for option in (" a", " b a", ".")]
            return scores[state["Y"]] - math.log(sum(map(math.exp, scores)))
        return 0.0
