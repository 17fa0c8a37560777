"""The grid of programs that every law is tested on, and what each denotes, computed by other code.

Endings: "free" may end by itself or be cut at max; "cut" is nearly always cut; "until" must reach a full stop.
"""

import itertools
import math
import re
import weakref
from pathlib import Path

import numpy as np
import tiny
from helpers import echo

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.density.binding import bind
from lmppl.errors import raise_errors
from lmppl.source import Source

FOLDER = Path(__file__).parent  # where files that cells name lie
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
    "regex": ['constrain matches(Z, /( a| b)*\\.?( a)?/) or starts_with(Z, " b.")'],
    "grammar": ['constrain in_grammar(Z, "list.lark") and not contains(Z, " b b")'],
    "json": ['constrain is_json(Z, "number.json")'],
    "python": ['use odd from "helpers.py"', "constrain odd(Z)"],
    "two texts": ['W ~ LM("{Z} b")^1.5 max 2 tokens', 'observe " a" ~ LM("{W}{Z}")'],
    "between": ['Y ~ LM(" b{Z}") in [" a", " b a", "."]', 'W ~ LM("{Y} a") until " b" max 2 tokens'],
    "tool": ['observe " b." ~ LM(" a{Z}")^0.7'],
    "derived": [
        'derive A = before(Z, " b")',
        'Y ~ LM(" b{A}") in [" a", " b a", "."]',
        'observe " b" ~ LM("{A} a")^0.4',
        'constrain not A == " a"',
        "predict A",
    ],
    "derived text": ['derive A = after(Z, " a")', 'W ~ LM("{A} b") max 1', 'observe " a" ~ LM("{W}{A}")^0.5'],
    "mixture": ['observe " b" ~ mix(0.7 * LM(" a{Z}"), 0.3 * OTHER("{Z} b"))'],
}
LAST = ("tool", "mixture", "derived", "derived text")  # cells are numbered, and numbers are seeds: these came last
NOT_CROSSED = ("regex", "grammar", "json", "python", "two texts", "between", *LAST)  # crossed with these only:
CROSSINGS = (("plain", "until"), ("tempered", "free"))
CELLS = [
    (prior, ending, extra)
    for prior, ending, extra in itertools.product(PRIORS, ENDINGS, EXTRAS)
    if (extra == "nothing" or prior in ("plain", "tempered"))
    and (extra not in NOT_CROSSED or (prior, ending) in CROSSINGS)
    and (extra, ending) != ("json", "until")
]
LENGTHY = [("tempered", "free", "two texts"), ("tempered", "free", "between")]  # those with thousands of states
CELLS.sort(key=lambda cell: LAST.index(cell[2]) if cell[2] in LAST else -1)
LAWS = weakref.WeakKeyDictionary()  # what references have asked of each model, whose weights stay as they are
NUMBERS = ("1", "2", ".")  # the vocabulary of the JSON cells, in the order of tiny.WORDS


def models(form=None):
    """Language models by name; those of JSON cells go by the name and "json". form: of their tokenizers."""
    found = {}
    for name, seed in (("LM", 6), ("OTHER", 1)):
        for suffix, words in (("", tiny.WORDS), (" json", NUMBERS)):
            chosen = tiny.sentencepiece(words, form) if form else None
            found[name + suffix] = tiny.model(words, seed=seed, chosen=chosen)
    return found


def used_models(cell, language_models):
    """The models of a cell's program, by the names that it knows them by."""
    suffix = " json" if cell[2] == "json" else ""
    return {declaration.name: language_models[declaration.name + suffix] for declaration in program(*cell).models}


def text(prior, ending, extra):
    product = " * ".join(f'{name}("{context}")^{power:g}' for name, context, power in PRIORS[prior])
    if extra == "json":
        product = product.replace(" a b", "12")
    other = '\nlm OTHER = "tiny"' if prior == "product" or extra == "mixture" else ""
    use, tool = ('use echo from "helpers.py"\n', ' with echo(trigger = " a")') if extra == "tool" else ("", "")
    lines = [f'lm LM = "tiny"{other}', f"{use}Z ~ {product}{tool} {ENDINGS[ending]}", *EXTRAS[extra]]
    return "\n".join(lines) + "\n"


