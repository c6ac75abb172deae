"""The graph of claims as an inline SVG: verdicts as colour and as word, nodes as links, no script."""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from helpers.show.markup import Block, Inline, verbatim
from helpers.site.blocks import badge
from helpers.site.graph import Edge, Graph, Node, spoken
from helpers.site.layout import layered
from helpers.site.pages import paragraph, table

WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 232, 92, 148, 26, 12
LETTERS, LINES = 31, 3
# Paper, ink and the width of the border: in grey the word in each box still says which verdict it is.
LOOK = {
    "SUPPORTED": ("#d1e7dd", "#0a3622", 2),
    "REFUTED": ("#f8d7da", "#58151c", 3),
    "MIXED": ("#e2d9f3", "#3d2a6b", 2),
    "UNDECIDED": ("#cfe2ff", "#052c65", 2),
    "NOT RUN": ("#ffffff", "#495057", 1),
    "STALE": ("#fff3cd", "#5c4400", 3),
    None: ("#f1f3f5", "#343a40", 1),
}
DASHES = {"contradicts": "7 4", "absorbed_by": "2 3", "supersedes": "10 3 2 3"}
Point = tuple[float, float]


@dataclass(frozen=True)
class _Line:
    edge: Edge
    points: list[Point]


def draw(graph: Graph) -> Block:
    """Draw the graph as a figure that scrolls sideways on a phone; without claims, say that there are none."""
    if not graph.nodes:
        return paragraph("No page carries a claim yet, so there is nothing to draw.")
    boxes, lines, width, height = _placed(graph)
    flagged = {name for name, node in graph.nodes.items() if not node.upstream and graph.flags(name)}
    parts = [_line(line) for line in lines]
    parts += [_box(graph.nodes[name], place, name in flagged) for name, place in boxes.items()]
    parts += [_label(line) for line in lines]
    claims = sum(not node.upstream for node in graph.nodes.values())
    said = f"Graph of {claims} claims and {len(graph.nodes) - claims} upstream issues; the tables below say the same."
    return Block(
        Markup(
            '<div class="cb-scroll cb-graph" tabindex="0"><svg xmlns="http://www.w3.org/2000/svg" role="group" '
            'aria-label="{0}" width="{1:.0f}" height="{2:.0f}" viewBox="0 0 {1:.0f} {2:.0f}" '
            'font-family="system-ui, sans-serif" font-size="12.5"><title>{0}</title>\n{3}\n{4}\n</svg></div>'
        ).format(said, width, height, ARROW, Markup("\n").join(parts))
    )


ARROW = Markup(
    '<defs><marker id="cb-arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
    'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="currentColor"></path></marker></defs>'
)


def _placed(graph: Graph) -> tuple[dict[str, Point], list[_Line], float, float]:
    """Return the upper left corner of every box, the points of every line, and the size of the drawing."""
    flow = {edge: _flow(edge) for edge in graph.edges}
    layout = layered(list(graph.nodes), flow.values())
    spread, step = WIDTH + ACROSS, HEIGHT + DOWN
    places = layout.places.items()
    boxes: dict[str, Point] = {
        str(name): (MARGIN + layer * spread, MARGIN + row * step) for name, (layer, row) in places
    }
    lines: list[_Line] = []
    for edge, (first, last) in flow.items():
        turned = (first, last) not in layout.routes
        ends = (last, first) if turned else (first, last)
        # Where a line crosses a layer it runs straight past the boxes of that layer.
        left = [(MARGIN + layer * spread, MARGIN + row * step + HEIGHT / 2) for layer, row in layout.routes[ends]]
        between = [point for x, y in left for point in ((x, y), (x + WIDTH, y))]
        (x0, y0), (x1, y1) = boxes[ends[0]], boxes[ends[1]]
        points: list[Point] = [(x0 + WIDTH, y0 + HEIGHT / 2), *between, (x1, y1 + HEIGHT / 2)]
        lines.append(_Line(edge, points if ends[0] == edge.source else points[::-1]))
    right = max(x for x, _ in boxes.values()) + WIDTH + MARGIN
    bottom = max(y for _, y in boxes.values()) + HEIGHT + MARGIN
    return boxes, _apart(lines), right, bottom


def _flow(edge: Edge) -> tuple[str, str]:
    """Return a relation as (left, right): its target is older and stands left, unless it absorbed the source."""
    return (edge.source, edge.target) if edge.kind == "absorbed_by" else (edge.target, edge.source)


