"""GGUF files that llama.cpp runs: the laws of models, the network's own numbers, and what is said of broken files."""

import sys

import numpy as np
import pytest

import lmppl
from lmppl.errors import LmpplError
from lmppl.lm import BY_LAWS, capabilities_of
from lmppl.lm.llama_cpp import library as libraries
from lmppl.lm.llama_cpp.load import load_ggufs
from lmppl.testing import language_model_laws

PROGRAM = 'lm LM = "llama.cpp:m.gguf"\nZ ~ LM(" a") max 2\nconstrain matches(Z, /[ ab]*/)\nobserve " b" ~ LM(" a{Z}")\n'
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
    allowed = [n for n, piece in enumerate(model.token_bytes) if piece and not {*piece} - {*b" ab"}]
    (b,) = model.encode(" b", markers=False)
    total = -np.inf
    first = law_of(network, opening)[-1]
    for one in [(), *((n,) for n in allowed)]:
        p = first[model.end] if not one else first[one[0]]
        after = law_of(network, (*opening, *one))[-1]
        for two in [None] if not one else [None, *allowed]:
            z = one if two is None else (*one, two)
            q = 0.0 if not one else after[model.end] if two is None else after[two]
            total = np.logaddexp(total, p + q + law_of(network, (*opening, *z))[-1][b])
    assert row.log_evidence == pytest.approx(total, abs=NEAR)


def test_damaged_files_are_findings_and_nothing_is_printed(folder, capfd):
    pytest.importorskip("llama_cpp")
    import tiny_gguf

    tiny_gguf.write(folder / "whole.gguf")
    whole = (folder / "whole.gguf").read_bytes()
    name = whole.index(b"blk.1.ffn_up")
    broken = [whole[:size] for size in (20, 3000, len(whole) - 10_000)]
    broken += [whole[:place] + b"\xff" * 4 + whole[place + 4 :] for place in (4, 8, 16, name, name + 24)]
    for content in broken:
        (folder / "m.gguf").write_bytes(content)
        assert said(folder).code == "bad-gguf"
    for options in ({"leave_out": ("blk.0.attn_q.weight",)}, {"pieces": tiny_gguf.vocabulary(byte_tokens=range(9))}):
        tiny_gguf.write(folder / "m.gguf", **options)
        assert said(folder).code == "bad-gguf"
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
