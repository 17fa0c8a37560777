"""Files and folders: checksums, fingerprints by content, locks, and folders that are replaced
whole or not at all.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
