"""Texts, listed: all that can stop, or those that masks leave, where these are few.

The density is over tokens, so a text counts once for each way to write it in tokens. What all begin
with is followed once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmppl.decoding import FREE, Masks, Stopping
from lmppl.lm import Tokens

# prefixes that are followed, for each text that there may be: most may lead nowhere within the
# limit
INNER = 4


def every_text(stopping: Stopping, vocabulary_size: int) -> Iterator[Tokens]:
    """Every text that may stop as it does, the shortest first."""
    vocabulary = [token for token in range(vocabulary_size) if token != stopping.end]
    growing: list[Tokens] = [()]
    while growing:
        for tokens in growing:
            if stopping.legal(tokens):
                yield tokens
        open_texts = [tokens for tokens in growing if not stopping.closes(tokens)]
        due = [stopping.due_next(tokens) for tokens in open_texts]
        growing = [
            (*tokens, token)
            for tokens, one in zip(open_texts, due, strict=True)
            for token in (vocabulary if one == FREE else [one])
        ]


def few_texts(stopping: Stopping, masks: Masks, most: int) -> list[Tokens] | None:
    """Every text that may stop as it does and that masks allow; None where there are more than
    `most`, where too many prefixes have to be followed to tell, or where a tool writes.
    """
    if stopping.tools is not None:
        return None
    found: list[Tokens] = []
    open_texts: list[Tokens] = [()]
    followed = 0
    while open_texts:
        tokens = open_texts.pop()
        if stopping.closes(tokens):
            found += [tokens] if stopping.legal(tokens) else []
            continue
        allowed = np.flatnonzero(masks.start([tokens]).allowed()[0].numpy())
        followed += 1
        if max(len(found) + len(open_texts) + len(allowed), followed / INNER) > most:
            return None
        open_texts += [(*tokens, int(token)) for token in allowed if token != stopping.end]
        if stopping.end_allowed and stopping.end in allowed:
            found.append(tokens)
    return found
