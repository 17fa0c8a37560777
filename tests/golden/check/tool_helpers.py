def look(text):
    return " 7"


def pair(left, right):
    return left + right
