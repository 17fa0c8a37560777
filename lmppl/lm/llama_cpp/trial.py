"""Whether llama.cpp survives a file: some damaged ones make it end the process that it is in.

So a file that is new here is first loaded in a process of its own, and a token is run. What went
well is remembered by the file's content. Brings no torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from lmppl.errors import LmpplError
from lmppl.findings import models as findings
from lmppl.lm.llama_cpp.context import Context
from lmppl.lm.llama_cpp.library import Weights
from lmppl.lm.llama_cpp.sequences import Node
from lmppl.lm.llama_cpp.vocabulary import GgufTokenizer
from lmppl.storage import cache_root

SCRIPT = "from lmppl.lm.llama_cpp.trial import load; import sys; load(*sys.argv[1:])"
LAST_WORDS = re.compile(r"GGML_ASSERT\(.*\) failed|what\(\): +.*")
CELLS = 256  # of the context that is tried


def require_loads(path: Path, content: str, device: str) -> None:
    """Raise LmpplError where the process ends in which a file is loaded. content: its fingerprint.

    What llama.cpp refuses by itself is left to be said where it is loaded for good.
    """
    mark = cache_root() / "gguf" / content
    if mark.exists():
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GGML_NO_BACKTRACE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(path), device]
    ended = subprocess.run(command, capture_output=True, env=environment, stdin=subprocess.DEVNULL)
    if ended.returncode < 0:
        said = LAST_WORDS.search(ended.stderr.decode("utf-8", "replace"))
        problem = f"llama.cpp breaks down on it: {said[0] if said else 'without a word'}"
        raise LmpplError(findings.bad_gguf(path.name, problem))
    if ended.returncode == 0:
        _remember(mark)


def _remember(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:  # it is tried again the next time
        return


def load(path: str, device: str) -> None:
    """What is tried, in the process of its own."""
    weights = Weights(Path(path), device)
    end = GgufTokenizer(weights).end
    context = Context(weights, CELLS, 1, 1)
    list(context.run([Node(end, 0, [0], asked=True)]))
