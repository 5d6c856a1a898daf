"""Imports run one way, and the package is cheap to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hf_distill

PACKAGE = Path(hf_distill.__file__).parent
# The room of a module is its path's first part; a room may import rooms of lower or equal level.
LEVELS = {
    "_optional": 0,
    "storage": 0,
    "ending": 1,
    "plain_values": 0,
    "limits": 1,
    "safe_names": 0,
    "signals": 1,
    "shapes": 1,
    "layer_map": 1,
    "schedules": 1,
    "arguments": 1,
    "parsing": 1,
    "plugins": 1,
    "precision": 1,
    "modes": 1,
    "command_help": 1,
    "loading": 1,
    "finite": 1,
    "tokens": 1,
    "hub": 1,
    "architectures": 2,
    "product_attention": 2,
    "recording": 2,
    "projection_hooks": 2,
    "capture": 2,
    "masked_logits": 2,
    "objectives": 2,
    "output_capture": 2,
    "quantization": 2,
    "packed_linears": 2,
    "recurrent": 2,
    "module_student": 2,
    "presets": 1,
    "embedding_init": 2,
    "textbrewer": 2,
    "students": 2,
    "deployment": 2,
    "generation": 2,
    "benchmark": 2,
    "reporting": 2,
    "tasks": 2,
    "corpus": 2,
    "routing": 2,
    "tokenization": 2,
    "combination": 3,
    "teachers": 3,
    "alignment": 3,
    "teachers_adapters": 3,
    "stored": 4,
    "trainers": 4,
    "jobs": 5,
    "info": 5,
    "cli": 6,
    "__main__": 6,
}
# Plain data, without torch: anybody may read it.
DATA_ONLY = {"hf_distill.tasks.spec", "hf_distill.tasks.spec_fields", "hf_distill.tasks.generation"}
# Imported on first use only, because its classes subclass those of the package.
IMPORTED_LATE = {"tasks/metric_modules.py", "tasks/structured_metrics.py", "tasks/text_metrics.py"}
NEVER = {
    "corpus": {"torch", "hf_distill.objectives", "hf_distill.tasks"},
    "objectives": {"hf_distill.corpus", "hf_distill.tasks", "datasets"},
}
# Replacing words takes a model: the one part of `corpus` that may see torch. Nothing else of it imports that part.
WITH_MODELS = "corpus/augmentation"
LAZY = [
    "bm25s",
    "evaluate",
    "matplotlib",
    "nltk",
    "peft",
    "ray",
    "retriv",
    "rouge_score",
    "sacrebleu",
    "sklearn",
    "torchao",
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def imported_names(path, *, top_level_only=False):
    """Absolute dotted names of everything a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ("hf_distill", *path.relative_to(PACKAGE).parts[:-1])
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join([*base, *([node.module] if node.module else [])])


def room(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_rooms_below_its_own(path):
    assert room(path) in LEVELS, f"say in LEVELS where {room(path)} belongs"
    level, own = LEVELS[room(path)], path.relative_to(PACKAGE).as_posix()
    for name in imported_names(path):
        parts = name.split(".")
        if parts[0] == "hf_distill" and len(parts) > 1 and parts[1] != "__version__":
            below = name in DATA_ONLY or LEVELS[parts[1]] <= level
            assert below, f"{path.name} imports {name} from a room above"
        never = NEVER.get(room(path), set()) - ({"torch"} if own.startswith(WITH_MODELS) else set())
        forbidden = [banned for banned in never if name == banned or name.startswith(f"{banned}.")]
        assert not forbidden, f"{room(path)} must never see {forbidden}"
        uses_models = room(path) == "corpus" and name.rpartition(".")[2].startswith("augmentation")
        assert not uses_models or own.startswith(WITH_MODELS), f"{own} imports {name}, which needs torch"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    own = path.relative_to(PACKAGE).parts
    heavy = [n for n in imported_names(path, top_level_only=True) if n.split(".")[0] in LAZY]
    assert not heavy or "/".join(own) in IMPORTED_LATE, f"{'/'.join(own)} imports {heavy} at its top"


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["bm25s", "datasets", "evaluate", "retriv", "torch", "transformers"]
    code = f"import sys, hf_distill; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"


def test_building_a_corpus_needs_no_torch():
    code = (
        "import sys, hf_distill.corpus.builder, hf_distill.jobs.corpus, hf_distill.jobs.general; "
        "import hf_distill.jobs.report; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "False"


def test_every_public_name_can_be_imported():
    assert hf_distill.__all__ == sorted(hf_distill.__all__)
    for name in hf_distill.__all__:
        assert getattr(hf_distill, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hf_distill.nothing
