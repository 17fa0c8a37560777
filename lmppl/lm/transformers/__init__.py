"""Language models of transformers, run in this process: how they are found, loaded, adapted and
trained, and how rows share what they have in common.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
