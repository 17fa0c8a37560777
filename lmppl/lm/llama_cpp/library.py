"""llama.cpp, through the package llama-cpp-python: brought when a model is loaded, and silent."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from collections import deque
from importlib import import_module
from pathlib import Path
from typing import Any

from lmppl.errors import LmpplError, first_line
from lmppl.findings import models as findings

KEPT = 32  # last lines of llama.cpp's log that are remembered
ERROR = 4  # GGML_LOG_LEVEL_ERROR: the least level of what is wrong
BOOLEAN = 2  # LLAMA_KV_OVERRIDE_TYPE_BOOL
NO_VOCABULARY = 0  # LLAMA_VOCAB_TYPE_NONE
# the kernel for passes of 8 tokens and more adds up in another order than that for fewer: off
ONE_KERNEL = "GGML_CPU_TILED_MM", "0"
PREFIX = b"tokenizer.ggml.add_space_prefix"


class Library:
    """The functions of llama.cpp's C interface. There is one, since llama.cpp has one log."""

    def __init__(self, functions: Any) -> None:
        self.c = functions  # module with functions llama_…, as llama.h has them
        self._errors: deque[str] = deque(maxlen=KEPT)
        self._listener = functions.llama_log_callback(self._listen)  # kept: C calls it
        functions.llama_log_set(self._listener, ctypes.c_void_p(0))
        functions.llama_backend_init()

    def _listen(self, level: int, text: bytes | None, _: Any) -> None:
        if level == ERROR and text:
            self._errors.append(text.decode("utf-8", "replace").strip())

    def forget_errors(self) -> None:
        """Let `problem` tell of what comes from now on."""
        self._errors.clear()

    @property
    def problem(self) -> str:
        """What llama.cpp has said to be wrong first, without the name of its function."""
        said = next((line for line in self._errors if line), "llama.cpp gives no reason")
        return said.partition(": ")[2] or said


@functools.cache
def library() -> Library:
    """llama.cpp. Raises ImportError where the package is not installed, and what its own loading
    raises.
    """
    os.environ.setdefault(*ONE_KERNEL)
    return Library(import_module("llama_cpp").llama_cpp)


class Weights:
    """A model of a GGUF file with its vocabulary, as llama.cpp holds it; freed with this object."""

    def __init__(self, path: Path, device: str) -> None:
        """device: "cpu", or a GPU where llama.cpp was built for one. Raises LmpplError where
        llama.cpp is not installed, or cannot read the file.
        """
        try:
            self.library = library()
        except Exception as reason:  # of a package that is not there, or of a broken build
            missing = isinstance(reason, ModuleNotFoundError) and reason.name == "llama_cpp"
            problem = None if missing else first_line(reason)
            raise LmpplError(findings.no_llama_cpp(path.name, problem)) from None
        c = self.c = self.library.c
        self.library.forget_errors()
        parameters = c.llama_model_default_params()
        parameters.check_tensors = True  # numbers that are none are said, not run
        parameters.use_extra_bufts = False  # weights as the file has them: see context.py
        parameters.kv_overrides = _without_space_in_front(c)
        if device == "cpu":
            parameters.n_gpu_layers = 0
        elif device != "auto" and not c.llama_supports_gpu_offload():
            raise LmpplError(findings.llama_cpp_without_gpu(device))
        self.model = c.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise LmpplError(findings.bad_gguf(path.name, self.library.problem))
        weakref.finalize(self, c.llama_model_free, self.model)
        self.vocabulary = c.llama_model_get_vocab(self.model)
        if problem := self._unfit():
            raise LmpplError(findings.bad_gguf(path.name, problem))

    def _unfit(self) -> str | None:
        """Why it is no causal language model over texts; None where it is one."""
        c = self.c
        if c.llama_vocab_type(self.vocabulary) == NO_VOCABULARY:
            return "it has no vocabulary"
        causal = c.llama_model_has_decoder(self.model) and not (
            c.llama_model_has_encoder(self.model) or c.llama_model_is_diffusion(self.model)
        )
        return None if causal else "its network does not write texts from left to right"

    def said(self, key: bytes) -> str | None:
        """What the file says under a key; None where it says nothing."""
        buffer = ctypes.create_string_buffer(256)
        size = self.c.llama_model_meta_val_str(self.model, key, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if size >= 0 else None


def _without_space_in_front(c: Any) -> Any:
    """Settings under which texts are written as they stand inside longer ones. The list ends with
    an empty key.
    """
    settings = (c.llama_model_kv_override * 2)()
    settings[0].tag, settings[0].key = BOOLEAN, PREFIX
    settings[0].value.val_bool = False
    return settings
