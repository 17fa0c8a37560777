"""Findings about a program's text: one constructor each, with what was expected, what was found and
a fix.

Everything here is known without data, models or torch; the rest is in run.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from lmppl.errors import Diagnostic, did_you_mean, error, warning
from lmppl.expressions import Side
from lmppl.ir import ROLES, Apply
from lmppl.source import Source, Span

# --- syntax ---------------------------------------------------------------------------------------


def unterminated_text(source: Source, span: Span) -> Diagnostic:
    """A text that begins with a double quote has none at its end on the same line."""
    help = 'end it with " on the same line; write \\n for a line break and \\" for a quote'
    return error("unterminated-text", "this text has no closing quote", source, span, help=help)


def unterminated_long_text(source: Source, span: Span, line: int | None) -> Diagnostic:
    """A text over several lines has no end. line: of what looks like a statement within an earlier
    one, which then is what has no end; None where there is none.
    """
    help = 'end it with """; within it, write \\""" for three quotes'
    if line is not None:
        help = f'line {line} stands within a text: is the """ missing that should end it above?'
    message = "this text over several lines has no closing quotes"
    return error("unterminated-text", message, source, span, help=help)


def unclosed_bracket(source: Source, span: Span, bracket: str) -> Diagnostic:
    """A statement ends before a bracket is closed. bracket: the one that opens."""
    return error("unclosed-bracket", f"this `{bracket}` is never closed", source, span)


def unopened_bracket(source: Source, span: Span, bracket: str) -> Diagnostic:
    """A bracket is closed that was never opened. bracket: the one that closes."""
    return error("unopened-bracket", f"this `{bracket}` closes nothing", source, span)


def bad_escape(source: Source, span: Span) -> Diagnostic:
    """A string has a backslash before a character that means nothing."""
    found = f"`{source.slice(span)}`" if source.slice(span).isprintable() else "a line break"
    expected = '\\n, \\t, \\r, \\", \\\\ or \\u followed by four hexadecimal digits'
    return error(
        "bad-escape", "there is no such escape", source, span, expected=expected, found=found
    )


def no_character(source: Source, span: Span) -> Diagnostic:
    """A string has half of a surrogate pair."""
    message = "this is half of a surrogate pair, and no character"
    return error(
        "no-character",
        message,
        source,
        span,
        help="write the character itself, or both halves as \\uD83D\\uDE00",
    )


def unexpected(
    source: Source,
    span: Span,
    expected: str,
    found: str,
    statement: str | None,
    help: str | None = None,
) -> Diagnostic:
    """statement: the word that it begins with, where that is not what is unexpected. help: what to
    write instead.
    """
    where = f" in this `{statement}` statement" if statement in STATEMENTS else ""
    if help is None and statement not in STATEMENTS:
        help = did_you_mean_statement(statement or found)
        if statement and help and not help.startswith("did you mean"):
            help = None  # a latent's name is like no statement
    shown = f"`{found}`" if found.strip() else "a line break"
    return error(
        "syntax",
        f"unexpected {shown}{where}",
        source,
        span,
        expected=expected or None,
        found=shown,
        help=help,
    )


def unfinished(source: Source, span: Span, expected: str) -> Diagnostic:
    """A statement ends where something must follow. expected: what."""
    return error(
        "syntax",
        "this statement is not finished",
        source,
        span,
        expected=expected or None,
        found="its end",
    )


def too_deep(source: Source, span: Span, most: int) -> Diagnostic:
    """An expression is nested deeper than is read. most: levels."""
    help = (
        f"split it into several `constrain` or `factor` statements; at most {most} levels are read"
    )
    return error("too-deep", "this expression is nested too deeply", source, span, help=help)


def ending_twice(source: Source, span: Span, kind: str) -> Diagnostic:
    """A text has `until` or `max` twice."""
    return error(
        "written-twice", f"`{kind}` is written twice", source, span, help="keep one of them"
    )


def lone_brace(source: Source, span: Span, brace: str) -> Diagnostic:
    """A template has a brace without its partner."""
    help = f"write {brace}{brace} for a brace, or {{NAME}} for the value of a given or a latent"
    return error("bad-template", f"this `{brace}` has no partner", source, span, help=help)


