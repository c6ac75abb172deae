"""The one reader of YAML: only values that JSON has too, no duplicate keys, errors with file and line."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from helpers.base.errors import ClaimbookError

Place = tuple[str | int, ...]
TAG = "tag:yaml.org,2002:"
KNOWN = {f"{TAG}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
LARGEST = 2**63
MOST_PARTS = 500_000
"""What a document may hold once its aliases are written out: one part may be named a hundred thousand times."""


class _Loader(yaml.SafeLoader):
    """YAML restricted to what JSON can say: a date is text, and no part holds itself. ``5e-6`` is a float."""

    anchored = 0  # parts under an anchor that are being read

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        is_alias, is_anchor = isinstance(event, yaml.AliasEvent), event.anchor is not None
        if is_alias and self.anchored:  # a circle, or one that grows without end
            raise ComposerError(None, None, f"write *{event.anchor} out in full", event.start_mark)
        self.anchored += is_anchor and not is_alias
        node = super().compose_node(parent, index)
        self.anchored -= is_anchor and not is_alias
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (IndexError, KeyError):  # what PyYAML makes of `!!int ''` and `!!bool x`
            raise ConstructorError(None, None, f"{node.value!r} is not {node.tag}", node.start_mark) from None
        if problem := _problem(value):
            raise ConstructorError(None, None, problem, node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise ConstructorError(None, None, "this is not a mapping", node.start_mark)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            problem = "a key must be one word" if key is None else f"{key!r} is written twice" if key in seen else ""
            if problem:
                raise ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def lines(self, root: yaml.Node, first_line: int) -> dict[Place, int]:
        """Return the line of ``root``, as part ``()``, and of each part in it, where aliases are written out."""
        lines: dict[Place, int] = {(): root.start_mark.line + first_line}
        waiting: list[tuple[Place, yaml.Node]] = [((), root)]
        while waiting:
            place, node = waiting.pop()
            inside: list[tuple[str | int, yaml.Node, int]] = []
            if isinstance(node, yaml.SequenceNode):
                inside = [(index, child, child.start_mark.line) for index, child in enumerate(node.value)]
            elif isinstance(node, yaml.MappingNode):
                inside = [(self.construct_object(key), child, key.start_mark.line) for key, child in node.value]
            lines |= {(*place, step): line + first_line for step, _, line in inside}
            waiting += [((*place, step), child) for step, child, _ in inside]
            if len(lines) > MOST_PARTS:
                problem = f"with its aliases written out it has more than {MOST_PARTS:,} parts"
                raise ComposerError(None, None, problem, root.start_mark)
        return lines


def _problem(value: Any) -> str:
    """Say why JSON, or a file, could not hold a single value; nothing where it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a finite number"
    if isinstance(value, int) and not -LARGEST < value < LARGEST:
        return f"the number overflows: it must be less than {LARGEST:,}"
    if isinstance(value, str) and ("\0" in value or (not value.isprintable() and re.search("[\ud800-\udfff]", value))):
        return "the text holds a NUL or half of a character"
    return ""


_Loader.yaml_constructors = {
    tag: construct for tag, construct in yaml.SafeLoader.yaml_constructors.items() if tag is None or tag in KNOWN
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in KNOWN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{TAG}float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def read(text: str, where: str | Path, error: type[ClaimbookError]) -> Any:
    """The value of one YAML document; ``error`` names what is wrong and the line of ``where``."""
    return read_with_lines(text, where, error)[0]


def read_with_lines(
    text: str, where: str | Path, error: type[ClaimbookError], first_line: int = 1
) -> tuple[Any, dict[Place, int]]:
    """The value of one YAML document and the line of each of its parts, where ``text`` begins on ``first_line``."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {(): first_line}
        value = loader.construct_document(node)
        return value, loader.lines(node, first_line) | {(): first_line}
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        is_long = "\n" in text or first_line > 1
        place = f"{where}:{mark.line + first_line}: this" if mark and is_long else where
        raise error(f"{place} cannot be read as YAML: {fault.problem}.") from None
    except RecursionError:
        raise error(f"{where} cannot be read as YAML: it is nested too deeply.") from None
    except (yaml.YAMLError, ValueError) as fault:
        raise error(f"{where} cannot be read as YAML: {' '.join(str(fault).split())}.") from None
