"""What a result was made from is known by content: what differs is named, and refused or run again."""

import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import tiny
from safetensors.torch import load_file, save_file
from test_cli import failure, lmppl, write

from lmppl.compile import compile as compile_program
from lmppl.data.rows import Row
from lmppl.errors import LmpplError
from lmppl.lm import describe_model, identify, load_models
from lmppl.lm.transformers.identity import ADAPTER, adapted, fingerprint, weight_files
from lmppl.run.provenance import origin, program_files
from lmppl.storage import fingerprints
from lmppl.storage.fingerprints import differences, of_file

BODY = 'given X\nuse f from "h.py"\nZ ~ LM(X) max 2 tokens\nfactor f(Z)\nconstrain in_grammar(Z, "g.lark")\n'
HELPER = "def f(text):\n    return len(text)\n"
GRAMMAR = 'start: (" a" | " b" | ".")*\n'
TRAINED = ("run", "p.lm", "--set", "X= a", "--engine", "gflownet", "--num-samples", "2", "--chains", "1",
           "-o", "steps=2", "-o", "save_every=1", "-o", "draws=4", "-o", "rank=2")  # fmt: skip
SMALL = ("--num-samples", "4", "--chains", "1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A program with a helper and a grammar, on a model of its own."""
    monkeypatch.setenv("LMPPL_CACHE", str(tmp_path / "cache"))
    tiny.save(tmp_path / "model", seed=4)
    (tmp_path / "h.py").write_text(HELPER)
    (tmp_path / "g.lark").write_text(GRAMMAR)
    write(tmp_path, BODY)
    return tmp_path


def replace_weights(folder):
    """Other numbers in a file of the same size and the same time of its last change."""
    path = folder / "model.safetensors"
    times = path.stat()
    weights = {name: value + 0.5 if "lm_head" in name else value for name, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size


def replace_helper(folder):
    (folder / "h.py").write_text(HELPER.replace("len(text)", "-len(text)"))


def replace_grammar(folder):
    (folder / "g.lark").write_text(GRAMMAR.replace('"."', '".."'))


def replace_tokenizer(folder):
    path = folder / "model" / "tokenizer.json"
    path.write_text(path.read_text().replace('"isolated"', '"Isolated"').replace("\n", " "))


CHANGES = {
    "weights": (lambda folder: replace_weights(folder / "model"), "models.LM.weights"),
    "tokenizer": (replace_tokenizer, "models.LM.tokenizer"),
    "helper": (replace_helper, "files.h.py"),
    "grammar": (replace_grammar, "files.g.lark"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_part_of_an_origin_is_seen_by_its_content(kind, here):
    def found():
        program = compile_program(here / "p.lm").program
        return origin(program, [Row({"X": " a"}, {})], load_models(program, {}, "cpu", lambda *told: None))

    change, expected = CHANGES[kind]
    before = found()
    assert found() == before
    change(here)
    assert [where for where, _, _ in differences(before, found())] == [expected]


def test_what_a_helper_imports_from_the_folder_is_part_of_it(here):
    """Through packages and other modules, from within functions; nothing is run, and nothing outside is named."""
    texts = {
        "h.py": "import json, os.path, near\nfrom .. import outside\ndef f(text):\n    from pack.inner import deep\n",
        "near.py": "import h\nimport pack.other as one\n'\\d'\nraise SystemExit\n",
        "pack/__init__.py": "",
        "pack/inner.py": "from . import third\nfrom ..near import x\n",
        "pack/other.py": "not Python",
        "pack/third.py": "",
        "pack/unread.py": "",
        "unread.py": "",
        "../outside.py": "",
    }
    folder = here / "program"
    (folder / "pack").mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    write(folder, 'use f from "h.py"\nZ ~ LM("a") max 2\nfactor f(Z)\n')
    read = {"h.py", "near.py", "pack/__init__.py", "pack/inner.py", "pack/other.py", "pack/third.py"}
    for place in (folder, "program"):
        with contextlib.chdir(here):
            program = compile_program(Path(place) / "p.lm").program
            assert program_files(program) == {name: of_file(folder / name) for name in read}


@pytest.mark.slow
def test_a_module_that_a_helper_imports_is_not_exchanged_between_rounds(rounds, monkeypatch):
    monkeypatch.syspath_prepend(str(rounds))
    (rounds / "h.py").write_text("import beside_h\ndef f(text):\n    return beside_h.f(text)\n")
    (rounds / "beside_h.py").write_text(HELPER)
    lmppl(rounds, *ROUNDS, "--out", "other")
    (rounds / "beside_h.py").write_text(HELPER.replace("len(text)", "-len(text)"))
    assert "made with other files.beside_h.py" in failure(rounds, *ROUNDS, "--out", "other")
    monkeypatch.delitem(sys.modules, "beside_h")


def test_a_file_that_only_a_statistic_reads_is_part_of_it(here):
    (here / "t.lark").write_text(GRAMMAR)
    write(here, f'{BODY}statistic s = in_grammar(Z, "t.lark")\n')
    assert set(program_files(compile_program(here / "p.lm").program)) == {"g.lark", "h.py", "t.lark"}


def test_differences_are_of_both_sides_at_any_depth():
    then, now = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": {"f": 5}}
    assert list(differences(then, now)) == [("a.c", 2, 4), ("d", 3, None), ("e", None, {"f": 5})]
    assert list(differences(now, now)) == []


def test_a_model_with_adapters_is_known_by_their_content_and_order(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        for name in ADAPTER:
            (folder / name).write_text(f"{folder.name} {name}")
    model = {"weights": "0", "config": "1"}
    found = [adapted(model, some) for some in ([], folders[:1], folders, folders[::-1])]
    for name in ADAPTER:
        (folders[0] / name).write_text("another")
        found.append(adapted(model, folders[:1]))
    assert len({one["weights"] for one in found}) == len(found)
    assert {one["config"] for one in found} == {"1"}


# --- models of the hub ----------------------------------------------------------------------------


def fetched(cache, commit, seed):
    """A version of a model as the hub's cache has it: links to files by content, and the commit that `main` names."""
    model = cache / "models--some--tiny"
    place = model / "snapshots" / commit
    for folder in (model / "blobs", model / "refs", place):
        folder.mkdir(parents=True, exist_ok=True)
    for path in tiny.save(cache.parent / f"made-{commit}", seed=seed).iterdir():
        blob = model / "blobs" / of_file(path)
        path.replace(blob)
        (place / path.name).symlink_to(Path("..", "..", "blobs", blob.name))
    (model / "refs" / "main").write_text(commit)


@pytest.fixture
def hub(here, monkeypatch):
    """A hub that nobody reaches, with two versions of a model in its cache."""
    cache = here / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    fetched(cache, "a" * 40, seed=1)
    fetched(cache, "b" * 40, seed=2)
    return cache


def test_a_model_of_the_hub_is_known_by_its_commit_and_its_content(hub, here):
    def described(text):
        program = compile_program(text).program
        found = load_models(program, {}, "cpu", lambda *told: None)["LM"]
        assert identify(program, {}, lambda *told: None) == {"LM": describe_model(found)}
        return describe_model(found)

    last = described('lm LM = "some/tiny"\nZ ~ LM("a") max 2\n')
    assert last["revision"] == "b" * 40
    pinned = described(f'lm LM = "some/tiny" (revision = "{"a" * 40}")\nZ ~ LM("a") max 2\n')
    assert pinned["revision"] == "a" * 40
    assert [where for where, _, _ in differences(last, pinned)] == ["revision", "weights"]
    (hub / "models--some--tiny" / "refs" / "main").write_text("a" * 40)
    assert described('lm LM = "some/tiny"\nZ ~ LM("a") max 2\n') == pinned
    replace_weights((hub / "models--some--tiny" / "snapshots" / ("a" * 40)).resolve())
    changed = described('lm LM = "some/tiny"\nZ ~ LM("a") max 2\n')
    assert [where for where, _, _ in differences(pinned, changed)] == ["weights"]


def test_a_run_says_what_it_was_made_from(here):
    lmppl(here, "run", "p.lm", "--set", "X= a", *SMALL, "--out", "run")
    document = json.loads((here / "run" / "run.json").read_text())
    assert document["made_from"]["files"] == {name: of_file(here / name) for name in ("g.lark", "h.py")}
    assert {"identifier", "revision", "weights", "config", "tokenizer"} == set(document["models"]["LM"])
    again = lmppl(here, "summary", "run", "--json").stdout
    assert json.loads(again)["made_from"] == document["made_from"]


def test_models_are_identified_without_being_loaded(here):
    program = compile_program(here / "p.lm").program
    loaded = load_models(program, {}, "cpu", lambda *told: None)
    assert identify(program, {}, lambda *told: None) == {"LM": describe_model(loaded["LM"])}


@pytest.mark.slow
def test_training_is_not_gone_on_with_on_other_weights(here):
    lmppl(here, *TRAINED, "--out", "fit")
    before = (here / "fit" / "adapter_model.safetensors").read_bytes()
    for kind in ("weights", "helper"):
        CHANGES[kind][0](here)
    message = failure(here, *TRAINED, "--resume", "fit")
    assert "error[checkpoint-differs]" in message
    assert "made with other files.h.py, models.LM.weights" in message
    assert (here / "fit" / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_a_comparison_runs_again_what_was_made_from_other_weights(here):
    arguments = ("compare", "p.lm", "--set", "X= a", "--engines", "importance", "--against", "none", "--seeds", "1",
                 "--budget", "none", "--json", "-o", "importance.num_samples=4")  # fmt: skip

    def evidence():
        done = lmppl(here, *arguments)
        return json.loads(done.stdout)["entries"][0]["measures"]["log_evidence"]["mean"], done.stderr

    first, told = evidence()
    assert "seed 1" in told
    again, told = evidence()
    assert again == first
    assert "seed 1" not in told
    for kind in ("helper", "weights"):
        CHANGES[kind][0](here)
        assert "seed 1" in evidence()[1], kind
    assert evidence()[0] != first


def test_a_file_that_changes_while_a_comparison_runs_is_said(here):
    (here / "h.py").write_text(f"{HELPER}with open('h.py', 'a') as file:\n    file.write('# more')\n")
    arguments = ("compare", "p.lm", "--set", "X= a", "--engines", "importance", "--seeds", "1", "--budget", "none")
    err = lmppl(here, *arguments, "--against", "none", "-o", "importance.num_samples=4", code=2).stderr
    assert "error[changed-meanwhile]" in err
    assert "files.h.py" in err


EM = 'given X\nlearn LM\nuse f from "h.py"\nZ ~ LM("{X}") max 1\nY ~ LM("{X}{Z}.") in [" a", " b"]\nfactor f(Z)\n'
ROUNDS = (
    "em",
    "p.lm",
    "--data",
    "d.jsonl",
    "--rounds",
    "1",
    "--fit",
    "steps=1",
    "--fit",
    "rank=2",
    "--engine",
    "exact",
)


@pytest.fixture
def rounds(here):
    write(here, EM)
    (here / "d.jsonl").write_text('{"X": " a"}\n{"X": " b"}\n')
    lmppl(here, *ROUNDS, "--out", "em")
    return here


@pytest.mark.slow
def test_rounds_are_not_gone_on_with_on_another_model_or_helper(rounds):
    assert "made with other" not in lmppl(rounds, *ROUNDS, "--out", "em").stderr
    tiny.save(rounds / "other", seed=5)
    message = failure(rounds, *ROUNDS, "--out", "em", "--lm", "LM=other")
    assert "error[other-rounds]" in message
    assert "models.LM.identifier, models.LM.weights" in message
    replace_helper(rounds)
    assert "made with other files.h.py" in failure(rounds, *ROUNDS, "--out", "em")


def test_rounds_that_were_begun_and_not_finished_have_their_model(rounds):
    """A run of the first round is there before its line in the document is."""
    document = json.loads((rounds / "em" / "em.json").read_text())
    shutil.rmtree(rounds / "em")
    (rounds / "h.py").write_text(f"{HELPER}raise SystemExit(3)\n")
    lmppl(rounds, *ROUNDS, "--out", "em", code=3)
    begun = json.loads((rounds / "em" / "em.json").read_text())
    assert begun["about"] != document["about"]
    assert (begun["rounds"], begun["finished"]) == ([], False)
    (rounds / "h.py").write_text(HELPER)
    assert "files.h.py" in failure(rounds, *ROUNDS, "--out", "em")


@pytest.mark.slow
def test_a_helper_that_changes_between_two_rounds_is_named(rounds):
    (rounds / "h.py").write_text(f"{HELPER}with open('h.py', 'a') as file:\n    file.write('# more')\n")
    message = failure(rounds, *ROUNDS, "--out", "other")
    assert "round 0" in message
    assert "the rounds in `other` were made with other files.h.py" in message


# --- the fingerprint ------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file whose content is kept in a cache, and the times that it was read."""
    monkeypatch.setenv("LMPPL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "large"
    path.write_bytes(bytes(2 * fingerprints.LARGE))
    monkeypatch.setattr(fingerprints, "SETTLED", -1.0)
    read, digest = [], fingerprints.hashlib.file_digest

    def counted(file, name):
        read.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(fingerprints.hashlib, "file_digest", counted)
    return path, read


def test_a_large_file_is_read_once(large):
    path, read = large
    assert of_file(path) == of_file(path)
    assert len(read) == 1


@pytest.mark.parametrize("how", ["in place", "replaced", "moved over"])
def test_a_large_file_that_has_changed_is_read_again(how, large, tmp_path):
    """Of the same size, with the time of the one before."""
    path, read = large
    before, times = of_file(path), path.stat()
    content = b"x" + bytes(2 * fingerprints.LARGE - 1)
    if how == "in place":
        with path.open("r+b") as file:
            file.write(b"x")
    elif how == "replaced":
        path.write_bytes(content)
    else:
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").rename(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert of_file(path) != before
    assert len(read) == 2


def test_a_file_of_a_moment_ago_is_not_kept(large, monkeypatch, tmp_path):
    path, read = large
    monkeypatch.setattr(fingerprints, "SETTLED", 60.0)
    of_file(path)
    of_file(path)
    assert len(read) == 2
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("spoilt", ["", "[]", "{", '{"sha256": 3}', "null"])
def test_a_cache_that_is_spoilt_or_no_folder_costs_time_only(spoilt, large, tmp_path):
    path, _ = large
    before = of_file(path)
    (kept,) = (tmp_path / "cache" / "fingerprints").iterdir()
    kept.write_text(spoilt)
    assert of_file(path) == before
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("")
    assert of_file(path) == before


@pytest.mark.model
def test_the_default_model_is_known_within_a_second_and_then_at_once(smollm2, tmp_path, monkeypatch):
    from lmppl.lm.transformers.models import ALIASES, ensure

    folder = ensure(ALIASES["smollm2-135m"], lambda *told: None)
    monkeypatch.setenv("LMPPL_CACHE", str(tmp_path))
    seconds = []
    for _ in range(2):
        started = time.process_time()
        found = fingerprint(folder)
        seconds.append(time.process_time() - started)
        assert found == smollm2.fingerprint
    assert seconds[0] < 1
    assert seconds[1] < 0.1


# --- files of weights -----------------------------------------------------------------------------


def index(folder, *shards):
    names = {f"tensor{number}": shard for number, shard in enumerate(shards)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def test_weights_in_several_files_are_all_of_the_fingerprint(here):
    folder = here / "model"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(weights)}
    for shard in set(names.values()):
        part = {name: value for name, value in weights.items() if names[name] == shard}
        save_file(part, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    program = compile_program(here / "p.lm").program
    before = load_models(program, {}, "cpu", lambda *told: None)["LM"].fingerprint
    part = load_file(folder / "part-1.safetensors")
    save_file({name: value + 1 for name, value in part.items()}, folder / "part-1.safetensors", {"format": "pt"})
    assert [where for where, _, _ in differences(before, fingerprint(folder))] == ["weights"]


@pytest.mark.parametrize("lead", ["../out.safetensors", "/out.safetensors", "sub/../../out.safetensors", "link"])
def test_an_index_reads_nothing_outside_the_models_folder(lead, here):
    folder = here / "model"
    (folder / "model.safetensors").rename(here / "out.safetensors")
    (folder / "link").symlink_to(here / "out.safetensors")
    index(folder, str(here / "out.safetensors") if lead.startswith("/") else lead)
    with pytest.raises(LmpplError, match="lie outside its folder"):
        weight_files(folder)
    message = failure(here, "run", "p.lm", "--set", "X= a")
    assert "error[model-unusable]" in message
    assert "p.lm:1" in message


def test_links_of_the_hubs_cache_are_its_own(tmp_path):
    """It keeps the files of a version as links to what all versions share."""
    folder = tmp_path / "models--x" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (tmp_path / "models--x" / "blobs").mkdir()
    (tmp_path / "models--x" / "blobs" / "ab").write_text("")
    (folder / "a.safetensors").symlink_to(Path("../../blobs/ab"))
    index(folder, "a.safetensors")
    assert weight_files(folder) == ["model.safetensors.index.json", "a.safetensors"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": null}}', "[" * 100_000])
def test_an_index_that_is_none_is_a_finding(text, here):
    (here / "model" / "model.safetensors").unlink()
    (here / "model" / "model.safetensors.index.json").write_text(text)
    assert "error[model-unusable]" in failure(here, "run", "p.lm", "--set", "X= a")
