"""How far draws can be believed: summaries of draws, and checks with named thresholds that add up
to a verdict.

Knows numbers and draws; no engine and no model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
