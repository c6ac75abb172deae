"""The domains of generated documents, as ``data/actdiff/domains.yaml`` lists them."""

from __future__ import annotations

import functools
from typing import Any

from helpers.base import yaml_text
from helpers.base.errors import DataError
from helpers.base.files import DATA, read_text

PATH = DATA / "actdiff" / "domains.yaml"


@functools.cache
def listed() -> dict[str, Any]:
    """Read ``data/actdiff/domains.yaml``."""
    return yaml_text.read(read_text(PATH), PATH, DataError)


def domain_names() -> list[str]:
    """Return the names of the domains, in the order of the file."""
    return list(listed()["domains"])
