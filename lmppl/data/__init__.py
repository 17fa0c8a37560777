"""Rows of data: from files and from tables in memory to what a program reads of each row."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
