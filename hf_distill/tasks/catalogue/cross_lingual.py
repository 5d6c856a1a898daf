"""XNLI as data: zero-shot from English to fifteen languages, and Chinese alone; MLQA is in `question_answering`."""

from __future__ import annotations

from hf_distill.tasks.spec import TaskSpec
from hf_distill.tasks.spec_values import FineTuningDefaults

HUB_PATH = "facebook/xnli"
INFERENCE = ("entailment", "neutral", "contradiction")
TEXTS = ("premise", "hypothesis")
XNLI_LANGUAGES = ("en", "fr", "es", "de", "el", "bg", "ru", "tr", "ar", "vi", "th", "zh", "hi", "sw", "ur")
LICENCE = "CC BY-NC 4.0"
# In the tab-separated files of the original distribution.
_ALIASES = {"contradiction": ("contradictory",)}

_TESTS = {f"test_{language}": language for language in XNLI_LANGUAGES}

XNLI = TaskSpec(
    name="xnli",
    text_columns=TEXTS,
    label_names=INFERENCE,
    # One model is chosen on the joint development set of all languages (MiniLM's supplement, section 4).
    evaluation_splits=("validation", *_TESTS),
    test_splits=(),
    hub_path=HUB_PATH,
    folder_names=("XNLI",),
    split_sources={
        "train": ("en/train",),
        "validation": tuple(f"{language}/validation" for language in XNLI_LANGUAGES),
        **{split: (f"{language}/test",) for split, language in _TESTS.items()},
    },
    split_languages=_TESTS,
    averages={"test_average": tuple(_TESTS)},
    column_aliases={"premise": ("sentence1",), "hypothesis": ("sentence2", "hypo"), "label": ("gold_label",)},
    label_aliases=_ALIASES,
    fine_tuning=FineTuningDefaults(
        epochs=5.0,
        learning_rate=5e-5,
        batch_size=128,
        warmup=0.1,
        source="MiniLM's supplement, section 4 (5 epochs, batch 128, rate 3e-5 to 6e-5 searched; warm-up 0.1 is not "
        "stated); scores in table 5",
    ),
    licence=LICENCE,
)
XNLI_ZH = TaskSpec(
    name="xnli_zh",
    text_columns=TEXTS,
    label_names=INFERENCE,
    hub_path=HUB_PATH,
    hub_config="zh",
    folder_names=("xnli-zh", "zh"),
    column_aliases=XNLI.column_aliases,
    label_aliases=_ALIASES,
    fine_tuning=FineTuningDefaults(
        epochs=3.0,
        learning_rate=3e-5,
        batch_size=32,
        warmup=0.1,
        source="no paper gives them: MITKD's ranges, appendix A.7; scores in TextBrewer, table 5",
    ),
    language="zh",
    licence=LICENCE,
)

CROSS_LINGUAL_TASKS = (XNLI, XNLI_ZH)
