"""What stands in constraints, factors and statistics: functions and their values, patterns,
grammars, and what texts they allow.

Knows values and texts; no models and no tokens.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
