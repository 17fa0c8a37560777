"""Findings that need data, models or draws to be made: one constructor each. Static ones are in
program.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmppl import ir
from lmppl.errors import Diagnostic, did_you_mean, error, warning
from lmppl.source import Source, Span
from lmppl.storage import Difference

if TYPE_CHECKING:
    from lmppl.expressions import EvaluationError, NoValue, Record

# --- data -----------------------------------------------------------------------------------------


def nothing_drawn(engine: str) -> Diagnostic:
    """An E-step has no possible draw for any row, so that the M-step has nothing to fit."""
    help = (
        "look at the run in rounds/0/draws with `lmppl diagnose`, and take more draws or "
        "another engine"
    )
    return error("nothing-drawn", f"`{engine}` has drawn nothing possible for any row", help=help)


def too_few_examples(examples: ir.Examples, found: int, source: Source) -> Diagnostic:
    """Worked rows: with every column that is shown, and without the data row itself."""
    message = (
        f"`{examples.name}` asks for {examples.count} worked rows, and there are {found} "
        f"for this row of the data"
    )
    help = (
        "rows with the data row's own givens are left out, as are rows that lack a column of "
        "the template"
    )
    return error("too-few-examples", message, source, examples.span, help=help)


def missing_given(name: str, columns: Sequence[str], record: Record) -> Diagnostic:
    """A row of data has no value of a given. columns: those that the data have."""
    return error(
        "missing-given",
        f"`given {name}` has no value in {record.name}",
        record.source,
        record.span,
        expected=f"a value named `{name}`",
        found=f"{', '.join(columns):.200}" or "no values",
        help=f"pass --data FILE with a column `{name}`, or --set {name}=VALUE"
        if not columns
        else "a missing value, null or an empty cell, is none"
        if name in columns
        else did_you_mean(name, columns),
    )


def no_value_of(name: str, value: NoValue, record: Record) -> Diagnostic:
    """A column that the program reads, and what stands there."""
    return bad_data(
        f"the value of `{name}` in {record.name} {value.problem}", record.source, record.span
    )


def no_name_of_column(name: str, known: Iterable[str]) -> Diagnostic:
    """`--column` names neither a given nor a latent. known: those there are."""
    message = f"--column {name}: the program has no given and no latent `{name}`"
    return error("unknown-setting", message, help=did_you_mean(name, known))


def no_such_column(column: str, known: Iterable[str]) -> Diagnostic:
    """`--column` names a column that the data do not have. known: those they have."""
    return error(
        "no-column", f"the data have no column `{column}`", help=did_you_mean(column, known)
    )


def unused_column(name: str, known: Iterable[str], place: Source) -> Diagnostic:
    """A warning: a column is read by nothing in the program. known: names that would be."""
    return warning(
        "unused-column",
        f"no `given` and no latent is named `{name}`: the column is not used",
        place,
        help=did_you_mean(name, known),
    )


def bad_data(
    message: str, place: Source | None, span: Span | None = None, help: str | None = None
) -> Diagnostic:
    """A file or value of data cannot be read, for a reason that the message says."""
    return error("bad-data", message, place, span, help=help)


def unknown_setting(name: str, known: Iterable[str]) -> Diagnostic:
    """`--set` names nothing that can be set. known: what can."""
    return error(
        "unknown-setting",
        f"--set {name}: the program has no param, given or latent `{name}`",
        help=did_you_mean(name, known),
    )


def given_twice(name: str) -> Diagnostic:
    """A value is given by two arguments at once."""
    return error(
        "given-twice",
        f"`{name}` has a value in `givens` and as an argument",
        help="keep one of them",
    )


def bad_setting(text: str, expected: str) -> Diagnostic:
    """The value of a `--set` is not of the kind that its name takes."""
    return error("bad-setting", f"--set {text}: expected {expected}")


def observed_not_an_option(latent: ir.ChoiceLatent, value: str, source: Source) -> Diagnostic:
    """A row observes a choice as something that is none of its options."""
    return error(
        "observed-not-an-option",
        f"the row's value of `{latent.name}` is none of its options",
        source,
        latent.span,
        expected=", ".join(repr(option) for option in latent.options),
        found=repr(value),
        help=did_you_mean(value, latent.options),
    )


def observed_impossible(
    latent: ir.TextLatent, value: str, num_tokens: int, source: Source
) -> Diagnostic:
    """A row observes a text that its latent can never be."""
    ends = f"end with the first {latent.until!r} in it and " if latent.until is not None else ""
    tools = " and ".join(f"`{tool.name}`" for tool in latent.tools)
    written = f", with what {tools} writes behind {latent.tools[0].trigger!r}" if tools else ""
    return error(
        "observed-impossible",
        f"the row's value of `{latent.name}` cannot be drawn from its prior",
        source,
        latent.span,
        expected=f"a text that would {ends}have at most {latent.maximum} tokens{written}",
        found=f"{value!r:.80} ({num_tokens} tokens)",
    )


def no_derived_value(
    name: str, reason: EvaluationError, texts: Mapping[str, str], source: Source
) -> Diagnostic:
    """A context reads a derived value that cannot be computed. texts: of the latents."""
    shown = ", ".join(f"{latent} = {text!r:.100}" for latent, text in texts.items())
    help = "derive it so that it has a value, or is absent, whatever these are"
    message = f"`{name}` cannot be derived: {reason}"
    return error("evaluation-failed", message, source, reason.span, found=shown or None, help=help)


def altered_text(
    name: str, text: str, read: str, model: str, source: Source, span: Span
) -> Diagnostic:
    """A warning: a tokenizer cannot write an observed text as it is. read: what it writes."""
    return warning(
        "altered-text",
        f"{name}: the tokenizer of `{model}` cannot write the observed text as it is",
        source,
        span,
        expected=f"{text!r:.80}",
        found=f"{read!r:.80}, which is what is scored",
        help="write it with characters that the model knows",
    )


def glued_observation(name: str, source: Source, span: Span) -> Diagnostic:
    """A warning: an observation begins right after its context, without white space."""
    return warning(
        "glued-observation",
        (
            f"{name}: the observed text starts right after the context, with no white space "
            f"between "
            f"them"
        ),
        source,
        span,
        help=(
            "most tokenizers put the space in front of a word: begin the observed text with a space"
        ),
    )


# --- models ---------------------------------------------------------------------------------------


def different_tokenizers(latent: ir.TextLatent, names: Sequence[str], source: Source) -> Diagnostic:
    """Models of one product write tokens in different ways."""
    return error(
        "different-tokenizers",
        f"`{latent.name}` is drawn from a product of models whose tokenizers differ",
        source,
        latent.span,
        expected="models that share one tokenizer",
        found=" and ".join(names),
    )


def until_unreachable(latent: ir.TextLatent, source: Source) -> Diagnostic:
    """No token of the model can end a text as its `until` asks."""
    return error(
        "until-unreachable",
        f"no token of the model can complete {latent.until!r}, so `{latent.name}` could never end",
        source,
        latent.span,
        help="choose an `until` text that is written with characters the model knows",
    )


def automaton_too_large(reason: str) -> Diagnostic:
    """A grammar or pattern has too many states for a table. reason: what there is too much of."""
    return error(
        "automaton-too-large",
        "the automaton of a constraint has grown too large to follow this text",
        found=reason,
        help="repeat smaller pieces fewer times, or judge the text by a Python function",
    )


def until_end_token(latent: ir.TextLatent, source: Source) -> Diagnostic:
    """An `until` holds a model's own end token, which ends a text before it."""
    return error(
        "until-end-token",
        (
            f"{latent.until!r} is the end token of the model: no text holds it, so `{latent.name}` "
            f"could never end with it"
        ),
        source,
        latent.span,
        help="leave `until` out: a text ends with the end token by itself",
    )


