"""The pinned environment: `constraints.txt` against `pyproject.toml`, Makefile, pages, and what is installed."""

import logging
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hf_distill import _optional

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.!-]*)")
CONSTRAINTS = [
    line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
]
PINS = {canonicalize_name(name): version for name, version in (line.split("==") for line in CONSTRAINTS)}
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def of_makefile(name):
    """The words of a variable of the Makefile."""
    return re.search(rf"^{name} :?= (.+)$", MAKEFILE, re.MULTILINE)[1].replace(",", " ").split()


def requirements(extras):
    """What the package itself asks for with these extras, those that an extra names among them."""
    project = DECLARED["project"]
    found, waiting, seen = [*map(Requirement, project["dependencies"])], list(extras), set()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in map(Requirement, project["optional-dependencies"][extra]):
            if requirement.name == project["name"]:
                waiting += requirement.extras
            else:
                found.append(requirement)
    return found


def test_every_line_is_one_exact_pin():
    """No range, no path, no address, no build of one machine, and no package twice."""
    assert not [line for line in CONSTRAINTS if not PIN.fullmatch(line)]
    assert len(PINS) == len(CONSTRAINTS)


def test_every_declared_package_is_pinned_within_its_bounds():
    wanted = [*requirements(of_makefile("EXTRAS")), *map(Requirement, DECLARED["build-system"]["requires"])]
    assert len(wanted) > 40
    assert not [str(r) for r in wanted if canonicalize_name(r.name) not in PINS]
    assert not [str(r) for r in wanted if not r.specifier.contains(PINS[canonicalize_name(r.name)])]


def test_what_comes_without_requirements_is_pinned_and_so_is_pip():
    assert {canonicalize_name(name) for name in of_makefile("WITHOUT_REQUIREMENTS")} | {"pip"} <= PINS.keys()
    lines = [line for line in MAKEFILE.splitlines() if "pip install" in line]
    assert len(lines) == 1
    assert "--constraint $(CONSTRAINTS)" in lines[0]
    # pip would fetch the newest setuptools for a build of its own.
    assert all("--no-build-isolation" in line for line in MAKEFILE.splitlines() if "--editable" in line)


def test_a_version_stands_in_one_place():
    """Requirements of the package are ranges; a page that names a version names the pinned one."""
    assert not PIN.search((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert not [line for line in MAKEFILE.splitlines() if line[:1] != "#" and PIN.search(line)]
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    named = {found for page in pages for found in PIN.findall(page.read_text(encoding="utf-8"))}
    assert named
    assert not [(name, version) for name, version in named if PINS.get(canonicalize_name(name)) != version]


def test_all_that_is_installed_is_pinned():
    """Also what packages bring along: followed from the requirements of the package through those of each."""
    if any(distribution(name).version.split("+")[0] != PINS[name] for name in ("torch", "transformers")):
        pytest.skip("this is not the pinned environment")
    waiting = [(r.name, r.extras) for r in requirements(of_makefile("EXTRAS"))]
    installed = {}
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        name = canonicalize_name(name)
        if (name, frozenset(extras)) in seen:
            continue
        seen.add((name, frozenset(extras)))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            # For another system: the marker of its requirement is read below, a missing package is pip's affair.
            continue
        installed[name] = found.version.split("+")[0]
        for requirement in map(Requirement, found.requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                waiting.append((requirement.name, requirement.extras))
    assert len(installed) > 100
    assert {name: version for name, version in installed.items() if PINS.get(name) != version} == {}


# --- what packages say when they are imported -----------------------------------------------------------------------

# transformers imports torchao with the first model class, so that the package has to be imported before.
START = """
from hf_distill import DistillationArguments, DistillationTrainer
from transformers import BertConfig, BertForSequenceClassification
from hf_distill.teachers.int8 import int8_copy

config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
teacher, student = BertForSequenceClassification(config).eval(), BertForSequenceClassification(config)
int8_copy(teacher)
args = DistillationArguments("out", use_cpu=True, objectives=["logits"])
DistillationTrainer(student, args=args, teacher_model=teacher)
"""


def test_no_package_warns_at_start(tmp_path):
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_kept_for_debugging_is_shown_there_and_the_rest_always(caplog):
    _optional.quiet_imports()
    _optional.quiet_imports()
    logger = logging.getLogger("torchao")
    assert len(logger.filters) == 1

    def shown(level):
        with caplog.at_level(level, "torchao"):
            logger.warning("Failed to load %s: %s", "_C_mxfp8.so", "no CUDA")
            logger.warning("int4 is experimental")
        texts = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return texts

    assert shown(logging.WARNING) == ["int4 is experimental"]
    assert shown(logging.DEBUG) == ["Failed to load _C_mxfp8.so: no CUDA", "int4 is experimental"]
