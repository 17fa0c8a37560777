"""Contexts: what the model sees, token by token."""

import pytest
import tiny

import lmppl
from lmppl.data.rows import Row
from lmppl.density.binding import bind


@pytest.fixture(scope="module")
def model():
    return tiny.model(words=(" a", " b", ".", " ", "{", "}", "a"))


def seen(model, text, state, **givens):
    """Text of the context that the last statement's model sees, the prompt's part and the rest."""
    program = lmppl.compile(f'lm LM = "x"\n{text}').program
    target, _ = bind(program, {"LM": model}, Row(givens, {}))
    view = target.spelling.view(state)
    term = list(target._scored.values())[-1].terms[0]
    return model.decode(term.context.prompt), model.decode(term.context.suffix(view.texts, view.tokens))


def test_a_template_keeps_the_tokens_of_latents(model):
    text = 'given X\nZ ~ LM(" a") max 3\nobserve " b" ~ LM(" b{X}.{Z}.")'
    assert seen(model, text, {"Z": (0, 1)}, X=" a") == (" b a.", " a b.")


def test_items_are_joined_by_one_space_where_there_is_none(model):
    text = 'given X\nZ ~ LM(" a") max 3\nobserve " b" ~ LM(X, Z, ".")'
    assert seen(model, text, {"Z": (6,)}, X="a") == ("a", " a .")
    assert seen(model, text, {"Z": (0,)}, X="a") == ("a", " a .")  # Z begins with a space of its own
    assert seen(model, text, {"Z": (6,)}, X="a ") == ("a ", "a .")
    assert seen(model, text, {"Z": ()}, X="a") == ("a", " .")  # nothing to join on one side
    assert seen(model, text, {"Z": ()}, X="") == ("<end>", ".")


def test_braces_in_data_are_data(model):
    text = 'given X\nZ ~ LM(" a") max 3\nobserve " b" ~ LM("{{{X}}}{Z}")'
    prompt, rest = seen(model, text, {"Z": (0,)}, X="{}")
    assert (prompt, rest) == ("{{}}", " a")


def test_a_context_that_begins_with_a_latent_has_a_beginning(model):
    text = 'Z ~ LM(" a") max 3\nobserve " b" ~ LM(Z)'
    assert seen(model, text, {"Z": (1, 2)}) == ("<end>", " b.")


@pytest.mark.parametrize(
    ("context", "stem"),
    [('"@{X}.{Z}."', "@"), ('"@.", X, Z', "@."), ('"@{Z}{X}"', ""), ('"@"', ""), ('"{X}@{Z}"', "")],
    ids=["in a template", "in items", "a latent follows", "no more", "a given is first"],
)
def test_what_all_rows_begin_with_is_the_stem_of_their_prompts(context, stem):
    model = tiny.model(bos=True)
    many = " a b" * 10
    text = f'given X\nZ ~ LM(" a") max 3\nobserve " b" ~ LM({context.replace("@", many)})'
    for given in (" a", "."):
        target, _ = bind(lmppl.compile(f'lm LM = "x"\n{text}').program, {"LM": model}, Row({"X": given}, {}))
        found = model.stem(list(target._scored.values())[-1].terms[0].context.prompt)
        assert model.decode(found) == (f"<start>{stem.replace('@', many)}" if stem else "")
