"""Convert a GGUF once into a folder that can be loaded as a model: config, tokenizer and safetensors.

``python -m helpers.lm.gguf FILE.gguf FOLDER``

A plain ``gguf_file=`` load keeps quantised blocks, which can be neither trained nor saved. Here they become fp32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig

from helpers.base import leftovers
from helpers.base.errors import ModelError
from helpers.base.files import new_folder


def convert(file: Path, folder: Path) -> Path:
    """Write the model in ``file`` into the new folder ``folder``, whole or not at all, and return it.

    Raises ``ModelError`` when ``file`` is not a GGUF file or ``folder`` exists.
    """
    if not file.is_file() or file.suffix != ".gguf":
        raise ModelError(f"{file} is not a GGUF file. Give the path of one that ends in .gguf.")
    if folder.exists():
        raise ModelError(f"{folder} already exists. Delete it, or give another folder.")
    leftovers.remove_files(folder.parent)
    with new_folder(folder) as new:
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.save_pretrained(new)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(new)
    return folder


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))
