"""Served models: a server that draws and scores is asked over HTTP, and no package of its own is
needed.

`address` reads identifiers; `wire` asks, many requests in flight, and asks again where a server
does not answer; `completions` says what is asked and reads what comes back; `probe` finds out what
a server does; `model` makes a language model of it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
