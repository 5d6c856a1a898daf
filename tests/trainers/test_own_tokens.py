"""Several teachers, each with a tokenizer of its own."""

import copy

import datasets
import pytest
import torch
from tokenizer_cases import character_tokenizer, halving_tokenizer
from trainings import assert_same_weights, batch_of, logged, sharpened, trained
from transformers import (
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    set_seed,
)

from hf_distill import DistillationTrainer, MultiTeacherTrainer
from hf_distill.teachers.alignment import mean_over_pieces
from hf_distill.teachers.stored.precompute import precompute

LABELS = {0: "negative", 1: "positive"}
LAYERS_OF_EACH = [
    "logits",
    {"objective": "hidden", "name": "first", "teacher": 0, "layers": "last"},
    {"objective": "relation", "teacher": 1},
    {"objective": "hidden", "name": "third", "teacher": 2, "layers": "last"},
]


@pytest.fixture(scope="module")
def characters(sentences):
    return character_tokenizer(sentences)


@pytest.fixture(scope="module")
def halves(sentences):
    return halving_tokenizer(sentences)


@pytest.fixture(scope="module")
def rows(sentences):
    texts = sentences[:32]
    count = range(len(texts))
    return datasets.Dataset.from_dict(
        {"text": texts, "labels": [i % 2 for i in count], "teacher_id": [(7 * i + i // 3) % 3 for i in count]}
    )


@pytest.fixture
def make_teacher(tiny_bert_config):
    """`make_teacher(tokenizer, seed, **config)`: a classifier that is sure enough to be worth asking."""

    def make(tokenizer, seed=3, model_class=BertForSequenceClassification, **overrides):
        set_seed(seed)
        return sharpened(model_class(tiny_bert_config(vocab_size=len(tokenizer), **{"id2label": LABELS, **overrides})))

    return make


@pytest.fixture
def three(make_teacher, tiny_tokenizer, characters, halves):
    """Teachers and tokenizers: one reads like the student, two do not; the last differs in all but its task."""
    set_seed(5)
    config = DistilBertConfig(
        vocab_size=len(halves), dim=32, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=64, dropout=0.0,
        attention_dropout=0.0, seq_classif_dropout=0.0, id2label={0: "positive", 1: "negative"},
    )  # fmt: skip
    teachers = [make_teacher(tiny_tokenizer), make_teacher(characters), DistilBertForSequenceClassification(config)]
    return [*teachers[:2], sharpened(teachers[2])], [tiny_tokenizer, characters, halves]


@pytest.fixture
def build(make_trainer, rows):
    """`build(teachers, tokenizers, ...)`: a trainer of a fresh copy of the tiny student."""
    quick = {"align_tokenizers": True, "max_steps": 3, "max_length": 64, "learning_rate": 5e-3}

    def make(teachers, tokenizers, *, trainer_class=MultiTeacherTrainer, rows=rows, **more):
        given = {"train_dataset": rows, "trainer": {"teacher_processing_class": tokenizers}}
        return make_trainer(teachers, trainer_class, **given, **quick | more)

    return make


def answers_of(teacher, tokenizer, texts, **wanted):
    """What a teacher says of texts that only it reads, padded by its own tokenizer."""
    with torch.no_grad():
        return teacher(**tokenizer(list(texts), padding=True, return_tensors="pt"), **wanted)


# ---- One teacher, like teachers ----


def test_one_teacher_gives_the_curve_of_a_distillation(build, make_teacher, characters):
    objectives = ["relation", "logits:0.5", "hidden", "labels:0.3"]
    teacher = make_teacher(characters)
    plain = trained(build(teacher, characters, trainer_class=DistillationTrainer, objectives=objectives))
    several = trained(build([teacher], [characters], objectives=objectives))
    assert logged(several) == logged(plain)
    assert_same_weights(plain.model, several.model)


def test_teachers_that_read_like_the_student_are_not_aligned(build, make_teacher, tiny_tokenizer):
    teachers = [make_teacher(tiny_tokenizer, seed) for seed in (3, 4)]
    objectives = ["logits", {"objective": "relation", "teacher": 1}]
    told = build(teachers, [tiny_tokenizer, copy.deepcopy(tiny_tokenizer)], objectives=objectives)
    plain = build(teachers, None, objectives=objectives, align_tokenizers=False)
    assert set(told.train_dataset.column_names) == set(plain.train_dataset.column_names)
    told.train()
    plain.train()
    assert logged(told) == logged(plain)


def test_teachers_that_read_alike_share_one_encoding(build, make_teacher, tiny_tokenizer, characters):
    teachers = [make_teacher(tiny_tokenizer), make_teacher(characters, 3), make_teacher(characters, 4)]
    trainer = build(teachers, [tiny_tokenizer, characters, copy.deepcopy(characters)])
    encoded = [name for name in trainer.train_dataset.column_names if name.endswith("input_ids")]
    assert sorted(encoded) == ["input_ids", "teacher1_input_ids"]
    trainer.train()


def test_one_tokenizer_is_that_of_all(build, make_teacher, characters):
    teachers = [make_teacher(characters, seed) for seed in (3, 4)]
    one, each = build(teachers, characters), build(teachers, [characters, characters])
    one.train()
    each.train()
    assert logged(one) == logged(each)


# ---- What objectives see ----


def test_logits_of_every_teacher_count_by_the_names_of_their_labels(build, three, rows):
    teachers, tokenizers = three
    trainer = build(teachers, tokenizers, objectives=["logits"])
    seen = trainer.teacher.signals(batch_of(trainer))["logits"].logits["logits"]
    said = [
        answers_of(teacher, tokenizer, rows["text"][:8]).logits
        for teacher, tokenizer in zip(teachers, tokenizers, strict=True)
    ]
    torch.testing.assert_close(seen, (said[0] + said[1] + said[2].flip(-1)) / 3)


def test_layers_of_a_teacher_are_the_means_over_the_pieces_of_its_own_tokens(build, three, rows):
    teachers, tokenizers = three
    trainer = build(teachers, tokenizers, objectives=LAYERS_OF_EACH)
    batch = batch_of(trainer)
    seen = trainer.teacher.signals(batch)
    first, third = (
        answers_of(teachers[i], tokenizers[i], rows["text"][:8], output_hidden_states=True).hidden_states[-1]
        for i in (0, 2)
    )
    torch.testing.assert_close(seen["first"].hidden_states[3], first)
    pieces, mask = batch["teacher2_pieces"], batch["teacher2_piece_mask"]
    torch.testing.assert_close(seen["third"].hidden_states[2], mean_over_pieces(third, pieces, mask.shape[1]))
    assert set(seen["relation"].projections) == {3}


@pytest.mark.parametrize("index", [0, 1, 2])
def test_layers_of_one_of_several_are_learnt_as_from_that_one_alone(build, three, index):
    teachers, tokenizers = three
    alone = build(teachers[index], tokenizers[index], trainer_class=DistillationTrainer, objectives=["relation"])
    several = trained(build(teachers, tokenizers, objectives=[{"objective": "relation", "teacher": index}]))
    alone.train()
    assert logged(several) == logged(alone)


@pytest.mark.parametrize("combine", ["mean_logits", "mean_probabilities", "confidence"])
def test_the_student_learns_from_architectures_widths_label_orders_and_tokenizers_that_differ(build, three, combine):
    teachers, tokenizers = three
    objectives = [*LAYERS_OF_EACH, "labels:0.1"]
    trainer = trained(build(teachers, tokenizers, objectives=objectives, combine=combine, max_steps=30))
    for term in ("logits/soft", "first/s2_t3", "relation/vv", "third/s2_t2"):
        curve = logged(trainer, f"loss/{term}")
        assert curve[-1] < curve[0], term


def test_accumulated_batches_give_the_update_of_one_large_batch(build, three):
    # A mean over tokens is one over the pieces of each teacher, of which the halves of the batch have other shares.
    teachers, tokenizers = three
    whole = trained(build(teachers, tokenizers, objectives=LAYERS_OF_EACH, max_steps=1))
    parts = build(
        teachers, tokenizers, objectives=LAYERS_OF_EACH, max_steps=1, per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
    )  # fmt: skip
    parts.train()
    assert logged(parts) == pytest.approx(logged(whole), rel=1e-5)


def test_the_evaluation_is_a_mean_over_pieces_whatever_the_batch(build, three, rows):
    teachers, tokenizers = three
    found = [
        build(teachers, tokenizers, objectives=LAYERS_OF_EACH, per_device_eval_batch_size=size) for size in (5, 32)
    ]
    small, large = (trainer.evaluate(trainer.train_dataset) for trainer in found)
    for name in (name for name in large if name.startswith("eval_loss")):
        assert small[name] == pytest.approx(large[name], rel=1e-5), name


def test_a_resumed_run_continues_bit_for_bit(build, three):
    teachers, tokenizers = three
    whole = build(teachers, tokenizers, objectives=LAYERS_OF_EACH, max_steps=4, save_strategy="steps", save_steps=2)
    whole.train()
    resumed = build(teachers, tokenizers, objectives=LAYERS_OF_EACH, max_steps=4)
    resumed.train(f"{whole.args.output_dir}/checkpoint-2")
    assert logged(resumed) == logged(whole)


def test_rows_of_every_kind_are_read_by_every_side(build, three, rows, tiny_tokenizer):
    teachers, tokenizers = three
    trainer = build(teachers, tokenizers, objectives=[*LAYERS_OF_EACH, "labels:0.1"])
    expected = trainer.evaluate(rows)["eval_loss"]
    as_list = list(rows)
    for kind in (as_list, rows.to_iterable_dataset(), rows.with_transform(lambda batch: batch)):
        assert trainer.evaluate(kind)["eval_loss"] == pytest.approx(expected, rel=1e-5)
    # Only the student can read these.
    tokens = [dict(tiny_tokenizer(text)) for text in rows["text"][:]]
    assert trainer.predict(tokens).predictions == pytest.approx(trainer.predict(rows).predictions, abs=1e-6)
    with pytest.raises(ValueError, match="Several tokenizers need text to read"):
        trainer.evaluate(tokens)


# ---- Routes ----


def test_every_row_learns_from_its_own_teacher(build, three, rows):
    teachers, tokenizers = three
    trainer = build(teachers, tokenizers, objectives=["logits"], combine="route")
    seen = trainer.teacher.signals(batch_of(trainer))["logits"].logits["logits"]
    for row, (text, index) in enumerate(zip(rows["text"][:8], rows["teacher_id"][:8], strict=True)):
        said = answers_of(teachers[index], tokenizers[index], [text]).logits[0]
        torch.testing.assert_close(seen[row], said.flip(-1) if index == 2 else said)
    trainer.train()


def test_routed_rows_and_layers_of_one_teacher_mix(build, three):
    teachers, tokenizers = three
    trainer = trained(build(teachers, tokenizers, objectives=LAYERS_OF_EACH, combine="route"))
    assert logged(trainer)[-1] < logged(trainer)[0]


def test_routed_layers_need_teachers_that_read_alike(build, make_teacher, three, characters):
    teachers, tokenizers = three
    with pytest.raises(ValueError, match=r"--combine route.*'relation'.*different tokenizers.*`teacher`"):
        build(teachers, tokenizers, objectives=["relation"], combine="route")
    alike = [make_teacher(characters, seed) for seed in (3, 4, 5)]
    build(alike, characters, objectives=["relation"], combine="route").train()


# ---- What cannot be ----


def test_what_cannot_be_aligned_is_refused_with_the_number_of_the_teacher(build, make_teacher, three, characters):
    teachers, tokenizers = three
    tagger = make_teacher(characters, model_class=BertForTokenClassification)
    with pytest.raises(ValueError, match=r"these give different things: .*teacher 1 gives"):
        build([teachers[0], tagger], tokenizers[:2], objectives=["logits"])
    with pytest.raises(ValueError, match=r"Teacher 2: .*attention maps cannot be compared"):
        build(teachers, tokenizers, objectives=[{"objective": "attention", "teacher": 2}])
    with pytest.raises(ValueError, match=r"the tokenizer of teacher 1.*`teacher_processing_class`"):
        build(teachers, [tokenizers[0], None, tokenizers[2]])
    with pytest.raises(ValueError, match="has 2 tokenizers, but there are 3 teachers"):
        build(teachers, tokenizers[:2])


def test_a_stored_teacher_has_read_already(build, three, rows, tmp_path):
    teachers, tokenizers = three
    folder = str(tmp_path / "stored")
    precompute(rows.select_columns(["text"]), teachers[0], ["logits"], folder, processing_class=tokenizers[0])
    with pytest.raises(ValueError, match=r"needs live teachers.*teacher 1 does not run here: .*, stored: 32 rows"):
        build([teachers[1], folder], tokenizers[1::-1])


def test_the_tokenizers_of_folders_lie_beside_them(build, three, tmp_path):
    teachers, tokenizers = three
    for index, (teacher, tokenizer) in enumerate(zip(teachers, tokenizers, strict=True)):
        teacher.save_pretrained(tmp_path / str(index))
        tokenizer.save_pretrained(tmp_path / str(index))
    folders = trained(build([str(tmp_path / str(index)) for index in range(3)], None, objectives=LAYERS_OF_EACH))
    models = trained(build(teachers, tokenizers, objectives=LAYERS_OF_EACH))
    assert logged(folders) == logged(models)
