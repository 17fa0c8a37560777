"""Rows over actors of a Ray cluster of this machine. Skipped where ray is not installed."""

import os
import signal

import pytest

import lmppl
from lmppl.errors import LmpplError
from lmppl.run.shards import SHARD

ray = pytest.importorskip("ray")
COUNT = 4 * SHARD
SIZES = {"engine": "exact", "chains": 1, "num_samples": 2, "device": "cpu"}
BODY = 'given X\nuse worth from "helper.py"\nZ ~ LM(" a{X}") in [" a", " b"]\nfactor worth(X)\n'

pytestmark = [
    pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def program(folder, tiny_folder, helper):
    (folder / "helper.py").write_text(helper)
    (folder / "p.lm").write_text(f'lm LM = "{tiny_folder}"\n{BODY}')
    return lmppl.compile(folder / "p.lm")


def rows():
    return [{"X": f"{' a' * (n % 7)}{' b' * (n // 7)}"} for n in range(COUNT)]


def assert_equal(one, other):
    """All texts, names and counts; numbers up to what the order of sums changes, which hangs on a process's threads."""
    if isinstance(one, float):
        assert other == pytest.approx(one, abs=1e-5, nan_ok=True)  # the model runs in float32
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key, value in one.items():
            assert_equal(value, other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for ours, theirs in zip(one, other, strict=True):
            assert_equal(ours, theirs)
    else:
        assert one == other


def test_the_posterior_is_that_of_one_process(cluster, tmp_path, tiny_folder):
    compiled = program(tmp_path, tiny_folder, "def worth(text):\n    return 0.5\n")
    alone = compiled.infer(data=rows(), **SIZES)
    found = compiled.infer(data=rows(), workers=2, ray="local", folder=tmp_path / "run", **SIZES)
    documents = [{**one.document(draws=True), "cost": 0} for one in (alone, found)]
    assert_equal(*documents)


def test_an_actor_that_is_killed_names_its_rows_and_the_rest_is_gone_on_with(cluster, tmp_path, tiny_folder):
    marker = tmp_path / "once"
    marker.touch()
    text = " a" * (40 % 7) + " b" * (40 // 7)
    helper = (
        "import os\n"
        f"def worth(text):\n    if text == {text!r} and os.path.exists({str(marker)!r}):\n"
        f"        os.kill(os.getpid(), {int(signal.SIGKILL)})\n    return 0.5\n"
    )
    compiled = program(tmp_path, tiny_folder, helper)
    asked = {"data": rows(), "workers": 2, "ray": "local", "folder": tmp_path / "run", **SIZES}
    with pytest.raises(LmpplError, match="while it was at rows 33 to 48 of the data") as raised:
        compiled.infer(**asked)
    assert len(raised.value.posterior.rows) == 32
    marker.unlink()
    found = compiled.infer(**{**asked, "resume": True})
    alone = compiled.infer(data=rows(), **SIZES)
    assert_equal(found.document()["rows"], alone.document()["rows"])


def test_more_workers_than_cores_are_refused(cluster, tmp_path, tiny_folder):
    compiled = program(tmp_path, tiny_folder, "def worth(text):\n    return 0.5\n")
    with pytest.raises(LmpplError, match="3 workers need a core each, and the cluster has 2"):
        compiled.infer(data=rows(), workers=3, ray="local", **SIZES)


def test_an_address_where_nothing_answers_is_a_finding(tmp_path, tiny_folder):
    if ray.is_initialized():
        pytest.skip("connected already")
    compiled = program(tmp_path, tiny_folder, "def worth(text):\n    return 0.5\n")
    with pytest.raises(LmpplError, match="no-cluster"):
        compiled.infer(data=rows(), workers=2, ray="127.0.0.1:9", **SIZES)
