"""Every parser, fed with anything, raises what it documents and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial

import pytest
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st

from hf_distill.corpus.build.loading import named_corpora, split_config
from hf_distill.generation.settings import GenerationSettings
from hf_distill.hub.disclosure import public, public_command, without_secrets
from hf_distill.hub.model_card import CardFacts, ModelFacts, render_card
from hf_distill.objectives import build_objectives, list_objectives
from hf_distill.objectives.layer_map import NAMED_MAPS, resolve_layer_map, resolve_layer_matches
from hf_distill.objectives.schedules import SCHEDULES, build_schedule
from hf_distill.objectives.temperature import Temperature
from hf_distill.reports.page import tables_of
from hf_distill.reports.runs import read_runs
from hf_distill.settings import (
    AdaptationArguments,
    AttentionArguments,
    AugmentationArguments,
    BenchmarkArguments,
    ComparisonArguments,
    ConversionArguments,
    CorpusArguments,
    DistillationArguments,
    EvaluationArguments,
    ExportArguments,
    FineTuningArguments,
    GeneralCorpusArguments,
    GenerationArguments,
    GenerationTaskArguments,
    GridArguments,
    InfoArguments,
    MultiTeacherArguments,
    PipelineArguments,
    PrecomputeArguments,
    PushArguments,
    ReportArguments,
    ShardArguments,
    StudentArguments,
    TaskArguments,
    TasksArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.settings.convert import FIELDS, MATCH_FIELDS, MATCH_LOSSES, convert_config, convert_file
from hf_distill.settings.parsing import from_mapping, load_plugins, parse
from hf_distill.settings.presets import read_preset
from hf_distill.settings.values import json_mapping
from hf_distill.storage.files import read_json, read_mapping, read_yaml
from hf_distill.storage.folders import safe_name, safe_path
from hf_distill.students.shapes import parse_shape
from hf_distill.tasks.catalogue.generation import GenerationSpec
from hf_distill.tasks.custom import custom_spec
from hf_distill.tasks.files import sources_of
from hf_distill.tasks.spec import TaskSpec
from hf_distill.teachers.stored.manifest import read_manifest

# The same examples in every run; together they take less than a minute.
FEW = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
MANY = settings(FEW, max_examples=150)
NUMBERS = st.one_of(
    st.integers(-3, 5), st.sampled_from([0, -1, 2**70, 0.5, -0.0, 1e308, float("nan"), float("inf"), True, False])
)
WORDS = st.sampled_from(
    [
        *("", "a", "1", "-1", "0.5", "nan", "inf", "null", "none", "auto", "yes", "../x", "/etc", "x\x00y", "\ud800"),
        *("relation:2", "1:4,2:8", "{", "[1]", "{}", '{"a": 1}', "train", "label", "text", "6x384", "é" * 90, "ü"),
    ]
)
SCALARS = st.one_of(st.none(), NUMBERS, WORDS, st.text(max_size=6))
KEYS = st.one_of(WORDS, st.integers(-1, 2), st.none(), st.booleans())


def nested(leaves=SCALARS, keys=KEYS):
    return st.recursive(
        leaves, lambda part: st.lists(part, max_size=3) | st.dictionaries(keys, part, max_size=3), max_leaves=6
    )


ANYTHING = nested()


def mappings(known, values=ANYTHING, **own):
    """Mostly the names that a parser knows, with values of any kind, and sometimes a strange one."""
    names = sorted(known)
    pairs = st.lists(
        st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), own.get(name, values) | values)),
        max_size=6,
    )
    return st.builds(
        lambda found, strange: dict(found) | strange,
        pairs,
        st.one_of(st.just({}), st.just({}), st.dictionaries(KEYS, values, max_size=1)),
    )


def allowed(run, *errors):
    """Call something; only the errors that it documents may come out, each with a line that says something."""
    try:
        return run()
    except (ValueError, *errors) as error:
        text = str(error)
        assert text.strip()
        text.encode("utf-8", "backslashreplace")
        return None


TASK_VALUES = {
    "kind": st.sampled_from(["text_classification", "token_classification", "question_answering", "multiple_choice"]),
    "text_columns": st.sampled_from(["text", ["text"], ["a", "b"]]),
    "label_names": st.sampled_from([None, ["a", "b"], ["O", "B-X"], [0, 1]]),
    "name": st.sampled_from(["mine", "family/mine", "../../escape", "/abs", ".."]),
    "metrics": st.sampled_from([["accuracy"], "f1", ["pearson"]]),
    "split_sources": st.sampled_from([{"train": ["a/b", "x:y"]}, {"train": "../x/y"}]),
    "fine_tuning": st.dictionaries(st.sampled_from(["epochs", "batch_size", "learning_rate", "source"]), SCALARS),
}


@MANY
@given(mappings(TaskSpec.__dataclass_fields__, **TASK_VALUES))
def test_task_specs(values):
    spec = allowed(
        lambda: TaskSpec.from_dict({"name": "x", "text_columns": "text", "label_names": ["a", "b"]} | values)
    )
    if spec is not None:
        assert TaskSpec.from_dict(spec.to_dict()) == spec
        for split in spec.split_sources:
            sources_of(spec, split)


@MANY
@given(ANYTHING | mappings(TaskSpec.__dataclass_fields__, **TASK_VALUES))
def test_whole_task_specs(values):
    allowed(lambda: TaskSpec.from_dict(values))


@FEW
@given(
    mappings(
        GenerationSpec.__dataclass_fields__,
        template=st.sampled_from(["{a}", "{a}{separator}{b}", "{", "{}", "{a", "{a[0]}", "{a!r:>{b}}", "{0}"]),
        settings=st.dictionaries(st.sampled_from(["epochs", "num_beams", "ngram_ignore", "source"]), ANYTHING),
    )
)
def test_generation_specs(values):
    allowed(lambda: GenerationSpec.from_dict({"name": "x", "template": "{a}", "target_column": "b"} | values))


@MANY
@given(mappings(GenerationSettings.__dataclass_fields__))
def test_generation_settings(values):
    known = set(GenerationSettings.__dataclass_fields__)
    made = allowed(lambda: GenerationSettings.from_dict(values, "settings"))
    if made is not None:
        assert GenerationSettings.from_dict(json.loads(json.dumps(asdict(made))), "settings") == made
    allowed(lambda: GenerationSettings(**{name: value for name, value in values.items() if name in known}))


OBJECTIVE_FIELDS = [
    *("objective", "name", "weight", "schedule", "teacher", "temperature", "temperature_schedule", "layers", "loss"),
    *("relations", "relation_heads", "student_layer", "teacher_layer", "projection", "logits_loss", "problem_type"),
]
SCHEDULE = st.one_of(
    st.sampled_from(list(SCHEDULES)),
    mappings(["name", "start", "end", "share", "start_epoch", "low", "beta"], name=st.sampled_from(list(SCHEDULES))),
    ANYTHING,
)
LAYERS = st.one_of(st.sampled_from([*NAMED_MAPS, "1:2", "0+1:0+3", "1:", ":", "1:2:3", "1.5:2", "inf:1"]), ANYTHING)
OBJECTIVE = mappings(
    OBJECTIVE_FIELDS,
    objective=st.sampled_from(sorted(list_objectives())),
    schedule=SCHEDULE,
    temperature_schedule=SCHEDULE,
    layers=LAYERS,
)
OBJECTIVES = st.one_of(
    st.lists(OBJECTIVE | OBJECTIVE.map(lambda item: json.dumps(item, skipkeys=True)) | SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(sorted(list_objectives())), SCALARS | OBJECTIVE, max_size=2),
    ANYTHING,
)


@MANY
@given(OBJECTIVES)
def test_objectives(items):
    built = allowed(lambda: build_objectives(items))
    for item in built or []:
        allowed(lambda item=item: item.objective.bind(3, 6))
        assert item.weight > 0


@FEW
@given(SCHEDULE, ANYTHING)
def test_schedules_of_weights_and_temperatures(schedule, temperature):
    made = allowed(lambda: build_schedule(schedule))
    if made is not None:
        assert made.describe()
    allowed(lambda: Temperature(temperature, schedule))
    allowed(lambda: Temperature(2.0, schedule))


@FEW
@given(LAYERS | st.text(alphabet="0123456789:+,-. ab", max_size=12))
def test_layer_maps(layers):
    allowed(lambda: resolve_layer_map(layers, 3, 6))
    allowed(lambda: resolve_layer_matches(layers, 3, 6, flag="--layers"))


@FEW
@given(ANYTHING | st.text(alphabet="0123456789x×:h ", max_size=14))
def test_shapes(text):
    allowed(lambda: parse_shape(text))


MATCH = mappings(
    MATCH_FIELDS,
    loss=st.sampled_from(list(MATCH_LOSSES)),
    feature=st.sampled_from(["hidden", "attention"]),
    layer_T=st.one_of(st.integers(-1, 3), st.lists(st.integers(0, 3), max_size=3)),
    layer_S=st.one_of(st.integers(-1, 3), st.lists(st.integers(0, 3), max_size=3)),
    proj=st.one_of(st.just(["linear", 3, 4]), st.builds(lambda own: ["tanh", 3, 4, own], ANYTHING)),
)


@MANY
@given(
    mappings(
        FIELDS,
        intermediate_matches=st.lists(MATCH | ANYTHING, max_size=2),
        temperature_scheduler=st.one_of(st.just(["flsw", 1, 1]), st.builds(lambda x: ["cwsm", x], ANYTHING)),
        kd_loss_type=st.sampled_from(["ce", "mse"]),
    )
    | ANYTHING
)
def test_textbrewer_configurations(config):
    done = allowed(lambda: convert_config(config))
    if done is not None:
        assert build_objectives(done.arguments["objectives"])
        assert yaml.safe_load(done.as_yaml()) == json.loads(json.dumps(done.arguments))


ARGUMENTS = [
    *(TaskArguments, TasksArguments, CorpusArguments, AugmentationArguments, GeneralCorpusArguments, GridArguments),
    *(PipelineArguments, StudentArguments, TeacherArguments, TextbookArguments, ComparisonArguments, PushArguments),
    *(AttentionArguments, AdaptationArguments, EvaluationArguments, PrecomputeArguments, MultiTeacherArguments),
    *(ExportArguments, ConversionArguments, InfoArguments),
    *(BenchmarkArguments, ShardArguments, ReportArguments, GenerationTaskArguments, GenerationArguments),
    *(DistillationArguments, FineTuningArguments),
]


@pytest.mark.parametrize("cls", ARGUMENTS, ids=lambda cls: cls.__name__)
def test_mappings_of_arguments(cls):
    required = {"task": "x", "tasks": ["x"], "corpora": ["x"], "models": ["x"], "text": "x", "student_model": "x"}
    required |= {"folder": "x", "repo": "x/y", "model": "x", "runs": ["x"], "output_dir": "x", "use_cpu": True}
    required |= {"library": "textbrewer", "config": "x"}
    given_too = {name: value for name, value in required.items() if name in cls.__dataclass_fields__}

    # Those of transformers are made slowly.
    @settings(FEW, max_examples=12 if "learning_rate" in cls.__dataclass_fields__ else 25)
    @given(mappings(cls.__dataclass_fields__))
    def check(values):
        made = allowed(lambda: from_mapping(cls, given_too | values, "here"), OSError, ImportError)
        if isinstance(made, GridArguments):
            made.student_changes()
        if isinstance(made, PipelineArguments):
            for stage in ("teach", "augment", "distill", "distill_next", "adapt"):
                allowed(partial(made.settings, stage))

    check()


@settings(FEW, max_examples=30)
@given(
    st.lists(WORDS | st.sampled_from(["--task", "--max_length", "--metrics", "--plugins", "--top_k=x"]), max_size=4)
)
def test_words_of_a_command_line(words):
    try:
        allowed(lambda: parse((TaskArguments, CorpusArguments), words), OSError, ImportError)
    except SystemExit as ended:
        code = ended.code
        assert code in (0, 2)


@settings(FEW, max_examples=40)
@given(ANYTHING)
def test_values_of_structured_flags(value):
    allowed(lambda: json_mapping(value, "--distill"))
    allowed(lambda: GridArguments(tasks=["x"], models=["a=b"], students=value))


@FEW
@given(SCALARS)
def test_names(name):
    for check in (safe_name, safe_path):
        made = allowed(lambda check=check: check(name, "here"))
        if made is not None:
            assert ".." not in made.split("/")
            assert not made.startswith("/")
    allowed(lambda: read_preset(name))


@settings(FEW, max_examples=25)
@given(st.lists(st.sampled_from(["", ".", "..x", "no_such_module_x", "a b", "x\x00y"]), min_size=1, max_size=2))
def test_plugins(names):
    allowed(lambda: load_plugins(names), ImportError)


@FEW
@given(st.lists(st.text(max_size=8) | WORDS, max_size=3))
def test_named_corpora(named):
    for name, where in (allowed(lambda: named_corpora(named, "--corpora")) or {}).items():
        assert name
        allowed(lambda where=where: split_config(where))


@settings(FEW, max_examples=20)
@given(
    mappings(CardFacts.__dataclass_fields__, teacher=st.lists(mappings(ModelFacts.__dataclass_fields__), max_size=1))
)
def test_facts_of_cards(values):
    facts = allowed(lambda: CardFacts.from_dict({"model_name": "x", "teacher": [], "student": {"name": "s"}} | values))
    if facts is not None:
        allowed(lambda: render_card(facts))


@FEW
@given(ANYTHING)
def test_what_is_shown_to_others_can_be_anything(value):
    shown = public(value)
    assert public(shown) == shown or repr(public(shown)) == repr(shown)
    without_secrets(value)
    public_command([str(value)])


TEXTS = st.one_of(
    st.binary(max_size=20),
    ANYTHING.map(lambda value: json.dumps(value, skipkeys=True).encode()),
    st.sampled_from(
        [
            b"[" * 500,
            b"!!bool x",
            b"!!timestamp x",
            b"!!int ''",
            b"2024-13-45",
            b"&a [*a]",
            b"? {a: 1}\n: 2",
            b"a: !!set {b}",
        ]
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(FEW, max_examples=30)
@given(content=TEXTS)
def test_files(folder, content):
    for name, read in {"x.json": read_json, "x.yaml": read_yaml, "y.yaml": read_mapping}.items():
        (folder / name).write_bytes(content)
        allowed(partial(read, folder / name))
    (folder / "task.yaml").write_bytes(content)
    allowed(lambda: custom_spec("x", folder, {}), OSError)
    (folder / "c.json").write_bytes(content)
    allowed(lambda: convert_file(folder / "c.json"))
    (folder / "manifest.json").write_bytes(content)
    allowed(lambda: read_manifest(folder))


RUN_FIELDS = [
    *("job", "teacher", "student", "history", "objectives", "best", "evaluation", "evaluations", "steps", "settings"),
    *("environment", "score", "task", "metric", "baseline", "latency", "log_history", "global_step", "parameters"),
]
HISTORY = st.lists(
    st.dictionaries(st.sampled_from(["step", "loss", "epoch", "eval_loss"]), SCALARS) | ANYTHING, max_size=2
)


@MANY
@given(
    results=mappings(
        RUN_FIELDS,
        job=st.sampled_from(["distill", "teach", "adapt", "evaluate", "generate", "mtl"]),
        history=HISTORY,
        log_history=HISTORY,
        objectives=st.dictionaries(WORDS, ANYTHING, max_size=1),
        student=st.dictionaries(st.sampled_from(["score", "history", "parameters"]), ANYTHING),
    ),
    name=st.sampled_from(["results.json", "report.json", "trainer_state.json"]),
)
def test_runs_of_a_report(folder, results, name):
    for old in ("results.json", "report.json", "trainer_state.json"):
        (folder / old).unlink(missing_ok=True)
    (folder / name).write_text(json.dumps(results, skipkeys=True))
    runs = allowed(lambda: read_runs([folder]), OSError)
    if runs:
        tables_of(runs)
