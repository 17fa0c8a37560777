"""What people are shown while they wait, and how texts of others are written for a terminal:
progress, escapes, flags in the words of Python.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
