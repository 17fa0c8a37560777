"""Rows over several workers, which are processes of this machine or of a cluster: each loads the
models once, draws shards of rows, and sends every row as soon as it is done.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
