"""What people see: findings, tables and draws, as text. Knows results and nothing of how they
came about.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
