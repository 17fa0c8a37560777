"""What ends a run from outside, as Ctrl-C does, and is told of as an error."""

from __future__ import annotations

from lmppl.errors.diagnostic import Diagnostic
from lmppl.errors.exception import LmpplError


class Lost(KeyboardInterrupt):
    """Something that a run needs is gone, as a server is: engines take it as they take Ctrl-C, and
    give what they have.
    """

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__()
        self.diagnostic = diagnostic


def loss_behind(reason: BaseException | None) -> LmpplError | None:
    """What an exception comes from, where that is a loss; None where it is not."""
    while reason is not None:
        if isinstance(reason, Lost):
            return LmpplError(reason.diagnostic)
        reason = reason.__cause__ or reason.__context__
    return None
