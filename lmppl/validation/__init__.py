"""Whether an engine is right, on data that the program itself simulates: simulation-based
calibration, and bounds on the evidence.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
