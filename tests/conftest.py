import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_COLOR"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers share the cores
for folder in ("", "laws"):  # tests share tiny.py and grid.py
    sys.path.insert(0, str(Path(__file__).parent / folder))

import pytest  # noqa: E402

import lmppl  # noqa: E402, F401  (sets how threads wait, before a test imports torch)


@pytest.fixture(scope="session")
def tiny_model():
    import tiny

    return tiny.model()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """The tiny model as a folder, for programs that name it."""
    import tiny

    return tiny.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def smollm2():
    """The default model, fetched where it is absent."""
    import torch

    from lmppl import ir
    from lmppl.engines.contract import quiet
    from lmppl.lm.load import load_model
    from lmppl.source import Source, Span

    declaration = ir.ModelDeclaration("LM", "smollm2-135m", Span(0, 2))
    return load_model(declaration, Source("test", "lm"), Path.cwd(), torch.device("cpu"), quiet)