def bad_placeholder(source: Source, span: Span, content: str) -> Diagnostic:
    """Braces of a template hold something that is no name."""
    help = "write {{ and }} for braces that are text"
    found = f"`{{{content}}}`"
    return error(
        "bad-template",
        "a placeholder holds one name",
        source,
        span,
        expected="{NAME}",
        found=found,
        help=help,
    )


def bad_pattern(source: Source, span: Span, reason: str) -> Diagnostic:
    """A pattern is no regular expression. reason: why not."""
    return error("bad-pattern", f"this is no regular expression: {reason}", source, span)


def unguided(source: Source, span: Span, why: str) -> Diagnostic:
    """A warning: a pattern is beyond what masks can guide draws to. why: what of it."""
    return warning(
        "unguided",
        f"nothing guides the draws to this pattern: {why}",
        source,
        span,
        help=(
            "it is asked of whole texts only; write it without, or say in the prompt what is wanted"
        ),
    )


STATEMENTS = (
    "lm", "given", "param", "text", "use", "examples", "observe", "constrain", "factor", "derive",
    "statistic", "guide", "predict", "infer", "learn",
)  # fmt: skip


def did_you_mean_statement(word: str) -> str | None:
    """The help for a line that begins with a word which is close to a statement's; None where
    none is near.
    """
    return did_you_mean(word, STATEMENTS) if word.isidentifier() else None


# --- names ----------------------------------------------------------------------------------------


def unknown_name(
    source: Source, span: Span, name: str, known: Iterable[str], define: str | None = None
) -> Diagnostic:
    """define: a statement that would define it, where one is likely to be missing."""
    help = did_you_mean(name, known)
    if define is not None and not (help or "").startswith("did you mean"):
        help = f"define it above: {define}" + (f"; {help}" if help else "")
    return error("unknown-name", f"`{name}` is not defined", source, span, help=help)


def used_before(source: Source, span: Span, name: str, line: int) -> Diagnostic:
    """A name is used above its definition. line: of the definition."""
    message = f"`{name}` is used before it exists: it is defined on line {line}"
    return error(
        "used-before-defined", message, source, span, help="move the definition up, or the use down"
    )


def duplicate_name(source: Source, span: Span, name: str, line: int) -> Diagnostic:
    """A name is defined twice. line: of the first definition."""
    message = f"`{name}` is defined twice: first on line {line}"
    return error("duplicate-name", message, source, span, help="give one of them another name")


def own_name(source: Source, span: Span, name: str) -> Diagnostic:
    """A latent stands in its own context."""
    message = f"`{name}` cannot be part of its own context"
    return error(
        "own-context", message, source, span, help="a context holds givens and earlier latents"
    )


def wrong_role(source: Source, span: Span, name: str, role: str, expected: str) -> Diagnostic:
    """A name stands where its kind cannot. role: what it is; expected: what may stand there."""
    message = f"`{name}` is {role}, it cannot stand here"
    return error("wrong-kind-of-name", message, source, span, expected=expected, found=role)


def unused(source: Source, span: Span, name: str, role: str) -> Diagnostic:
    """A warning: nothing uses a name."""
    return warning(
        "unused-name",
        f"`{name}` is {role} that nothing uses",
        source,
        span,
        help="remove it, or use it",
    )


def idle_latent(source: Source, span: Span, name: str) -> Diagnostic:
    """A warning: nothing depends on a latent."""
    return warning(
        "idle-latent",
        f"nothing reads `{name}`: its posterior is its prior",
        source,
        span,
        help=f"observe or constrain something that depends on `{name}`, or `predict {name}`",
    )


# --- latents and contexts -------------------------------------------------------------------------


def no_latent(source: Source) -> Diagnostic:
    """A program has nothing to infer."""
    help = 'write one, such as: Z ~ LM("Once upon a time") max 20 tokens'
    return error(
        "no-latent",
        "the program has no latent: there is nothing to infer",
        source,
        Span(0, 0),
        help=help,
    )


def power_on_choice(source: Source, span: Span, name: str) -> Diagnostic:
    """A choice has a power, which choices do not take."""
    help = "remove the power; to sharpen a choice, add a `factor`"
    return error(
        "power-on-choice", f"the choice `{name}` cannot have a power", source, span, help=help
    )


