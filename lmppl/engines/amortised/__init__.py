"""Engines that learn: a policy is trained once and then draws at the price of plain decoding (Hu
et al., ICLR 2024).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
