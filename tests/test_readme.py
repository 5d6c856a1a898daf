"""What README and docs say holds: snippets run, commands parse, links lead somewhere, nothing public is left out."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import json
import re
import runpy
import shlex
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_data import save_model
from transformers import BertForSequenceClassification, BertModel, HfArgumentParser, TrainingArguments

import hf_distill
from hf_distill import cli, settings as arguments
from hf_distill.capture.architecture_table import known_architectures
from hf_distill.commands.corpus import PAPER_TOP_K
from hf_distill.corpus.search.retrieval import ENGINES
from hf_distill.objectives import list_objectives
from hf_distill.settings import parsing
from hf_distill.students.sentence import Normalize, SentenceHead
from hf_distill.students.shapes import NAMED_SHAPES, SHAPE_ALIASES
from hf_distill.tasks.catalogue.registry import get_task, list_tasks

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "first_student.md"
VERBS = ROOT / "docs" / "verbs.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "model_cards" / "README.md",
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# Packages of extras that the snippets of a page need.
NEEDS = {
    "export.md": ["onnx", "onnxscript", "onnxruntime"],
    "rerankers.md": ["sentence_transformers"],
    "sentence_encoders.md": ["sentence_transformers"],
    "small_encoder.md": ["sentence_transformers"],
}
EVERYTHING = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.name if page.parent == ROOT else str(page.relative_to(ROOT))
)


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Words of every command line in the page's shell blocks."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


# What `test_the_table_of_the_tutorial_is_made` runs needs a file that the page shows.
COMMANDS = [(page.name, words) for page in PAGES for words in commands(page) if "table.yaml" not in words]


# --- snippets -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder_with_stand_ins(tmp_path, monkeypatch, tiny_tokenizer, tiny_bert_config, sentences):
    """A folder in which the names of the snippets are tiny local models and data."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = tmp_path / "google-bert" / "bert-base-uncased"
    config = tiny_bert_config(hidden_size=48, num_attention_heads=12, max_position_embeddings=128)
    BertModel(config).save_pretrained(model)
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(model)
    encoder = tmp_path / "sentence-transformers" / "all-mpnet-base-v2"
    save_model(encoder, BertModel(config, add_pooling_layer=False), tokenizer)
    SentenceHead("mean", [Normalize()]).save(encoder, config.hidden_size)
    reranker = tmp_path / "cross-encoder" / "ms-marco-MiniLM-L12-v2"
    config.num_labels = 1
    save_model(reranker, BertForSequenceClassification(config), tokenizer)
    (tmp_path / "sentences.txt").write_text("\n".join(sentences[:8]) + "\n", encoding="utf-8")
    general = [f"{one} {other}" for one in sentences[16:30] for other in sentences[30:44]]
    pq.write_table(pa.table({"text": general}), tmp_path / "general.parquet")
    task = tmp_path / "glue" / "SST-2"
    task.mkdir(parents=True)
    for split, rows in {"train": sentences[:12], "validation": sentences[12:14], "test": sentences[14:16]}.items():
        labels = [-1 if split == "test" else index % 2 for index in range(len(rows))]
        pq.write_table(pa.table({"sentence": rows, "label": labels}), task / f"{split}.parquet")
    return tmp_path