def unsatisfiable(constraints: Sequence[ir.Constraint], source: Source) -> Diagnostic:
    """No text can meet these constraints together."""
    others = ", ".join(f"line {source.position(c.span.start)[0]}" for c in constraints[1:])
    return error(
        "unsatisfiable-constraint",
        "no text that the latent can take meets this constraint"
        + (f" together with {others}" if others else ""),
        source,
        constraints[0].span,
        help="loosen it or raise `max`; with `until`, the text must hold the `until` text as well",
    )


def unguided(constraint: ir.Constraint, why: str, source: Source) -> Diagnostic:
    """A constraint that is asked of whole texts only. why: what stands in the way, as in "this
    tokenizer …".
    """
    line = source.position(constraint.span.start)[0]
    return warning(
        "unguided",
        f"nothing guides the draws to what line {line} asks for: {why}",
        source,
        constraint.span,
        help=(
            "it is asked of whole texts; where few meet it, say so in the prompt as well, or "
            "ask for more draws"
        ),
    )


def uncached(declaration: ir.ModelDeclaration, source: Source) -> Diagnostic:
    """A model whose every token costs a pass over all before it."""
    message = f"`{declaration.name}` runs without a cache: right, and slow"
    help = "docs/models.md lists the architectures that run with one"
    return warning("without-cache", message, source, declaration.span, help=help)


