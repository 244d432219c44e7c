"""Draw docs/images/house.svg: the rooms of the core in the order of their imports, their files, and who imports whom.

Everything is read from the code. An arrow goes from a room to one that it imports; where a longer way of arrows leads
there too, it is left out. `--check` draws nothing and fails where the picture is not what the code says.

    .venv/bin/python scripts/draw_house.py
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "src" / "rollwright"
ORDER = ROOT / "tests" / "house" / "test_imports.py"
PICTURE = ROOT / "docs" / "images" / "house.svg"

WIDTH, LEFT, BOX, GAP, LINE = 1180, 20, 860, 12, 17
LANE, FONT, CHARS = 15, 12, 150
INK, PAPER, EDGE = "#1f2937", "#f8fafc", "#94a3b8"
HUES = ("#2563eb", "#059669", "#b45309", "#7c3aed", "#be123c", "#0e7490")

Edges = list[tuple[str, str]]


def rooms() -> list[str]:
    """The rooms in the order of their imports: the one list, which the test of imports holds."""
    for node in ast.parse(ORDER.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ROOMS":
            return list(ast.literal_eval(node.value))
    raise SystemExit(f"{ORDER} names no ROOMS")


def files_of(room: str) -> list[str]:
    """The files of a room without its doors, those of a folder inside it as `folder/file`."""
    folder = CORE / room
    found = (file.relative_to(folder).with_suffix("") for file in folder.rglob("*.py") if file.name != "__init__.py")
    return sorted(map(Path.as_posix, found), key=lambda name: (name.count("/"), name))


def purpose(room: str) -> str:
    """The first line of the room's docstring."""
    text = ast.get_docstring(ast.parse((CORE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].splitlines()[0] if text else ""


def imports_of(room: str, names: Sequence[str]) -> set[str]:
    """The other rooms that any file of a room imports, inside functions and for type checkers too."""
    found = set()
    for file in sorted((CORE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {module.split(".")[1] for module in modules if module.startswith("rollwright.")}
    return (found & set(names)) - {room}


def reduced(graph: Mapping[str, set[str]]) -> Edges:
    """The edges that no longer way replaces. The graph has no circle."""
    reach: dict[str, set[str]] = {}

    def reached(room: str) -> set[str]:
        if room not in reach:
            reach[room] = set(graph[room]).union(*(reached(other) for other in graph[room]))
        return reach[room]

    return [
        (room, other)
        for room, others in graph.items()
        for other in sorted(others)
        if not any(other in reached(between) for between in others - {other})
    ]


def lanes(spans: Sequence[tuple[int, int]]) -> list[int]:
    """A lane for each arrow, as near as possible: arrows that pass the same row do not share one."""
    taken: list[list[tuple[int, int]]] = []
    chosen = [0] * len(spans)
    for index in sorted(range(len(spans)), key=lambda k: (spans[k][1] - spans[k][0], spans[k])):
        low, high = spans[index]
        free = (lane for lane, used in enumerate(taken) if all(high <= a or low >= b for a, b in used))
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((low, high))
        chosen[index] = lane
    return chosen


def box(room: str, number: int, top: int, lines: Sequence[str], count: int) -> list[str]:
    """One room: its number and name, what it is for, its files."""
    height = LINE * (len(lines) + 1) + 14
    hue = HUES[number % len(HUES)]
    head = f"{number + 1}. {room}"
    drawn = [
        f'<rect x="{LEFT}" y="{top}" width="{BOX}" height="{height}" rx="6" fill="{PAPER}" stroke="{EDGE}"/>',
        f'<rect x="{LEFT}" y="{top}" width="6" height="{height}" rx="3" fill="{hue}"/>',
        f'<text x="{LEFT + 18}" y="{top + 20}" font-weight="bold" font-size="14" fill="{INK}">{escape(head)}</text>',
        f'<text x="{LEFT + 150}" y="{top + 20}" fill="{INK}">{escape(purpose(room))}</text>',
        f'<text x="{LEFT + BOX - 10}" y="{top + 20}" text-anchor="end" fill="{EDGE}">{count} files</text>',
    ]
    for index, line in enumerate(lines):
        y = top + 20 + LINE * (index + 1)
        drawn.append(f'<text x="{LEFT + 18}" y="{y}" font-size="11" fill="#475569">{escape(line)}</text>')
    return drawn


def arrow(start: float, end: float, lane: int, hue: str, title: str) -> str:
    """From a room to one above it, around the right side."""
    right, x = LEFT + BOX, LEFT + BOX + 14 + LANE * lane
    path = f"M {right} {start:g} H {x} V {end:g} H {right + 7}"
    tip = f"M {right} {end:g} l 8 -4 v 8 z"
    return (
        f'<g><title>{escape(title)}</title><path d="{path}" fill="none" stroke="{hue}" stroke-width="1.4"/>'
        f'<path d="{tip}" fill="{hue}"/></g>'
    )


def ports(edges: Edges, tops: Mapping[str, int], heights: Mapping[str, int]) -> list[tuple[float, float]]:
    """(start, end) of every arrow: those that touch one room are spread over its side."""
    touching = {room: [edge for edge in edges if room in edge] for room in tops}

    def place(room: str, edge: tuple[str, str]) -> float:
        mine = touching[room]
        return round(tops[room] + heights[room] * (mine.index(edge) + 1) / (len(mine) + 1), 1)

    return [(place(a, (a, b)), place(b, (a, b))) for a, b in edges]


def draw() -> str:
    """The picture as SVG text; the same code gives the same text."""
    names = rooms()
    files = {room: files_of(room) for room in names}
    lines = {room: wrap(", ".join(files[room]), CHARS, break_on_hyphens=False) for room in names}
    heights = {room: LINE * (len(lines[room]) + 1) + 14 for room in names}
    tops, y = {}, 20
    for room in names:
        tops[room] = y
        y += heights[room] + GAP
    edges = reduced({room: imports_of(room, names) for room in names})
    spans = [(names.index(b), names.index(a)) for a, b in edges]
    body = [part for i, room in enumerate(names) for part in box(room, i, tops[room], lines[room], len(files[room]))]
    for (a, b), (start, end), lane in zip(edges, ports(edges, tops, heights), lanes(spans), strict=True):
        body.append(arrow(start, end, lane, HUES[names.index(a) % len(HUES)], f"{a} imports {b}"))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 8}" viewBox="0 0 {WIDTH} {y + 8}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="{FONT}">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>", ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, or with --check compare; -> 1 where the picture is old."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail where docs/images/house.svg is not what is drawn")
    text = draw()
    if parser.parse_args(argv).check:
        return int(not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != text)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(text, encoding="utf-8")
    print(f"drawn: {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
