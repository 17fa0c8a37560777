"""Findings and the one exception that carries them: what is wrong, where, what was expected, and
what to do.

Used by every wing. Knows no program and no run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
