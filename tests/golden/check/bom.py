def f(text):
    return True
