"""The source code that a run reaches: which modules it imports, and a hash of what in them can change a result."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import io
import os
import sys
import time
import tokenize
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from helpers.base import files
from helpers.base.errors import RecordError, nearest
from helpers.system.provenance import portable

PACKAGE = "helpers"
LOADED = time.time()  # this process began to load helpers at about this time
# These modules open, name, write and show records, but compute nothing that lands in a metric or a table. So a change
# in them is no change of a run's code. Anything that can change a number stays out of this set.
BOOKKEEPING = (
    "records",
    "system",
    "show",
    "base.errors",
    "base.files",
    "base.writers",
    "base.params",
    "base.yaml_text",
)


def code_closure(*entries: str, bookkeeping: bool = False) -> dict[str, str]:
    """Map ``helpers/studies/marker/cell.py`` and each other module that ``entries`` reach by imports to its sha256.

    Imports are read from the source, also those inside functions. A package's ``__init__`` counts, because Python runs
    it. Modules in ``BOOKKEEPING`` are neither hashed nor followed, unless ``bookkeeping`` asks for them. Comments,
    docstrings and blank lines do not count. An entry may lie outside helpers: of what is not helpers its own package
    counts, and what lies beside it in this repository. Raises ``RecordError`` when an entry is no module.
    """
    root = files.ROOT / "src"
    homes = {root: frozenset({PACKAGE})}
    for entry in entries:
        home = home_of(entry)
        if home is None or module_file(entry, home) is None:
            known = [".".join(path.relative_to(root).with_suffix("").parts) for path in root.rglob("*.py")]
            raise RecordError(f"The entry {entry!r} is no module under {portable(str(root))}{nearest(entry, known)}")
        if home != root:
            homes[home] = homes.get(home, frozenset()) | _own_packages(home, entry)
    closure: dict[str, str] = {}
    waiting, seen = list(entries), set()
    while waiting:
        module = waiting.pop()
        if module in seen or (_is_bookkeeping(module) and not bookkeeping):
            continue
        seen.add(module)
        top = module.partition(".")[0]
        for home in [home for home, packages in homes.items() if top in packages]:
            path = module_file(module, home)
            if path is not None:
                stat = path.stat()
                sha, imported = _scan(str(path), module, (stat.st_mtime_ns, stat.st_size))
                closure[path.relative_to(home).as_posix()] = sha
                parts = module.split(".")
                waiting += [*imported, *(".".join(parts[:depth]) for depth in range(1, len(parts)))]
    return dict(sorted(closure.items()))


def _own_packages(home: Path, entry: str) -> frozenset[str]:
    """Return which modules in the folder ``home`` are code of the study whose entry lies there."""
    if home.resolve().is_relative_to(files.ROOT.resolve()) and "site-packages" not in home.parts:
        return frozenset(path.stem for path in home.iterdir() if path.suffix == ".py" or path.is_dir())
    return frozenset({entry.partition(".")[0]})


def home_of(module: str) -> Path | None:
    """Return the folder that ``module`` is imported from: that of helpers, or the one on ``sys.path`` that has it."""
    top = module.partition(".")[0]
    if top == PACKAGE:
        return files.ROOT / "src"
    with contextlib.suppress(ValueError):  # a module that was never imported from a file
        spec = importlib.util.find_spec(top) if top else None
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations))).parent
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent
    return None


def find_module(module: str) -> Path | None:
    """Return the file of ``module``, wherever it is imported from; ``None`` when there is none."""
    home = home_of(module)
    return None if home is None else module_file(module, home)


def refuse_edited(closure: dict[str, str]) -> None:
    """Raise ``RecordError`` when a file of ``closure`` was edited after this process had loaded it.

    A Jupyter kernel goes on with the code it loaded, and the record would name code that did not run.
    """
    for name in closure:
        module = sys.modules.get(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        path = None if module is None or module.__file__ is None else Path(module.__file__)
        if path is not None and path.as_posix().endswith(f"/{name}") and path.stat().st_mtime > LOADED:
            shown = portable(str(path)).removeprefix("./")
            raise RecordError(f"{shown} was edited after this process had loaded it: restart the kernel or command.")


def module_file(module: str, root: Path) -> Path | None:
    """Return the file of a module or of a package's ``__init__`` under ``root``; ``None`` when there is none."""
    parts = module.split(".")
    if not all(map(files.is_plain, parts)):
        return None
    # Not by pathlib: a run asks for each of hundreds of names, every time that it looks for its record.
    base = os.path.join(root, *parts)  # noqa: PTH118
    places = (f"{base}.py", os.path.join(base, "__init__.py"))  # noqa: PTH118
    return next((Path(place) for place in places if os.path.isfile(place)), None)  # noqa: PTH113


def _is_bookkeeping(module: str) -> bool:
    return f"{module}.".startswith(tuple(f"{PACKAGE}.{own}." for own in BOOKKEEPING))


@functools.lru_cache(maxsize=4096)
def _scan(path: str, module: str, stamp: tuple[int, int]) -> tuple[str, tuple[str, ...]]:
    """Return the hash of one file and what it imports, cached while its ``stamp`` stays."""
    source = Path(path).read_text(encoding="utf-8")
    imported = tuple(sorted(imports_of(source, module, is_package=path.endswith("__init__.py"))))
    return files.sha256_bytes(essential_source(source).encode()), imported


@functools.lru_cache(maxsize=1)
def _nodes(source: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(source)))


def imports_of(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Return the dotted names that ``source`` imports anywhere, relative ones resolved against ``module``.

    ``from a import b`` gives both ``a`` and ``a.b``: the caller knows whether ``b`` is a module.
    """
    names: set[str] = set()
    for node in _nodes(source):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            base = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def essential_source(source: str) -> str:
    """Return ``source`` without comments, docstrings (any bare string statement) and blank lines.

    The text is cut, because ``ast.dump`` and re-tokenising give other results in other Python versions. What lies
    inside a string of several lines is kept to the letter.
    """
    nodes = _nodes(source)
    lines = [line.encode() for line in source.split("\n")]  # ast counts columns in bytes
    spans = [_span(node)[::2] for node in nodes if isinstance(node, ast.expr) and _is_string(node)]
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
        return _span(node)
    return None


def _span(node: ast.expr | ast.stmt) -> tuple[int, int, int, int]:
    """Return first line, first column, last line and last column of parsed code, which always has all four."""
    last, end = node.end_lineno, node.end_col_offset
    assert last is not None and end is not None
    return node.lineno, node.col_offset, last, end


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _comments(source: str, lines: Sequence[bytes], spanned: Set[int]) -> list[tuple[int, int, int, int]]:
    """Return the spans of all comments; ``spanned`` are the rows of strings that run over several lines.

    A ``#`` begins a comment unless it stands in a string. Where it may, the file is tokenised, which is slow.
    """
    comments = []
    for row, line in enumerate(lines, start=1):
        before, mark, _ = line.partition(b"#")
        if mark and (row in spanned or b"'" in before or b'"' in before):
            return list(_tokenised_comments(source, lines))
        if mark:
            comments.append((row, len(before), row, len(line)))
    return comments


def _tokenised_comments(source: str, lines: Sequence[bytes]) -> Iterator[tuple[int, int, int, int]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            yield row, len(token.line[:column].encode()), row, len(lines[row - 1])
