"""Engines: from a target to weighted draws. The table of their names, and what all of them share.

An engine is a module of this folder with an `ENGINE`, and an entry of `ENTRIES` in `table.py`. The
face names what modules of other wings use; engines need no line in it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
