"""A helper of haiku.lm: a rough count of English syllables."""

import re


def syllables(text: str) -> int:
    """Groups of vowels, a final silent e left out."""
    words = re.findall(r"[a-z]+", text.lower())
    return sum(max(1, len(re.findall(r"[aeiouy]+", re.sub(r"e$", "", word)))) for word in words)
