"""Metropolis-Hastings moves over complete states, many chains in one batch, at any inverse
temperature.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
