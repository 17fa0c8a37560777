"""Language models: token ids in, log probabilities in nats out; how they are found, loaded and
adapted.

`protocol` says what the density needs of a model; the rest is that for models of transformers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
