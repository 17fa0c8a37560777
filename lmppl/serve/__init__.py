"""Programs behind a port: requests in OpenAI's form or as rows, answers with their probabilities.

One thread infers; the event loop beside it reads requests and writes replies. What a request says
is data: no text of it is a template or code.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
