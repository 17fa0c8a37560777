"""Kinds of latents and factors, a room each: what it reads, what it asks of models, how the answers
make its value, its upper bound; of a latent also how its values are spelled and listed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
