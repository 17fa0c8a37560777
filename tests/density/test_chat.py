"""Conversations as contexts: tokens are those of `apply_chat_template`, whatever family the template is of."""

import chat_templates
import pytest
import tiny

from lmppl import LmpplError
from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.density.binding import bind
from lmppl.errors import raise_errors
from lmppl.lm import talk
from lmppl.source import Source

FORMS = tuple(chat_templates.TEMPLATES)
CONVERSATIONS = {
    "a question": ["user X"],
    "a system": ["system S", "user X"],
    "turns": ["user X", "assistant Y", "user S"],
    "turns behind a system": ["system X", "user Y", "assistant S", "user X"],
    "a beginning": ["user X", "assistant S"],
    "texts": ['user "the cat on: which?\\n{X}"', "assistant Y", 'user "One word."'],
}
VALUES = {"X": "the cat sat on the mat", "Y": "Yes.", "S": "One word: which"}
OPTIONS = {"llama3": ' (date_string = "26 Jul 2024")', "thinking": " (thinking = false)"}


@pytest.fixture(scope="module", params=FORMS)
def form(request):
    return request.param


@pytest.fixture(scope="module")
def model(form):
    return talker(form)


def talker(form):
    chosen = chat_templates.tokenizer(form)
    return tiny.model(chosen=chosen, ends=("</s>",), window=1000)


def bound(model, turns, values=VALUES, form=None, rest="max 3 tokens", extra=""):
    """The target of a program with one latent behind a conversation, and what binding found."""
    text = f'lm LM = "tiny"{OPTIONS.get(form, "")}\ngiven X, Y, S\n{extra}Z ~ LM({", ".join(turns)}) {rest}\n'
    analysis = analyse(Source("chat.lm", text), ".")
    raise_errors([one for one in analysis.findings if one.severity == "error"])
    program = analysis.program
    talk(model, program.models[0], ".")
    return bind(program, {"LM": model}, Row(values, {}))


def prompt_of(model, turns, **options):
    return bound(model, turns, **options)[0].latent("Z").terms[0].context.prompt


def applied(model, turns, form, values=VALUES, opened=None):
    """What transformers makes of the same conversation."""
    messages = []
    for turn in turns:
        role, said = turn.split(" ", 1)
        content = said[1:-1].replace("{X}", values["X"]).replace("\\n", "\n") if said.startswith('"') else values[said]
        messages.append({"role": role, "content": content})
    last = messages[-1]["role"] == "assistant"
    options = {"llama3": {"date_string": "26 Jul 2024"}, "thinking": {"enable_thinking": False}}.get(form, {})
    how = {"continue_final_message": True} if last else {"add_generation_prompt": True}
    return tuple(model.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **how, **options))


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_tokens_are_those_of_the_template(model, form, name):
    turns = CONVERSATIONS[name]
    if not chat_templates.TEMPLATES[form][2] and turns[0].startswith("system"):
        with pytest.raises(LmpplError) as refused:
            bound(model, turns, form=form)
        assert refused.value.diagnostics[0].code == "chat-template"
        assert "support" in refused.value.diagnostics[0].found  # in the template's own words
        return
    assert prompt_of(model, turns, form=form) == applied(model, turns, form)
