"""The rooms of the package: imports run downwards only, in no circle, and the package is cheap to import."""

import subprocess
import sys
from pathlib import Path

import pytest

import hf_distill

ROOT = Path(hf_distill.__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import rooms  # noqa: E402

NEVER = {
    "corpus": {"torch", "hf_distill.objectives", "hf_distill.tasks"},
    "objectives": {"hf_distill.corpus", "hf_distill.tasks", "datasets"},
}
# Replacing words takes a model: the one part of `corpus` that may see torch. Nothing else of it imports that part.
WITH_MODELS = "corpus.augment"
# Slow or optional packages, imported by the function that needs them.
LAZY = {
    *("bm25s", "evaluate", "matplotlib", "nltk", "peft", "ray", "retriv", "rouge_score", "sacrebleu", "sklearn"),
    "torchao",
}
# Imported on first use only, because their classes subclass those of `evaluate`.
IMPORTED_LATE = {"tasks.metrics.evaluate_modules"}
MODULES = [pytest.param(path, id=rooms.name_of(path)) for path in rooms.modules()]


@pytest.mark.parametrize("path", MODULES)
def test_a_module_imports_no_room_above_its_own(path):
    name = rooms.name_of(path)
    above = [other for other in rooms.own_imports(path) if rooms.level(other) > rooms.level(name)]
    assert not above, f"{name} imports {above} from rooms above {rooms.room_of(name)}"


@pytest.mark.parametrize("path", MODULES)
def test_rooms_that_must_not_know_each_other_do_not(path):
    name = rooms.name_of(path)
    never = NEVER.get(rooms.room_of(name), set()) - ({"torch"} if name.startswith(WITH_MODELS) else set())
    seen = set(rooms.imports_of(path))
    assert not [banned for banned in never if any(f"{other}.".startswith(f"{banned}.") for other in seen)]
    if rooms.room_of(name) == "corpus" and not name.startswith(WITH_MODELS):
        assert not [other for other in seen if other.startswith(f"hf_distill.{WITH_MODELS}")]


@pytest.mark.parametrize("path", MODULES)
def test_heavy_packages_are_imported_where_they_are_used(path):
    heavy = [name for name in rooms.imports_of(path, at_import_only=True) if name.split(".")[0] in LAZY]
    assert not heavy or rooms.name_of(path) in IMPORTED_LATE, f"{rooms.name_of(path)} imports {heavy} at its top"


def test_no_modules_import_each_other():
    assert rooms.circles() == []


def test_every_room_says_what_lives_in_it_and_what_may_not():
    for room in rooms.ROOMS:
        if (rooms.PACKAGE / room).is_dir():
            text = rooms.sentence_of(room)
            assert text.endswith("."), room
            assert len(text) > 20, room


def test_the_picture_of_the_rooms_is_what_the_imports_say():
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.picture(), "run: python docs/rooms.py --write"


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["bm25s", "datasets", "evaluate", "retriv", "torch", "transformers"]
    code = f"import sys, hf_distill; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_verbs_that_run_no_model_load_neither_torch_nor_transformers():
    code = (
        "import sys, importlib; from hf_distill import settings; from hf_distill.cli import VERBS\n"
        "for verb in ('push', 'report', 'card', 'info', 'convert', 'corpus', 'general', 'compare'):\n"
        "    importlib.import_module(f'hf_distill.commands.{verb}')\n"
        "    [getattr(settings, name) for name in VERBS[verb].arguments]\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported():
    assert hf_distill.__all__ == sorted(hf_distill.__all__)
    for name in hf_distill.__all__:
        assert getattr(hf_distill, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hf_distill.nothing
