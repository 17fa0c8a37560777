"""Models that are shown conversations: the template that a declaration asks for, and where turns
end.
"""

from __future__ import annotations

from pathlib import Path

from lmppl import ir
from lmppl.errors import LmpplError
from lmppl.findings import chat as findings
from lmppl.lm.chat import ChatTemplate, TemplateProblem
from lmppl.lm.declared import LM_OPTIONS
from lmppl.lm.protocol import LanguageModel
from lmppl.storage import of_value


def talk(model: LanguageModel, declaration: ir.ModelDeclaration, folder: Path) -> None:
    """Let a model write conversations as its declaration asks, and end its texts where turns end.

    folder: where relative paths start. Raises LmpplError.
    """
    chat = chat_template(model.chat, declaration, folder)
    model.chat = chat
    if chat is not None and (token := turn_end(model)) is not None:
        model.end_also(token)


def chat_template(
    own: ChatTemplate | None, declaration: ir.ModelDeclaration, folder: Path
) -> ChatTemplate | None:
    """The template of a declaration. own: the model's. Raises LmpplError."""
    chat = own
    if declaration.template is not None:
        names = own.variables if own is not None else {}
        text = _read(declaration.template, folder)
        chat = ChatTemplate(text, names, declaration.template)
    variables = dict(declaration.variables)
    if chat is None:
        if variables:
            name = next(iter(variables))
            raise LmpplError(findings.unread_variable(declaration.name, name, LM_OPTIONS))
        return None
    try:
        unread = chat.unread(variables)
    except TemplateProblem as problem:
        said = problem.problem, problem.line, chat.file
        raise LmpplError(findings.template_refuses(declaration.name, *said)) from None
    if unread:
        known = [*LM_OPTIONS, *chat.reads]
        raise LmpplError(findings.unread_variable(declaration.name, unread[0], known))
    return chat.with_variables(variables)


def _read(path: str, folder: Path) -> str:
    try:
        return (folder / path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as reason:
        raise LmpplError(findings.bad_template_file(path, str(reason))) from None


def chat_fingerprint(declaration: ir.ModelDeclaration, folder: Path) -> dict[str, str]:
    """What a declaration changes of how conversations are written, by content; nothing where it is
    nothing. Raises LmpplError.
    """
    if not any(declaration.talk):
        return {}
    text = None if declaration.template is None else _read(declaration.template, folder)
    return {"chat": of_value([text, sorted(declaration.variables)])[:16]}


def turn_end(model: LanguageModel) -> int | None:
    """The marker that a model's template writes behind what an assistant says; None where it writes
    none.
    """
    closing = model.chat.closing.lstrip() if model.chat is not None else ""
    marked, plain = (model.encode(closing, markers=markers) for markers in (True, False))
    if not marked or (marked[0] != model.end and marked[:1] == plain[:1]):
        return None
    return marked[0]
