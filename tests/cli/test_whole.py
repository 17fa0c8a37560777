"""Files are whole or refused: what was cut, emptied, swapped or changed by a bit is an error that names the file."""

import json
import resource
import shutil

import pytest
import tiny
from test_cli import failure, lmppl, write

from lmppl.engines.amortised import checkpoint
from lmppl.engines.amortised.progress import read_log
from lmppl.errors import LmpplError
from lmppl.lm.transformers import adapter
from lmppl.posterior.posterior import load
from lmppl.posterior.store import require_whole
from lmppl.storage.checksums import is_broken, is_sealed, sealed

BODY = "given X\nZ ~ LM(X) max 3 tokens\n"
READERS = (("summary",), ("diagnose",), ("export", "--to", "csv"), ("report",))
FEW = ("--engine", "importance", "--chains", "1", "--num-samples", "4")
TRAINED = ("run", "p.lm", "--set", "X= a", "--engine", "gflownet", "--num-samples", "2", "--chains", "1",
           "-o", "steps=2", "-o", "save_every=1", "-o", "draws=4", "-o", "rank=2")  # fmt: skip


def furnished(folder):
    tiny.save(folder / "model", seed=4)
    write(folder, BODY)
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two runs of one program, and training."""
    folder = furnished(tmp_path_factory.mktemp("whole"))
    for name, seed in (("run", "0"), ("other", "1")):
        lmppl(folder, "run", "p.lm", "--set", "X= a", *FEW, "--seed", seed, "--out", name)
    lmppl(folder, *TRAINED, "--out", "fit")
    return folder


@pytest.fixture
def copied(done, tmp_path):
    return shutil.copytree(done, tmp_path / "copy")


def flip(path, place=-9):
    """One bit of a byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


DAMAGES = {
    "cut at a line": (lambda run: cut(run / "draws.jsonl"), "draws.jsonl"),
    "emptied": (lambda run: (run / "draws.jsonl").write_text(""), "draws.jsonl"),
    "missing": (lambda run: (run / "draws.jsonl").unlink(), "draws.jsonl"),
    "swapped": (lambda run: shutil.copy(run.parent / "other" / "draws.jsonl", run), "draws.jsonl"),
    "header swapped": (lambda run: shutil.copy(run.parent / "other" / "run.json", run), "run.json"),
    "header emptied": (lambda run: (run / "run.json").write_text(""), "run.json"),
    "header no text": (lambda run: (run / "run.json").write_bytes(b"\xff\xfe{"), "run.json"),
    "a number changed": (
        lambda run: (run / "run.json").write_text((run / "run.json").read_text().replace('"seed": 0', '"seed": 9')),
        "run.json",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_run_is_an_error_that_names_the_file(kind, copied):
    damage, name = DAMAGES[kind]
    damage(copied / "run")
    for reader in READERS:
        message = failure(copied, reader[0], "run", *reader[1:])
        assert "error[broken-run]" in message, reader
        assert f"run/{name}`" in message, reader


def test_what_is_whole_is_read_whatever_its_layout(copied):
    document = json.loads((copied / "run" / "run.json").read_text())
    before = load(copied / "run").document(draws=True)
    (copied / "run" / "run.json").write_text(json.dumps(dict(reversed(document.items()))))
    assert load(copied / "run").document(draws=True) == before
    for name in ("checksum", "files"):  # of an earlier version
        del document[name]
    (copied / "run" / "run.json").write_text(json.dumps(document))
    assert load(copied / "run").document(draws=True) == before


def test_a_seal_is_of_all_of_a_document():
    document = sealed({"a": 1.5, "b": [None, {"c": "é"}]})
    assert is_sealed(json.loads(json.dumps(document)))
    for changed in ({**document, "a": 1.25}, {**document, "more": 0}, {"checksum": document["checksum"]}):
        assert is_broken(changed)
    assert not is_broken({"a": 1.5})
    assert not is_sealed({"a": 1.5})
    assert not is_sealed(None)


ADAPTERS = {
    "weights": (lambda fit: flip(fit / "adapter_model.safetensors"), "adapter_model.safetensors"),
    "header": (lambda fit: flip(fit / "adapter_model.safetensors", 3), "adapter_model.safetensors"),
    "weights emptied": (lambda fit: (fit / "adapter_model.safetensors").write_bytes(b""), "adapter_model.safetensors"),
    "config emptied": (lambda fit: (fit / "adapter_config.json").write_text(""), "adapter_config.json"),
    "config": (lambda fit: change(fit / "adapter_config.json", lora_alpha=3), "adapter_config.json"),
    "latents": (lambda fit: (fit / "policy.json").write_text('{"trained": ["Z", "W"]}'), "policy.json"),
}


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_with_flipped_bits_is_refused(kind, copied):
    damage, name = ADAPTERS[kind]
    damage(copied / "fit")
    with pytest.raises(LmpplError) as caught:
        adapter.load(tiny.model(seed=4), copied / "fit")
    assert caught.value.diagnostics[0].code == "adapter-unusable"
    assert f"fit/{name}`" in str(caught.value)
    assert f"fit/{name}`" in failure(copied, "run", "p.lm", "--set", "X= a", "--adapter", "fit")
    (copied / "p.lm").write_text(f'lm LM = "./model" (adapter = "fit")\n{BODY}')
    message = failure(copied, "run", "p.lm", "--set", "X= a")
    assert "error[adapter-unusable]" in message
    assert f"fit/{name}`" in message


def test_weights_that_find_no_room_are_an_error_of_the_system(tmp_path):
    made = adapter.add(tiny.model(seed=4), rank=8, alpha=2, targets="all-linear", seed=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))  # between the small files and the weights
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            made.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "adapter_model.safetensors")


