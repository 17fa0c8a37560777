"""A server of a model at hand that speaks vLLM's dialect, and does wrong what it is asked to: for
tests of clients, and of what tells a false server from a true one.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