def program(prior, ending, extra):
    analysis = analyse(Source(f"{prior}-{ending}-{extra}", text(prior, ending, extra)), FOLDER)
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return analysis.program


def target(cell, language_models, **options):
    return bind(program(*cell), used_models(cell, language_models), Row({}, {}), **options)[0]


class Reference:
    """The density of a cell, token by token without a cache, written from the language's definition alone."""

    def __init__(self, cell, language_models, form=None):
        self.prior, self.ending, self.extra = cell
        self.form = form
        self.models = used_models(cell, language_models)
        self.lm = self.models["LM"]
        self.words = {name.replace("▁", " "): token for name, token in self.lm.tokenizer.get_vocab().items()}
        self.end = self.words[tiny.END]

    def ids(self, string):
        """Tokens of a string over the tiny vocabulary, by longest match."""
        result = []
        while string:
            word = max((w for w in self.words if string.startswith(w)), key=len)
            result.append(self.words[word])
            string = string[len(word) :]
        return result

    def opened(self, string):
        """Tokens of a context's first text: one form puts a space in front, others only where there is none."""
        spaced = self.form == "llama" and string and " " in self.words
        return self.ids(" " + string if spaced else string)

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
                if self.chosen(tokens) is None:
                    continue
                if self.ending != "until" or (string.endswith(".") and string.count(".") == 1):
                    yield tokens

    def chosen(self, tokens):
        """(T + 1,) which tokens, and the end, are nobody's but the model's; None where the tool writes another text."""
        if self.extra != "tool":
            return [True] * (len(tokens) + 1)
        free, written = [], []
        for t, token in enumerate(tokens):
            free.append(not written)
            if written and written.pop(0) != token:
                return None
            if free[-1] and self.string(tokens[: t + 1]).endswith(" a"):
                written = self.ids(echo(self.string(tokens[: t + 1])))
        maximum = 1 if self.ending == "cut" else 3
        reached = self.ending == "until" and "." in self.string(tokens)
        return None if written and len(tokens) < maximum and not reached else [*free, True]

    def states(self):
        options = range(3) if self.extra in ("choice", "between", "derived") else [None]
        for tokens, option, other in itertools.product(self.texts(), options, self.others()):
            yield {"Z": tokens, **({} if option is None else {"Y": option}), **({} if other is None else {"W": other})}

    def others(self):
        """Texts of W: at most 2 tokens, or 1, or ending with the first " b"."""
        if self.extra not in ("two texts", "between", "derived text"):
            return [None]
        ordinary = [token for token in self.words.values() if token != self.end]
        if self.extra == "derived text":
            return [(), *((token,) for token in ordinary)]
        texts = [tokens for length in range(3) for tokens in itertools.product(ordinary, repeat=length)]
        b = self.words[" b"]
        return texts if self.extra == "two texts" else [t for t in texts if b in t and t.index(b) == len(t) - 1]

    def log_prob(self, name, context, tokens):
        """Σ log p, token by token. Laws are from passes without a cache, and kept for the next time."""
        kept, sequence, total = LAWS.setdefault(self.models[name], {}), tuple(context) or (self.end,), 0.0
        for token in tokens:
            if sequence not in kept:
                kept |= tiny.reference_laws(self.models[name], self.ahead(kept, sequence))
            total += float(kept[sequence][token])
            sequence = (*sequence, token)
        return total

    def ahead(self, kept, sequence):
        """What is likely to be asked for next: this, and what goes on from it by up to two tokens."""
        ordinary = [token for token in self.words.values() if token != self.end]
        further = [(*sequence, *more) for n in range(3) for more in itertools.product(ordinary, repeat=n)]
        return [one for one in further if one not in kept]

    def log_density(self, state):
        tokens = list(state["Z"])
        maximum = 1 if self.ending == "cut" else 3
        scored = tokens if self.ending == "until" or len(tokens) == maximum else [*tokens, self.end]
        free = self.chosen(tokens)
        if free is None:
            return -math.inf
        total = 0.0
        for name, context, power in PRIORS[self.prior]:
            before = self.opened(self.numbers(context))
            if all(free):
                total += power * self.log_prob(name, before, scored)
                continue
            for t, token in enumerate(scored):
                total += power * self.log_prob(name, [*before, *scored[:t]], [token]) if free[t] else 0.0
        return total + self.log_extra(self.string(tokens), tokens, state)

    def numbers(self, context):
        return context.replace(" a", "1").replace(" b", "2") if self.extra == "json" else context

    def log_extra(self, string, tokens, state):
        if self.extra == "constraint":
            return 0.0 if "a b" not in string and len(tokens) >= 1 else -math.inf
        if self.extra == "factor":
            return -1.5 * string.count("a") + 0.5 * len(tokens)
        if self.extra in ("observe", "tool"):
            return 0.7 * self.log_prob("LM", [*self.opened(" a"), *tokens], self.ids(" b."))
        if self.extra == "mixture":  # which of two models wrote the text is summed out
            one = math.log(0.7) + self.log_prob("LM", [*self.opened(" a"), *tokens], self.ids(" b"))
            other = self.log_prob("OTHER", [self.end, *tokens, *self.ids(" b")], self.ids(" b"))
            return float(np.logaddexp(one, math.log(0.3) + other))
        if self.extra == "regex":
            fits = re.fullmatch(r"( a| b)*\.?( a)?", string)
            return 0.0 if fits or string.startswith(" b.") else -math.inf
        if self.extra == "grammar":  # one or more words, parted by full stops
            fits = re.fullmatch(r"( a| b| a b)(\.( a| b| a b))*\.?", string) and " b b" not in string
            return 0.0 if fits else -math.inf
        if self.extra == "json":
            return 0.0 if re.fullmatch(r"[12]+(\.[12]+)?", string) else -math.inf
        if self.extra == "python":
            return 0.0 if len(string.split()) % 2 == 1 else -math.inf
        if self.extra == "two texts":
            return self.log_two_texts(tokens, list(state["W"]))
        if self.extra == "derived":
            return self.log_derived(string, state["Y"])
        if self.extra == "derived text":
            return self.log_derived_text(string, list(state["W"]))
        if self.extra == "choice":
            return self.log_choice(tokens, state["Y"])
        if self.extra == "between":
            context = [self.end, *self.ids((" a", " b a", ".")[state["Y"]]), *self.ids(" a")]
            return self.log_choice(tokens, state["Y"]) + self.log_prob("LM", context, list(state["W"]))
        return 0.0

    def log_choice(self, tokens, chosen):
        context = [*self.opened(" b"), *tokens]
        scores = [self.log_prob("LM", context, self.ids(option)) for option in (" a", " b a", ".")]
        return scores[chosen] - math.log(sum(map(math.exp, scores)))

    def log_derived(self, string, chosen):
        """Contexts read what stands before the first " b", tokenised anew, and nothing where there is none."""
        part = string[: string.index(" b")] if " b" in string else ""
        if " b" in string and part == " a":
            return -math.inf
        observed = self.log_prob("LM", [self.end, *self.ids(part), *self.ids(" a")], self.ids(" b"))
        return self.log_choice(self.ids(part), chosen) + 0.4 * observed

    def log_derived_text(self, string, other):
        part = self.ids(string[string.index(" a") + 2 :] if " a" in string else "")
        scored = other if len(other) == 1 else [*other, self.end]
        prior = self.log_prob("LM", [self.end, *part, *self.ids(" b")], scored)
        return prior + 0.5 * self.log_prob("LM", [self.end, *other, *part], self.ids(" a"))

    def log_two_texts(self, tokens, other):
        """Contexts that begin with a latent begin as documents do, here with the end token."""
        scored = other if len(other) == 2 else [*other, self.end]
        prior = 1.5 * self.log_prob("LM", [self.end, *tokens, *self.ids(" b")], scored)
        return prior + self.log_prob("LM", [self.end, *other, *tokens], self.ids(" a"))