@pytest.mark.slow
def test_an_adapter_is_not_put_on_other_weights(copied):
    (copied / "p.lm").write_text(f'lm LM = "./model" (adapter = "fit")\n{BODY}')
    lmppl(copied, "run", "p.lm", "--set", "X= a", *FEW)
    tiny.save(copied / "model", seed=5)
    message = failure(copied, "run", "p.lm", "--set", "X= a", *FEW)
    assert "error[adapter-unusable]" in message
    assert "fitted to other weights" in message


@pytest.mark.slow
def test_a_checkpoint_whose_numbers_changed_leaves_the_one_before(copied):
    last = checkpoint.checkpoints(copied / "fit")[-1]
    change(last / "state.json", spent=0)
    lmppl(copied, *TRAINED, "--resume", "fit")
    change(last / "state.json", spent=0)
    change(checkpoint.checkpoints(copied / "fit")[0] / "state.json", spent=0)
    assert "error[broken-checkpoint]" in failure(copied, *TRAINED, "--resume", "fit")


LOGS = {
    "a number changed": lambda path: path.write_text(path.read_text().replace('"step": 1', '"step": 7')),
    "a bit": flip,
    "cut at a line": cut,
    "emptied": lambda path: path.write_text(""),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", LOGS)
def test_a_log_of_training_is_whole_or_refused(kind, copied):
    path = copied / "fit" / "training" / "log.jsonl"
    assert [line["step"] for line in read_log(copied / "fit")] == [1, 2]
    with path.open("a") as file:
        file.write('{"step": 3, "lo')  # what a kill leaves
    assert len(read_log(copied / "fit")) == 2
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    LOGS[kind](path)
    with pytest.raises(LmpplError, match=r"training/log.jsonl` is not the file that was written"):
        read_log(copied / "fit")


@pytest.mark.parametrize("name", ["adapter", "best", "optimiser"])
def test_a_checkpoint_with_a_flipped_bit_is_not_taken(name, copied):
    for folder in checkpoint.checkpoints(copied / "fit"):
        flip(folder / f"{name}.safetensors")
    assert "error[broken-checkpoint]" in failure(copied, *TRAINED, "--resume", "fit")


def test_training_that_has_lost_its_last_checkpoint_goes_on_from_the_one_before_to_the_same_weights(copied):
    path = copied / "fit" / "adapter_model.safetensors"
    learned = path.read_bytes()
    path.write_bytes(b"")
    shutil.rmtree(checkpoint.checkpoints(copied / "fit")[-1])
    lmppl(copied, *TRAINED, "--resume", "fit")
    assert path.read_bytes() == learned


COMPARED = ("compare", "p.lm", "--set", "X= a", "--engines", "importance", "--seeds", "1", "--budget", "none",
            "--against", "none", "-o", "importance.num_samples=4")  # fmt: skip


@pytest.mark.slow
def test_a_comparison_takes_no_damaged_run_from_its_cache(copied):
    lmppl(copied, *COMPARED, "--out", "cmp")
    (place,) = (copied / "cmp" / "runs").iterdir()
    require_whole(place)
    cut(place / "draws.jsonl")
    assert f"{place.name}/draws.jsonl`" in failure(copied, *COMPARED, "--out", "cmp")
    shutil.rmtree(place)
    lmppl(copied, *COMPARED, "--out", "cmp")
    text = (copied / "cmp" / "compare.json").read_text()
    (copied / "cmp" / "compare.json").write_text(text.replace('"seeds": 1', '"seeds": 7'))
    for reader in ("summary", "report"):
        assert "cmp/compare.json` is damaged" in failure(copied, reader, "cmp")
    measures = json.loads((place / "measures.json").read_text())
    change(place / "measures.json", value=None)
    lmppl(copied, *COMPARED, "--out", "cmp")
    assert json.loads((place / "measures.json").read_text())["value"].keys() == measures["value"].keys()


@pytest.mark.slow
def test_measures_of_another_run_are_not_taken(copied):
    arguments = [*COMPARED, "--out", "cmp"]
    arguments[arguments.index("--seeds") + 1] = "2"
    lmppl(copied, *arguments)
    one, other = (place / "measures.json" for place in (copied / "cmp" / "runs").iterdir())
    right = one.read_text()
    shutil.copyfile(other, one)
    lmppl(copied, *arguments)
    assert json.loads(one.read_text()) == json.loads(right)


@pytest.mark.slow
def test_a_damaged_exact_posterior_is_not_passed_over(copied):
    """Another reference in its place would change the table in silence."""
    arguments = [*COMPARED, "--out", "cmp"]
    arguments[arguments.index("none", arguments.index("--against"))] = "auto"
    lmppl(copied, *arguments)
    assert json.loads((copied / "cmp" / "compare.json").read_text())["reference"]["kind"] == "exact"
    (place,) = (copied / "cmp" / "runs").glob("exact-*")
    cut(place / "draws.jsonl")
    message = failure(copied, *arguments)
    assert "error[broken-run]" in message
    assert f"{place.name}/draws.jsonl`" in message


@pytest.mark.slow
def test_rounds_whose_document_or_adapter_changed_are_refused(copied):
    write(copied, 'given X\nlearn LM\nZ ~ LM("{X}") max 1\nY ~ LM("{X}{Z}.") in [" a", " b"]\n')
    (copied / "d.jsonl").write_text('{"X": " a", "Y": " a"}\n')
    arguments = ("em", "p.lm", "--data", "d.jsonl", "--engine", "exact", "--rounds", "1", "--fit", "steps=2",
                 "--fit", "rank=2", "--fit", "learning_rate=0.01", "--out", "em")  # fmt: skip
    lmppl(copied, *arguments)
    used = ("run", "p.lm", "--set", "X= a", *FEW, "--learned", "em")
    lmppl(copied, *used)
    shutil.copytree(copied / "em", copied / "kept")
    flip(copied / "em" / "learned" / "LM" / "adapter_model.safetensors")
    assert "em/learned/LM/adapter_model.safetensors`" in failure(copied, *used)
    shutil.rmtree(copied / "em")
    shutil.copytree(copied / "kept", copied / "em")
    tiny.save(copied / "model", seed=5)
    assert "fitted to other weights" in failure(copied, *used)
    change(copied / "em" / "em.json", best=0)
    for command in (used, arguments):
        assert "em/em.json` is damaged" in failure(copied, *command)
