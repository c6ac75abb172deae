"""The allow-list of page code: read the cells and inline expressions of a page as a small language of our own.

A page may open its case, pick records by their cells, take tables from ``views`` and ``published`` of a study, draw
them with ``plots`` and show blocks of the site. Values are followed by what they are (`Sort`), loops over lists that
stand on the page are unrolled, and everything else is refused: arithmetic, methods of data frames, lambdas, own HTML.
On the way the texts that reach a reader and the facts that are shown are collected for the other rules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from helpers.base.files import ROOT
from helpers.site.linting import calls
from helpers.site.linting.language import (
    BENCH,
    CASE,
    DERIVE,
    PLAIN,
    PLOTS,
    READERS,
    REFUSED,
    SHOWABLE,
    SITE,
    TABLE,
    UNKNOWN,
    Code,
    Sort,
    Value,
    defined,
)  # fmt: skip
from helpers.site.linting.prose import Page, Piece
from helpers.system.source import module_file


def read_code(page: Page, name: str) -> Code:
    """Read all code of ``page``, which is called ``name`` relative to the project."""
    reader = _Reader(name)
    pieces = [(piece, False) for piece in page.cells] + [(piece, True) for piece in page.inlines]
    for piece, inline in sorted(pieces, key=lambda one: one[0].line):
        reader.read(piece, inline=inline)
    return reader.code


class _Reader:
    """Reads pieces of page code in page order."""

    def __init__(self, page: str) -> None:
        self.page, self.code, self.at = page, Code(), 0
        self.names: dict[str, Value] = {"len": Value(Sort.FUNCTION, name="len")}
        self.fixed = {"len"}

    # Pieces and statements

    def read(self, piece: Piece, *, inline: bool) -> None:
        self.at, self.code.reading = piece.line - 1, piece.text if inline else ""
        try:
            tree = ast.parse(piece.text.strip() if inline else piece.text)
        except SyntaxError:
            return  # `numerals` reports it
        if not inline:
            for statement in tree.body:
                self.statement(statement)
            return
        if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
            self.refuse(tree.body[0] if tree.body else tree, "an inline expression is one fact: write no statement")
            return
        value = self.value(tree.body[0].value)
        if value.sort not in (Sort.FACT, Sort.CONSTANT, TABLE, Sort.REFUSED):
            self.refuse(tree.body[0], f"it shows {value.sort.value}: an inline expression shows a fact")

    def refuse(self, node: ast.AST, why: str) -> Value:
        line = self.at + getattr(node, "lineno", 1)
        source = ast.unparse(node).splitlines()
        said = f"{source[0][:60]!r}: " if source else ""
        self.code.faults.append((line, "code", f"{said}{why}."))
        return REFUSED

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.ImportFrom(module=module, names=names):
                for alias in names:
                    self.bind(alias.asname or alias.name, self.imported(node, module or "", alias), node)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.bind(name, self.value(value, name), node)
            case ast.Assign(targets=[ast.Tuple() as names], value=value):
                self.unpack(names, self.value(value), node)
            case ast.Expr(value=value):
                shown = self.value(value)
                if shown.sort not in SHOWABLE:
                    self.refuse(node, f"it shows {shown.sort.value}: show a block of helpers.site")
            case ast.For(target=target, iter=iterated, body=body, orelse=[]):
                for element in self.elements(iterated):
                    self.unpack(target, element, node)
                    for inner in body:
                        self.statement(inner)
            case _:
                self.refuse(node, "a page holds no such statement: put it into `views` of the study, with a test")

    def bind(self, name: str, value: Value, node: ast.AST) -> None:
        if name in self.fixed:
            self.refuse(node, f"{name!r} is {self.names[name].sort.value} already: choose another name")
            return
        self.names[name] = value
        if not isinstance(node, ast.For | ast.comprehension) and value.sort in (Sort.MODULE, Sort.FUNCTION, CASE):
            self.fixed.add(name)

    def unpack(self, target: ast.expr, element: Value, node: ast.AST) -> None:
        if isinstance(target, ast.Name):
            self.bind(target.id, element, node)
        elif isinstance(target, ast.Tuple) and all(isinstance(one, ast.Name) for one in target.elts):
            known = isinstance(element.known, tuple | list) and len(element.known) == len(target.elts)
            parts = element.known if known else [UNKNOWN] * len(target.elts)
            for one, part in zip(target.elts, parts, strict=True):
                assert isinstance(one, ast.Name)
                self.bind(one.id, part if isinstance(part, Value) else Value(element.sort, part), node)
        else:
            self.refuse(node, "a loop binds plain names")

    def elements(self, node: ast.expr) -> list[Value]:
        """What a loop runs over: every element of a list that is known, one unknown element otherwise."""
        value = self.value(node)
        if value.sort in (Sort.CONSTANT, TABLE):
            return [Value(Sort.CONSTANT)]
        if value.sort is PLAIN and isinstance(value.known, list | tuple | dict):
            return [one if isinstance(one, Value) else Value(PLAIN, one) for one in value.known]
        if value.sort is not Sort.REFUSED:
            self.refuse(node, f"a loop runs over a list of the page or of a study, not over {value.sort.value}")
        return []

    def imported(self, node: ast.AST, module: str, alias: ast.alias) -> Value:
        name = alias.name
        known = {
            "helpers.cases": {"open_case": Value(Sort.FUNCTION, name="open_case")},
            "IPython.display": {"display": Value(Sort.FUNCTION, name="display")},
            "helpers.show": {"plots": Value(Sort.MODULE, name="plots")},
            "helpers.site": {one: Value(Sort.MODULE, name=one) for one in SITE if one != BENCH},
        }
        if alias.asname is None and name in known.get(module, {}):
            return known[module][name]
        if module.startswith(("helpers.studies", "helpers.bench")):
            if name in READERS and module_file(f"{module}.{name}", ROOT / "src"):
                self.code.modules.add(name)
                return Value(Sort.MODULE, name=f"{module}.{name}")
            if alias.asname is None and name.isupper() and name in defined(module):
                return Value(Sort.CONSTANT)
        return self.refuse(
            node, "a page imports blocks of helpers.site, plots, and views, published and constants of its study"
        )

    # Expressions

    def value(self, node: ast.expr, called: str = "") -> Value:
        """What ``node`` gives; ``called`` is the name that it is bound to."""
        match node:
            case ast.Constant(value=value):
                if isinstance(value, str):
                    self.text(node, value)
                return Value(PLAIN, value)
            case ast.Name(id=name):
                return self.names.get(name) or self.refuse(node, f"{name!r} is no name of this page")
            case ast.List(elts=elts) | ast.Tuple(elts=elts):
                return self.listed(elts)
            case ast.Dict(keys=keys, values=values):
                return self.mapping(node, zip(keys, values, strict=True))
            case ast.JoinedStr():
                return self.joined(node)
            case ast.ListComp(elt=elt, generators=[made]) if not made.ifs:
                return self.plain([self.within(one, made, elt)[0] for one in self.bindings(made)])
            case ast.DictComp(key=key, value=value, generators=[made]) if not made.ifs:
                pairs = [self.within(one, made, key, value) for one in self.bindings(made)]
                return self.paired(node, pairs)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self.union(node, self.value(left), self.value(right))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return Value(PLAIN, -number)
            case ast.Attribute():
                return self.attribute(node)
            case ast.Subscript(value=whole, slice=key):
                return self.subscript(node, self.value(whole), self.value(key))
            case ast.Call():
                return self.call(node, called)
            case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.BoolOp():
                return self.refuse(node, f"a page computes nothing: {DERIVE}")
        return self.refuse(node, "a page holds no such expression: put it into `views` of the study, with a test")

    def text(self, node: ast.AST, text: str) -> None:
        self.code.texts.append(Piece(self.at + getattr(node, "lineno", 1), text))

    def plain(self, values: Sequence[Value]) -> Value:
        """A list of the page; it is known as far as its elements are."""
        if any(one.sort is Sort.REFUSED for one in values):
            return REFUSED
        simple = all(one.sort is PLAIN and one.known is not UNKNOWN for one in values)
        return Value(PLAIN, [one.known for one in values] if simple else list(values))

    def listed(self, elts: Sequence[ast.expr]) -> Value:
        values: list[Value] = []
        for one in elts:
            if isinstance(one, ast.Starred):
                inner = self.value(one.value)
                known = inner.known if isinstance(inner.known, list | tuple | dict) else [inner]
                values += [part if isinstance(part, Value) else Value(PLAIN, part) for part in known]
            else:
                values.append(self.value(one))
        return self.plain(values)

    def mapping(self, node: ast.AST, items: Iterable[tuple[ast.expr | None, ast.expr]]) -> Value:
        pairs = []
        for key, value in items:
            if key is None:
                whole = self.value(value)
                pairs += [
                    (Value(PLAIN, name), one if isinstance(one, Value) else Value(PLAIN, one))
                    for name, one in (whole.known.items() if isinstance(whole.known, dict) else ())
                ]
            else:
                pairs.append((self.value(key), self.value(value)))
        return self.paired(node, pairs)

    def paired(self, node: ast.AST, pairs: Iterable[Sequence[Value]]) -> Value:
        made: dict[Any, Any] = {}
        for key, value in pairs:
            if Sort.REFUSED in (key.sort, value.sort):
                return REFUSED
            if key.sort is not PLAIN or not isinstance(key.known, str | int | float):
                return self.refuse(node, "a mapping of a page has words for keys")
            made[key.known] = value.known if value.sort is PLAIN and value.known is not UNKNOWN else value
            if isinstance(key.known, str) and isinstance(value.known, str):
                line = self.at + getattr(node, "lineno", 1)
                self.code.labels += [(line, key.known, value.known), (line, value.known, key.known)]
        return Value(PLAIN, made)

    def union(self, node: ast.AST, left: Value, right: Value) -> Value:
        if isinstance(left.known, dict) and isinstance(right.known, dict):
            return Value(PLAIN, left.known | right.known)
        return REFUSED if Sort.REFUSED in (left.sort, right.sort) else self.refuse(node, f"computes: {DERIVE}")

    def joined(self, node: ast.JoinedStr) -> Value:
        parts: list[str] = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                parts.append(str(part.value))
                continue
            assert isinstance(part, ast.FormattedValue)
            value = self.value(part.value)
            if value.sort is Sort.REFUSED:
                return REFUSED
            words = value.sort is Sort.CONSTANT or (value.sort is PLAIN and isinstance(value.known, str))
            if not words or part.format_spec or part.conversion != -1:
                return self.refuse(node, "an f-string of a page joins words: a number in it is a fact, shown as one")
            parts.append(value.known if isinstance(value.known, str) else "…")
        self.text(node, "".join(parts))
        return Value(PLAIN, "".join(parts))

    def bindings(self, made: ast.comprehension) -> Iterator[tuple[ast.expr, Value]]:
        return ((made.target, element) for element in self.elements(made.iter))

    def within(self, binding: tuple[ast.expr, Value], node: ast.AST, *inner: ast.expr) -> list[Value]:
        target, element = binding
        names = dict(self.names)
        self.unpack(target, element, node)
        values = [self.value(one) for one in inner]
        self.names = names
        return values

    def attribute(self, node: ast.Attribute) -> Value:
        whole = self.value(node.value)
        match whole.sort, node.attr:
            case Sort.REFUSED, _:
                return REFUSED
            case Sort.MODULE, name:
                return self.member(node, whole.name, name)
            case (Sort.CASE, "fact" | "verdict" as name):
                return Value(Sort.FUNCTION, known=whole.name, name=name)
            case (Sort.FACT, "short") | (Sort.VERDICT, "sentence" | "brief"):
                return Value(Sort.FACT)
            case (Sort.PLAIN, "items") if isinstance(whole.known, dict):
                return Value(Sort.FUNCTION, known=whole.known, name="items")
        return self.refuse(node, f"{node.attr!r} of {whole.sort.value} is not for pages: {DERIVE}")

    def member(self, node: ast.AST, module: str, name: str) -> Value:
        if module == "plots" and name in PLOTS:
            return Value(Sort.FUNCTION, name=f"plots.{name}")
        if name in SITE.get(module, {}) and module != BENCH:
            return Value(Sort.FUNCTION, name=f"{module}.{name}")
        if module.startswith("helpers.") and not name.startswith("_") and name in defined(module):
            home = BENCH if module.startswith("helpers.bench") else "study"
            return Value(Sort.CONSTANT) if name.isupper() else Value(Sort.FUNCTION, name=f"{home}.{name}")
        return self.refuse(node, f"{name!r} of {module.rpartition('.')[2]} is not for pages")

    def subscript(self, node: ast.AST, whole: Value, key: Value) -> Value:
        if Sort.REFUSED in (whole.sort, key.sort):
            return REFUSED
        if whole.sort is Sort.CONSTANT and key.sort in (PLAIN, Sort.CONSTANT):
            return Value(Sort.CONSTANT)
        if isinstance(whole.known, dict) and key.known in whole.known:
            one = whole.known[key.known]
            return one if isinstance(one, Value) else Value(PLAIN, one)
        return self.refuse(node, f"a part of {whole.sort.value} is no block: {DERIVE}")

    # Calls

    def call(self, node: ast.Call, called: str) -> Value:
        function = self.value(node.func)
        if function.sort is Sort.REFUSED:
            return REFUSED
        if function.sort is not Sort.FUNCTION:
            return self.refuse(node, f"{function.sort.value} cannot be called")
        if function.name == "items":
            return Value(PLAIN, [_pair(name, one) for name, one in function.known.items()])
        if function.name == "log.show":
            return Value(Sort.BLOCK)  # hands the names of the page to the entries in prose, which are read like a page
        positional = [self.value(one) for one in node.args if not isinstance(one, ast.Starred)]
        keywords = self.keywords(node)
        if len(positional) < len(node.args) or keywords is None:
            return self.refuse(node, "a call on a page spells its arguments")
        if any(one.sort is Sort.REFUSED for one in (*positional, *keywords.values())):
            return REFUSED
        made = calls.Call(function, positional, keywords, called, self.at + node.lineno)
        if why := calls.fault(made, self.page, self.code):
            return self.refuse(node, why)
        return calls.result(made, self.code)

    def keywords(self, node: ast.Call) -> dict[str, Value] | None:
        found: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            if keyword.arg is not None:
                found[keyword.arg] = value
            elif isinstance(value.known, dict):
                found |= {k: v if isinstance(v, Value) else Value(PLAIN, v) for k, v in value.known.items()}
            else:
                return None
        return found


def _pair(name: Any, one: Any) -> Value:
    return Value(PLAIN, (Value(PLAIN, name), one if isinstance(one, Value) else Value(PLAIN, one)))
