"""The rooms of the package as its imports show them: which there are, what each imports, and a picture of them.

`python docs/rooms.py` prints the imports of every room, `--write` draws `figures/rooms.svg`. Tests keep the order of
the rooms and the picture true.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "hf_distill"
PICTURE = DOCS / "figures" / "rooms.svg"

# From the top down: a room imports rooms below it and none above.
ROOMS = (
    "cli",
    "commands",
    "reports",
    "generation",
    "trainers",
    "teachers",
    "students",
    "objectives",
    "corpus",
    "capture",
    "kernels",
    "settings",
    "tasks",
    "hub",
    "storage",
    "_optional",
)
# Loose modules that stand beside a room.
BESIDE = {"__main__": "cli"}


def modules() -> list[Path]:
    """Every module of the package but its own front door."""
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    """Dotted name of a module, without the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """The room of a module."""
    first = name.split(".")[0]
    return BESIDE.get(first, first)


def level(name: str) -> int:
    """How high the room of a module lies: 0 is the lowest.

    Raises:
        ValueError: If no room has it.
    """
    return len(ROOMS) - 1 - ROOMS.index(room_of(name))


def imports_of(path: Path, *, at_import_only: bool = False) -> Iterator[str]:
    """Absolute dotted names of everything that a module imports, inside functions and for types too.

    Args:
        path: The module.
        at_import_only: Whether to leave out what is imported later than the module itself.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ("hf_distill", *path.relative_to(PACKAGE).parts[:-1])
    for node in tree.body if at_import_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                is_module = Path(PACKAGE.parent, *whole.split(".")).with_suffix(".py").is_file()
                yield whole if is_module else origin


def own_imports(path: Path) -> set[str]:
    """Modules of the package that a module imports, without the package's name; not its front door."""
    found = {name.removeprefix("hf_distill.") for name in imports_of(path) if name.startswith("hf_distill.")}
    return found - {name_of(path)}


def room_imports() -> dict[str, dict[str, int]]:
    """Room -> rooms that it imports -> how many imports there are."""
    found: dict[str, dict[str, int]] = {room: {} for room in ROOMS}
    for path in modules():
        here = room_of(name_of(path))
        for name in own_imports(path):
            there = room_of(name)
            if there != here:
                found[here][there] = found[here].get(there, 0) + 1
    return found


def circles() -> list[list[str]]:
    """Modules that import each other, in whatever way, by Tarjan's algorithm."""
    edges = {name_of(path): sorted(own_imports(path)) for path in modules()}
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        numbers[name] = lowest[name] = len(numbers)
        stack.append(name)
        for other in edges.get(name, ()):
            if other not in numbers:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == numbers[name]:
            place = stack.index(name)
            circle = stack[place:]
            del stack[place:]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in edges:
        if name not in numbers:
            visit(name)
    return found


def sentence_of(room: str) -> str:
    """What lives in a room: the first sentence of its docstring."""
    path = PACKAGE / room / "__init__.py"
    path = path if path.is_file() else PACKAGE / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def picture() -> str:
    """The rooms as an SVG: the highest on top, each with its sentence and the rooms that it imports."""
    imports, height, width = room_imports(), 54, 980
    rows = []
    for number, room in enumerate(ROOMS):
        y = 10 + number * height
        below = ", ".join(other for other in ROOMS if other in imports[room]) or "nothing of the package"
        rows += [
            f'<rect x="10" y="{y}" width="{width - 20}" height="{height - 8}" rx="6" class="room"/>',
            f'<text x="24" y="{y + 20}" class="name">{escape(room)}</text>',
            f'<text x="150" y="{y + 20}" class="says">{escape(sentence_of(room))}</text>',
            f'<text x="150" y="{y + 38}" class="small">imports {escape(below)}</text>',
        ]
    style = (
        ".room{fill:#f4f6f8;stroke:#8a99a8}.name{font:bold 15px sans-serif;fill:#1d2b3a}"
        ".says{font:13px sans-serif;fill:#1d2b3a}.small{font:11px sans-serif;fill:#5b6b7b}"
    )
    total = 10 + len(ROOMS) * height
    inside = "\n".join(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" role="img" '
        f'aria-label="Rooms of hf_distill, each above those that it imports">\n<style>{style}</style>\n'
        f'<rect width="{width}" height="{total}" fill="#ffffff"/>\n{inside}\n</svg>\n'
    )


def main() -> None:
    """Print the imports, or draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="Draw the picture.")
    if parser.parse_args().write:
        PICTURE.write_text(picture(), encoding="utf-8")
    for room, found in room_imports().items():
        sys.stdout.write(f"{room}: {', '.join(f'{name} {count}' for name, count in found.items())}\n")


if __name__ == "__main__":
    main()
