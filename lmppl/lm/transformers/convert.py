"""From a GGUF file to a folder of safetensors that loads in a second. Done once a model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.lm.transformers.silence import quiet
from lmppl.lm.transformers.weights import misfit, not_numbers


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file, dequantised to float32, and its tokenizer."""
    with quiet():
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        read: Any = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
        quantised, found = read
        if problem := misfit(found) or not_numbers(quantised.state_dict()):
            raise LmpplError(run_findings.weights_not_whole(gguf.name, problem))
        tokenizer = AutoTokenizer.from_pretrained(**source)
        config = copy.deepcopy(quantised.config)
        delattr(config, "quantization_config")  # the weights are plain numbers now
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(quantised.state_dict())
        model.generation_config = quantised.generation_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
