"""Checks of texts: tokens and back, markers in data, conversations."""

from __future__ import annotations

from lmppl.doctor.check import Check
from lmppl.doctor.found import CannotTell, Measured
from lmppl.doctor.levels import SHARE
from lmppl.doctor.patient import QUESTION, Patient
from lmppl.errors import LmpplError
from lmppl.lm import TemplateProblem

HARD = ("naïve café", "  two  spaces ", "\n\n\ttab", "1234567", "你好 🙂", "{x} == 'y'")
ANSWER = "Paris is the answer"


def _there_and_back(patient: Patient) -> Measured:
    model = patient.model
    texts = [model.decode(text) for text in patient.texts]
    known = [text for text in texts if "�" not in text]
    pieces = model.token_bytes
    if pieces is not None and len({piece for piece in pieces if len(piece) == 1}) >= 256:
        known += HARD
    if not known:
        raise CannotTell("no text that was drawn is whole characters")
    lost = [text for text in known if model.decode(model.encode(text, markers=False)) != text]
    said = f"{len(known) - len(lost)} of {len(known)} texts come back from their tokens"
    if lost:
        said += f", and {lost[0]!r:.60} does not"
    return Measured(len(lost) / len(known), "share", said, SHARE)


def _markers_in_data(patient: Patient) -> Measured:
    model = patient.model
    (name,) = model.pieces([model.end])
    if model.encode(name, markers=True) != (model.end,):
        raise CannotTell("the end token has no name that can be written")
    try:
        tokens = model.encode(name, markers=False)
    except LmpplError:  # a tokenizer of few pieces cannot spell it: it is no marker then
        tokens = ()
    read = float(model.end in tokens)
    said = f"{name!r} in data is {'the end token' if read else f'{len(tokens)} plain tokens'}"
    return Measured(read, "share", said, SHARE)


def _conversations(patient: Patient) -> Measured:
    """What a template writes of a question and its answer begins with what it writes before the
    answer, and holds no turn more.
    """
    chat = patient.model.chat
    if chat is None:
        raise CannotTell("the model comes without a chat template")
    asked, answered = [("user", QUESTION)], [("user", QUESTION), ("assistant", ANSWER)]
    try:
        opened = chat.render(asked, opened=True)
        whole = chat.render(answered, opened=False)
    except TemplateProblem as problem:
        return Measured(1, "share", f"the template refuses a question: {problem}", SHARE)
    wrong = []
    if not whole.startswith(opened + ANSWER):
        wrong.append("an answer does not follow where its turn is opened")
    if not chat.closing.strip():
        wrong.append("nothing is written behind an answer, so that no token ends it")
    if opened.count(QUESTION) != 1:
        wrong.append("the question is not there once")
    said = "; ".join(wrong) or "an answer follows where its turn is opened, and is closed"
    return Measured(len(wrong) / 3, "share", said, SHARE)


CHECKS = (
    Check(
        "there and back", "do texts come back from their tokens?", _there_and_back,
        "Values that a program writes are read otherwise by the model.",
        "Use the tokenizer that the model was trained with (`tokenizer = …` of a served model).",
    ),
    Check(
        "markers in data", "do markers in data stay plain text?", _markers_in_data,
        "Data can end a text or begin a turn: whoever writes the data writes the prompt.",
        "Tokenise data without special tokens, or send token ids.",
    ),
    Check(
        "conversations", "does the chat template write a question and its answer as they are?",
        _conversations,
        "Conversations are scored as other texts than those that they are drawn as.",
        "Give another template: lm LM = \"…\" (template = \"own.jinja\").",
    ),
)  # fmt: skip
