"""Convert a GGUF once into a folder that can be loaded as a model: config, tokenizer and safetensors.

``python -m helpers.lm.gguf FILE.gguf FOLDER``

A plain ``gguf_file=`` load keeps quantised blocks, which can be neither trained nor saved. Here they become fp32.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from helpers.base.errors import ModelError
from helpers.base.files import new_folder
from helpers.lm.foreign import foreign_errors
from helpers.system import leftovers

_READ = re.compile(r"^split\.|\.rope\.")
_FACTOR = re.compile(r"\.rope\.(scale_linear|scaling\.factor)$")


def is_gguf(path: str | Path) -> bool:
    """Whether ``path`` is named as a GGUF file."""
    return Path(path).suffix.lower() == ".gguf"


def check_file(file: Path) -> None:
    """Raise ``ModelError`` unless ``file`` is one whole GGUF whose positions transformers reads as it means them."""
    if not file.is_file() or not is_gguf(file):
        raise ModelError(f"{file} is not a GGUF file. Give the path of one that ends in .gguf.")
    from gguf import GGUFReader  # here, because models are made from a GGUF once, and a GPU machine may lack it

    with foreign_errors(f"{file} is cut short or no GGUF", "Copy or fetch it again"):
        reader = GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items() if _READ.search(name)}
    _refuse_part(file, fields)
    kinds = [str(value) for name, value in fields.items() if name.endswith(".rope.scaling.type")]
    factors = [float(value) for name, value in fields.items() if _FACTOR.search(name)]
    tensors = [tensor for tensor in reader.tensors if tensor.name.startswith("rope_f")]
    scaled = any(kind != "none" for kind in kinds) or any(factor not in (0.0, 1.0) for factor in factors)
    if scaled or any(not bool((tensor.data == 1).all()) for tensor in tensors):
        raise ModelError(
            f"{file} scales its rotary positions, which transformers does not carry over from a GGUF. Give the model "
            "as a folder with config.json and safetensors."
        )


def _refuse_part(file: Path, fields: dict[str, Any]) -> None:
    count, number = int(fields.get("split.count", 1)), int(fields.get("split.no", 0)) + 1
    if count > 1:
        raise ModelError(
            f"{file} is part {number} of {count} of a split GGUF, and only whole files are read. Join the parts with "
            f"'llama-gguf-split --merge {file.name} whole.gguf', and give whole.gguf."
        )


def convert(file: Path, folder: Path) -> Path:
    """Write the model in ``file`` into the new folder ``folder``, whole or not at all, and return it.

    Raises ``ModelError`` when ``file`` is no whole GGUF file or ``folder`` exists.
    """
    import torch  # here, because a model that was converted before needs none of this
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    from helpers.lm.folders import refuse_incomplete

    if folder.exists():
        raise ModelError(f"{folder} already exists. Delete it, or give another folder.")
    check_file(file)
    leftovers.remove_files(folder.parent)
    reading = foreign_errors(f"{file} cannot be read", "Give the model as a folder with config.json and safetensors")
    with new_folder(folder) as new:
        with reading:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32, output_loading_info=True,
            )  # fmt: skip
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model, report = loaded
        refuse_incomplete(report, file)
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
    return folder


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))
