"""From the text of a program to its meaning: parse, check, lower.

Brings no torch, so that `lmppl check` is quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
