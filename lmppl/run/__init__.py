"""From a program, its rows and its models to a posterior: the engine and its sizes, by what is
asked for and by a budget.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
