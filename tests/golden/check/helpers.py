def good(text):
    return 1
