def odd(text: str) -> bool:
    return len(text.split()) % 2 == 1
