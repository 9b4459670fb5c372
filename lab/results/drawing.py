# SPDX-License-Identifier: GPL-2.0-only
"""Small drawings for the report: a topology, a time line. Pure SVG, no network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

from lab.results.record import TestResult

#: Width and height of a node's box, and the room between two at least.
_BOX = (68, 26)
_GAP = 6
#: Of the circle that few nodes stand on.
_RADIUS = 90
#: From the circle to the edge of the picture: half a box, and its line.
_EDGE = 40


def topology(data: Mapping[str, object]) -> str:
    """Nodes on a circle, links as lines, LANs as dots.

    Args:
        data: {"nodes": [name, ...], "links": [{"name": ..., "nodes": [name, ...]}, ...]}.
    """
    nodes = [str(node) for node in _list(data.get("nodes"))]
    if not nodes:
        return ""
    where = dict(zip(nodes, places(len(nodes)), strict=True))
    size = 2 * (_radius(len(nodes)) + _EDGE)
    parts = []
    for link in _list(data.get("links")):
        if isinstance(link, Mapping):
            ends = [where[str(n)] for n in _list(link.get("nodes")) if str(n) in where]
            parts.append(_link(str(link.get("name", "")), ends))
    parts += [_node(name, x, y) for name, (x, y) in where.items()]
    return (
        f'<svg viewBox="0 0 {size:.0f} {size:.0f}" width="{size:.0f}" role="img" '
        f'aria-label="topology">{"".join(parts)}</svg>'
    )


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def places(total: int) -> list[tuple[float, float]]:
    """Where the middles of so many nodes' boxes are: on a circle, none over another."""
    radius = _radius(total)
    middle = radius + _EDGE
    return [(middle + radius * x, middle + radius * y) for x, y in _on_circle(total)]


def _on_circle(total: int) -> list[tuple[float, float]]:
    """Points of a circle around zero, of radius 1, the first at its left; one is in its middle."""
    if total == 1:
        return [(0, 0)]
    angles = [2 * math.pi * number / total + math.pi for number in range(total)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def _radius(total: int) -> float:
    """Of a circle on which that many boxes have room."""
    pairs = itertools.combinations(_on_circle(total), 2)
    return max(_RADIUS, *(_factor(one, other) for one, other in pairs), 0)


def _factor(one: tuple[float, float], other: tuple[float, float]) -> float:
    """By how much points must be moved apart for boxes to stand beside or below each other."""
    apart = (abs(a - b) for a, b in zip(one, other, strict=True))
    return min(
        (room + _GAP) / way if way else math.inf for room, way in zip(_BOX, apart, strict=True)
    )


def _link(name: str, ends: Sequence[tuple[float, float]]) -> str:
    if not ends:
        return ""
    x = sum(end[0] for end in ends) / len(ends)
    y = sum(end[1] for end in ends) / len(ends)
    lines = "".join(
        f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{ex:.0f}" y2="{ey:.0f}" class="wire"/>'
        for ex, ey in ends
    )
    dot = f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" class="lan"/>' if len(ends) > 2 else ""
    return f'{lines}{dot}<text x="{x:.0f}" y="{y - 6:.0f}" class="wire">{escape(name)}</text>'


def _node(name: str, x: float, y: float) -> str:
    wide, high = _BOX
    return (
        f'<rect x="{x - wide / 2:.0f}" y="{y - high / 2:.0f}" width="{wide}" height="{high}" '
        f'rx="6" class="node"/>'
        f'<text x="{x:.0f}" y="{y + 4:.0f}" class="node">{escape(name)}</text>'
    )


def time_line(test: TestResult) -> str:
    """A row a node: marks as ticks, splats as red ones; hover tells."""
    whens = [mark.when for mark in test.marks] + [splat.when for splat in test.splats]
    if not whens:
        return ""
    rows = ["", *(node.name for node in test.nodes)]
    for name in [mark.node for mark in test.marks] + [splat.node for splat in test.splats]:
        if name not in rows:
            rows.append(name)
    scale = 560 / max(*whens, 0.001)
    height = 22 * len(rows) + 18
    parts = [_row(name, number) for number, name in enumerate(rows)]
    for mark in test.marks:
        kind = "phase" if not mark.node else "mark"
        parts.append(_tick(mark.when * scale, rows.index(mark.node), kind,
                           f"{mark.when:.3f} s {mark.what}"))  # fmt: skip
    for splat in test.splats:
        kind = "note" if splat.severity == "note" or splat.noise or splat.expected else "splat"
        parts.append(_tick(splat.when * scale, rows.index(splat.node), kind,
                           f"{splat.when:.3f} s {splat.title}"))  # fmt: skip
    parts.append(f'<text x="100" y="{height - 4}" class="time">0 s</text>')
    parts.append(
        f'<text x="{100 + max(whens) * scale:.0f}" y="{height - 4}" class="time end">'
        f"{max(whens):.2f} s</text>"
    )
    return (
        f'<svg viewBox="0 0 680 {height}" width="680" role="img" aria-label="time line">'
        f"{''.join(parts)}</svg>"
    )


def _row(name: str, number: int) -> str:
    y = 22 * number + 14
    return (
        f'<text x="92" y="{y + 4}" class="row">{escape(name or "test")}</text>'
        f'<line x1="100" y1="{y}" x2="664" y2="{y}" class="row"/>'
    )


def _tick(x: float, row: int, kind: str, title: str) -> str:
    y = 22 * row + 14
    return (
        f'<circle cx="{100 + x:.1f}" cy="{y}" r="5" class="{kind}">'
        f"<title>{escape(title)}</title></circle>"
    )