def made_from_others(code: str, what: str, differences: Sequence[Difference]) -> Diagnostic:
    """What is to be gone on with was made from other things than are there now."""
    names = [where for where, _, _ in differences]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    then, now = (_sides(differences[:4], side) for side in (1, 2))
    help = "go on with it as it was begun, or begin anew in another folder"
    return error(code, f"{what} made with other {shown}", expected=then, found=now, help=help)


def _sides(differences: Sequence[Difference], side: int) -> str:
    """One side of differences: where, and what stands there."""
    return "; ".join(
        f"{one[0]} {json.dumps(one[side], ensure_ascii=False):.80}" for one in differences
    )


def weights_not_whole(identifier: str, problem: str) -> Diagnostic:
    """A model's or an adapter's files that do not hold its weights. problem: names a tensor."""
    help = (
        "fetch or save it again: what is missing would be random numbers, and so would every result"
    )
    return error(
        "model-unusable", f"the weights of `{identifier}` are not whole", found=problem, help=help
    )


def run_damaged(folder: Path, problem: str) -> Diagnostic:
    """A run folder that cannot be believed. problem: which file, and what is wrong with it."""
    help = "bring its files back from a copy; or remove the folder, and run it again"
    return error("broken-run", f"the run in `{folder}` is damaged: {problem}", help=help)


def adapter_damaged(folder: str, problem: str) -> Diagnostic:
    """An adapter's folder cannot be read. problem: the first thing that is wrong."""
    help = "bring it back from a copy, or fit it again"
    return error(
        "adapter-unusable", f"the adapter in `{folder}` is damaged", found=problem, help=help
    )


def adapter_of_another(folder: str, fitted: str, base: str) -> Diagnostic:
    """An adapter was fitted to other weights. fitted, base: fingerprints of both."""
    message = f"the adapter in `{folder}` was fitted to other weights than the model's"
    help = "name the model that it was fitted to, or fit it anew"
    return error(
        "adapter-unusable",
        message,
        expected=f"weights {fitted}",
        found=f"weights {base}",
        help=help,
    )


def option_not_tokenised(latent: ir.ChoiceLatent, option: str, source: Source) -> Diagnostic:
    """A choice's option has no tokens of its own behind its context."""
    return error(
        "empty-option",
        f"the option {option!r} of `{latent.name}` has no tokens",
        source,
        latent.span,
    )


def option_prefix(latent: ir.ChoiceLatent, short: str, long: str, source: Source) -> Diagnostic:
    """One option's tokens begin another's, so that their probabilities overlap."""
    return error(
        "option-prefix",
        f"the tokens of the option {short!r} of `{latent.name}` begin those of {long!r}",
        source,
        latent.span,
        found="the shorter option would be given the longer one's probability as well",
        help="end every option alike, with a full stop or a line break",
    )


def context_too_long(
    what: str, needed: int, window: int, model: str, source: Source, span: Span
) -> Diagnostic:
    """A context and what follows it are longer than the model's window, in tokens."""
    return error(
        "context-too-long",
        f"{what} needs {needed} tokens, more than `{model}` can see",
        source,
        span,
        expected=f"at most {window} tokens",
        found=f"{needed} tokens, the context and the longest text after it together",
        help="shorten the context, or lower `max`",
    )


