"""The tokenizer of a model, from its own files: no weights are read or fetched, and torch is not imported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.base.errors import ModelError
from helpers.base.files import DATA, expanded
from helpers.lm import hub
from helpers.lm.model_files import PRESETS, local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]*(?<!\.gguf)")
_FETCHED = ("*.json", "*.jinja", "*.txt", "tokenizer.model")


def tokenizer_folder(name: str) -> Path:
    """Return the folder with the tokenizer of ``name``: a preset, a folder or a hub id (``owner/name@revision``).

    Raises ``ModelError`` where there is none.
    """
    folder = _folder(name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{name} has no tokenizer.json. Give a folder or hub id with a tokenizer.")
    return folder


def _folder(name: str) -> Path:
    if name == "pocket":
        return DATA / name
    if expanded(name).is_dir():
        return expanded(name)
    repo, revision = hub.split_revision(name)
    if not _HUB_ID.fullmatch(repo):
        repo = PRESETS.get(repo, repo)
        if not _HUB_ID.fullmatch(repo):  # converted from another format, or nothing that is known
            return local_folder(name)
    return hub.snapshot(repo, revision, _FETCHED, "model").folder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in ``folder``. Raises ``ModelError`` where it is damaged, or has no offsets."""
    from transformers import AutoTokenizer, PreTrainedConfig

    # A folder without config.json is one that holds a tokenizer only.
    known = {} if (folder / "config.json").is_file() else {"config": PreTrainedConfig()}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **known)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise _damaged(folder, error) from error
    if not tokenizer.is_fast:
        raise ModelError(f"The tokenizer in {folder} gives no offsets. Save it as tokenizer.json.")
    return tokenizer


def spelling(folder: Path) -> Callable[[int], str]:
    """Return what gives the text of a token by the tokenizer in ``folder``, as simply as its files allow.

    That of a tokenizer.json needs no transformers, whose import takes seconds.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        tokenizer = load_tokenizer(folder)
        return lambda token: str(tokenizer.decode([token]))
    from tokenizers import Tokenizer

    try:
        whole = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise _damaged(folder, error) from error
    return lambda token: whole.decode([token], skip_special_tokens=False)


def stop_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path) -> frozenset[int]:
    """Return the token ids at which generation stops: the tokenizer's own, and those of generation_config.json, or of
    config.json where there is none."""
    settings = next(
        (found for name in ("generation_config.json", "config.json") if (found := _json(folder / name))), {}
    )
    value = settings.get("eos_token_id", settings.get("text_config", {}).get("eos_token_id"))
    values = [tokenizer.eos_token_id, *(value if isinstance(value, list) else [value])]
    return frozenset(one for one in values if isinstance(one, int))


def _damaged(folder: Path, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:200]
    return ModelError(f"The tokenizer in {folder} cannot be loaded ({reason}). Fetch it again.")


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{path} is not JSON. Fetch it again.") from error
