"""Conversations as contexts: tokens are those of `apply_chat_template`, whatever family the template is of."""

import random
from dataclasses import replace

import chat_templates
import pytest
import tiny

from lmppl import LmpplError, ir
from lmppl.compile import analyse
from lmppl.data.rows import Row, make_rows
from lmppl.density.binding import bind
from lmppl.errors import raise_errors
from lmppl.expressions import Record
from lmppl.lm import ChatTemplate, talk, turn_end
from lmppl.lm.conversations import chat_fingerprint
from lmppl.source import Source, Span

MARKERS = ["<|im_end|>", "<|im_start|>", "</s>", "<s>", "{{", "}}", "{% raw %}", "\n", " ", "Value0of00000", "ok", "é"]
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


@pytest.mark.model
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_tokens_are_those_of_the_default_model(smollm2, name):
    turns = CONVERSATIONS[name]
    assert prompt_of(smollm2, turns) == applied(smollm2, turns, None)


def finding(code, form, turns, model=None, **options):
    with pytest.raises(LmpplError) as refused:
        bound(model or talker(form), turns, form=form, **options)
    (found,) = [one for one in refused.value.diagnostics if one.severity == "error"]
    assert found.code == code
    assert found.source is not None
    return found


def test_ends_of_turns_end_texts(model, form):
    bound(model, ["user X"], form=form)
    names = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "phi3": "<|end|>"}
    end = model.tokenizer.convert_tokens_to_ids(names.get(form, "</s>" if form == "mistral" else "<|im_end|>"))
    assert turn_end(model) == end
    assert {end, model.end} <= {*model.ends}


def test_a_template_that_takes_away_what_a_turn_says_is_refused():
    turns = ['user "{X}"', 'assistant "<think>{Y}</think> {S}"', "user X"]
    found = finding("template-alters", "thinking", turns)
    assert "assistant" in found.message
    assert found.found == "'<think>{Y}</think> {S}'"  # words that stand for values are nobody's business


def test_white_space_that_a_template_takes_away_is_said():
    _, found = bound(talker("gemma"), ['user " {X}\\n"'])
    (said,) = [one for one in found if one.code == "template-trims"]
    assert "`user`" in said.message


@pytest.mark.parametrize(("form", "turns", "value", "said"), [
    ("gemma", ["user X"], "a\n", True),
    ("gemma", ["user X"], " a", True),
    ("gemma", ['user "{X} and {Y}"'], "a ", False),  # within a turn, it stays
    ("gemma", ['user "{X} and {Y}"'], " a", True),
    ("gemma", ["user Y", "assistant X", "user Y"], "a ", True),
    ("chatml", ["user X"], " a\n", False),  # it is written as it is
    ("gemma", ["user X"], "a b", False),
])  # fmt: skip
def test_white_space_of_data_that_a_template_would_take_away_is_said(form, turns, value, said):
    model = talker(form)
    target, found = bound(model, turns, values={**VALUES, "X": value})
    assert [one.message.split()[0] for one in found if one.code == "untrimmed"] == ["`X`"] * said
    if not said:
        context = target.latent("Z").terms[0].context
        messages = [(turn.split(" ")[0], turn.split(" ", 1)[1].strip('"')) for turn in turns]
        names = {**VALUES, "X": value}
        shown = [(role, names.get(text) or text.format(**names)) for role, text in messages]
        assert model.decode(context.prompt) == model.chat.render(shown, opened=True)


def test_white_space_of_worked_rows_is_said(tmp_path):
    text = 'lm LM = "tiny"\ngiven X\nexamples E = 2 from "rows.jsonl" as user X, assistant Y\nZ ~ LM(E, user X) max 3\n'
    (tmp_path / "rows.jsonl").write_text('{"X": "the cat ", "Y": "Yes."}\n{"X": "the mat", "Y": "No."}\n')
    program, model = analyse(Source(str(tmp_path / "p.lm"), text), tmp_path).program, talker("gemma")
    rows, _ = make_rows(program, [Record({"X": "the dog"})], {})
    talk(model, program.models[0], tmp_path)
    found = bind(program, {"LM": model}, rows[0])[1]
    assert [one.code for one in found if one.code == "untrimmed"] == ["untrimmed"]


def test_a_date_is_said_unless_it_is_fixed():
    model = talker("llama3")
    assert "dated-template" in [one.code for one in bound(model, ["user X"])[1]]
    assert "dated-template" not in [one.code for one in bound(talker("llama3"), ["user X"], form="llama3")[1]]


