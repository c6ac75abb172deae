"""How rows of a model are computed, as `exact` found it, and the cache on disk of that. torch is not imported."""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from helpers.base import files
from helpers.base.errors import ModelError, RecordError
from helpers.system import provenance

ORDER: tuple[Literal["packed", "padded", "single"], ...] = ("packed", "padded", "single")
"""The ways of computing rows, the fastest first."""
TRAININGS = ("alone", "stacked", "documents", "reader")
"""What trains: one adapter, several in one pass, a fine-tune on whole documents, or a prefix of a frozen reader."""
_SOURCES = ("cached", "exact", "exact_training", "forward", "packed", "parts", "stacked", "ways")
_PACKAGES = ("torch", "transformers", "peft")


@dataclass(frozen=True)
class Ways:
    """How rows and completions of one model are computed, and why not in the fastest way.

    ``limit``: rows longer than this are computed one by one, because the length of the longest changes all rotary
    positions of a batch. Where it changes those of later batches as well (not ``steady``), they are refused.
    ``training`` is the way of rows while a model trains, ``None`` until that was tried (see ``exact_training``).
    """

    rows: Literal["packed", "padded", "single"] = "packed"
    generation: Literal["cached", "own"] = "cached"
    why: str = ""
    limit: int | None = None
    steady: bool = True
    training: Literal["packed", "padded", "single"] | None = None
    why_training: str = ""

    def for_rows(self, longest: int) -> str:
        """Return the way for a batch whose longest row has so many tokens; with gradients, that for training."""
        import torch  # here, because a record is found without it

        if self._beyond(longest):
            return "single"
        return self.training if self.training and torch.is_grad_enabled() else self.rows

    def for_generation(self, longest: int) -> str:
        """Return the way for completions that reach so many tokens with their prompts."""
        return "own" if self._beyond(longest) else self.generation

    def _beyond(self, longest: int) -> bool:
        beyond = self.limit is not None and longest > self.limit
        if beyond and not self.steady:
            raise ModelError(
                f"Rows reach {longest} tokens, and beyond {self.limit} the rotary frequencies of this model depend on "
                "the longest row that it has ever seen. Use shorter rows, or another kind of scaling."
            )
        return beyond

    def __str__(self) -> str:
        if self.rows != "packed":
            return f"plain, because {self.why}"
        plain = {"generation": self.why, "training": self.why_training}
        return ", ".join(["packed", *(f"{what} plain, because {why}" for what, why in plain.items() if why)])


def note_kept(sha256: str, dtype: str, device: str) -> None:
    """Tell records how rows of a model are computed, if it was loaded before; nothing is loaded now."""
    place = Place(sha256, dtype, device.partition(":")[0])
    for what in ("rows", *TRAININGS):
        ways = place.read(what)
        if ways is not None:
            place.note(ways)


@dataclass(frozen=True)
class Place:
    """Where the cache on disk says how rows are computed of a model with this content."""

    sha256: str
    dtype: str
    device: str

    def read(self, what: str) -> Ways | None:
        path = self._path(what)
        return Ways(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def write(self, what: str, ways: Ways) -> None:
        with contextlib.suppress(RecordError):  # a cache that cannot be written is only slower
            files.write_json(self._path(what), asdict(ways))

    def note(self, ways: Ways) -> None:
        if str(ways) != "packed":
            provenance.note_rows(self.sha256, str(ways))

    def _path(self, what: str) -> Path:
        key = {
            "sha256": self.sha256, "dtype": self.dtype, "device": self.device, "what": what, "code": _code(),
            "packages": [metadata.version(name) for name in _PACKAGES],
        }  # fmt: skip
        return files.cache_root() / "ways" / f"{files.sha256_json(key)}.json"


@functools.cache
def _code() -> str:
    """Return the hash of the sources on which it depends how rows come out."""
    paths = [Path(__file__).with_name(f"{name}.py") for name in _SOURCES]
    return files.sha256_json([files.sha256_file(path) for path in paths])
