"""Sequential Monte Carlo by genlm-control, in a Python of its own, to compare with."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
