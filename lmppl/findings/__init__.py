"""All that lmppl says of what is wrong, a constructor a finding: on programs, on runs, on
learning.

Each constructor is named after its finding and gives a `Diagnostic`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
