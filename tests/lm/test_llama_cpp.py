"""GGUF files that llama.cpp runs: the laws of models, the network's own numbers, and what is said of broken files."""

import sys
from itertools import count

import numpy as np
import pytest

import lmppl
from lmppl.errors import LmpplError
from lmppl.lm import BY_LAWS, capabilities_of
from lmppl.lm.llama_cpp import library as libraries
from lmppl.lm.llama_cpp.load import load_ggufs
from lmppl.testing import language_model_laws

PROGRAM = 'lm LM = "llama.cpp:m.gguf"\nZ ~ LM(" a") max 1\nconstrain matches(Z, /[ ab]*/)\nobserve " b" ~ LM(" a{Z}")\n'
EXACT = 1e-9  # nats by which ways to one number may differ where laws are the same to the last bit
NEAR = 0.02  # nats by which laws of one network in float32 may differ, run here and by transformers


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "p.lm").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(folder, engine="exact", **options):
    """The one finding of a run."""
    with pytest.raises(LmpplError) as raised:
        lmppl.compile(folder / "p.lm").infer(engine, **options)
    (finding,) = raised.value.diagnostics
    assert finding.source.position(finding.span.start)[0] == 1
    return finding


# --- without llama.cpp ----------------------------------------------------------------------------


def test_what_is_missing_is_said_with_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # as if it were not there
    libraries.library.cache_clear()
    (folder / "m.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    finding = said(folder)
    libraries.library.cache_clear()
    assert (finding.code, finding.found) == ("no-llama-cpp", None)
    assert "pip install 'lmppl-lang[gguf]'" in finding.help


@pytest.mark.parametrize("content", [None, b"", b"GG", b"PK\3\4 a wheel"])
def test_what_is_no_gguf_file_is_said_at_its_line(folder, content):
    if content is not None:
        (folder / "m.gguf").write_bytes(content)
    finding = said(folder)
    assert finding.code == "bad-gguf"
    assert ("No such file" if content is None else "does not begin as a GGUF file does") in finding.found


def test_options_of_transformers_have_no_meaning(folder):
    (folder / "p.lm").write_text(PROGRAM.replace('gguf"', 'gguf" (dtype = "float32", adapter = "x")', 1))
    with pytest.raises(LmpplError) as raised:
        lmppl.compile(folder / "p.lm")
    assert [finding.code for finding in raised.value.diagnostics] == ["option-of-llama-cpp"] * 2


def test_it_tells_laws_and_is_not_trained(folder):
    assert capabilities_of("llama.cpp:m.gguf") == BY_LAWS
    assert said(folder, "gflownet").code == "model-cannot"


# --- with it, on a network of a few rows ----------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A network, and the model of its file."""
    pytest.importorskip("llama_cpp")
    return written(tmp_path_factory.mktemp("tiny") / "m.gguf")


def written(path, device="cpu", **options):
    import tiny_gguf

    network = tiny_gguf.write(path, **options)
    return network, loaded(path, device)


def loaded(path, device="cpu"):
    from lmppl import ir
    from lmppl.engines.contract import quiet
    from lmppl.source import Source, Span

    declaration = ir.ModelDeclaration("LM", f"llama.cpp:{path}", Span(0, 2))
    return load_ggufs([(declaration, path.parent)], Source("test", "lm"), device, quiet)["LM"]


def law_of(network, tokens):
    """(T, V) laws after each token, by transformers."""
    import torch

    with torch.inference_mode():
        return torch.log_softmax(network(torch.tensor([list(tokens)])).logits[0].double(), -1).numpy()


@pytest.mark.parametrize("law", language_model_laws, ids=lambda law: law.__name__)
def test_it_keeps_the_laws(law, tiny):
    law(tiny[1], EXACT)


def test_it_is_run_in_long_passes_and_in_short_ones_where_long_ones_have_other_laws(tiny, monkeypatch):
    model = tiny[1]
    assert model._at_a_pass > 1
    row = model.begin(model.encode(" a b. a b a b b a", markers=False)), 1
    long = model.next_laws([row])
    monkeypatch.setattr(model, "_at_a_pass", 1)
    model.forget_prompts()
    np.testing.assert_array_equal(model.next_laws([row]), long)
    calls = count()
    monkeypatch.setattr("lmppl.lm.llama_cpp.model.log_softmax", lambda logits, axis: logits + next(calls))
    assert type(model)(model._weights)._at_a_pass == 1


def test_its_laws_are_those_of_the_network(tiny):
    network, model = tiny
    tokens = model.begin(model.encode(" a b. a\n b a", markers=False))
    np.testing.assert_allclose(model.next_laws([(tokens, 1)])[0], law_of(network, tokens), atol=NEAR)


def test_several_ends_are_one(tmp_path):
    pytest.importorskip("llama_cpp")
    network, model = written(tmp_path / "m.gguf", ends=("<|im_end|>", "<|fim_pad|>"))
    assert [model.pieces([end]) for end in model.tokenizer.ends] == [["</s>"], ["<|im_end|>"]]
    tokens = model.begin(model.encode(" a", markers=False))
    expected = law_of(network, tokens)[-1]
    (law,) = model.next_laws([(tokens, len(tokens))])[0]
    assert law[0] == pytest.approx(np.logaddexp(expected[0], expected[2]), abs=NEAR)
    assert law[2] == -np.inf < law[3]


def test_texts_are_written_as_they_stand_inside_others(tiny):
    model = tiny[1]
    pieces = {text: model.pieces(model.encode(text, markers=False)) for text in (" a", "a", "▁a", "</s>", "")}
    assert pieces[" a"] == [" a"]
    assert pieces["a"] == ["a"]
    assert pieces["▁a"] == ["<0xE2>", "<0x96>", "<0x81>", "a"]
    assert pieces[""] == []
    assert "".join(pieces["</s>"]) == "</s>" != pieces["</s>"][0]
    assert model.encode("</s>", markers=True) == (model.end,)
    assert model.pieces(model.encode("a b", markers=True, opening=True)) == [" a", " b"]


def test_a_program_has_the_evidence_of_the_network(folder):
    pytest.importorskip("llama_cpp")
    network, model = written(folder / "m.gguf")
    row = lmppl.compile(folder / "p.lm").infer("exact").rows[0]
    opening = model.begin(model.encode(" a", markers=True, opening=True))
    allowed = [(n,) for n, piece in enumerate(model.token_bytes) if piece and not {*piece} - {*b" ab"}]
    (b,) = model.encode(" b", markers=False)
    first = law_of(network, opening)[-1]
    joint = [first[z[0] if z else model.end] + law_of(network, (*opening, *z))[-1][b] for z in [(), *allowed]]
    total = np.logaddexp.reduce(joint)
    assert row.log_evidence == pytest.approx(total, abs=NEAR)


def broken():
    """What is done to a whole file, or how another is written."""
    import tiny_gguf

    def cut(size):
        return lambda whole: whole[:size]

    def wrong(mark, behind):
        def write(whole):
            place = whole.index(mark) + behind
            return whole[:place] + b"\xff" * 4 + whole[place + 4 :]

        return write

    return {
        "cut": cut(-10_000), "cut in its head": cut(3000), "cut at its beginning": cut(20),
        "another version": wrong(b"GGUF", 4), "no end of tensors": wrong(b"GGUF", 8),
        "a shape": wrong(b"blk.1.ffn_up", 24),
        "no tensor": {"leave_out": ("blk.0.attn_q.weight",)},
        "no bytes": {"pieces": tiny_gguf.vocabulary(byte_tokens=range(9))},
        "a token twice": {"pieces": [(p.replace("▁a", "▁b"), kind) for p, kind in tiny_gguf.vocabulary()]},
    }  # fmt: skip


LATER = (
    "cut in its head", "cut at its beginning", "another version", "no end of tensors", "a shape", "no bytes",
    "no tensor", "a token twice",
)  # fmt: skip


@pytest.mark.parametrize("what", ["cut", *(pytest.param(name, marks=pytest.mark.slow) for name in LATER)])
def test_damaged_files_are_findings_and_nothing_is_printed(folder, capfd, what):
    pytest.importorskip("llama_cpp")
    import tiny_gguf

    change = broken()[what]
    tiny_gguf.write(folder / "m.gguf", **({} if callable(change) else change))
    if callable(change):
        (folder / "m.gguf").write_bytes(change((folder / "m.gguf").read_bytes()))
    finding = said(folder)
    assert finding.code == "bad-gguf"
    assert ("breaks down" in finding.found) == (what == "a token twice")
    assert capfd.readouterr() == ("", "")


def test_a_device_that_llama_cpp_has_not_is_said(tiny, tmp_path):
    if libraries.library().c.llama_supports_gpu_offload():
        pytest.skip("llama.cpp was built for a GPU")
    with pytest.raises(LmpplError, match="built without support"):
        written(tmp_path / "m.gguf", "cuda")


# --- on the default model's own file --------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2_gguf():
    pytest.importorskip("llama_cpp")
    from lmppl.engines.contract import quiet
    from lmppl.lm.transformers import models

    return loaded(models.ensure_gguf(models.ALIASES["smollm2-135m"], quiet))


@pytest.mark.model
@pytest.mark.parametrize("law", language_model_laws, ids=lambda law: law.__name__)
def test_the_default_model_keeps_the_laws(law, smollm2_gguf):
    law(smollm2_gguf, EXACT)


@pytest.mark.model
def test_texts_of_the_default_model_are_split_as_transformers_splits_them(smollm2_gguf, smollm2):
    for text in ("The year 1984, it's  a test\n\n", " naïve — “quoted” 東京 🙂", "<|im_start|>user", "\t x\r\n"):
        for markers in (True, False):
            assert smollm2_gguf.encode(text, markers=markers) == smollm2.encode(text, markers=markers)
    assert smollm2_gguf.token_bytes[:1000] == smollm2.token_bytes[:1000]
    assert smollm2_gguf.begin(()) == smollm2.begin(())


@pytest.mark.model
def test_its_laws_are_those_of_the_dequantised_model_within_noise(smollm2_gguf, smollm2):
    prompt = smollm2.begin(smollm2.encode("The weather in the north of the country", markers=True))
    text = smollm2.encode(" is often quite different from that in the south.", markers=False)
    (mine,), (other,) = (model.laws(prompt, [text], [0]) for model in (smollm2_gguf, smollm2))
    there = mine.isfinite()  # but for the tokens that are ends to llama.cpp alone
    apart = (other.exp() * (other - mine)).where(there, 0).sum(-1)  # KL, nats a token
    assert 0 < float(apart.mean()) < NOISE
    score, expected = (model.score(prompt, [text], [0])[0] for model in (smollm2_gguf, smollm2))
    assert np.abs(score - expected).mean() < 0.2


NOISE = 0.01  # nats a token
