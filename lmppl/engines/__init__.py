"""Engines: from a target to weighted draws. The table of their names, and what all of them share.

An engine is a module with an `ENGINE` of this name, and a word in `table.ENGINE_NAMES`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
