"""Functions that the programs beside this file name."""


def syllables(text: str) -> int:
    return sum(letter in "aeiouy" for letter in text)


def rhyme(first: str, second: str, third: str = "") -> bool:
    return first[-2:] == second[-2:] and (not third or second[-2:] == third[-2:])
