"""What is said of a request that is not answered, in OpenAI's error form, with lmppl's findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmppl.errors import Diagnostic, LmpplError, abridged, ran_out_of_memory, to_document

KINDS = {401: "authentication_error", 429: "rate_limit_error"}
RETRY = {429, 503}  # where asking again later helps
# what a row's text alone is to blame for is the request's fault; all else is the service's
UNPROCESSABLE = 422
HELP = "name it in `givens`, in a row, or as a JSON object in the last user message"


class Refused(Exception):
    """A request that is not answered. status: of HTTP; code: stable, snake_case."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        findings: Sequence[Diagnostic] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.findings = findings
        self.retry_after = 1 if retry_after is None and status in RETRY else retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Of the reply, beside the usual ones."""
        found = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        if self.status in (408, 413):
            found["connection"] = "close"  # the rest of the body is not read
        return found

    def document(self) -> dict[str, Any]:
        """The reply: OpenAI's form, and findings with their places."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error: dict[str, Any] = {
            "message": self.message,
            "type": KINDS.get(self.status, kind),
            "param": self.param,
            "code": self.code,
        }
        if self.findings:
            error["findings"] = [_document(one, more) for one, more in abridged(self.findings)]
        return {"error": error}


def _document(finding: Diagnostic, more: int) -> dict[str, Any]:
    """A finding, in the words of requests: flags are for who has started the service."""
    found = to_document(finding, more)
    if finding.code == "missing-given" and "--set" in (finding.help or ""):
        found["help"] = HELP
    return found


def of_error(reason: BaseException) -> Refused:
    """What is said of an error of an inference, or of a row that cannot be bound."""
    if isinstance(reason, Refused):
        return reason
    if isinstance(reason, LmpplError):
        code = reason.diagnostics[0].code.replace("-", "_")
        return Refused(UNPROCESSABLE, code, reason.message, findings=reason.diagnostics)
    if ran_out_of_memory(reason):
        return Refused(503, "out_of_memory", "memory ran out", retry_after=10)
    return Refused(500, "internal", f"this is a bug in lmppl: {type(reason).__name__}")


def late(seconds: float) -> Refused:
    """A request whose time is over before there is anything to answer."""
    message = f"there is no answer within the {seconds:g} s that a request has"
    return Refused(504, "timeout", message)


def stopping() -> Refused:
    """A request to a service that is about to end."""
    return Refused(503, "stopping", "the service is about to end")
