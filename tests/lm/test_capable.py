"""The capable model, where it is in the cache already: `make capable`. It is too large to be fetched for a test."""

import numpy as np
import pytest
from test_chat import CONVERSATIONS, applied, prompt_of

import lmppl
from lmppl.lm.transformers import models, wheels

NAME = "qwen2.5-coder-1.5b"
TEXTS = (
    "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n",
    "def f(x):\n\treturn x**2  # 12345\n\n\n",
    "Zwölf größere Übel — «naïve» 你好 🙂 don't WE'LL 3.14 1,000",
)
pytestmark = [pytest.mark.model, pytest.mark.capable]


def loaded(identifier, options=""):
    return lmppl.compile(f'lm LM = "{identifier}"{options}\nZ ~ LM("a") max 1\n').bind().models["LM"]


@pytest.fixture(scope="module")
def capable():
    if next(entry for entry in models.list_models() if entry.alias.name == NAME).state != "ready":
        pytest.skip(f"{NAME} is not in the cache")
    return loaded(NAME, ' (dtype = "bfloat16")')


@pytest.fixture(scope="module")
def quantised(capable):
    pytest.importorskip("llama_cpp")
    return loaded(f"llama.cpp:{NAME}")


def test_its_file_is_the_one_that_was_published(capable):
    alias = models.find_alias(NAME)
    assert wheels.content(models.cache_folder() / f"{NAME}.gguf") == alias.gguf_sha256
    assert models.checksum(models.cache_folder() / NAME) == alias.gguf_sha256


def test_it_answers_a_chat_and_ends_its_turn(capable):
    asked = "<|im_start|>user\nWhat is the capital of France? One word.<|im_end|>\n<|im_start|>assistant\n"
    stream = capable.stream(capable.begin(capable.encode(asked, markers=True, opening=True)), [()])
    said = []
    while len(said) < 4 and (not said or said[-1] != capable.end):
        said.append(int(stream.log_probs().argmax()))
        stream.push(np.array(said[-1:]))
    assert capable.decode(said[:-1]).strip(".") == "Paris"
    assert said[-1] == capable.end


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_tokens_of_turns_are_those_of_its_template(capable, name):
    turns = CONVERSATIONS[name]
    assert prompt_of(capable, turns) == applied(capable, turns, None)


def test_both_ways_to_end_a_text_are_one_event(capable):
    """As in the model that was published; the file names the first alone."""
    ends = [*capable.encode("<|im_end|>", markers=True), *capable.encode("<|endoftext|>", markers=True)]
    stream = capable.stream(capable.encode("Yes.", markers=True), [()])
    law = stream.log_probs()[0].double().numpy()
    assert capable.end == ends[0]
    assert law[ends[1]] == -np.inf
    np.testing.assert_allclose(np.exp(law).sum(), 1, atol=1e-4)


@pytest.mark.parametrize("text", TEXTS)
def test_its_tokens_are_those_of_llama_cpp(capable, quantised, text):
    for markers in (True, False):
        assert capable.encode(text, markers=markers) == quantised.encode(text, markers=markers)


def test_its_laws_are_near_those_of_llama_cpp_on_the_same_file(capable, quantised):
    """What parts them: llama.cpp rounds activations to 8 bits, and this one weights and activations to bfloat16."""
    prompt = capable.begin(capable.encode(TEXTS[0], markers=True, opening=True))
    text = capable.encode("There are twelve eggs in the box, and three of them are broken.", markers=False)
    ours, theirs = (model.laws(prompt, [text], [0])[0].double().numpy() for model in (capable, quantised))
    with np.errstate(invalid="ignore"):
        kl = np.where(np.isfinite(theirs), np.exp(ours) * (ours - theirs), 0).sum(-1)
    assert kl.mean() < 0.03
