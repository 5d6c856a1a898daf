"""Rerankers: rows of a query with candidates, students of models with one score, and the order that they give."""

import copy
import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset, load_dataset
from tiny_data import save_model
from tokenizer_cases import character_tokenizer
from trainings import sharpened, trained
from transformers import BertForSequenceClassification, BertModel, set_seed

from hf_distill import (
    DistillationArguments,
    DistillationTrainer,
    MultiTeacherArguments,
    MultiTeacherTrainer,
    StoredTeacher,
    create_student,
    precompute,
)
from hf_distill.capture.signals import ABSENT, SignalRequest, Signals
from hf_distill.capture.transformer import capture_of
from hf_distill.commands import adapt, corpus, distill, evaluate
from hf_distill.corpus.search.candidates import best_documents
from hf_distill.hub.model_card import read_facts
from hf_distill.objectives.logits import LogitsObjective
from hf_distill.settings import (
    AdaptationArguments,
    CorpusArguments,
    EvaluationArguments,
    FineTuningArguments,
    RunArguments,
    ShardArguments,
    StudentArguments,
    TaskArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.students.sentence import Normalize, SentenceHead
from hf_distill.tasks.vectors import read_retrieval, training_queries
from hf_distill.teachers.base import LiveTeacher
from hf_distill.trainers.distillation.task_scores import as_reranking
from hf_distill.trainers.fine_tuning.predictions import predict_texts

DOCUMENTS = ["a good film", "the dog runs", "a bird sees the sea", "the long road", "a good dog", "the sea"]


@pytest.fixture
def sentence_transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("sentence_transformers", reason="the extra `sentence` is not installed")


@pytest.fixture
def reranker(tiny_bert_config):
    set_seed(0)
    model = sharpened(BertForSequenceClassification(tiny_bert_config(num_labels=1)))
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    return model.eval()


@pytest.fixture
def folder(reranker, tiny_tokenizer, tmp_path):
    save_model(tmp_path / "teacher", reranker, tiny_tokenizer)
    return str(tmp_path / "teacher")


@pytest.fixture
def beir(tmp_path):
    """Four queries: two to train on, one of them without an answer that is known, and two of the test split."""
    root = tmp_path / "pets"
    (root / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(DOCUMENTS)]
    queries = {"q0": "good film", "q1": "dog on the road", "q2": "a dog", "q3": "bird and sea"}
    asked = [{"_id": name, "text": text} for name, text in queries.items()]
    for name, lines in {"corpus": rows, "queries": asked}.items():
        (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    header = "query-id\tcorpus-id\tscore\n"
    (root / "qrels" / "train.tsv").write_text(header + "q0\td0\t1\n")
    (root / "qrels" / "test.tsv").write_text(header + "q2\td1\t1\nq2\td4\t1\nq3\td2\t1\n")
    return str(root)


def rows(count=8):
    """Lists of two and three candidates by turns."""
    return [
        {
            "text": f"the {word}",
            "candidates": [f"a good {word}", f"the {word} runs and runs", "sea"][: 2 + number % 2],
            "labels": [1.0, 0.0, 0.0][: 2 + number % 2],
        }
        for number, word in enumerate(("dog cat film sea road bird story house" * 2).split()[:count])
    ]


def arguments(tmp_path, **fields):
    defaults = {
        "output_dir": str(tmp_path / "student"),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "learning_rate": 1e-3,
        "max_length": 32,
        "objectives": ["margin", "listwise"],
    }
    return DistillationArguments(**{**defaults, **fields})


def trainer(tmp_path, teacher, tokenizer, data=None, student=None, **fields):
    student = student or create_student(teacher, "2x12:2h:24")
    return DistillationTrainer(
        student,
        arguments(tmp_path, **fields),
        teacher_model=teacher,
        train_dataset=Dataset.from_list(rows()) if data is None else data,
        processing_class=tokenizer,
    )


def weights(model):
    # A number that is added to all scores changes nothing: the last bias moves by rounding alone.
    return torch.cat([value.flatten() for name, value in model.state_dict().items() if name != "classifier.bias"])


# ---- Rows ----


def slow_scores(model, tokenizer, row):
    with torch.no_grad():
        inputs = [tokenizer(row["text"], candidate, return_tensors="pt") for candidate in row["candidates"]]
        return [float(model(**one).logits) for one in inputs]


def test_a_batch_of_lists_has_the_scores_of_its_pairs(reranker, tiny_tokenizer, tmp_path):
    made = trainer(tmp_path, reranker, tiny_tokenizer, per_device_train_batch_size=8)
    batch = next(iter(made.get_train_dataloader()))
    assert batch["input_ids"].dim() == 3
    assert batch["labels"].shape == batch["input_ids"].shape[:2]
    scores = capture_of(reranker, SignalRequest(logits=True))(
        **{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    )
    found = sorted(scores.logits["logits"].flatten().tolist())
    expected = [score for row in rows() for score in slow_scores(reranker, tiny_tokenizer, row)]
    assert found[: 24 - len(expected)] == [ABSENT] * (24 - len(expected))
    assert found[24 - len(expected) :] == pytest.approx(sorted(expected), abs=1e-5)


@pytest.mark.parametrize("kind", ["list", "transform"])
def test_rows_of_any_kind_are_the_same_batches(kind, reranker, tiny_tokenizer, tmp_path):
    expected = trained(trainer(tmp_path, reranker, tiny_tokenizer))
    data = rows() if kind == "list" else Dataset.from_list(rows()).with_transform(lambda batch: batch)
    other = trained(trainer(tmp_path, reranker, tiny_tokenizer, data, remove_unused_columns=kind != "transform"))
    torch.testing.assert_close(weights(other.student), weights(expected.student))


def test_lists_of_one_candidate_have_nothing_to_compare(reranker, tiny_tokenizer, tmp_path, caplog):
    one = Dataset.from_list([{"text": "the cat", "candidates": ["a dog"]}] * 4)
    trainer(tmp_path, reranker, tiny_tokenizer, one)
    assert "Every row has one text in the column 'candidates'" in caplog.text
    caplog.clear()
    trainer(tmp_path, reranker, tiny_tokenizer)
    assert "Every row" not in caplog.text


def test_accumulation_is_one_large_batch(reranker, tiny_tokenizer, tmp_path):
    fields = {"max_steps": 1, "objectives": ["margin", "listwise", "labels"]}
    whole = trainer(tmp_path, reranker, tiny_tokenizer, per_device_train_batch_size=8, **fields)
    parts = trainer(
        tmp_path, reranker, tiny_tokenizer, per_device_train_batch_size=2, gradient_accumulation_steps=4, **fields
    )
    for one in (whole, parts):
        one.train()
    torch.testing.assert_close(weights(parts.student), weights(whole.student), rtol=1e-4, atol=1e-6)


DEEP = ["relation", "minilm", "attention", "tinybert", "hidden", "pkd", "nst", "fsp", "cosine", "embedding"]
ON_SCORES = [{"objective": "logits", "logits_loss": "mse", "name": "errors"}, "logits", "tinybert_prediction"]


def test_candidates_of_other_rows_change_no_loss(reranker, tiny_tokenizer, tmp_path):
    """Short lists in a batch with long ones, and alone: places without a candidate count in no objective."""
    data = Dataset.from_list(sorted(rows(), key=lambda row: len(row["candidates"])))
    reranker.config.problem_type = None
    fields = {"max_steps": 1, "objectives": [*DEEP, *ON_SCORES], "train_sampling_strategy": "sequential"}
    fields |= {"logging_steps": 1}
    found = []
    for size in (8, 4):
        made = trainer(
            tmp_path / str(size), reranker, tiny_tokenizer, data, student=create_student(reranker, "2x12:4h:24"),
            per_device_train_batch_size=size, gradient_accumulation_steps=8 // size, **fields,
        )  # fmt: skip
        made.train()
        found.append({name: value for name, value in made.state.log_history[0].items() if name.startswith("loss/")})
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("problem_type", [None, "regression"])
def test_predictions_of_candidates_are_compared_row_by_row(problem_type):
    ours, theirs = torch.randn(2, 3, 4).mul(2).unbind()
    real = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]).bool()
    sides = [
        Signals(torch.ones(9, 5), {"logits": one.masked_fill(~real, ABSENT)}, candidates=real)
        for one in (ours, theirs)
    ]
    lists = [
        (one[shown].double(), other[shown].double()) for one, other, shown in zip(ours, theirs, real, strict=True)
    ]
    found = LogitsObjective("ce", temperature=2.0, problem_type=problem_type)(*sides)["soft"]
    errors = sum(float((one - other).square().mean()) for one, other in lists) / 3
    soft = sum(-4 * float(((other / 2).softmax(0) * (one / 2).log_softmax(0)).sum()) for one, other in lists) / 3
    assert float(found) == pytest.approx(errors if problem_type else soft, rel=1e-5)
    mse = LogitsObjective("mse", problem_type=problem_type)(*sides)["soft"]
    assert float(mse) == pytest.approx(errors, rel=1e-5)
    focal = LogitsObjective("kl", temperature=2.0, temperature_schedule="flsw")(*sides)["soft"]
    units = [(one / (one.norm() + 1e-4), other / (other.norm() + 1e-4)) for one, other in lists]
    moves = torch.stack([1 - (one * other).sum() for one, other in units])
    expected = 0.0
    for (one, other), at in zip(lists, (2 + moves.mean() - moves).tolist(), strict=True):
        p = (other / at).softmax(0)
        expected += at**2 * float((p * (p.log() - (one / at).log_softmax(0))).sum()) / 3
    assert float(focal) == pytest.approx(expected, rel=1e-4)


def test_objectives_on_the_class_of_a_row_are_refused(reranker, tiny_tokenizer, tmp_path):
    for item in ("annealed", {"objective": "logits", "positions": "labels"}):
        with pytest.raises(ValueError, match=r"goes by the class of a row.*but rows with candidates have none"):
            trainer(tmp_path, reranker, tiny_tokenizer, objectives=["margin", item]).train()
    compat = {"objective": "tinybert_prediction", "tinybert_compat": True}
    with pytest.raises(ValueError, match=r"`tinybert_compat` divides by the number of classes"):
        trainer(tmp_path, reranker, tiny_tokenizer, objectives=[compat]).train()


def test_a_student_with_other_tokens_compares_scores(reranker, tiny_tokenizer, tmp_path, tiny_bert_config):
    other = character_tokenizer([row["text"] for row in rows()] + DOCUMENTS)
    student = BertForSequenceClassification(tiny_bert_config(vocab_size=len(other), num_labels=1))
    made = DistillationTrainer(
        student,
        arguments(tmp_path, align_tokenizers=True, max_length=64, per_device_train_batch_size=8),
        teacher_model=reranker,
        teacher_processing_class=tiny_tokenizer,
        train_dataset=Dataset.from_list(rows()),
        processing_class=other,
    )
    taught = made.teacher.signals(next(iter(made.get_train_dataloader()))).logits["logits"].flatten().tolist()
    expected = [score for row in rows() for score in slow_scores(reranker, tiny_tokenizer, row)]
    assert sorted(taught)[24 - len(expected) :] == pytest.approx(sorted(expected), abs=1e-5)
    assert made.train().training_loss > 0


def test_stored_scores_are_those_of_the_teacher(reranker, tiny_tokenizer, tmp_path):
    data = Dataset.from_list(rows())
    precompute(
        data,
        reranker,
        ["margin"],
        tmp_path / "stored",
        processing_class=tiny_tokenizer,
        dtype="float32",
        batch_size=3,
        shard_rows=5,
        max_length=32,
    )
    stored = StoredTeacher(tmp_path / "stored")
    kept = [list(row) for row in stored.dataset["teacher_logits"]]
    for row, scores in zip(rows(), kept, strict=True):
        assert scores == pytest.approx(slow_scores(reranker, tiny_tokenizer, row), abs=1e-5)
    fields = {"objectives": ["margin", "listwise", "logits"]}
    live = trainer(tmp_path, reranker, tiny_tokenizer, **fields)
    again = DistillationTrainer(
        create_student(reranker, "2x12:2h:24"), arguments(tmp_path, **fields), teacher_model=stored
    )
    for one in (live, again):
        one.train()
    torch.testing.assert_close(weights(again.student), weights(live.student), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"relation.*of rows with candidates only these are stored"):
        precompute(data, reranker, ["relation"], tmp_path / "no", processing_class=tiny_tokenizer)


def test_what_cannot_be_compared_is_named(reranker, tiny_tokenizer, tiny_teacher, tiny_student, tmp_path):
    with pytest.raises(
        ValueError, match=r"need a head with one score, but BertForSequenceClassification.*num_labels=1"
    ):
        trainer(tmp_path, tiny_teacher, tiny_tokenizer, student=tiny_student)
    plain = trainer(tmp_path, reranker, tiny_tokenizer, Dataset.from_dict({"text": ["a dog", "the sea"]}))
    with pytest.raises(ValueError, match=r"the rows have none: give them a column `candidates`"):
        plain.train()
    empty = Dataset.from_list([{"text": "a dog", "candidates": []}, {"text": "a dog", "candidates": ["sea"]}])
    with pytest.raises(ValueError, match=r"`?candidates.*at least one text in every row, but row 0"):
        trainer(tmp_path, reranker, tiny_tokenizer, empty)
    wrong = Dataset.from_list([{"text": "a dog", "candidates": ["sea", "cat"], "labels": [1.0]}] * 4)
    with pytest.raises(ValueError, match=r"a number of at least 0 for every candidate, but a row with 2"):
        trainer(tmp_path, reranker, tiny_tokenizer, wrong).train()


# ---- BM25: hard negatives, and what is put in order ----


def test_best_documents_share_words_with_the_query():
    found = best_documents(["a dog", "zebra"], DOCUMENTS, 3)
    assert sorted(found[0]) == [1, 4]
    assert found[1] == []


def test_corpus_writes_queries_with_hard_negatives(beir, tmp_path):
    task = TaskArguments(beir)
    found = corpus.run(task, CorpusArguments(corpus_dir=str(tmp_path / "rows"), num_candidates=3, engine="bm25s"))
    data = load_dataset(str(tmp_path / "rows"), split="train", cache_dir=str(tmp_path / "cache"))
    assert found["rows"] == len(data) == 2
    # The answer that is known stands first; the other query has none, and what BM25 finds.
    assert data[0]["candidates"] == ["a good film", "a good dog"]
    assert data[0]["labels"] == [1.0, 0.0]
    assert data[1]["text"] == "dog on the road"
    assert set(data[1]["candidates"]) <= set(DOCUMENTS)
    assert not any(data[1]["labels"])
    assert "BM25 engine" in corpus.summary(found)


@pytest.mark.parametrize(
    ("name", "value"), [("corpus", "x.txt"), ("top_k", 5), ("min_words", 3), ("unit", "sentence")]
)
def test_flags_of_a_general_corpus_have_no_use_for_candidates(beir, tmp_path, name, value):
    given = CorpusArguments(corpus_dir=str(tmp_path / "other"), **{name: value})
    with pytest.raises(ValueError, match=rf"`--{name}` is {value!r}, but .* documents of its own.*leave it out"):
        corpus.run(TaskArguments(beir), given)
    with pytest.raises(ValueError, match=r"`--num_shards` is 2, but .* documents of its own"):
        corpus.run(TaskArguments(beir), replace(given, **{name: getattr(CorpusArguments(), name)}), ShardArguments(2))


def test_a_copy_of_the_answer_is_no_wrong_document(beir, tmp_path):
    with (Path(beir) / "corpus.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n" + json.dumps({"_id": "copy", "title": "", "text": "a good film"}))
    corpus.run(
        TaskArguments(beir), CorpusArguments(corpus_dir=str(tmp_path / "rows"), num_candidates=3, engine="bm25s")
    )
    row = load_dataset(str(tmp_path / "rows"), split="train", cache_dir=str(tmp_path / "cache"))[0]
    assert (row["candidates"], row["labels"]) == (["a good film", "a good dog"], [1.0, 0.0])


def test_queries_of_other_splits_are_not_trained_on(beir):
    assert training_queries(beir).queries == ["q0", "q1"]
    (Path(beir) / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t1\n")
    with pytest.raises(ValueError, match=r"no query to train on: each of 4 is judged in dev or test"):
        training_queries(beir)


def test_candidates_are_put_in_the_order_of_their_scores(beir):
    task = as_reranking(read_retrieval(beir))
    assert task.queries == ["a dog", "bird and sea"]
    assert set(task.candidates[0]) == {"the dog runs", "a good dog"}
    answers = [list(row) for row in task.gains]
    best = [gain + 0.001 * place for row in answers for place, gain in enumerate(row)]
    assert task.scores(best) == {"ndcg@10": 1.0, "mrr@10": 1.0}
    worst = task.scores([-one for one in best])
    rank = len(answers[1])
    assert worst["mrr@10"] == pytest.approx((1 + 1 / rank) / 2)
    assert worst["ndcg@10"] == pytest.approx((1 + 1 / math.log2(rank + 1)) / 2)
    assert 0 < task.first_scores()["ndcg@10"] <= 1


def test_scores_are_those_of_sentence_transformers(sentence_transformers, folder, reranker, tiny_tokenizer, beir):
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    task = as_reranking(read_retrieval(beir))
    listed = zip(task.queries, task.candidates, task.gains, strict=True)
    samples = [
        {
            "query": query,
            "positive": [text for text, gain in zip(texts, gains, strict=True) if gain],
            "documents": list(texts),
        }
        for query, texts, gains in listed
    ]
    theirs = CrossEncoderRerankingEvaluator(samples, write_csv=False)(CrossEncoder(folder))
    ours = task.scores(predict_texts(reranker, tiny_tokenizer, *zip(*task.pairs, strict=True))[:, 0])
    assert ours["ndcg@10"] == pytest.approx(theirs["ndcg@10"])
    assert ours["mrr@10"] == pytest.approx(theirs["mrr@10"])


# ---- Whole jobs ----


def test_a_student_is_a_cross_encoder(sentence_transformers, reranker, tiny_tokenizer, tmp_path):
    from sentence_transformers import CrossEncoder

    reranker.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    made = trained(trainer(tmp_path, reranker, tiny_tokenizer))
    made.save_model()
    pairs = [("a good dog", "the sea"), ("the film", "a good film and a long story")]
    theirs = CrossEncoder(str(tmp_path / "student")).predict(pairs)
    ours = predict_texts(made.student.eval(), tiny_tokenizer, *zip(*pairs, strict=True))[:, 0]
    torch.testing.assert_close(torch.tensor(theirs), torch.tensor(ours), rtol=1e-5, atol=1e-6)


def test_a_teacher_is_a_cross_encoder(sentence_transformers, folder, tiny_tokenizer, tmp_path):
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(folder, activation_fn=torch.nn.Tanh())
    theirs.save_pretrained(str(tmp_path / "theirs"))
    from_object, from_folder = LiveTeacher(theirs), str(tmp_path / "theirs")
    assert from_object.head is None
    assert from_object.config.num_labels == 1
    for number, teacher in enumerate((from_object, from_folder)):
        made = trainer(
            tmp_path / str(number),
            teacher,
            tiny_tokenizer,
            student=create_student(folder, "2x12:2h:24"),
        )
        made.train()
        made.save_model()
        assert isinstance(CrossEncoder(str(tmp_path / str(number) / "student")).activation_fn, torch.nn.Tanh)


# ---- Several teachers ----


@pytest.fixture
def second(tiny_bert_config):
    set_seed(1)
    model = sharpened(BertForSequenceClassification(tiny_bert_config(num_labels=1, problem_type="regression")))
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    return model.eval()


def several(tmp_path, teachers, student, tokenizer, data=None, **fields):
    """A trainer whose batches are all rows in their order."""
    given = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 8, "report_to": "none"}
    given |= {"max_steps": 2, "use_cpu": True, "save_strategy": "no", "disable_tqdm": True, "max_length": 32}
    return MultiTeacherTrainer(
        copy.deepcopy(student),
        MultiTeacherArguments(str(tmp_path / "student"), **given, **fields),
        teacher_models=teachers,
        train_dataset=None if isinstance(teachers[-1], StoredTeacher) else data or Dataset.from_list(rows()),
        processing_class=tokenizer,
    )


@pytest.mark.parametrize("combine", ["mean_logits", "mean_probabilities"])
def test_two_teachers_are_one_weighted_list_live_and_stored(combine, reranker, second, tiny_tokenizer, tmp_path):
    kept = []
    for name, model in {"one": reranker, "two": second}.items():
        given = {"processing_class": tiny_tokenizer, "dtype": "float32", "max_length": 32}
        precompute(Dataset.from_list(rows()), model, ["margin"], tmp_path / name, **given)
        kept.append(StoredTeacher(tmp_path / name, name))
    student = create_student(second, "2x12:2h:24")
    fields = {"combine": combine, "teacher_weights": [3.0, 1.0], "objectives": ["margin", "listwise"]}
    trained = []
    for teachers in ([reranker, second], [reranker, kept[1]], kept):
        made = several(tmp_path, teachers, student, tiny_tokenizer, **fields)
        found = made.teacher.signals(next(iter(made.get_train_dataloader())))["margin"].logits["logits"]
        for row, scores in zip(rows(), found, strict=True):
            one, two = (torch.tensor(slow_scores(model, tiny_tokenizer, row)) for model in (reranker, second))
            of = torch.Tensor if combine == "mean_logits" else lambda values: torch.tensor(values).softmax(-1)
            expected = 0.75 * of(one.tolist()) + 0.25 * of(two.tolist())
            torch.testing.assert_close(of(scores[: len(one)].tolist()), expected, rtol=1e-4, atol=1e-5)
        made.train()
        trained.append(weights(made.student))
    for other in trained[1:]:
        torch.testing.assert_close(other, trained[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("objective", "said"), [("labels", True), ("margin", False)])
def test_queries_whose_labels_teach_nothing_are_counted(objective, said, reranker, tiny_tokenizer, tmp_path, caplog):
    rows = [{"text": f"film {n}", "candidates": ["sea", "dog"], "labels": [float(n % 4 == 0), 0.0]} for n in range(8)]
    DistillationTrainer(
        copy.deepcopy(reranker),
        DistillationArguments(str(tmp_path), use_cpu=True, objectives=[objective], report_to="none"),
        teacher_model=reranker,
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer,
    )
    assert ("6 of 8 queries have no candidate above 0 in 'labels'" in caplog.text) is said


def test_several_teachers_of_candidates_may_be_chosen_by_row_and_not_by_labels(
    reranker, second, tiny_tokenizer, tmp_path
):
    student = create_student(second, "2x12:2h:24")
    with pytest.raises(ValueError, match=r"`--combine` is 'confidence'.*rows with candidates have none; allowed are"):
        several(tmp_path, [reranker, second], student, tiny_tokenizer, combine="confidence", objectives=["margin"])
    data = Dataset.from_list([{**row, "teacher_id": number % 2} for number, row in enumerate(rows())])
    fields = {"combine": "route", "objectives": ["margin"], "data": data}
    made = several(tmp_path, [reranker, second], student, tiny_tokenizer, **fields)
    found = made.teacher.signals(next(iter(made.get_train_dataloader())))["margin"].logits["logits"]
    for number, (row, scores) in enumerate(zip(rows(), found, strict=True)):
        expected = slow_scores((reranker, second)[number % 2], tiny_tokenizer, row)
        assert scores[: len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
    assert made.train().training_loss > 0


def test_a_reranker_from_the_command_line(folder, beir, tmp_path, capsys):
    corpus.run(
        TaskArguments(beir), CorpusArguments(corpus_dir=str(tmp_path / "rows"), num_candidates=3, engine="bm25s")
    )
    training = arguments(tmp_path, eval_task=beir, eval_strategy="steps", eval_steps=2, per_device_train_batch_size=2)
    results = distill.run(
        StudentArguments(student_shape="2x12:2h:24", calibration_tokens=200),
        TeacherArguments(folder),
        TextbookArguments([str(tmp_path / "rows")]),
        training,
        RunArguments(),
    )
    student = str(tmp_path / "student")
    scores = {name: results["evaluation"][f"eval_ranking/{name}"] for name in ("ndcg@10", "mrr@10")}
    again = evaluate.run(
        TaskArguments(beir, max_length=32), EvaluationArguments(student, output_dir=str(tmp_path / "e"), use_cpu=True)
    )
    assert again["scores"]["test"] == pytest.approx(scores)
    assert again["kind"] == "ranking"
    teacher = evaluate.run(
        TaskArguments(beir, max_length=32), EvaluationArguments(folder, output_dir=str(tmp_path / "t"), use_cpu=True)
    )
    assert results["teacher_ranking"] == pytest.approx(teacher["scores"]["test"])
    assert "before, in the order of BM25: ndcg@10" in evaluate.summary(again)
    facts = read_facts(student)
    assert facts.pipeline_tag == "text-ranking"
    assert {one.metric for one in facts.scores} == {"ndcg@10", "mrr@10"}
    card = (tmp_path / "student" / "README.md").read_text()
    for line in ("library_name: sentence-transformers", "- cross-encoder", "- reranker", "CrossEncoder("):
        assert line in card
    assert facts.scores[0].teacher is not None


def test_without_a_teacher_the_answers_are_learnt(beir, tmp_path, reranker, tiny_tokenizer):
    made = DistillationTrainer(
        create_student(reranker, "2x12:2h:24"),
        arguments(
            tmp_path, objectives=["labels"], eval_task=beir, eval_strategy="steps", max_steps=30, learning_rate=5e-3
        ),
        train_dataset=Dataset.from_list(rows()),
        processing_class=tiny_tokenizer,
    )
    before = made.evaluate()["eval_loss/labels/hard"]
    made.train()
    after = made.evaluate(made.train_dataset)
    assert after["eval_loss/labels/hard"] < 0.5 * before
    assert "eval_ranking/ndcg@10" in after


@pytest.mark.parametrize("kind", ["reranker", "sentence encoder"])
def test_adapt_scores_a_search_beside_the_teacher(kind, folder, beir, tmp_path, tiny_bert_config, tiny_tokenizer):
    if kind == "sentence encoder":
        for name, seed in (("teacher", 1), ("student", 2)):
            set_seed(seed)
            save_model(tmp_path / name, BertModel(tiny_bert_config(), add_pooling_layer=False), tiny_tokenizer)
            SentenceHead("mean", [Normalize()]).save(tmp_path / name, 24)
    else:
        save_model(tmp_path / "student", create_student(folder, "2x12:2h:24"), tiny_tokenizer)
    student, task = str(tmp_path / "student"), TaskArguments(beir, max_length=32)
    training = FineTuningArguments(str(tmp_path / "adapted"), use_cpu=True, report_to="none")
    results = adapt.run(task, AdaptationArguments(student), training, TeacherArguments(folder))
    own = {name: EvaluationArguments(path, output_dir=str(tmp_path / f"of-{name}"), use_cpu=True)
           for name, path in {"student": student, "teacher": folder}.items()}  # fmt: skip
    for role, evaluation in own.items():
        assert results[role]["scores"] == evaluate.run(task, evaluation)["scores"]
    assert "student: ndcg@10" in adapt.summary(results)
    again = EvaluationArguments(str(tmp_path / "adapted"), output_dir=str(tmp_path / "again"), use_cpu=True)
    assert evaluate.run(task, again)["scores"] == results["student"]["scores"]
    [score] = [one for one in read_facts(tmp_path / "adapted").scores if one.metric == "ndcg@10"]
    assert (score.student, score.teacher) == (results["student"]["score"], results["teacher"]["score"])
    with pytest.raises(ValueError, match=r"`--from_scratch` trains a baseline on labels"):
        adapt.run(task, AdaptationArguments(student, from_scratch=True), training)
