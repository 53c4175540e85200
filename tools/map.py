"""The picture of the rooms, docs/rooms.svg, drawn from the imports that the files really have.

A room is a package that has an idea of its own. ``ROOMS`` lists them from the ground up, and a room
may import only from those listed before it, so an arrow that would run back up has no place in the
picture. Nor may files import one another in a circle, which no order of rooms would show.

``python -m tools.map`` draws the picture anew; ``--check`` says whether its rooms and arrows are
still those of the files. Lines are counted in hundreds and are not checked.
"""

from __future__ import annotations

import argparse
import ast
import graphlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from serial_lora_course.door import enter

PICTURE = Path("docs/rooms.svg")
COURSE = "serial_lora_course"


@dataclass(frozen=True)
class Room:
    """Where a room stands in the picture, and what it is for, in a few words."""

    floor: int
    column: int
    words: str


ROOMS = {
    "serial_lora": Room(0, 0, "the library: adapters, injection, merging, files"),
    "basics": Room(1, 0, "needed everywhere"),
    "measures": Room(1, 3, "overlap, flow, spectra"),
    "data": Room(1, 1, "sets of pictures"),
    "models": Room(1, 2, "backbones, judges"),
    "labs": Room(2, 2, "train, measure, record"),
    "plots": Room(2, 4, "shared pictures"),
    "study": Room(2, 3, "methods, compared fairly"),
    "claims": Room(3, 2, "the paper's numbers"),
    "panels": Room(2, 5, "pictures that move"),
    "checks": Room(2, 1, "exercises, checked"),
    "grading": Room(3, 0, "notebooks, graded"),
    "work": Room(3, 4, "your own pictures"),
    "commands": Room(3, 3, "serial-lora"),
    "benchmarks": Room(4, 2, "time and memory"),
    "data_scripts": Room(4, 5, "fetch and prepare"),
    "tools": Room(4, 1, "build the course"),
}
"""From the ground up: a room imports only from rooms before it."""
COMMANDS = (
    "__main__",
    "class_board",
    "cli",
    "command_groups",
    "config_file",
    "doctor",
    "lab_options",
    "work_commands",
)
"""Files of the course that are commands; its other files outside those rooms are the basics."""
COURSE_FLOORS = (1, 3)

# ---------------------------------------------------------------------------------- imports