def test_no_template():
    model = tiny.model(words=(*"abcdefghijklmnopqrstuvwxyz ,?.Y{}", *tiny.WORDS[:1]))
    found = finding("no-chat-template", None, ["user X"], model)
    assert "template =" in found.help


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}\n{{ m.content ", "line 2"),
        ("{{ raise_exception('no such role') }}", "no such role"),
        ("{{ messages[0].content.absent() }}", "absent"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_broken_template_is_one_finding(text, said):
    model = talker("chatml")
    model.chat = ChatTemplate(text)
    with pytest.raises(LmpplError) as refused:
        bound(model, ["user X"])
    (found,) = refused.value.diagnostics
    assert found.code in ("chat-template", "template-alters")
    assert said in f"{found.found}"


@pytest.mark.parametrize("form", ["chatml", "mistral"])
def test_markers_in_data_stay_text(form):
    """Whatever a value holds, the prompt reads back as the template around the value, and has as many markers: also
    where the template puts a space in front of it.
    """
    rng = random.Random(0)
    model, turns = talker(form), ["user X", "assistant S", "user X"]
    plain = prompt_of(model, turns)
    special = set(model.tokenizer.all_special_ids)
    for _ in range(200):
        value = "".join(rng.choices(MARKERS, k=rng.randrange(1, 6)))
        tokens = prompt_of(model, turns, values={**VALUES, "X": value})
        assert [t for t in tokens if t in special] == [t for t in plain if t in special]
        if form == "chatml":  # the other one writes a space in front of every text that it reads back
            assert model.decode(tokens) == model.decode(plain).replace(VALUES["X"], value)


WORKED = '{"X": "the cat", "Y": "Yes."}\n{"X": "the mat", "Y": "No."}\n{"X": "the rain", "Y": "Was it?"}\n'


def behind_worked_rows(rows, folder, model):
    """The prompt behind worked rows, in the order that they are shown in, and these."""
    (folder / "rows.jsonl").write_text(rows)
    text = (
        'lm LM = "tiny"\ngiven X\nexamples E = 3 from "rows.jsonl" as user "Is {X}?", assistant Y\n'
        'Z ~ LM(system "One word.", E, user "Is {X}?") max 3 tokens\n'
    )
    program = analyse(Source(str(folder / "p.lm"), text), folder).program
    rows, _ = make_rows(program, [Record({"X": "the dog"})], {})
    talk(model, program.models[0], folder)
    return bind(program, {"LM": model}, rows[0])[0].latent("Z").terms[0].context.prompt, rows[0].worked["E"]


def test_worked_rows_are_turns(tmp_path):
    model = talker("chatml")
    prompt, rows = behind_worked_rows(WORKED, tmp_path, model)
    worked = [turn for row in rows for turn in (("user", f"Is {row['X']}?"), ("assistant", row["Y"]))]
    said = [("system", "One word."), *worked, ("user", "Is the dog?")]
    assert model.decode(prompt) == model.chat.render(said, opened=True)


def test_markers_in_worked_rows_stay_text(tmp_path):
    model = talker("chatml")
    special = set(model.tokenizer.all_special_ids)
    plain, _ = behind_worked_rows(WORKED, tmp_path, model)
    marked, _ = behind_worked_rows(WORKED.replace("No.", "<|im_end|></s>").replace("cat", "<s>"), tmp_path, model)
    assert [t for t in marked if t in special] == [t for t in plain if t in special]
    assert "<|im_end|></s><|im_end|>" in model.decode(marked)


def test_a_template_that_repeats_what_a_turn_says_is_refused():
    """Or has it in the wrong order, or twice: each turn's words stand once."""
    model = talker("chatml")
    for text in (
        "{% for m in messages %}<|im_start|>{{ m.content }}, {{ m.content }}<|im_end|>{% endfor %}",
        "{% for m in messages | reverse %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
        "{{ messages[0].content }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
    ):
        model.chat = ChatTemplate(text)
        with pytest.raises(LmpplError) as refused:
            bound(model, ["user X", "assistant Y", "user S"])
        assert "template-alters" in [one.code for one in refused.value.diagnostics]


def test_a_space_of_the_template_is_not_written_twice():
    """A latent that an assistant says begins with its own space, where a template puts one in front."""
    model = talker("mistral")
    target, _ = bound(model, ["user X"], rest="max 3 tokens\nobserve Y ~ LM(user X, assistant Z, user S)")
    said = model.encode(" Yes.", markers=False)
    (observed,) = target.program.factors
    context = target.scored_text(observed.name).terms[0].context
    tokens = (*context.prompt, *context.suffix({"Z": " Yes."}, {"Z": said}))
    assert tokens == applied(model, ["user X", "assistant Y", "user S"], "mistral")


def test_variables_and_files(tmp_path):
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages %}<s>{{ m.role }}{{ colour }}{{ m.content }}</s>{% endfor %}"
    )
    model = talker("chatml")
    declaration = ir.ModelDeclaration("LM", "x", Span(0, 1), template="own.jinja", variables=(("colour", "!"),))
    talk(model, declaration, tmp_path)
    assert model.chat.render([("user", "a")], opened=True) == "<s>user!a</s>"
    with pytest.raises(LmpplError) as refused:
        talk(model, replace(declaration, variables=(("color", "!"),)), tmp_path)
    assert refused.value.diagnostics[0].help == "did you mean `colour`?"
    assert chat_fingerprint(declaration, tmp_path) != chat_fingerprint(replace(declaration, variables=()), tmp_path)
