# SPDX-License-Identifier: GPL-2.0-only
"""Small drawings for the report: a topology, a time line. Pure SVG, no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from lab.results.record import TestResult

_SIZE = 260
_RADIUS = 90


def topology(data: Mapping[str, object]) -> str:
    """Nodes on a circle, links as lines, LANs as dots.

    Args:
        data: {"nodes": [name, ...], "links": [{"name": ..., "nodes": [name, ...]}, ...]}.
    """
    nodes = [str(node) for node in _list(data.get("nodes"))]
    if not nodes:
        return ""
    where = {node: _on_circle(number, len(nodes)) for number, node in enumerate(nodes)}
    parts = []
    for link in _list(data.get("links")):
        if isinstance(link, Mapping):
            ends = [where[str(n)] for n in _list(link.get("nodes")) if str(n) in where]
            parts.append(_link(str(link.get("name", "")), ends))
    parts += [_node(name, x, y) for name, (x, y) in where.items()]
    return (
        f'<svg viewBox="0 0 {_SIZE} {_SIZE}" width="{_SIZE}" role="img" '
        f'aria-label="topology">{"".join(parts)}</svg>'
    )


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _on_circle(number: int, total: int) -> tuple[float, float]:
    if total == 1:
        return _SIZE / 2, _SIZE / 2
    angle = 2 * math.pi * number / total + math.pi
    return _SIZE / 2 + _RADIUS * math.cos(angle), _SIZE / 2 + _RADIUS * math.sin(angle)


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
    return (
        f'<rect x="{x - 34:.0f}" y="{y - 13:.0f}" width="68" height="26" rx="6" class="node"/>'
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