def _apart(lines: list[_Line]) -> list[_Line]:
    """Spread lines that meet at one side of a box, in the order of their other ends."""
    moved = {id(line): list(line.points) for line in lines}
    for end, other in ((0, 1), (-1, -2)):
        meeting: dict[Point, list[_Line]] = {}
        for line in lines:
            meeting.setdefault(line.points[end], []).append(line)
        for (x, y), group in meeting.items():
            group.sort(key=lambda line: line.points[other][1])
            for number, line in enumerate(group):
                moved[id(line)][end] = (x, y + (number - (len(group) - 1) / 2) * min(16, (HEIGHT - 20) / len(group)))
    return [_Line(line.edge, moved[id(line)]) for line in lines]


def _line(line: _Line) -> Markup:
    path = f"M{line.points[0][0]:.0f} {line.points[0][1]:.0f}"
    for (x0, y0), (x1, y1) in itertools.pairwise(line.points):
        middle = (x0 + x1) / 2
        path += f" C{middle:.0f} {y0:.0f} {middle:.0f} {y1:.0f} {x1:.0f} {y1:.0f}"
    return Markup(
        '<path d="{}" fill="none" stroke="currentColor" stroke-width="1.4" stroke-dasharray="{}" '
        'marker-end="url(#cb-arrow)"></path>'
    ).format(path, DASHES.get(line.edge.kind, "none"))


def _label(line: _Line) -> Markup:
    """Write the kind of relation near the box that states it, where labels of several lines do not overlap."""
    (x0, y0), (x1, y1) = line.points[0], line.points[1]
    x, y = (x0 + x1) / 2, (y0 + y1) / 2 - 4
    text = line.edge.kind.replace("_", " ") + (f": {line.edge.answer}" if line.edge.answer else "")
    return Markup(
        '<text x="{:.0f}" y="{:.0f}" text-anchor="middle" font-size="11" fill="currentColor" '
        'class="cb-relation">{}</text>'
    ).format(x, y, text)


def _box(node: Node, place: Point, is_flagged: bool) -> Markup:
    x, y = place
    paper, ink, border = LOOK[node.verdict]
    word = node.verdict or "UPSTREAM ISSUE"
    head = f"{word} · {node.confidence}" if node.confidence else word
    title = node.title or "named by a relation, without a note"
    written = textwrap.wrap(f"{node.id} {title}" if node.upstream else title, LETTERS)
    if len(written) > LINES:
        written = [*written[: LINES - 1], textwrap.shorten(" ".join(written[LINES - 1 :]), LETTERS, placeholder=" …")]
    row = Markup('<tspan x="{:.0f}" y="{:.0f}">{}</tspan>')
    text = Markup().join(row.format(x + 12, y + 42 + 16 * number, line) for number, line in enumerate(written))
    return Markup(
        '<a href="{}"><title>{}</title>'
        '<rect x="{:.0f}" y="{:.0f}" width="{}" height="{}" rx="{}" fill="{}" stroke="{}" stroke-width="{}"></rect>'
        '<text x="{:.0f}" y="{:.0f}" font-size="11" font-weight="700" fill="{}">{}</text>'
        '<text fill="{}">{}</text></a>'
    ).format(
        node.href, f"{node.id}: {title} ({word})",
        x, y, WIDTH, HEIGHT, 14 if node.upstream else 5, paper, ink, border,
        x + 12, y + 22, ink, head + (" ⚠ flagged" if is_flagged else ""),
        ink, text,
    )  # fmt: skip


def claims_table(graph: Graph) -> Block:
    """Show the claims of the graph with their flags."""
    rows = [
        {"claim": _link(node.href, node.title), "verdict": badge(node.verdict), "confidence": badge(node.confidence),
         "flags": " ".join(graph.flags(node.id)) or "none"}
        for node in graph.nodes.values() if not node.upstream
    ]  # fmt: skip
    return table(pd.DataFrame(rows), "Claims") if rows else paragraph("No page carries a claim yet.")


def relations_table(graph: Graph) -> Block:
    """Show every relation in words, with its note and, for absorbed hypotheses, the answer."""
    rows = [
        {"claim": edge.source, "relation": spoken(edge.kind), "to": _link(graph.nodes[edge.target].href, edge.target),
         "note": edge.note or "none", "answer": edge.answer_text or "none asked"}
        for edge in graph.edges
    ]  # fmt: skip
    return table(pd.DataFrame(rows), "Relations") if rows else paragraph("No claim states a relation.")


def _link(href: str, text: str) -> Inline:
    return Inline(Markup('<a href="{}">{}</a>').format(href, verbatim(text)))