def product_of_choice(source: Source, span: Span, name: str) -> Diagnostic:
    """A choice has several models."""
    return error(
        "product-of-choice", f"the choice `{name}` has one model, not a product", source, span
    )


def ending_on_choice(source: Source, span: Span, name: str, kind: str) -> Diagnostic:
    """A choice has `until` or `max`, which are of texts."""
    return error(
        "ending-on-choice",
        f"the choice `{name}` cannot have `{kind}`: its options are whole",
        source,
        span,
    )


def empty_choice(source: Source, span: Span, name: str) -> Diagnostic:
    """A choice has no options."""
    return error(
        "empty-choice",
        f"`{name}` has no options to choose from",
        source,
        span,
        expected="at least one option",
    )


def duplicate_option(source: Source, span: Span, option: str) -> Diagnostic:
    """A choice lists an option twice."""
    return error("duplicate-option", f"the option {option!r} is listed twice", source, span)


def empty_option(source: Source, span: Span) -> Diagnostic:
    """An option is the empty text."""
    return error(
        "empty-option", "an option cannot be empty: it has no tokens to score", source, span
    )


def glued_option(source: Source, span: Span, option: str) -> Diagnostic:
    """A warning: an option begins right after its context, without white space."""
    return warning(
        "glued-option",
        (
            f"the option {option!r:.80} starts right after the context, with no white space "
            f"between "
            f"them"
        ),
        source,
        span,
        help="most tokenizers put the space in front of a word: begin the option with a space",
    )


def empty_until(source: Source, span: Span) -> Diagnostic:
    """`until` is the empty text."""
    return error("empty-until", '`until ""` would end every text before it began', source, span)


