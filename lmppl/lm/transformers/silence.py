"""Keeps the progress bars and notices of transformers and the hub off the screen: lmppl shows its
own.
"""

from __future__ import annotations

import io
import logging as standard_logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, transformers and the hub say nothing: what fails is raised."""
    hub = standard_logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(standard_logging.CRITICAL)
    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # some bars ask nobody
            yield
    finally:
        hub.setLevel(level)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
