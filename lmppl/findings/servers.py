"""Findings about served models: what servers answer, and what they do not. One constructor each.

What a server says is cut, and shown as any text that comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmppl.errors import Diagnostic, error

SAID = 300  # characters of what a server says


def bad_address(identifier: str) -> Diagnostic:
    """An identifier begins as an address does, and is none."""
    message = f"`{identifier:.200}` is no address of a server"
    expected = "http://host:port/v1, and #name where it serves several models"
    return error("bad-address", message, expected=expected)


def no_http() -> Diagnostic:
    """A served model is asked for, and what speaks HTTP is not installed."""
    message = "served models are asked by httpx2, which is not installed"
    return error("no-http", message, help="pip install 'lmppl-lang[http]'")


def no_key(variable: str) -> Diagnostic:
    """A program names a variable of the environment for a server's key, and it is not set."""
    message = f"the variable `{variable}`, which holds the server's key, is not set"
    return error("no-key", message, help=f"export {variable}=…")


def silent(address: str, seconds: float, reason: str) -> Diagnostic:
    """A server does not answer, for longer than a run waits. reason: what happened last."""
    message = f"the server at {address} has not answered for {seconds:.0f} s"
    help = "start it, and run again; `patience = SECONDS` of the `lm` says how long a run waits"
    return error("server-silent", message, found=f"{reason:.{SAID}}", help=help)


def refused(address: str, status: int, said: str) -> Diagnostic:
    """A server refuses a request. said: in its own words."""
    message = f"the server at {address} refuses a request, with status {status}"
    help = None
    if status in (401, 403):
        help = 'a key is given as lm LM = "…" (key = env "NAME")'
    return error("server-refuses", message, found=f"{said:.{SAID}}", help=help)


def breaks(address: str, tokens: int, reason: str) -> Diagnostic:
    """One request has ended a server several times, when nothing else was asked. tokens: that it
    asked for, with its prompt.
    """
    message = f"a request of {tokens} tokens breaks the server at {address}, again and again"
    help = "docs/served-models.md tells what is known to break servers, and how to start them"
    return error("server-breaks", message, found=f"{reason:.{SAID}}", help=help)


def odd_answer(address: str, problem: str) -> Diagnostic:
    """A server's answer is not what was asked for."""
    message = f"the server at {address} answers otherwise than it was asked"
    help = "docs/served-models.md tells what is asked of a server"
    return error("odd-answer", message, found=f"{problem:.{SAID}}", help=help)


def other_model(address: str, problem: str) -> Diagnostic:
    """A server has come back with another model, in the middle of a run."""
    message = f"the server at {address} is not the same as it was when the run began"
    return error("server-changed", message, found=f"{problem:.{SAID}}")


def not_served(name: str, served: Sequence[str]) -> Diagnostic:
    """A server does not have the model of this name. served: those that it has."""
    message = f"the server has no model `{name:.100}`"
    return error("not-served", message, expected=f"one of {', '.join(served):.{SAID}}")


def which_model(address: str, served: Sequence[str]) -> Diagnostic:
    """A server has several models, and none is named."""
    message = f"the server at {address} has several models"
    expected = f"{address}#NAME, by one of {', '.join(served):.{SAID}}"
    return error("which-model", message, expected=expected)


def cannot_score(address: str, lacking: str) -> Diagnostic:
    """A server does not return what weights are made of. lacking: what."""
    message = f"the server at {address} returns no {lacking}"
    help = "weights need it: serve the model by vLLM, as docs/served-models.md says"
    return error("server-lacks", message, help=help)


def scores_apart(address: str, drawn: float, scored: float) -> Diagnostic:
    """A server's log probability of a token that it has drawn is not what it gives the same token
    when it is scored. In nats.
    """
    message = f"the server at {address} draws tokens from another law than it scores them by"
    found = f"{drawn:.4f} nats drawn, {scored:.4f} nats scored"
    return error("server-lies", message, found=found)


def no_tokenizer(name: str) -> Diagnostic:
    """The tokenizer of a served model is not on this machine. name: what the server calls it."""
    message = "the tokenizer of the served model is not on this machine"
    help = 'name its folder or hub id: lm LM = "http://…" (tokenizer = "organisation/model")'
    return error("no-tokenizer", message, found=f"the server names {name:.100}", help=help)


def other_tokenizer(place: str, text: str) -> Diagnostic:
    """The tokenizer that is here writes a text by other tokens than the server does."""
    message = f"the tokenizer of `{place:.100}` is not the server's"
    return error("other-tokenizer", message, found=f"they part on {text!r}")


def several_ends(address: str) -> Diagnostic:
    """A model ends texts by several tokens, and its server does not tell of tokens by number."""
    message = f"the model ends texts by several tokens, which the server at {address} cannot add up"
    help = "a server that knows `logprob_token_ids` can: vLLM 0.32 does"
    return error("several-ends", message, help=help)
