"""The documentation site: it builds without a warning, what is generated is up to date, what it quotes is said."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hf_distill
from hf_distill.settings.presets import list_presets, read_preset

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TROUBLESHOOTING = DOCS / "troubleshooting.md"


@pytest.fixture(scope="module")
def generated():
    """`docs/generated_pages.py` as a module."""
    spec = importlib.util.spec_from_file_location("generated_pages", DOCS / "generated_pages.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


# --- the site -------------------------------------------------------------------------------------------------------


def test_it_builds_and_every_warning_is_an_error(tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason="the extra docs is not installed")
    words = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "-c", "docs"]
    words += ["-d", str(tmp_path / "doctrees"), ".", str(tmp_path / "site")]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    start = (site / "index.html").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert (site / "docs" / f"{page.stem}.html").is_file()
        assert f'href="docs/{page.stem}.html"' in start, f"{page.name} cannot be reached from the start page"
    reference = (site / "docs" / "api.html").read_text(encoding="utf-8")
    assert all(f'id="hf_distill.{name}"' in reference for name in hf_distill.__all__)


# --- pages that are generated ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["docs/paper_index.md", "docs/api.md", "hf_distill/objectives/catalogue.json"])
def test_a_generated_file_is_what_the_code_says(generated, name):
    assert (ROOT / name).read_text(encoding="utf-8") == generated.FILES[name](), (
        "run: python docs/generated_pages.py --write"
    )


@pytest.mark.parametrize("name", list_presets())
def test_the_paper_index_has_every_value_of_a_preset_with_its_place(generated, name):
    rows = list(generated.preset_table(generated.preset_text(name)))
    preset = read_preset(name)
    found = {}
    for row in rows:
        value = yaml.safe_load(row.value)
        found[row.name] = [*found.get(row.name, []), value]
        assert row.note, f"{name}: {row.name} does not say where it comes from"
    expected = {**preset.student, **preset.training}
    assert found.keys() == expected.keys()
    for setting, values in found.items():
        assert expected[setting] in (values, values[0]), setting


def test_every_public_name_is_in_one_chapter(generated):
    names = [name for chapter in generated.public_names().values() for name in chapter]
    assert sorted(names) == sorted(hf_distill.__all__)


def test_a_name_without_a_chapter_is_an_error(generated, monkeypatch):
    monkeypatch.setattr(hf_distill, "__all__", ["new"])
    monkeypatch.setitem(hf_distill._MODULE_OF, "new", "room.module")
    with pytest.raises(ValueError, match=r"does not say where 'room' belongs \(new\)"):
        generated.public_names()


# --- what troubleshooting quotes ------------------------------------------------------------------------------------


def said_by_the_code() -> str:
    """Every string of the package, values in it as "…", one a line."""
    texts = []
    for path in (ROOT / "hf_distill").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


SAID = said_by_the_code()
QUOTED = re.findall(
    r"^\| (?!the message says|what you see|---)([^|]+) \|",
    TROUBLESHOOTING.read_text(encoding="utf-8").partition("## It runs")[0],
    flags=re.MULTILINE,
)


def test_there_are_messages_on_the_page():
    assert len(QUOTED) > 20


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_on_the_page_is_one_of_the_code(message):
    # Part of a value may be words of its own: a message stands in one string, with anything in place of "…".
    pattern = "[^\n]*?".join(re.escape(piece) for piece in message.rstrip("…").split("…"))
    assert re.search(pattern, SAID), "the code does not say this any more"
