"""Run folders as files that others open: netCDF for ArviZ, and tables. Each file is written whole
or not at all.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
