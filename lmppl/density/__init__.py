"""A program bound to one row of data: the log density of states, in nats, and draws of its prior.

`Target` is all that engines see.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