def text_too_long(text: str, window: int, model: str) -> Diagnostic:
    """A text alone is longer than the model's window, in tokens."""
    return error(
        "context-too-long",
        f"a text of {len(text):,} characters is longer than `{model}` could ever see",
        expected=f"at most {window} tokens",
        found=f"{text[:40]!r}…",
        help="shorten it",
    )


def helper_failed(helper: ir.Helper, reason: str, source: Source) -> Diagnostic:
    """A Python helper cannot be loaded. reason: what Python says."""
    return error(
        "helper-failed", f"`{helper.path}` could not be run: {reason}", source, helper.span
    )


def tool_failed(message: str, latent: str, text: str, source: Source, span: Span) -> Diagnostic:
    """A tool has raised an error. text: what the model had written until then."""
    shown = f"{latent} = {text if len(text) <= 100 else '…' + text[-99:]!r}"
    return error(
        "tool-failed",
        message,
        source,
        span,
        found=shown,
        help="a tool takes the text so far, returns a text",
    )


def trigger_unreachable(latent: ir.TextLatent, tool: ir.Tool, source: Source) -> Diagnostic:
    """A tool's trigger cannot be written in tokens of the model."""
    return error(
        "trigger-unreachable",
        (
            f"no token of the model can complete {tool.trigger!r}, so `{tool.name}` would never "
            f"write into `{latent.name}`"
        ),
        source,
        tool.span,
        help="choose a trigger that is written with characters the model knows",
    )


# --- engines --------------------------------------------------------------------------------------


def engine_cannot(
    engine: str, reason: str, source: Source, span: Span | None = None, help: str | None = None
) -> Diagnostic:
    """An engine cannot run a program. reason: why."""
    return error(
        "engine-cannot", f"`{engine}` cannot run this program: {reason}", source, span, help=help
    )


def unknown_engine(
    name: str, known: Iterable[str], source: Source | None = None, span: Span | None = None
) -> Diagnostic:
    """There is no engine of this name. known: those there are."""
    return error(
        "unknown-engine",
        f"there is no engine `{name}`",
        source,
        span,
        help=did_you_mean(name, known),
    )


def unknown_option(
    engine: str,
    name: str,
    known: Sequence[str],
    source: Source | None = None,
    span: Span | None = None,
) -> Diagnostic:
    """An engine has no option of this name. known: those it has."""
    listed = f"options of `{engine}`: {', '.join(known) or 'none'}"
    return error(
        "unknown-option",
        f"`{engine}` has no option `{name}`",
        source,
        span,
        expected=listed,
        help=did_you_mean(name, known),
    )


def bad_option(
    engine: str,
    name: str,
    expected: str,
    found: str,
    source: Source | None = None,
    span: Span | None = None,
) -> Diagnostic:
    """An option's value is not what it may be. expected: what it may."""
    return error(
        "bad-option",
        f"the option `{name}` of `{engine}` cannot be {found}",
        source,
        span,
        expected=expected,
        found=found,
    )


def too_many_draws(engine: str, draws: int, needed: int, free: int) -> Diagnostic:
    """Draws of a data row do not fit into memory. needed, free: bytes."""
    message = f"{draws:,} draws or particles of `{engine}` do not fit into memory"
    found = f"about {needed / 1e9:,.0f} GB for each data row; {free / 1e9:,.1f} GB are free"
    help = (
        "fewer --num-samples, --chains, or of what -o asks for; or several runs, each with a "
        "--seed of its own"
    )
    return error("too-many-draws", message, found=found, help=help)


def too_many_prefixes(held: int, free: int) -> Diagnostic:
    """Prefixes that a search holds do not fit into memory. free: bytes."""
    message = f"a search that holds {held:,} prefixes does not fit into memory"
    help = (
        "fewer of what -o asks for: max_evaluations, branches or search; or lower `max`, raise the "
        "power, or use another engine"
    )
    return error("too-many-draws", message, found=f"{free / 1e9:,.1f} GB are free", help=help)


