"""Whether a folder holds one whole model that can be read here, seen from its small files before weights load.

A record is found by its model's content, so torch and transformers are imported only where a model is about to load.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.base.errors import ModelError
from helpers.base.files import DATA, stamp
from helpers.lm.foreign import foreign_errors

if TYPE_CHECKING:
    from torch import nn

CONFIG, INDEX, SINGLE, ADAPTER = (
    "config.json", "model.safetensors.index.json", "model.safetensors", "adapter_config.json"
)  # fmt: skip
CUSTOM_CODE = "CLAIMBOOK_CUSTOM_CODE"
"""Set to 1, a model may run the Python files that lie beside its weights."""


def check_folder(folder: Path) -> None:
    """Raise ``ModelError`` naming the first file that is missing, cut short or cannot be used, and the remedy."""
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}. Check the path{_hint(folder)}.")
    adapter = (folder / ADAPTER).is_file()
    if not (folder / CONFIG).is_file():
        _refuse_what_is_no_model(folder, adapter)
    if adapter:
        raise ModelError(
            f"{folder} holds a whole model and, beside it, an adapter ({ADAPTER}), so it is not clear which is meant. "
            f"Move {ADAPTER} and adapter_model.safetensors to a folder of their own."
        )
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(
            f"{folder / 'tokenizer.json'} is missing. Copy the tokenizer beside the weights{_hint(folder)}."
        )
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    for shard in shards(folder):
        check_safetensors(shard)


def check_architecture(folder: Path) -> None:
    """Raise ``ModelError`` where transformers has no causal model, or no reader of weights, for a checked folder."""
    config = read_json(folder / CONFIG)
    _check_kind(folder, config)
    if config.get("quantization_config"):
        _check_quantisation(folder, config["quantization_config"])


def _refuse_what_is_no_model(folder: Path, adapter: bool) -> None:
    if adapter:
        base = read_json(folder / ADAPTER).get("base_model_name_or_path") or "which its own README names"
        raise ModelError(
            f"{folder} holds an adapter, not a model. Name its base model ({base}) here, and the adapter where a "
            "fine-tune is asked for."
        )
    gguf = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    if gguf:
        raise ModelError(f"{folder} holds GGUF files only. Name the file itself, {folder / gguf[0]}.")
    raise ModelError(f"{folder / CONFIG} is missing. Copy the whole model folder{_hint(folder)}.")


def _hint(folder: Path) -> str:
    return ", or build it with 'make pocket'" if folder == DATA / "pocket" else ""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of a model; ``ModelError`` names a file that is cut short or damaged."""
    return _read_json(str(path), stamp(path))


@functools.lru_cache(maxsize=512)
def _read_json(path: str, key: tuple[int, ...]) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:  # of UTF-8 as well
        raise ModelError(f"{path} is cut short or damaged ({error}). Copy or fetch it again.") from error


def custom_code() -> bool:
    """Whether models may run Python files of their own here."""
    return os.environ.get(CUSTOM_CODE) == "1"


def own_code(folder: Path) -> list[Path]:
    """Return the Python files that the model in ``folder`` needs because transformers has no class for it."""
    config = read_json(folder / CONFIG)
    needed = "AutoModelForCausalLM" in config.get("auto_map", {}) and config.get("model_type") not in _causal()
    if (folder / "tokenizer_config.json").is_file():
        settings = read_json(folder / "tokenizer_config.json")
        needed |= "AutoTokenizer" in settings.get("auto_map", {}) and not _has_tokenizer(settings)
    return sorted(folder.glob("*.py")) if needed else []


