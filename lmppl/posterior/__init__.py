"""The result of a run: draws, evidence, verdict; kept in folders, shown in notebooks, taken to
pandas and ArviZ.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
