"""From a GGUF file to a folder of safetensors that loads in a second. Done once a model.

Tensor by tensor: a model of billions of weights is converted in the memory of its largest layer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.lm.transformers.identity import WEIGHTS
from lmppl.lm.transformers.silence import quiet
from lmppl.lm.transformers.weights import misfit, not_numbers

Progress = Callable[[int, int], None]  # (weights that are written, all weights)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
IN_SAFETENSORS = {"float32": "F32", "bfloat16": "BF16"}
BY_ROWS = ("token_embd.weight", "output.weight")  # the tables of tokens, which are large
ROWS_AT_ONCE = 4096
ALIGNMENT = 8  # of the data in a safetensors file


def convert_gguf(
    file: Path,
    folder: Path,
    dtype: str = "float32",
    ends: Sequence[str] = (),
    progress: Progress = lambda done, all: None,
) -> None:
    """Write the model of a GGUF file, dequantised to a dtype, and its tokenizer. ends: tokens that
    end a text beside the one that the file names, which has room for one. Raises LmpplError where
    the file does not hold the weights of its network.
    """
    with quiet():
        source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        config = AutoConfig.from_pretrained(**source)
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
        tensors = _tensors(file, network)
        folder.mkdir(parents=True)
        _write_weights(folder / WEIGHTS, file.name, tensors, dtype, progress)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        tokenizer.save_pretrained(folder)
        if ends:
            more = tokenizer.convert_tokens_to_ids(list(ends))
            network.generation_config.eos_token_id = [network.config.eos_token_id, *more]
        network.config.dtype = dtype
        network.config.architectures = [type(network).__name__]
        network.config.save_pretrained(folder)
        network.generation_config.save_pretrained(folder)


class _Tensor:
    """A tensor of a GGUF file, read piece by piece."""

    def __init__(self, stored: gguf.ReaderTensor, process: Callable[[Any, str], Any]) -> None:
        self._stored, self._process = stored, process
        self.shape = tuple(int(length) for length in reversed(stored.shape))

    def pieces(self) -> Iterator[torch.Tensor]:
        """The weights in float32: a table of tokens by its rows, another tensor as a whole."""
        stored = self._stored
        step = ROWS_AT_ONCE if stored.name in BY_ROWS else len(stored.data)
        for first in range(0, len(stored.data), step):
            values = gguf.dequantize(stored.data[first : first + step], stored.tensor_type)
            yield torch.from_numpy(np.copy(self._process(values, stored.name)))


def _tensors(file: Path, network: Any) -> dict[str, _Tensor]:
    """What a file has for each parameter of a network. Raises LmpplError where that is not all."""
    reader = gguf.GGUFReader(file)
    kind = reader.fields["general.architecture"].contents()
    processor = TENSOR_PROCESSORS.get(kind, TensorProcessor)(config=network.config.to_dict())
    names: Mapping[str, str] = get_gguf_hf_weights_map(network, processor)

    def process(values: Any, name: str) -> Any:
        """As transformers stores it: llama.cpp turns the rows of some projections, say."""
        return processor.process(
            values, name, tensor_key_mapping=names, parsed_parameters={}
        ).weights

    stored = [tensor for tensor in reader.tensors if tensor.name in names]
    found = {names[tensor.name]: _Tensor(tensor, process) for tensor in stored}
    needed = {name: tuple(value.shape) for name, value in network.named_parameters()}  # ties once
    here = {name: found[name] for name in needed if name in found}
    wrong = [(n, t.shape, needed[n]) for n, t in here.items() if t.shape != needed[n]]
    missing = needed.keys() - here.keys()
    info = {"mismatched_keys": wrong, "missing_keys": missing, "unexpected_keys": []}
    if problem := misfit(info):
        raise LmpplError(run_findings.weights_not_whole(file.name, problem))
    return dict(sorted(here.items()))


def _write_weights(
    path: Path, source: str, tensors: Mapping[str, _Tensor], dtype: str, progress: Progress
) -> None:
    """A safetensors file as its library writes it, which wants all tensors in memory at once.
    Raises LmpplError where a weight is no number.
    """
    total, done = sum(math.prod(tensor.shape) for tensor in tensors.values()), 0
    with path.open("wb") as file:
        file.write(_header(tensors, dtype))
        for name, tensor in tensors.items():
            for piece in tensor.pieces():
                if problem := not_numbers({name: piece}):
                    raise LmpplError(run_findings.weights_not_whole(source, problem))
                file.write(piece.to(DTYPES[dtype]).view(torch.uint8).numpy().data)
                done += piece.numel()
                progress(done, total)


def _header(tensors: Mapping[str, _Tensor], dtype: str) -> bytes:
    """What stands before the weights: where each is, and the length of it all."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + math.prod(tensor.shape) * DTYPES[dtype].itemsize
        place = {"shape": list(tensor.shape), "data_offsets": [begin, end]}
        header[name] = {"dtype": IN_SAFETENSORS[dtype], **place}
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
