"""Whether a model tells the truth about its own probabilities: checks of one model, here or behind
a server, each with a number and what it means.

`patient` is a model with texts to look at; `scores`, `draws`, `texts` and `served` have the checks;
`levels` says from where on a number is wrong, and why; `examination` runs them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
