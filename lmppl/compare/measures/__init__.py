"""Numbers that say how good draws are: distance to a reference, diversity, overlap with a text,
fit to a label.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
