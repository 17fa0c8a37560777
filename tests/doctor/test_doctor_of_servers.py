"""A served model is examined over HTTP, through the backend that runs use."""

import pytest
import tiny

from lmppl.doctor import CHECKS, Sizes, examine
from lmppl.errors import LmpplError
from lmppl.lm.transformers import HuggingFaceModel
from lmppl.testing import FakeServer, Traps

SIZES = Sizes(texts=6, tokens=6, singles=200, prefix=60)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny network whose folder is here, so that its tokenizer is found."""
    folder = tiny.save(tmp_path_factory.mktemp("model"), chosen=tiny.sentencepiece())
    return HuggingFaceModel(*tiny.build(chosen=tiny.sentencepiece()), identifier=str(folder))


def served(model, **traps):
    with FakeServer(model, Traps(**traps)) as server:
        report = examine(server.identifier, SIZES, options={"patience": 5.0})
    return {one.name: one for one in report.checks}


def amiss(found):
    return {name for name, one in found.items() if one.status not in ("pass", "–")}


@pytest.mark.slow
def test_a_server_that_is_right(model):
    found = served(model)
    assert amiss(found) == set()
    asked = {"raw or processed", "mask obeyed", "masked", "window", "seeds beside", "end scored", "known prefix"}
    assert "–" not in {found[name].status for name in asked}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trap", "name"),
    [
        ({"forced_top_p": 0.5}, "nothing cut"), ({"seeds_moved": True}, "seeds beside"),
        ({"stale_block": 16}, "known prefix"), ({"mask_unscored": True}, "mask told"),
        ({"claimed_window": 140}, "window"), ({"end_unscored": True}, "end scored"),
        ({"decoding_noise": 0.3}, "drawn as scored"), ({"batch_noise": 0.3}, "batch size"),
        ({"never_below": 0.2}, "nothing cut"), ({"seeds_ignored": True}, "seeds alone"),
    ],
)  # fmt: skip
def test_traps_are_seen_over_http(model, trap, name):
    assert amiss(served(model, **trap)) & {name, "answers"}, "by its check, or where the backend looks first"


@pytest.mark.parametrize(
    "trap", [{"unscored_prompts": True}, {"offset": 5.0}, {"strips_spaces": True}, {"doubles_beginning": True}]
)
def test_servers_that_fail_at_the_door(model, trap):
    """A backend that sees at once that weights cannot be made says so; it is a failed check."""
    found = served(model, **trap)
    assert amiss(found) == {"answers"}
    assert found["answers"].sentence.endswith("how to start one.")


@pytest.mark.slow
def test_a_server_that_dies_on_the_way(model):
    found = served(model, dies_after=40)
    statuses = [found[check.name].status for check in CHECKS if check.name in found]
    first = statuses.index("fail")
    assert {*statuses[first + 1 :]} == {"–"}


def test_nobody_listens():
    with pytest.raises(LmpplError, match="not answered"):
        examine("http://127.0.0.1:9/v1#none", SIZES, options={"patience": 0.0})
