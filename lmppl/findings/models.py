"""Findings about language models: what backends can do, and what table files hold. One constructor
each.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmppl.errors import Diagnostic, error
from lmppl.source import Source, Span


def beyond_window(name: str, length: int, window: int) -> Diagnostic:
    """A model was given more tokens than its window holds. length, window: tokens."""
    message = f"`{name}` was given {length} tokens"
    return error("context-too-long", message, expected=f"at most {window} tokens")


def no_piece(text: str) -> Diagnostic:
    """No piece of a vocabulary goes on with a text, so that it cannot be encoded."""
    message = "the model's vocabulary cannot write a text"
    help = "add a piece to the vocabulary; where no law names it, its probability is 0"
    return error("no-piece", message, found=f"no piece goes on with {text[:40]!r}", help=help)


def bad_table(file: str, problem: str) -> Diagnostic:
    """A file is no table of a language model. problem: what is wrong in it."""
    message = f"`{file}` is no table of a language model"
    help = "docs/models.md shows what a table holds"
    return error("bad-table", message, found=f"{problem:.200}", help=help)


def cannot_adapt(
    identifier: str, source: Source | None = None, span: Span | None = None
) -> Diagnostic:
    """A model is to be trained, and takes no adapter."""
    message = f"`{identifier}` takes no adapter"
    expected = "an alias, a folder or a hub id, which transformers runs"
    return error("cannot-adapt", message, source, span, expected=expected)


def option_of_a_table(source: Source, span: Span, option: str) -> Diagnostic:
    """A model that is a table is declared with an option of networks."""
    message = f"`{option}` has no meaning for a table"
    return error("option-of-a-table", message, source, span, help=f"leave `{option}` out")


def no_local_law(model: str, source: Source, span: Span) -> Diagnostic:
    """A model is to be run under a local law, and does not tell the laws of its tokens."""
    message = f"`{model}` cannot be run under a local law: it has no probabilities of every token"
    help = "leave out temperature, top_k, top_p and min_p, or take another model"
    return error("no-local-law", message, source, span, help=help)


def infer_cannot(
    model: str, engine: str, lacking: str, others: Sequence[str], source: Source, span: Span
) -> Diagnostic:
    """A program's `infer` names an engine that its own model cannot serve. others: engines that it
    can; span: of the statement.
    """
    message = f"`{engine}` cannot use the model `{model}`: it has no {lacking}"
    engines = f"`infer {others[0]}`, or " if others else ""
    help = f"write {engines}another model: what transformers runs has all that engines need"
    return error("model-cannot", message, source, span, help=help)


def option_of_llama_cpp(source: Source, span: Span, option: str) -> Diagnostic:
    """A model that llama.cpp runs is declared with an option of those that transformers runs."""
    message = f"`{option}` has no meaning for a model that llama.cpp runs"
    help = f"leave `{option}` out: a GGUF file holds its own weights, as it has them"
    return error("option-of-llama-cpp", message, source, span, help=help)


def no_llama_cpp(file: str, problem: str | None) -> Diagnostic:
    """A GGUF file is to be run, and llama.cpp is not there. problem: why it does not load; None
    where it is not installed.
    """
    message = f"`{file}` is run by llama.cpp, which is not installed"
    if problem is not None:
        message = f"`{file}` is run by llama.cpp, which cannot be loaded"
    help = "install the package llama-cpp-python: pip install 'lmppl-lang[gguf]'"
    return error("no-llama-cpp", message, found=problem, help=help)


def bad_gguf(file: str, problem: str) -> Diagnostic:
    """A file is no model that llama.cpp can run. problem: what is wrong with it."""
    message = f"`{file}` is no language model that llama.cpp can run"
    help = "a GGUF file holds the weights of a causal language model and its tokenizer"
    return error("bad-gguf", message, found=f"{problem:.200}", help=help)


def llama_cpp_failed(problem: str) -> Diagnostic:
    """llama.cpp could not make room for a text, or run it. problem: what it says."""
    message = "llama.cpp cannot go on"
    help = "mostly there is too little memory: take fewer chains or draws, or a smaller model"
    return error("llama-cpp-failed", message, found=f"{problem:.200}", help=help)


def no_token_of_a_byte(byte: int) -> Diagnostic:
    """A vocabulary that writes unknown characters by their bytes lacks one."""
    message = "the model's vocabulary cannot write every text"
    return error("bad-gguf", message, found=f"it has no token for the byte 0x{byte:02X}")


def llama_cpp_without_gpu(device: str) -> Diagnostic:
    """A device is asked for, and llama.cpp was built for none but the processor."""
    message = f"llama.cpp was built without support for the device `{device}`"
    help = "use --device cpu, or build llama-cpp-python for the GPU"
    return error("no-cuda", message, help=help)


def no_end_token() -> Diagnostic:
    """A model names no end-of-text token."""
    return error("no-end-token", "the model names no end-of-text token, so no text could end")


def cannot_do(
    model: str, engine: str, lacking: str, others: Sequence[str], source: Source, span: Span
) -> Diagnostic:
    """A model lacks what an engine needs. others: engines that would do."""
    message = f"`{engine}` cannot use the model `{model}`: it has no {lacking}"
    help = f"use --engine {others[0]}" if others else "take a model that transformers runs"
    expected = f"one of the engines {', '.join(others)}" if others else None
    return error("model-cannot", message, source, span, expected=expected, help=help)


def option_of_a_server(source: Source, span: Span, option: str) -> Diagnostic:
    """A model that is run here is declared with an option of served models."""
    message = f"`{option}` has a meaning for a served model alone"
    help = f"leave `{option}` out, or name a server, as http://localhost:8000/v1"
    return error("option-of-a-server", message, source, span, help=help)


def option_of_a_loaded_model(source: Source, span: Span, option: str) -> Diagnostic:
    """A served model is declared with an option of models that are loaded here."""
    message = f"`{option}` has no meaning for a served model"
    help = f"leave `{option}` out: the server has loaded its model already"
    return error("option-of-a-loaded-model", message, source, span, help=help)


def key_in_program(source: Source, span: Span) -> Diagnostic:
    """A server's key is written into a program, or no variable is named that holds it."""
    message = "a key stands in no program: name the variable of the environment that holds it"
    return error("bad-lm-option", message, source, span, expected='key = env "NAME"')