def _shorten(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def until_end_token(source: Source, span: Span, text: str) -> Diagnostic:
    """A warning: `until` holds a token that ends texts by itself."""
    return warning(
        "until-end-token",
        (
            f"{text!r} ends the texts of many models by itself: where it is the end token, no text "
            f"holds it"
        ),
        source,
        span,
        help="leave `until` out: a text ends with the end token by itself",
    )


def bad_maximum(source: Source, span: Span, found: str) -> Diagnostic:
    """`max` is no whole number of tokens."""
    expected = "a whole number of tokens, at least 1"
    shown = _shorten(found, 40)
    return error(
        "bad-max",
        f"`max {shown}` is no number of tokens",
        source,
        span,
        expected=expected,
        found=shown,
    )


def unknown_tool(source: Source, span: Span, name: str, known: Iterable[str]) -> Diagnostic:
    """There is no tool of this name. known: those there are."""
    return error(
        "unknown-tool", f"there is no tool `{name}`", source, span, help=did_you_mean(name, known)
    )


def no_tool(source: Source, span: Span, name: str, expected: str) -> Diagnostic:
    """A Python function cannot be a tool. expected: how many arguments it takes."""
    message = f"`{name}` cannot be a tool: it takes {expected} arguments, not the text so far alone"
    return error("no-tool", message, source, span, expected="a Python function of one text")


def no_trigger(source: Source, span: Span, name: str) -> Diagnostic:
    """A tool has no trigger."""
    help = f'say what it waits for, such as: with {name}(trigger = "[")'
    return error(
        "no-trigger", f"`{name}` has no trigger: it would never write", source, span, help=help
    )


def trigger_twice(source: Source, span: Span, trigger: str) -> Diagnostic:
    """Two tools of a text wait for the same trigger."""
    message = f"another tool of this text waits for {trigger!r} already"
    return error("trigger-twice", message, source, span, help="give one of them another trigger")


def unknown_tool_option(
    source: Source, span: Span, tool: str, name: str, known: Iterable[str]
) -> Diagnostic:
    """A tool has no option of this name. known: those it has."""
    message = f"`{tool}` has no option `{name}`"
    return error("unknown-tool-option", message, source, span, help=did_you_mean(name, known))


def bad_tool_option(source: Source, span: Span, name: str, expected: str, found: str) -> Diagnostic:
    """A tool's option has a value that it cannot have."""
    return error(
        "bad-tool-option",
        f"`{name}` cannot be {found}",
        source,
        span,
        expected=expected,
        found=found,
    )


def trailing_space(source: Source, span: Span, name: str) -> Diagnostic:
    """A warning: the text before a latent ends in a space."""
    return warning(
        "trailing-space",
        f"the text before `{name}` ends in a space",
        source,
        span,
        help=(
            "remove the space: most tokenizers put it in front of the next word, as part of its "
            "token"
        ),
    )


def bad_power(source: Source, span: Span, value: float) -> Diagnostic:
    """A power is infinite or no number."""
    return error("bad-power", "this power is not a finite number", source, span, found=f"{value:g}")


def zero_power(source: Source, span: Span) -> Diagnostic:
    """A power is 0, so that its model counts for nothing."""
    return error(
        "zero-power",
        "a power of 0 takes the model out of the density",
        source,
        span,
        help="remove the term",
    )


def bad_weight(source: Source, span: Span, value: float) -> Diagnostic:
    """A weight of a mixture is not positive."""
    message = "this weight is no positive number"
    return error("bad-weight", message, source, span, found=f"{value:g}")


def power_in_mixture(source: Source, span: Span) -> Diagnostic:
    """A part of a mixture has a power."""
    message = "a part of a mixture has no power: a mean of powers is no law"
    help = "write its share in front: mix(0.7 * A(C), 0.3 * B(C))"
    return error("power-in-mixture", message, source, span, help=help)


def flat_power(source: Source, span: Span, name: str, total: float) -> Diagnostic:
    """Powers of a text add up to 0 or less. total: their sum."""
    return error(
        "flat-prior",
        (
            f"the powers of `{name}` add up to {total:g}: long texts would lose no density, so it "
            f"cannot be normalised"
        ),
        source,
        span,
        expected="powers with a sum above 0",
        found=f"{total:g}",
    )


def no_value(source: Source, span: Span, reason: str) -> Diagnostic:
    """A number that must be known before inference cannot be worked out. reason: why, such as a
    division by 0.
    """
    return error("no-value", f"this has no value: {reason}", source, span)


def not_constant(source: Source, span: Span, name: str) -> Diagnostic:
    """A power or an option reads a name whose value is known only when the program is run."""
    expected = "numbers and params that are defined above"
    return error(
        "not-constant", f"`{name}` is not known before inference", source, span, expected=expected
    )


# --- observations, guides, predictions ------------------------------------------------------------


def observing_a_latent(source: Source, span: Span, name: str) -> Diagnostic:
    """`observe` stands before a name that the program draws."""
    return error(
        "observing-a-latent",
        f"`{name}` is a latent: it is drawn, not observed",
        source,
        span,
        help=(
            f"observe a `given`; a data row that has a value for `{name}` makes it observed for "
            f"that row"
        ),
    )


def which_lm(source: Source, span: Span, names: list[str]) -> Diagnostic:
    """An observation names no model, and the program has none or several. names: of its models."""
    message = "`observe … | …` needs exactly one `lm` in the program"
    fix = (
        f"say which: observe Y ~ {names[0]}(…)" if names else 'declare one: lm LM = "smollm2-135m"'
    )
    return error(
        "which-lm", message, source, span, expected="one `lm`", found=str(len(names)), help=fix
    )


def second_guide(source: Source, span: Span, name: str) -> Diagnostic:
    """A latent has two `guide` statements. name: of the latent."""
    return error(
        "second-guide", f"`{name}` has a guide already", source, span, help="keep one of them"
    )


def second_infer(source: Source, span: Span) -> Diagnostic:
    """A program has two `infer` statements. span: of the second."""
    return error(
        "second-infer",
        "the program names its engine already",
        source,
        span,
        help="keep one of them",
    )


def unknown_engine(source: Source, span: Span, name: str, known: Iterable[str]) -> Diagnostic:
    """`infer` names an engine that does not exist. known: those that do."""
    return error(
        "unknown-engine",
        f"there is no engine `{name}`",
        source,
        span,
        help=did_you_mean(name, known),
    )


# --- expressions ----------------------------------------------------------------------------------


OTHER_NAMES = {  # of functions, elsewhere
    "len": "write chars(Z), words(Z), lines(Z) or tokens(Z)",
    "length": "write chars(Z), words(Z), lines(Z) or tokens(Z)",
    "float": "write number(Z)",
    "int": "write number(Z)",
    "fullmatch": "write matches(Z, /…/)",
    "search": "write matches(Z, /.*….*/), or group(Z, /(…)/) for what is found",
    "extract": 'write group(Z, /(…)/), after(Z, "…") or field(Z, "…")',
    "trim": "write strip(Z)",
    "exists": "write present(A)",
}


def unknown_function(source: Source, span: Span, name: str, known: Iterable[str]) -> Diagnostic:
    """An expression calls a function that neither the language has nor a `use` brings. known: those
    that there are.
    """
    help = OTHER_NAMES.get(name) or did_you_mean(
        name, [function for function in known if function[0].isalpha()]
    )
    return error("unknown-function", f"there is no function `{name}`", source, span, help=help)


def wrong_arity(source: Source, span: Span, name: str, expected: str, found: int) -> Diagnostic:
    """A function is called with too few or too many arguments. expected: how many it takes, in
    words; found: how many are there.
    """
    message = f"`{name}` takes {expected} argument{'' if expected == '1' else 's'}"
    return error("wrong-arity", message, source, span, expected=expected, found=str(found))


def wrong_type(
    source: Source, span: Span, what: str, expected: str, found: str, help: str | None = None
) -> Diagnostic:
    """An argument or a whole expression is of another kind than what must stand there. what:
    which one; expected, found: kinds, such as "text" or "number".
    """
    return error(
        "wrong-type",
        f"{what} must be a {expected}",
        source,
        span,
        expected=expected,
        found=found,
        help=help,
    )


def bad_path(source: Source, span: Span, rest: str) -> Diagnostic:
    """The path of `field` is none. rest: what of it cannot be read."""
    help = 'names are parted by dots, places in a list stand in brackets: "a.b[0]"'
    message = f"it cannot be read from `{_shorten(rest)}` on" if rest else "it is empty"
    return error("bad-path", f"this is no path: {message}", source, span, help=help)


def no_group(source: Source, span: Span, reason: str) -> Diagnostic:
    """The pattern of `group` has no group, or none that can be searched for. reason: why not."""
    help = "put what is wanted in parentheses: group(Z, /Answer: (\\d+)/)"
    message = f"nothing can be taken out by this pattern: {reason}"
    return error("no-group", message, source, span, help=help)


def derived_too_far(source: Source, span: Span, name: str) -> Diagnostic:
    """A derived value is made from too many others, one from the other."""
    message = f"`{name}` is derived from too much, one value from the other"
    help = "a Python function, named by `use`, can do it in one step"
    return error("too-deep", message, source, span, help=help)


def impossible_constraint(source: Source, span: Span) -> Diagnostic:
    """A constraint is false for every length that the latents can have."""
    help = "compare it with the `max` of the latents that it reads"
    return error(
        "impossible-constraint",
        "no value of the latents can meet this constraint",
        source,
        span,
        help=help,
    )


def reads_no_latent(source: Source, span: Span, kind: str) -> Diagnostic:
    """A constraint, a factor or an observation is the same for all draws. kind: the statement's
    first word.
    """
    return warning(
        "reads-no-latent", f"this `{kind}` reads no latent: it changes no draw", source, span
    )


# --- files and options ----------------------------------------------------------------------------


def missing_file(source: Source, span: Span, path: str) -> Diagnostic:
    """A statement names a file that is not there. path: as it is written."""
    return error(
        "missing-file", f"there is no file `{_shorten(path)}` beside the program", source, span
    )


def outside_folder(source: Source, span: Span, path: str) -> Diagnostic:
    """A statement names a file by a path that leads out of the program's folder."""
    message = f"`{_shorten(path)}` lies outside the program's folder"
    return error(
        "outside-folder",
        message,
        source,
        span,
        help="files that a program names lie beside it or below",
    )


def bad_grammar(source: Source, span: Span, path: str, problem: str) -> Diagnostic:
    """A grammar or a JSON schema is named that cannot be made into an automaton. problem: what the
    library for grammars says.
    """
    first = " ".join(problem.split("\n")[0].split())
    help = None
    if "coerce_one_of" in problem:
        help = (
            'write "x-guidance": {"coerce_one_of": true} at the top of the schema to read it '
            "as `anyOf`"
        )
    message = f"no automaton can be built from `{path}`"
    return error("bad-grammar", message, source, span, found=f"{first:.200}", help=help)


def bad_text_file(source: Source, span: Span, path: str, problem: str) -> Diagnostic:
    """`text NAME = from "file"` names a file that holds no text. problem: why not."""
    message = f"no text can be read from `{_shorten(path)}`"
    help = "save it as UTF-8" if "UTF-8" in problem else None
    return error("bad-text-file", message, source, span, found=problem, help=help)


def text_too_long(source: Source, span: Span, what: str, most: int) -> Diagnostic:
    """A named text is longer than any model reads. what: its name or file; most: characters."""
    message = f"`{_shorten(what)}` is longer than {most:,} characters, those that it names included"
    return error("text-too-long", message, source, span)


def not_python(source: Source, span: Span, path: str) -> Diagnostic:
    """`use` names a file that does not end in .py."""
    return error(
        "not-python",
        f"`{path}` is no Python file",
        source,
        span,
        expected="a name that ends in .py",
    )


def broken_python(source: Source, span: Span, path: str, reason: str) -> Diagnostic:
    """`use` names a file that cannot be parsed. reason: what Python says. Nothing of it is run."""
    return error("broken-python", f"`{path}` cannot be read as Python: {reason}", source, span)


def missing_function(
    source: Source, span: Span, path: str, name: str, known: Iterable[str]
) -> Diagnostic:
    """`use` takes a function that its file does not define. known: those that it does."""
    message = f"`{path}` defines no function `{name}`"
    return error("missing-function", message, source, span, help=did_you_mean(name, known))


def unknown_lm_option(source: Source, span: Span, name: str, known: Iterable[str]) -> Diagnostic:
    """A model is declared with an option that does not exist. known: those that do."""
    help = did_you_mean(name, known)
    return error("unknown-lm-option", f"`lm` has no option `{name}`", source, span, help=help)


def bad_lm_option(source: Source, span: Span, name: str, expected: str, found: str) -> Diagnostic:
    """An option of a model has a value of the wrong kind. expected: what it may be; found: what
    stands there.
    """
    return error(
        "bad-lm-option", f"`{name}` cannot be {found}", source, span, expected=expected, found=found
    )


def negative_power_of_cut(source: Source, span: Span, model: str, law: str) -> Diagnostic:
    """A model whose local law cuts tokens away has a negative power. law: its options."""
    message = f"a negative power of `{model}` is infinite where it has probability 0"
    help = "give it a temperature alone, or a second name without truncation"
    return error("negative-power-of-cut", message, source, span, found=law, help=help)


def learned_cut(source: Source, span: Span, model: str, law: str) -> Diagnostic:
    """A model whose local law cuts tokens away is to be learned. law: its options."""
    message = f"`learn {model}`: what it cuts away would change as it learns, and jump to 0"
    help = "give it a temperature alone, or a second name without truncation"
    return error("learned-cut", message, source, span, found=law, help=help)


def option_twice(source: Source, span: Span, name: str) -> Diagnostic:
    """A list of options has one of them twice. span: of the second."""
    return error(
        "written-twice",
        f"the option `{name}` is written twice",
        source,
        span,
        help="keep one of them",
    )


# --- worked rows, and what is learned -------------------------------------------------------------


def bad_examples(source: Source, span: Span, path: str, problem: str) -> Diagnostic:
    """`examples` names a file that holds no rows of data. problem: what is wrong in it."""
    return error(
        "bad-examples", f"no worked rows can be read from `{path}`", source, span, found=problem
    )


def no_column(
    source: Source, span: Span, name: str, path: str, columns: Iterable[str]
) -> Diagnostic:
    """The template of `examples` reads a column that the file does not have. columns: those that it
    has.
    """
    help = did_you_mean(name, columns)
    return error("no-column", f"`{path}` has no column `{name}`", source, span, help=help)


def plain_template(source: Source, span: Span) -> Diagnostic:
    """The template of `examples` reads no column."""
    help = 'write columns of the file in braces: "{X} is {Y}\\n"'
    return error(
        "plain-template", "every worked row would be the same text", source, span, help=help
    )


def several_templates(source: Source, span: Span) -> Diagnostic:
    """`examples` has a second template. span: of it."""
    help = 'write one text, "{X} is {Y}\\n", or a turn each: user "{X}", assistant "{Y}"'
    return error("bad-examples", "a worked row is one text, or turns", source, span, help=help)


def no_template_text(source: Source, span: Span, name: str) -> Diagnostic:
    """`examples` has a name where its template should be."""
    return error(
        "bad-examples",
        "a worked row is shown by a text in quotes",
        source,
        span,
        help=f'write "{{{name}}}"',
    )


def unknown_role(source: Source, span: Span, role: str, prefix: bool) -> Diagnostic:
    """A word stands before a text of a context, and is no role. prefix: the text follows at
    once.
    """
    help = did_you_mean(role, ROLES)
    if prefix:
        help = "a text has no letter before it; in every context {NAME} is filled in"
    return error(
        "unknown-role",
        f"`{role}` is no role of a conversation",
        source,
        span,
        expected=", ".join(ROLES),
        help=help,
    )


def role_without_text(source: Source, span: Span, role: str) -> Diagnostic:
    """A role stands in a context, with nothing that it says."""
    help = f'its text follows it, without a comma: {role} "…"'
    return error("role-without-text", f"`{role}` says nothing", source, span, help=help)


def item_without_role(source: Source, span: Span) -> Diagnostic:
    """An item of a conversation has no role."""
    help = f"in a conversation every item has one: {', '.join(ROLES)}"
    return error("item-without-role", "this has no role, and others have", source, span, help=help)


def other_worked_rows(source: Source, span: Span, name: str, chat: bool) -> Diagnostic:
    """Worked rows of the other kind. chat: they are one text each, in a conversation; else turns in
    what is none.
    """
    shown, way = ("texts", 'user "{X}", assistant "{Y}"') if chat else ("turns", '"{X} is {Y}\\n"')
    other = "a conversation" if chat else "no conversation"
    message = f"`{name}` shows rows as {shown}, and this context is {other}"
    help = f"in its `examples` statement, write: as {way}"
    return error("other-worked-rows", message, source, span, help=help)


def not_whole(source: Source, span: Span, what: str, value: float) -> Diagnostic:
    """A count or a seed is negative, or has a fraction. what: which one it is; value: what it
    is.
    """
    expected = "a whole number, 0 or more"
    return error(
        "not-whole", f"{what} is no count", source, span, expected=expected, found=f"{value:g}"
    )


def learned_twice(source: Source, span: Span, name: str) -> Diagnostic:
    """A model is named by two `learn` statements. name: of the model."""
    return error(
        "written-twice", f"`learn {name}` is written twice", source, span, help="keep one of them"
    )


def not_learnable(source: Source, span: Span, name: str) -> Diagnostic:
    """`learn` names a model that draws or scores something under a power, or in a product with
    others.
    """
    message = (
        f"`{name}` cannot be learned here: a power or a product has a normaliser that "
        f"would change with it"
    )
    return error(
        "not-learnable", message, source, span, expected=f"`{name}(…)` alone, without a power"
    )


def _texts_of(side: Side) -> list[str]:
    return [value for value in side.values if isinstance(value, str)]


def never_equal(source: Source, comparison: Apply, sides: tuple[Side, Side]) -> Diagnostic:
    """A comparison by `==` or `!=` whose sides have no value in common."""
    holds = "never" if comparison.function == "==" else "always"
    one, others = sorted(map(_texts_of, sides), key=len)
    help = (
        "a text that is no number is equal to no number"
        if not one
        else did_you_mean(one[0], others)
    )
    return warning(
        "never-equal",
        f"`{comparison.function}` {holds} holds here: its sides have no value in common",
        source,
        comparison.span,
        expected=_side_in_words(sides[0]),
        found=_side_in_words(sides[1]),
        help=help,
    )


def _side_in_words(side: Side) -> str:
    return "a number" if side.number else f"{' or '.join(map(repr, side.values)):.200}"
