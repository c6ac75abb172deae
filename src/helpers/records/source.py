"""Python source as text: the modules that it imports, and what of it can change a result."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator, Sequence, Set


def imports_and_essence(source: str, module: str, *, is_package: bool = False) -> tuple[set[str], str]:
    """`imports_of` and `essential_source` in one reading."""
    nodes = list(ast.walk(ast.parse(source)))
    return _imported(nodes, module, is_package), _essential(source, nodes)


def imports_of(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Dotted names that ``source`` imports anywhere, relative ones resolved against ``module``.

    ``from a import b`` gives both ``a`` and ``a.b``: whether ``b`` is a module is for the caller to find out.
    """
    return _imported(ast.walk(ast.parse(source)), module, is_package)


def _imported(nodes: Iterable[ast.AST], module: str, is_package: bool) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            base = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def essential_source(source: str) -> str:
    """``source`` without comments, docstrings (any bare string statement) and blank lines.

    Text is cut rather than ``ast.dump``-ed or re-tokenised, because both of these differ between Python versions;
    what lies inside a string of several lines is kept to the letter.
    """
    return _essential(source, list(ast.walk(ast.parse(source))))


def _essential(source: str, nodes: Sequence[ast.AST]) -> str:
    lines = [line.encode() for line in source.split("\n")]  # ast counts columns in bytes
    spans = [(node.lineno, node.end_lineno) for node in nodes if _is_string(node)]
    cuts = [span for node in nodes if (span := _bare_string(node))]
    cuts += _comments(source, lines, {row for first, last in spans if last > first for row in range(first, last + 1)})
    inside = {row for first, last in spans for row in range(first, last)}  # whose line break belongs to a string
    touched: set[int] = set()
    for first, start, last, end in sorted(cuts, reverse=True):
        lines[first - 1 : last] = [lines[first - 1][:start].rstrip() + lines[last - 1][end:]] + [b""] * (last - first)
        touched |= set(range(first, last + 1))
    kept = []
    for row, line in enumerate(lines, start=1):
        line = line if row in inside and row not in touched else line.rstrip()
        if line or (row in inside and row not in touched):
            kept.append(line)
    return b"\n".join(kept).decode()


def _bare_string(node: ast.AST) -> tuple[int, int, int, int] | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset
    return None


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _comments(source: str, lines: Sequence[bytes], spanned: Set[int]) -> list[tuple[int, int, int, int]]:
    """Spans of all comments; ``spanned`` are the rows of strings that run over several lines.

    What stands behind a ``#`` is a comment unless the ``#`` stands in a string. Where it may, the file is tokenised,
    which takes longer than all the rest.
    """
    found = []
    for row, line in enumerate(lines, start=1):
        before, mark, _ = line.partition(b"#")
        if mark and (row in spanned or b"'" in before or b'"' in before):
            return list(_tokenised_comments(source, lines))
        if mark:
            found.append((row, len(before), row, len(line)))
    return found


def _tokenised_comments(source: str, lines: Sequence[bytes]) -> Iterator[tuple[int, int, int, int]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            yield row, len(token.line[:column].encode()), row, len(lines[row - 1])
