"""One program, several engines, one table: entries, sizes within a budget, runs, measures, a
comparison.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
