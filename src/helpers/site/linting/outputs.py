"""Find cells that print, or show HTML of their own: Quarto would load scripts for it, or read the text as Markdown.

This finds the usual ways in the source. Rendering, and ``claimbook lint --execute``, check what a cell really shows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from helpers.site.linting.prose import Page

Fault = tuple[int, str, str]
MODULES = frozenset(["pandas", "altair", "IPython.display"])
HELP = "shows text/html, for which Quarto loads scripts from the network: show it with helpers.site.pages."


def faults(page: Page) -> Iterator[Fault]:
    """Yield cells that print, or that show a value of pandas, altair or IPython.display."""
    rich: set[str] = set()
    for cell in page.cells:
        try:
            tree = ast.parse(cell.text)
        except SyntaxError:
            continue  # `numerals` reports it
        rich |= _imported(tree)
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name = statement.targets[0].id
                rich = rich | {name} if _root(statement.value) in rich else rich - {name}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                yield cell.line + node.lineno - 1, "html", "the cell prints: show it with helpers.site.pages."
            if isinstance(node, ast.Call) and _root(node) == "display" and {_root(arg) for arg in node.args} & rich:
                yield cell.line + node.lineno - 1, "html", f"display() {HELP}"
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr) and _root(last.value) in rich:
            yield cell.line + last.lineno - 1, "html", f"the cell {HELP}"


def _imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def _root(node: ast.expr) -> str | None:
    """Return the leftmost name of ``a.b(c)[d].e``."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return None
    return node.id
