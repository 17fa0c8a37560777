def odd(text: str) -> bool:
    return len(text.split()) % 2 == 1


def echo(text: str) -> str:
    """A tool behind " a", which writes its own trigger, the text that others end with, and at times nothing."""
    if text == " a":
        return " a"
    if text == " a a":
        return ". b"  # never asked: a trigger within an insertion is none
    return ". b" if text.startswith(" b") else ""
