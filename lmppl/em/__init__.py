"""Expectation-maximisation: an engine draws the latents, an adapter of the model is fitted to the
draws, and again.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
