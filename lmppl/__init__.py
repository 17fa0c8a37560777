"""lmppl: a probabilistic programming language for inference in language models.

    import lmppl
    posterior = lmppl.compile("program.lm").infer(engine="importance", X="It was a dark night.")

`compile` reads and checks a program; what it returns has `infer`, `bind` (the log density) and
`pyro_model`.
"""

from lmppl.interrupts import end_at_once, is_command

if is_command():
    end_at_once()  # while the imports below run; __main__.py takes over

from lmppl.compile import CompiledProgram, compile
from lmppl.errors import Diagnostic, LmpplError
from lmppl.threads import wait_passively
from lmppl.version import VERSION

wait_passively()  # nothing above imports torch

__version__ = VERSION
__all__ = ["CompiledProgram", "Diagnostic", "LmpplError", "compile"]