def read_modules(root: Path) -> dict[str, Path]:
    """The name of every module of a room, and its file."""
    found = {}
    for top in ("serial_lora", COURSE, "tools", "data_scripts", "benchmarks"):
        for path in sorted((root / top).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def room_of(module: str) -> str:
    """The room that a module is in."""
    top, _, rest = module.partition(".")
    if top != COURSE:
        return top
    name = rest.partition(".")[0]
    return name if name in ROOMS else "commands" if name in COMMANDS else "basics"


def read_imports(root: Path) -> dict[str, set[str]]:
    """Module to the modules that it imports anywhere in its file, of those in the rooms."""
    modules = read_modules(root)
    return {
        name: {found for found in _imported(name, path, modules) if found != name}
        for name, path in modules.items()
    }


def _imported(module: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in _executed(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            dotted = "." * node.level + (node.module or "")
            source = importlib.util.resolve_name(dotted, package)
            inside = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in modules else source for name in inside]
        else:
            continue
        yield from (name for name in names if name in modules)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all in it, but for what only type checkers read."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _executed(child)


def room_arrows(imports: Mapping[str, set[str]]) -> dict[tuple[str, str], list[str]]:
    """(room, imported room) to the imports between them, as "module -> module"."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for module, others in sorted(imports.items()):
        for other in sorted(others):
            ends = room_of(module), room_of(other)
            if ends[0] != ends[1]:
                arrows.setdefault(ends, []).append(f"{module} -> {other}")
    return arrows


def find_problems(imports: Mapping[str, set[str]]) -> list[str]:
    """What the files must not do: import from a room above, or in a circle; one line each."""
    height = {room: place for place, room in enumerate(ROOMS)}
    problems = [
        f"{line} runs back up, from {lower} to {upper}; move what both need down."
        for (lower, upper), lines in room_arrows(imports).items()
        if height[lower] < height[upper]
        for line in lines
    ]
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        problems.append(f"{circle} is a circle; move what both need into a third file.")
    return problems


def without_detours(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that do not follow from others: without a to c where a to b and b to c stand."""
    below = {room: {end for start, end in arrows if start == room} for room in ROOMS}
    for room in ROOMS:  # from the ground up, so those below are complete
        below[room] |= {further for end in below[room] for further in below[end]}
    return {
        (start, end)
        for start, end in arrows
        if not any(end in below[middle] for middle in below[start] - {end})
    }


# ---------------------------------------------------------------------------------- the picture

WIDTH, HEIGHT = 138, 58  # of a room
STEP_X, STEP_Y = 160, 112
MARGIN, TOP = 24, 16
SHEET = (2 * MARGIN + 5 * STEP_X + WIDTH, 2 * TOP + 4 * STEP_Y + HEIGHT + 28)
STYLE = """
text { font-family: Helvetica, Arial, sans-serif; text-anchor: middle; fill: #222222 }
.name { font-size: 15px; font-weight: bold }
.words { font-size: 11.5px }
.quiet { font-size: 11.5px; fill: #555555 }
.room { fill: #ffffff; stroke: #8a94a3; stroke-width: 1.3 }
.library { fill: #fbe3d3; stroke: #d55e00; stroke-width: 1.6 }
.course { fill: #eef2f6 }
.arrow { stroke: #4d5866; stroke-width: 1.4; marker-end: url(#head) }
"""


def _box(room: str) -> tuple[float, float, float, float]:
    """x, y, width and height of a room; the library lies under all the others."""
    place = ROOMS[room]
    y = TOP + (4 - place.floor) * STEP_Y
    wide = SHEET[0] - 2 * MARGIN if room == "serial_lora" else WIDTH
    return MARGIN + place.column * STEP_X, y, wide, HEIGHT


def _line(start: str, end: str) -> tuple[float, float, float, float]:
    """From a room's lower edge to another's upper one, or from side to side on one floor."""
    x, y, w, h = _box(start)
    x2, y2, w2, h2 = _box(end)
    if y == y2:
        sides = (x, x2 + w2) if x > x2 else (x + w, x2)
        return sides[0], y + h / 2, sides[1], y2 + h2 / 2
    # A room's arrows leave a little apart, each on the side of where it goes.
    lean = max(-40.0, min(40.0, (x2 + w2 / 2 - x - w / 2) / 8)) if w2 == WIDTH else 0.0
    middle = x + w / 2 + lean
    return middle, y + h, middle if w2 > WIDTH else x2 + w2 / 2 - lean, y2


def draw(lines: Mapping[str, int], arrows: set[tuple[str, str]]) -> str:
    """The picture as SVG text.

    Args:
        lines: of code in each room that is drawn.
        arrows: (room, imported room).
    """
    drawn = [
        '<line class="arrow" data-arrow="{} {}" x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}"/>'.format(
            start, end, *_line(start, end)
        )
        for start, end in sorted(arrows)
    ]
    phrases = "; ".join(
        f"{room} imports {', '.join(sorted(end for start, end in arrows if start == room))}"
        for room in sorted({start for start, _ in arrows})
    )
    high, low = (TOP + (4 - floor) * STEP_Y for floor in (COURSE_FLOORS[1], COURSE_FLOORS[0]))
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title words" '
            'width="{0}" height="{1}" viewBox="0 0 {0} {1}">'.format(*SHEET),
            '<title id="title">The rooms of this repository and what imports what</title>',
            f'<desc id="words">{escape(phrases)}.</desc>',
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="10" refY="5" markerWidth="8" '
            'markerHeight="8" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="#4d5866"/></marker>'
            "</defs>",
            '<rect width="100%" height="100%" rx="10" fill="#ffffff"/>',
            f'<rect class="course" x="8" y="{high - 12}" width="{SHEET[0] - 16}" '
            f'height="{low + HEIGHT - high + 24}" rx="10"/>',
            *drawn,
            *(_draw_room(room, count) for room, count in lines.items()),
            f'<text class="quiet" x="{SHEET[0] - 110}" y="{high + 12}">{COURSE}</text>',
            f'<text class="quiet" x="{SHEET[0] / 2}" y="{SHEET[1] - 14}">An arrow leads from a '
            "room to what it imports; arrows that follow from others are left out.</text>",
            "</svg>\n",
        ]
    )


def _draw_room(room: str, count: int) -> str:
    x, y, wide, high = _box(room)
    middle = x + wide / 2
    kind = "room library" if room == "serial_lora" else "room"
    hundreds = max(100, round(count, -2))
    return (
        f'<g data-room="{room}"><rect class="{kind}" x="{x}" y="{y}" width="{wide}" '
        f'height="{high}" rx="8"/>'
        f'<text class="name" x="{middle:g}" y="{y + 19}">{room}</text>'
        f'<text class="words" x="{middle:g}" y="{y + 35}">{escape(ROOMS[room].words)}</text>'
        f'<text class="quiet" x="{middle:g}" y="{y + 50}">{hundreds:,} lines</text></g>'
    )


def read_picture(svg: str) -> tuple[set[str], set[tuple[str, ...]]]:
    """The rooms and arrows that a picture shows."""
    marks = [element.attrib for element in ElementTree.fromstring(svg).iter()]
    rooms = {mark["data-room"] for mark in marks if "data-room" in mark}
    return rooms, {tuple(mark["data-arrow"].split()) for mark in marks if "data-arrow" in mark}


# ---------------------------------------------------------------------------------- the command


def draw_rooms(root: Path) -> str:
    """The picture of a checkout."""
    lines: dict[str, int] = {}
    for name, path in read_modules(root).items():
        count = len(path.read_text("utf-8").splitlines())
        lines[room_of(name)] = lines.get(room_of(name), 0) + count
    arrows = without_detours(set(room_arrows(read_imports(root))))
    return draw(lines, arrows)


def main(arguments: list[str] | None = None, root: Path | None = None) -> int:
    """Draw the picture or check it; 1 when it is stale or an import runs the wrong way."""
    parser = argparse.ArgumentParser(prog="python -m tools.map", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if something is wrong")
    check = parser.parse_args(arguments).check
    root = root or Path(__file__).resolve().parents[1]
    problems = find_problems(read_imports(root))
    if not problems:
        picture, path = draw_rooms(root), root / PICTURE
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(picture, "utf-8")
        elif not path.is_file() or read_picture(path.read_text("utf-8")) != read_picture(picture):
            problems = [f"{PICTURE} shows other rooms or arrows; run `python -m tools.map`."]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    enter("tools.map", main)
