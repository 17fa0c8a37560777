import gc
import os
import shutil
import signal
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_COLOR"] = "1"
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers share the cores
for folder in sorted({path.parent for path in Path(__file__).parent.rglob("test_*.py")}, reverse=True):
    sys.path.insert(0, str(folder))  # tests share tiny.py, grid.py and others: names of files are unique

import pytest  # noqa: E402

import lmppl  # noqa: E402, F401  (sets how threads wait, before a test imports torch)

# Python looks for circles of objects again and again, each time through all that torch and transformers have made
gc.set_threshold(100_000, 20, 20)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update")


def pytest_collection_finish():
    gc.freeze()  # what is there now stays


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
    from lmppl.lm.transformers.load import load_model
    from lmppl.source import Source, Span

    declaration = ir.ModelDeclaration("LM", "smollm2-135m", Span(0, 2))
    return load_model(declaration, Source("test", "lm"), Path.cwd(), torch.device("cpu"), quiet)


@pytest.fixture(scope="session")
def browser():
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None and "CI" in os.environ:
        pytest.fail(f"the page must be tested in a browser here, and there is none of {', '.join(BROWSERS)}")
    if path is None:
        pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture
def visit(browser):
    """Open a page, wait for its plots, and see in the end that nothing went wrong and nothing was fetched."""
    contexts, wrong, requests, files = [], [], [], set()

    def opened(path, *, width=1280, wait=True, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        files.add(path.as_uri())
        page.goto(path.as_uri(), wait_until="load" if wait else "commit")
        if wait:
            page.wait_for_selector("html[data-drawn=all]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
    assert {url for url in requests if not url.startswith("data:")} == files
