"""Models of GGUF files, run by llama.cpp in this process: their own quantised weights, as they are.

`library` brings llama.cpp and keeps it silent; `vocabulary` is the file's tokenizer; `sequences`
says what is run and what is kept, and `context` runs it; `model` makes a language model of them;
`trial` sees to it that a file that llama.cpp breaks down on does not take lmppl with it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
