"""Texts token by token: when they end (`until`, `max`: `stopping.py`), what masks allow, what tools
write, under which law the next token is drawn.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
