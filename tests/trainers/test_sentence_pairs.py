"""A sentence encoder learns scored pairs by its vectors, and stays a sentence encoder."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from tiny_data import write_rows
from transformers import AutoModel, BertModel, set_seed

from hf_distill.commands import adapt, evaluate
from hf_distill.hub.model_card import read_facts
from hf_distill.settings import (
    AdaptationArguments,
    EvaluationArguments,
    FineTuningArguments,
    TaskArguments,
    TeacherArguments,
)
from hf_distill.students.sentence import Dense, Normalize, SentenceHead, encode_texts, read_head
from hf_distill.tasks import load_task
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.fine_tuning.sentence_pairs import PairEncoder, PairHead, cosent, learns_vectors

SPEC = TaskSpec("likeness", ("one", "two"), None, label_column="score", metrics=("pearson", "spearman"))


@pytest.fixture
def encoder(tmp_path, tiny_bert_config, tiny_tokenizer):
    """A folder of sentence-transformers with a dense layer and a prompt."""
    set_seed(1)
    folder = tmp_path / "encoder"
    BertModel(tiny_bert_config(), add_pooling_layer=False).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    head = SentenceHead("mean", [Dense(24, 8), Normalize()], prompts={"query": "the "}, default_prompt="query")
    head.save(folder, 24)
    return str(folder)


@pytest.fixture
def pairs(tmp_path, sentences):
    """A folder whose pairs are the more alike the more words they share; `write(**fields)` describes it."""
    texts = [sentence.lower() for sentence in sentences[:16]]

    def likeness(one, two):
        one, two = set(one.split()), set(two.split())
        return 5.0 * len(one & two) / len(one | two)

    made = [{"one": a, "two": b, "score": likeness(a, b)} for a, b in itertools.combinations(texts, 2)]
    folder = tmp_path / "pairs"
    folder.mkdir()
    for split, rows in (("train", made[:64]), ("validation", made[:32])):
        write_rows(folder / f"{split}.jsonl", rows)
    return str(folder)


def task(pairs, **fields):
    return TaskArguments(pairs, text_columns=["one", "two"], label_column="score", max_length=16, **fields)


def training(folder, **fields):
    given = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "max_steps": 24}
    return FineTuningArguments(str(folder), **{**given, "learning_rate": 3e-3, **fields})


def test_the_loss_is_the_sum_over_pairs_in_the_wrong_order():
    generator = torch.Generator().manual_seed(3)
    cosines, gold = torch.rand(6, generator=generator) * 2 - 1, torch.tensor([3.0, 1.0, 3.0, 0.0, 5.0, 1.0])
    total = 1.0
    for i, j in itertools.permutations(range(6), 2):
        if gold[i] > gold[j]:
            total += math.exp(20 * (float(cosines[j]) - float(cosines[i])))
    assert float(cosent(cosines, gold)) == pytest.approx(math.log(total), rel=1e-5)
    assert float(cosent(cosines, torch.ones(6))) == 0.0
    cosines.requires_grad_()
    cosent(cosines, gold).backward()
    assert cosines.grad.isfinite().all()


def test_the_cosines_of_a_batch_are_those_of_the_vectors(encoder, tiny_tokenizer, sentences):
    model, head = AutoModel.from_pretrained(encoder, dtype=torch.float32).eval(), read_head(encoder)
    texts = [[sentences[row], sentences[-row - 1]] for row in range(6)]
    rows = [{**tiny_tokenizer(pair), "labels": 1.0, "length": 9} for pair in texts]
    batch = PairHead(SPEC).collator(tiny_tokenizer, None)([dict(row) for row in rows])
    labels = batch.pop("labels")
    with torch.no_grad():
        found = PairEncoder(model, head)(**batch)["logits"]
    vectors = encode_texts(model, head, tiny_tokenizer, [text for pair in texts for text in pair], batch_size=3)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    torch.testing.assert_close(found, torch.tensor((units[::2] * units[1::2]).sum(1)), rtol=1e-5, atol=1e-5)
    assert labels.tolist() == [1.0] * 6


def test_adapting_trains_the_vectors_and_keeps_the_folder_a_sentence_encoder(encoder, pairs, tmp_path):
    def scored(name):
        given = EvaluationArguments(str(name), output_dir=str(tmp_path / "scores"), use_cpu=True)
        return evaluate.run(task(pairs), given)["scores"]["validation"]

    before, out = scored(encoder), tmp_path / "adapted"
    given = AdaptationArguments(encoder, from_scratch=True)
    results = adapt.run(task(pairs), given, training(out), TeacherArguments(encoder))
    assert (results["kind"], results["metric"], results["split"]) == ("vectors", "cosine_spearman", "validation")
    assert results["student"]["score"] > before["cosine_spearman"] + 0.05
    assert results["student"]["scores"]["validation"] == pytest.approx(scored(out), abs=1e-5)
    assert results["teacher"]["scores"]["validation"] == pytest.approx(before, abs=1e-5)
    assert results["retention"] == pytest.approx(results["student"]["score"] / before["cosine_spearman"])
    assert results["baseline"]["parameters"] == results["student"]["parameters"]
    assert results["baseline"]["score"] == pytest.approx(scored(out / "baseline")["cosine_spearman"], abs=1e-5)
    head = read_head(str(out))
    assert (head.describe(), head.prompts) == ("mean, dense 24 -> 8, normalize", {"query": "the "})
    assert not torch.equal(head.steps[0].linear.weight, read_head(encoder).steps[0].linear.weight)
    assert json.loads((out / "config.json").read_text())["architectures"] == ["BertModel"]
    facts = read_facts(out)
    assert facts.pipeline_tag == "sentence-similarity"
    assert facts.adaptation.startswith("fine-tuned by CoSENT on 64 scored pairs of pairs: 24 updates of 16 pairs")
    [score] = [one for one in facts.scores if one.metric == "cosine_spearman"]
    assert (score.student, score.teacher) == (results["student"]["score"], results["teacher"]["score"])
    assert "student: cosine_spearman" in adapt.summary(results)
    alone = read_facts(out / "baseline")
    assert (alone.pipeline_tag, alone.initialisation) == ("sentence-similarity", "random weights")
    assert results["baseline"]["score"] in [one.student for one in alone.scores]


def test_the_best_checkpoint_is_that_of_the_best_cosines(encoder, pairs, tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    every = {"eval_steps": 8, "save_steps": 8, "learning_rate": 1e-2}
    results = adapt.run(task(pairs), AdaptationArguments(encoder), training(tmp_path / "out", **best, **every))
    found = [entry["eval_cosine_spearman"] for entry in results["student"]["history"] if "eval_loss" in entry]
    assert len(found) == 3
    assert results["student"]["score"] == pytest.approx(max(found), abs=1e-4)


def test_classes_need_a_head(pairs):
    scored = load_task(pairs, text_columns=["one", "two"], label_column="score").spec
    assert learns_vectors(scored)
    assert not learns_vectors(load_task(pairs, text_columns=["one"], label_column="score").spec)
