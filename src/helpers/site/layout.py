"""Layered drawing of a directed graph (Sugiyama, Tagawa & Toda 1981): layers, order within layers, coordinates.

Small graphs only (tens of nodes): every step is the plain quadratic one. Everything is deterministic.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

SWEEPS = 6
Name = Hashable


@dataclass(frozen=True)
class Layout:
    """``places`` gives (layer, position) of every node; ``routes`` the places that an edge passes between its ends."""

    places: dict[Name, tuple[int, float]]
    routes: dict[tuple[Name, Name], list[tuple[int, float]]]


def layered(nodes: Sequence[Name], arrows: Iterable[tuple[Name, Name]]) -> Layout:
    """Lay out ``nodes`` so that arrows run from lower to higher layers; arrows that close a cycle run back."""
    forward = _acyclic(nodes, list(dict.fromkeys(arrows)))
    layer = _layers(nodes, forward)
    rows: list[list[Name]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node in nodes:
        rows[layer[node]].append(node)
    steps: list[tuple[Name, Name]] = []
    chains = {}
    for source, target in forward:
        between = [(source, target, i) for i in range(layer[source] + 1, layer[target])]
        for number, dummy in enumerate(between, start=layer[source] + 1):
            rows[number].append(dummy)
        chain = [source, *between, target]
        steps += itertools.pairwise(chain)
        chains[source, target] = between
    _order(rows, steps)
    height = max(map(len, rows), default=0)
    places = {
        name: (number, index + (height - len(row)) / 2)
        for number, row in enumerate(rows)
        for index, name in enumerate(row)
    }
    routes = {ends: [places[dummy] for dummy in between] for ends, between in chains.items()}
    return Layout({node: places[node] for node in nodes}, routes)


def _acyclic(nodes: Sequence[Name], arrows: list[tuple[Name, Name]]) -> list[tuple[Name, Name]]:
    """Return the arrows, those that would close a cycle reversed (depth-first search)."""
    following = {node: [target for source, target in arrows if source == node and target != node] for node in nodes}
    state: dict[Name, str] = {}
    kept: dict[tuple[Name, Name], None] = {}

    def visit(node: Name) -> None:
        state[node] = "open"
        for target in following[node]:
            kept[(target, node) if state.get(target) == "open" else (node, target)] = None
            if target not in state:
                visit(target)
        state[node] = "done"

    for node in nodes:
        if node not in state:
            visit(node)
    return list(kept)


def _layers(nodes: Sequence[Name], arrows: list[tuple[Name, Name]]) -> dict[Name, int]:
    """Return the longest path from a source to each node; sources then move next to what they point at."""
    layer = dict.fromkeys(nodes, 0)
    for _ in nodes:
        for source, target in arrows:
            layer[target] = max(layer[target], layer[source] + 1)
    into = {target for _, target in arrows}
    for node in nodes:
        ahead = [layer[target] for source, target in arrows if source == node]
        if node not in into and ahead:
            layer[node] = min(ahead) - 1
    return layer


def _order(rows: list[list[Name]], steps: list[tuple[Name, Name]]) -> None:
    """Sort every row by the mean position of its neighbours in the row before, then behind, a few times."""
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for number in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            fixed = {name: index for index, name in enumerate(rows[number - 1 if down else number + 1])}
            means = {}
            for index, name in enumerate(rows[number]):
                near = [
                    fixed[a if down else b]
                    for a, b in steps
                    if (b if down else a) == name and (a if down else b) in fixed
                ]
                means[name] = (sum(near) / len(near) if near else index, index)
            rows[number].sort(key=means.__getitem__)