def no_support(
    draws: int, factor: str, share: float, source: Source, span: Span, detail: str | None
) -> Diagnostic:
    """All draws are impossible under the program, by one factor above all."""
    return error(
        "no-support",
        f"all {draws} draws have probability 0: `{factor}` rules out {share:.0%} of them",
        source,
        span,
        found=detail,
        help="loosen it, raise `max`, or prompt for such texts; rare ones need more --num-samples",
    )


def hopeless_rejection(accepted: int, proposed: int, wanted: int, source: Source) -> Diagnostic:
    """Rejection accepts too little to end. accepted, proposed, wanted: draws."""
    return error(
        "hopeless-rejection",
        f"rejection accepted {accepted} of {proposed} proposals, {wanted} draws were asked for",
        source,
        None,
        help=(
            "use --engine importance or mcmc, ask for fewer draws, or allow more with -o "
            "max_proposals=N"
        ),
    )


def slow_rejection(
    accepted: int,
    proposed: int,
    seconds: float,
    wanted: int,
    share: float,
    at_best: float,
    source: Source,
) -> Diagnostic:
    """Rejection would take longer than its limit of time."""
    return error(
        "hopeless-rejection",
        f"rejection accepted {accepted} of {proposed} proposals in {seconds:.1f} s, a share of "
        f"about {share:.2g}: "
        f"{wanted} draws would take {at_best:,.0f} s more at the least",
        source,
        None,
        help=(
            f"use --engine importance or mcmc, ask for fewer draws, or allow it with -o "
            f"limit={2 * at_best:.0f}"
        ),
    )


def no_other_python(library: str, version: str, variable: str) -> Diagnostic:
    """An engine runs in another Python, and none is named. variable: of the environment."""
    return error(
        "no-other-python",
        f"`{library}` needs a Python environment of its own, and none is named",
        help=f"make one: python -m venv FOLDER; FOLDER/bin/pip install {library}=={version}; "
        f"then set {variable}=FOLDER/bin/python, or the option `python`",
    )


def other_python_fails(
    library: str, problem: str, variable: str, complaint: str | None = None
) -> Diagnostic:
    """The other Python that an engine runs in has ended, or says nothing."""
    return error(
        "other-python-failed",
        f"`{library}` failed: {problem}" + (f": {complaint:.200}" if complaint else ""),
        help=f"try that Python by itself, or name another with {variable} or the option `python`",
    )


def other_library(library: str, version: str, found: str | None, python: str) -> Diagnostic:
    """The other Python has another version of a library, or lacks it. found: the version."""
    message = (
        f"`{python}` has {library} {found}, not {version}"
        if found
        else f"`{python}` has no {library}"
    )
    return error("other-library", message, help=f"{python} -m pip install {library}=={version}")


def other_model(library: str, problem: str) -> Diagnostic:
    """A library loads a model in another way than lmppl, so that its draws would be of another
    law.
    """
    return error(
        "other-model",
        f"`{library}` cannot draw from this model: {problem}",
        help="use --engine smc",
    )


# --- simulation -----------------------------------------------------------------------------------


def cannot_simulate(
    reason: str, source: Source, span: Span | None = None, help: str | None = None
) -> Diagnostic:
    """A part of a program has no law that data could be drawn from."""
    return error(
        "cannot-simulate",
        f"no data can be simulated from this program: {reason}",
        source,
        span,
        help=help,
    )


def hopeless_simulation(attempts: int, source: Source) -> Diagnostic:
    """No draw of the prior meets the constraints. attempts: draws that were made."""
    return error(
        "hopeless-simulation",
        f"none of {attempts} draws from the prior met the constraints and the ends of all texts",
        source,
        help="loosen the constraints, or raise `max`",
    )


def no_posterior_draws(engine: str, simulation: int) -> Diagnostic:
    """An engine gives no possible draw for a simulated row."""
    return error(
        "no-posterior-draws",
        f"`{engine}` gave no draw of positive weight for simulation {simulation + 1}",
        help="ask for more --num-samples, --chains or --num-warmup",
    )
