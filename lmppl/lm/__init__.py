"""Language models: token ids in, log probabilities in nats out.

`protocol` says what the density needs of a model; `transformers` has those that are run here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