def _causal() -> set[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return {name for name in CONFIG_MAPPING if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}


def _has_tokenizer(settings: Mapping[str, Any]) -> bool:
    import transformers

    named = str(settings.get("tokenizer_class")).removesuffix("Fast")
    return any(hasattr(transformers, name) for name in (named, f"{named}Fast"))


def _check_kind(folder: Path, config: dict[str, Any]) -> None:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    code = own_code(folder)
    if code and not custom_code():
        raise ModelError(
            f"The model in {folder} needs Python code of its own ({code[0].name}), which is not run unasked. Read the "
            f"code, then set {CUSTOM_CODE}=1, or use a model that transformers knows."
        )
    if code:
        return
    if kind is None:
        raise ModelError(f"{folder / CONFIG} has no model_type. Copy the model again, or save it with transformers.")
    if kind not in CONFIG_MAPPING:
        raise ModelError(
            f"{folder / CONFIG} names the architecture {kind!r}, which transformers {transformers.__version__} does "
            "not know. Use a model that it knows, or install a version that does."
        )
    if kind not in _causal():
        raise ModelError(f"{folder / CONFIG} describes a {kind!r}, which is not a causal language model. Use one.")


def _check_quantisation(folder: Path, settings: dict[str, Any]) -> None:
    from transformers.quantizers.auto import AutoHfQuantizer

    method = settings.get("quant_method", "an unnamed method")
    with foreign_errors(
        f"The weights in {folder} are quantised by {method}, which cannot be read here",
        "Install what is missing, or give the model in full precision",
    ):
        AutoHfQuantizer.from_config(settings, pre_quantized=True).validate_environment(
            device_map=None, weights_only_kwarg={}
        )


def refuse_incomplete(report: Mapping[str, Any], place: Path) -> None:
    """Raise ``ModelError`` where transformers' report on loading names tensors that are missing or have no place.

    A missing tensor would be left random; one without a place means that the model is another than its config says.
    """
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise ModelError(
            f"The weights in {place} lack {absent[0]} ({len(absent)} tensors in all), which would be left random. "
            "Fetch or build the model again."
        )
    strange = sorted(map(str, report["unexpected_keys"]))
    if strange:
        raise ModelError(
            f"The weights in {place} hold {strange[0]} ({len(strange)} tensors in all), for which the architecture in "
            f"{CONFIG} has no place, so it would be left out. Correct {CONFIG}, or fetch the model again."
        )


def check_rope(folder: Path, model: nn.Module) -> None:
    """Raise ``ModelError`` where ``config.json`` scales the rotary positions and the loaded model does not."""
    whole = read_json(folder / CONFIG)
    asked = {kind for part in (whole, whole.get("text_config") or {}) for kind in _rope_types(part)}
    found: list[Any] = [module.rope_type for module in model.modules() if hasattr(module, "rope_type")]
    used: set[str] = {kind for one in found for kind in (one.values() if isinstance(one, dict) else [one])}
    lost = sorted(asked - used)
    if lost:
        import transformers

        raise ModelError(
            f"{folder / CONFIG} scales rotary positions by {lost[0]!r}, but {type(model).__name__} of transformers "
            f"{transformers.__version__} computes {sorted(used) or 'none'}. Write the scaling as that version reads it "
            "(rope_parameters)."
        )


def _rope_types(config: Mapping[str, Any]) -> set[str]:
    """Return the kinds of scaling that a config asks for, by their name of now, the plain ones left out."""
    kinds = set()
    for settings in (config.get("rope_scaling"), config.get("rope_parameters")):
        parts = [settings, *settings.values()] if isinstance(settings, dict) else []
        kinds |= {part.get("rope_type") or part.get("type") for part in parts if isinstance(part, dict)}
    return {"longrope" if kind == "su" else kind for kind in kinds} - {None, "default", "mrope"}


def shards(folder: Path) -> list[Path]:
    """Return the files that transformers reads the weights from. A single file wins over an index beside it."""
    if (folder / SINGLE).is_file() or not (folder / INDEX).is_file():
        return [folder / SINGLE]
    listed = read_json(folder / INDEX)
    names = set(listed.get("weight_map", {}).values()) if isinstance(listed, dict) else set()
    if not names:
        raise ModelError(f"{folder / INDEX} names no file of weights. Copy it again.")
    return [folder / name for name in sorted(names)]


def check_safetensors(path: Path) -> None:
    """Compare the size of a file with the one its header promises; no tensor is read."""
    if not path.is_file():
        raise ModelError(f"{path} is missing. Copy the model again (weights are read as safetensors only).")
    size = path.stat().st_size
    try:
        tensors = header(path)
        with path.open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
        promised = begin + max(t["data_offsets"][1] for key, t in tensors.items() if key != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError):
        promised = None
    if promised != size:
        raise ModelError(f"{path} is cut short or damaged ({size:,} bytes). Copy or fetch it again.")


def header(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says of its tensors; ``ValueError`` when it is no such file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length) if 0 < length <= path.stat().st_size - 8 else b"")
