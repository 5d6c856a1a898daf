"""What is read off the code: the paper index, the public names, and the objectives that `hf-distill info` shows.

`python docs/generated_pages.py` prints them, `--write` writes them. A test keeps them equal.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import hf_distill
from hf_distill.hub.citations import CITATIONS
from hf_distill.objectives.base import objective_class
from hf_distill.objectives.catalogue import CatalogueEntry, catalogue
from hf_distill.settings.presets import list_presets, read_preset

ROOT = Path(__file__).parents[1]

VALUE = re.compile(r"^  (?P<name>\w+): *(?P<value>.*?)(?:  # (?P<note>.*))?$")
ITEM = re.compile(r"^    - (?P<value>.*?)(?:  # (?P<note>.*))?$")
COMMENT = re.compile(r"^ +# (?P<note>.*)$")

# Room of the package -> chapter of the reference, in reading order.
ROOMS = {
    "Distillation": ("trainers", "settings"),
    "Students": ("students",),
    "Objectives and signals": ("objectives", "capture"),
    "Teachers": ("teachers",),
    "Corpora": ("corpus",),
    "Tasks and scores": ("tasks",),
    "Text from encoders": ("generation",),
    "Speed, ONNX and the Hub": ("reports", "hub"),
}
# Names whose room says less than what they are for.
MOVED = {
    "AugmentationArguments": "Corpora",
    "CorpusArguments": "Corpora",
    "FineTuningArguments": "Tasks and scores",
    "GenerationTrainer": "Text from encoders",
    "GenerationTrainingArguments": "Text from encoders",
    "evaluate_model": "Tasks and scores",
    "finetune": "Tasks and scores",
}


@dataclass(frozen=True)
class PresetValue:
    """One value of a preset, as its file has it.

    Attributes:
        name: The setting.
        value: Its YAML text.
        note: Where it comes from.
    """

    name: str
    value: str
    note: str


def preset_table(text: str) -> Iterator[PresetValue]:
    """Every value of a preset's file with the comment beside it, or for an item of a list the one above it."""
    name = above = ""
    for line in text.partition("\nstudent:\n")[2].splitlines():
        if comment := COMMENT.match(line):
            above = comment["note"]
        elif item := ITEM.match(line):
            yield PresetValue(name, item["value"], item["note"] or above)
        elif found := VALUE.match(line):
            name, above = found["name"], ""
            if found["value"]:
                yield PresetValue(name, found["value"], found["note"] or "")


def preset_text(name: str) -> str:
    """The file of a preset."""
    return (files("hf_distill.settings.presets") / f"{name}.yaml").read_text(encoding="utf-8")


def paper_title(citation: str) -> str:
    """The title of a paper, from its BibTeX."""
    found = re.search(r"title = \{(.*?)\},\n", CITATIONS[citation], flags=re.DOTALL)
    return " ".join(re.sub(r"[{}]", "", found[1]).split()) if found else citation


def paper_index() -> str:
    """Every value of every preset with its place in the paper, and every objective with its formula and paper."""
    lines = [
        "# Paper index",
        "",
        "Where every value of every [preset](presets.md) stands in its paper or in the authors' public code, and the",
        "paper of every objective. Written by `docs/generated_pages.py` from the comments in",
        "`hf_distill/settings/presets`.",
    ]
    presets = [read_preset(name) for name in list_presets()]
    for citation in sorted({preset.citation for preset in presets}, key=lambda key: paper_title(key).lower()):
        lines += ["", f"## {paper_title(citation)}"]
        for preset in presets:
            if preset.citation == citation:
                lines += ["", f"### `{preset.name}`", "", f"{preset.about}. From: {preset.source}.", ""]
                lines += ["| setting | value | where it comes from |", "|---|---|---|"]
                rows = preset_table(preset_text(preset.name))
                lines += [f"| `{row.name}` | `{row.value}` | {_cell(row.note)} |" for row in rows]
    lines += ["", "## Objectives", "", "S is the student, T the teacher.", ""]
    lines += ["| objective | formula | paper |", "|---|---|---|"]
    for entry in our_objectives():
        paper = paper_title(entry.citation) if entry.citation else "–"
        formula = f"`{_cell(entry.formula)}`" if entry.formula else "–"
        lines.append(f"| `{entry.name}` | {formula} | {paper} |")
    return "\n".join(lines) + "\n"


def objectives() -> str:
    """The objectives of the package as `hf-distill info objectives` reads them, where importing them takes seconds."""
    return json.dumps([asdict(entry) for entry in our_objectives()], indent=2) + "\n"


def our_objectives() -> list[CatalogueEntry]:
    """The objectives of this package: those of a plugin may be registered too."""
    return [entry for entry in catalogue() if objective_class(entry.name).__module__.startswith("hf_distill.")]


def api() -> str:
    """Every public name with the first line of its documentation, by what it is for."""
    lines = [
        "# Public names",
        "",
        "What `from hf_distill import ...` gives. Everything else is free to move between versions. The",
        "documentation site (`make docs`) shows every docstring below; `hf-distill VERB --help` shows every setting.",
    ]
    for title, names in public_names().items():
        lines += ["", f"## {title}", "", "| name | what it is |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(_first_line(name))} |" for name in names]
    return "\n".join(lines) + "\n"


def public_names() -> dict[str, list[str]]:
    """The public names by chapter.

    Raises:
        ValueError: If the room of a name belongs to no chapter.
    """
    chapters: dict[str, list[str]] = {title: [] for title in ROOMS}
    for name in hf_distill.__all__:
        room = hf_distill._MODULE_OF[name].partition(".")[0]
        title = MOVED.get(name) or next((title for title, rooms in ROOMS.items() if room in rooms), None)
        if title is None:
            raise ValueError(f"`ROOMS` in docs/generated_pages.py does not say where {room!r} belongs ({name}).")
        chapters[title].append(name)
    return chapters


def _first_line(name: str) -> str:
    return (inspect.getdoc(getattr(hf_distill, name)) or "").partition("\n\n")[0].replace("\n", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# File below the root of the repository -> its text.
FILES: dict[str, Callable[[], str]] = {
    "docs/paper_index.md": paper_index,
    "docs/api.md": api,
    "hf_distill/objectives/catalogue.json": objectives,
}


def main() -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the files")
    write = parser.parse_args().write
    for name, make in FILES.items():
        if write:
            (ROOT / name).write_text(make(), encoding="utf-8")
        else:
            sys.stdout.write(make())


if __name__ == "__main__":
    main()
