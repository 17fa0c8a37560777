"""Findings about an answer service, before its port is open: one constructor each."""

from __future__ import annotations

from collections.abc import Sequence

from lmppl.errors import Diagnostic, did_you_mean, error


def cannot_serve(missing: Sequence[str]) -> Diagnostic:
    message = f"`lmppl serve` needs the packages {', '.join(missing)}"
    return error("missing-package", message, help='pip install "lmppl-lang[serve]"')


def open_to_all(host: str) -> Diagnostic:
    return error(
        "no-token",
        f"others could ask at `{host}` without a token",
        expected="--host 127.0.0.1, or a token",
        help="--token-env NAME takes it from the environment's variable NAME",
    )


def bad_token(name: str) -> Diagnostic:
    return error(
        "bad-token",
        f"the environment's variable `{name}` holds no token",
        expected="at least 8 characters, printable ASCII without spaces",
    )


def no_address(host: str, port: int, reason: str) -> Diagnostic:
    message = f"nobody can listen at `{host}`, port {port}: {reason}"
    return error("no-address", message, help="--port 0 takes one that is free")


def same_name(name: str, paths: Sequence[str]) -> Diagnostic:
    listed = " and ".join(f"`{path}`" for path in paths)
    return error(
        "same-name",
        f"{listed} would both be the model `{name}`",
        help="a program's model is named like its file: rename one",
    )


def learns_first(engine: str) -> Diagnostic:
    return error(
        "engine-cannot",
        f"`{engine}` learns from all rows before it draws, and a service has none yet",
        help=f"train with `lmppl run --engine {engine} --out DIR`, then serve with "
        "--engine importance -o proposal=DIR",
    )


def nothing_to_answer(path: str) -> Diagnostic:
    message = f"`{path}` has nothing to infer, so there is no answer to give"
    return error("nothing-to-answer", message, help="add a latent: `Z ~ LM(X) max 20 tokens`")


def unknown_settings(flag: str, names: Sequence[str], known: Sequence[str]) -> Diagnostic:
    listed = ", ".join(f"`{name}`" for name in names)
    message = f"{flag}: no program that is served has {listed}"
    return error("unknown-name", message, help=did_you_mean(names[0], known))