@every_page
def test_snippets_run_one_after_the_other(page, folder_with_stand_ins):
    for package in NEEDS.get(page.name, ()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What it says at its import.
            pytest.importorskip(package, reason="an extra that is not installed")
    namespace = {"__name__": page.stem}
    for number, block in enumerate(blocks(page, "python"), 1):
        if block.startswith("import mteb\n"):
            continue  # No extra has it; test_sentence_encoders.py runs this where it is installed.
        exec(compile(block, f"{page.name}, python block {number}", "exec"), namespace)
    if page in (README, TUTORIAL):
        assert (folder_with_stand_ins / "student" / "model.safetensors").is_file()
        assert "hf_distill" in (folder_with_stand_ins / "student" / "README.md").read_text(encoding="utf-8")
    if page.name == "small_encoder.md":
        assert namespace["speed"].speedup > 0
        assert {"modules.json", "1_Pooling"} <= {path.name for path in Path("small-encoder").iterdir()}
    if page == TUTORIAL:
        assert namespace["result"].metric == "accuracy"
        assert namespace["speed"].speedup > 0
        assert set(namespace["textbook"].column_names) == {"text", "rank", "score", "anchors", "source"}


@pytest.mark.slow
def test_the_table_of_the_tutorial_is_made(folder_with_stand_ins):
    page = ROOT / "docs" / "paper_table.md"
    [table] = blocks(page, "yaml")
    assert "max_steps: 2000\n" in table
    small = "max_steps: 1\n  use_cpu: true\n  report_to: none\n  save_strategy: no\n  calibration_tokens: 0\n"
    small = small.replace("strategy: no", "strategy: 'no'") + "  disable_tqdm: true\n"
    text = table.replace("max_steps: 2000\n", small).replace("3x384", "3x24:12h:32")
    Path("table.yaml").write_text(text.replace("seeds: [1, 2]  # of", "use_cpu: true\nseeds: [1]  # of"))
    for words in commands(page):
        # The other one is for a file of a paper, which `test_paper_grids.py` runs.
        if "outputs/trial" not in words:
            assert cli.main(words[1:]) == 0
    facts = json.loads(Path("outputs/table/grid.json").read_text())
    assert len(facts["cells"]) == 2 * 2 * 2 * 1
    assert {model: found["glue/sst2"]["runs"] for model, found in facts["tables"]["1"].items()} == {
        "last": 2,
        "all": 2,
    }
    assert "last, all" in Path("outputs/table.html").read_text()


def test_the_first_snippet_is_short_and_ends_in_a_saved_student():
    first = blocks(README, "python")[0]
    assert len(first.splitlines()) <= 25
    assert "save_model" in first


# --- commands -------------------------------------------------------------------------------------------------------


class Parsed(Exception):
    """Raised in place of the job, with what was parsed for it."""


@pytest.fixture
def stop_after_parsing(monkeypatch):
    """Every verb ends once its words are parsed, with the classes of its arguments."""
    parse = parsing.parse

    def parse_and_stop(classes, argv=None, description=None, **more):
        parse(classes, argv, description, **more)
        raise Parsed(classes)

    monkeypatch.setattr(parsing, "parse", parse_and_stop)
    # Those of the pages are made by tests/test_extending.py.
    monkeypatch.setattr(parsing, "load_plugins", lambda modules: None)
    monkeypatch.chdir(ROOT)


def run_script(path: str, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script, up to where its words are parsed."""

    def parse_and_stop(parser, words):
        parse_words(parser, words)
        raise Parsed(parser.dataclass_types)

    parse_words = HfArgumentParser.parse_args_into_dataclasses
    monkeypatch.setattr(HfArgumentParser, "parse_args_into_dataclasses", parse_and_stop)
    runpy.run_path(str(ROOT / path))["main"](argv)


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page}: {' '.join(words)}"[:90] for page, words in COMMANDS]
)
def test_commands_are_understood(page, words, stop_after_parsing, monkeypatch):
    program, *rest = words
    if program == "hf-distill":
        with pytest.raises(Parsed) as parsed:
            cli.run_verb(rest[0], rest[1:])
        check_flags(rest, parsed.value.args[0])
    elif program == "python" and rest[0].startswith("examples/"):
        with pytest.raises(Parsed) as parsed:
            run_script(rest[0], rest[1:], monkeypatch)
        check_flags(rest, parsed.value.args[0])
    elif program == "python" and rest[0].startswith("benchmarks/"):
        source = with_imported_scripts(ROOT / rest[0])
        assert all(f'"{flag}"' in source or f'"{flag[2:]}"' in source for flag in flags_of(rest))
    elif program == "make":
        targets = [word for word in rest if "=" not in word]
        known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert set(targets) <= set(known)
    elif program == "pip":
        extras = re.findall(r"hf_distill\[([\w,]+)\]", " ".join(words))
        declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert all(f"\n{extra} = [" in declared for names in extras for extra in names.split(","))
    else:
        assert program in {"torchrun", "git", "hf"}, f"{page} shows a program that this test does not know: {words}"


def with_imported_scripts(script: Path) -> str:
    """The source of a benchmark and of those beside it that it imports: flags that several have stand there."""
    source = script.read_text(encoding="utf-8")
    named = re.findall(r"^(?:from|import) (\w+)", source, flags=re.MULTILINE)
    beside = [script.with_name(f"{name}.py") for name in dict.fromkeys(named)]
    return source + "".join(with_imported_scripts(other) for other in beside if other.is_file())


def flags_of(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def check_flags(words: list[str], classes) -> None:
    """Flags are written out: argparse would also take their beginnings."""
    # These belong to no class: `parse` reads them before.
    names = {field.name for cls in classes for field in dataclasses.fields(cls)} | {"preset", "plugins"}
    unknown = [flag for flag in flags_of(words) if flag[2:].removeprefix("no_") not in names and flag[2:] not in names]
    assert not unknown


# --- links and names ------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as code hosts make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_relative_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


def test_dotted_names_exist():
    names = set(re.findall(r"`(hf_distill(?:\.\w+)+)", EVERYTHING))
    assert len(names) >= 5
    for name in names:
        module, attribute = name, None
        if importlib.util.find_spec(name.rpartition(".")[0]) and not _is_module(name):
            module, _, attribute = name.rpartition(".")
        found = importlib.import_module(module)
        assert attribute is None or hasattr(found, attribute), name


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("name", hf_distill.__all__)
def test_public_names_are_documented(name):
    assert re.search(rf"\b{name}\b", EVERYTHING)


@pytest.mark.parametrize("name", [*list_objectives(), *NAMED_SHAPES, *SHAPE_ALIASES, *known_architectures(), *ENGINES])
def test_registered_names_are_documented(name):
    assert f"`{name}`" in EVERYTHING


@pytest.mark.parametrize("verb", cli.VERBS)
def test_verbs_are_documented(verb):
    assert f"`hf-distill {verb}`" in VERBS.read_text(encoding="utf-8")


def test_every_script_and_benchmark_is_documented():
    scripts = [*(ROOT / "examples").glob("run_*.py"), ROOT / "examples" / "build_corpus.py"]
    assert all(script.name in VERBS.read_text(encoding="utf-8") for script in scripts)
    benchmarks = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{script.name}`" in benchmarks for script in (ROOT / "benchmarks").glob("*.py"))


def test_the_results_are_those_of_the_runs():
    spec = importlib.util.spec_from_file_location("results_table", ROOT / "benchmarks" / "results_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, make in module.PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert module.with_table(text, make) == text
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert module.with_grids(text) == text
    assert "glue/sst2" in module.table()


def test_no_page_knows_this_machine():
    assert not re.search(r"(^|[\s`\"'(])/(work|tmp|home|root)\b|\.\./shared", EVERYTHING)


# --- tables ---------------------------------------------------------------------------------------------------------


def default_of(field: dataclasses.Field) -> object:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def shown(value: object) -> str:
    """A default as the tables write it."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if value is None or isinstance(value, bool):
        return {None: "–", True: "on", False: "off"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def flag_row(field: dataclasses.Field) -> str:
    return f"| `--{field.name}` | {shown(default_of(field))} | {field.metadata['help']} |"


def test_the_table_of_corpus_flags_is_the_code():
    text = (ROOT / "docs" / "corpus.md").read_text(encoding="utf-8")
    rows = [flag_row(field) for field in dataclasses.fields(arguments.CorpusArguments)]
    assert [row for row in rows if row not in text] == []


def test_the_table_of_shard_flags_is_the_code():
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    rows = [flag_row(field) for field in dataclasses.fields(arguments.ShardArguments)]
    assert [row for row in rows if row not in text] == []


def test_the_table_of_augmentation_flags_is_the_code():
    text = (ROOT / "docs" / "augment.md").read_text(encoding="utf-8")
    rows = [flag_row(field) for field in dataclasses.fields(arguments.AugmentationArguments)]
    assert [row for row in rows if row not in text] == []


@pytest.mark.parametrize(
    ("page", "cls"),
    [
        ("general.md", arguments.GeneralCorpusArguments),
        ("compare.md", arguments.ComparisonArguments),
    ],
)
def test_the_tables_of_flags_for_general_corpora_and_comparisons_are_the_code(page, cls):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = [flag_row(field) for field in dataclasses.fields(cls) if default_of(field) is not dataclasses.MISSING]
    assert [row for row in rows if row not in text] == []


def test_the_table_of_settings_of_several_teachers_is_the_code():
    text = (ROOT / "docs" / "several_teachers.md").read_text(encoding="utf-8")
    inherited = {field.name for field in dataclasses.fields(arguments.DistillationArguments)}
    fields = [f for f in dataclasses.fields(arguments.MultiTeacherArguments) if f.name not in inherited]
    assert len(fields) == 4
    assert [flag_row(field) for field in fields if flag_row(field) not in text] == []


def changed_defaults(cls: type) -> dict[str, object]:
    """Fields of `TrainingArguments` that have another default in a subclass."""
    stock = {field.name: default_of(field) for field in dataclasses.fields(TrainingArguments)}
    fields = {field.name: default_of(field) for field in dataclasses.fields(cls)}
    return {name: value for name, value in fields.items() if name in stock and value != stock[name]}


@pytest.mark.parametrize("cls", [arguments.DistillationArguments, arguments.FineTuningArguments])
def test_every_changed_default_has_its_row(cls):
    text = (ROOT / "docs" / "defaults.md").read_text(encoding="utf-8")
    section = text.partition(f"## `{cls.__name__}`")[2].partition("\n## ")[0]
    for name, value in changed_defaults(cls).items():
        assert re.search(rf"^\| `{name}` \| [^|]+ \| {re.escape(shown(value))} \|", section, flags=re.MULTILINE), name
    for field in dataclasses.fields(cls):
        if field.name not in {stock.name for stock in dataclasses.fields(TrainingArguments)}:
            assert f"| `{field.name}` | {shown(default_of(field))} |" in section, field.name


def test_the_fine_tuning_settings_of_glue_have_their_rows():
    text = (ROOT / "docs" / "defaults.md").read_text(encoding="utf-8")
    for spec in (get_task(name) for name in list_tasks() if name.startswith("glue/")):
        settings = spec.fine_tuning
        row = (
            f"| `{spec.name}` | {settings.epochs:g} | {settings.learning_rate:g} | {settings.batch_size} | "
            f"{settings.warmup:g} | {settings.weight_decay:g} | {settings.max_length} | {spec.headline} | "
            f"{PAPER_TOP_K.get(spec.name, 100)} |"
        )
        assert row in text, row


def test_the_readme_is_short():
    text = README.read_text(encoding="utf-8")
    assert len(re.sub(r"^```.*?^```|^\|.*?$", "", text, flags=re.DOTALL | re.MULTILINE).split()) <= 500
    assert len(text.split()) <= 900


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 100
