"""The contracts of `MultiTeacherTrainer`."""

import copy
from functools import partial

import datasets
import pytest
import torch
from trainings import assert_same_weights, batch_of, logged, sharpened, trained
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    set_seed,
)

from hf_distill import DistillationTrainer, MultiTeacherTrainer
from hf_distill.objectives import LogitsObjective
from hf_distill.teachers.combination import combine_logits
from hf_distill.teachers.stored.precompute import precompute

LABELS = {0: "negative", 1: "positive"}
LAYERS_OF_EACH = ["logits", {"objective": "relation", "teacher": 0}, {"objective": "hidden", "teacher": 1}]


@pytest.fixture(scope="module")
def rows(rows):
    return rows.select(range(32)).add_column("teacher_id", [(7 * i + i // 3) % 3 for i in range(32)])


@pytest.fixture
def make_teacher(tiny_bert_config):
    """`make_teacher(seed, **config)`: a classifier that is sure enough to be worth asking."""

    def make(seed, model_class=BertForSequenceClassification, **overrides):
        set_seed(seed)
        return sharpened(model_class(tiny_bert_config(**{"id2label": LABELS, **overrides})))

    return make


@pytest.fixture
def three(make_teacher):
    return [make_teacher(seed) for seed in (10, 11, 12)]


@pytest.fixture
def build(build):
    """`build(teachers, objectives=..., **arguments)`: a trainer of a fresh copy of the tiny student."""
    return partial(build, trainer_class=MultiTeacherTrainer, max_steps=3)


def signals_of(trainer, batch):
    return trainer.teacher.signals(batch)


# ---- One teacher, equal teachers, order ----


@pytest.mark.parametrize("combine", ["mean_logits", "mean_probabilities", "confidence", "route"])
def test_one_teacher_gives_the_curve_of_a_distillation(build, tiny_teacher, combine):
    objectives = ["relation", "logits:0.5", "hidden", "labels:0.3"]
    plain = trained(build(tiny_teacher, trainer_class=DistillationTrainer, objectives=objectives, temperature=2.0))
    several = trained(build([tiny_teacher], objectives=objectives, temperature=2.0, combine=combine))
    assert logged(several) == logged(plain)
    assert_same_weights(plain.model, several.model)


def test_the_default_objectives_are_those_that_need_no_choice(build, three):
    assert list(build(three[:1]).model.objectives) == ["relation"]
    assert list(build(three).model.objectives) == ["logits"]


@pytest.mark.parametrize("combine", ["mean_logits", "mean_probabilities", "confidence"])
def test_the_order_of_teachers_and_weights_changes_nothing(build, three, combine):
    one = trained(build(three, combine=combine, teacher_weights=[5, 3, 2], temperature=2.0))
    other = trained(build([three[2], three[0], three[1]], combine=combine, teacher_weights=[2, 5, 3], temperature=2.0))
    assert logged(other) == pytest.approx(logged(one), rel=1e-5)


# ---- What objectives see ----


@pytest.mark.parametrize("combine", ["mean_logits", "mean_probabilities", "confidence"])
def test_logits_are_combined_at_the_temperature_of_each_objective(build, three, combine):
    cold, hot = LogitsObjective(temperature=1.0), {"objective": "logits", "name": "hot", "temperature": 8.0}
    trainer = build(three, combine=combine, teacher_weights=[3, 1, 1], trainer={"objectives": [cold, hot]})
    batch = batch_of(trainer)
    seen = signals_of(trainer, batch)
    each = [{"logits": t(batch["input_ids"], batch["attention_mask"]).logits} for t in three]
    for name, temperature in (("logits_objective", 1.0), ("hot", 8.0)):
        expected = combine_logits(
            each,
            combine,
            torch.tensor([0.6, 0.2, 0.2]),
            batch["attention_mask"],
            labels={"labels": batch["labels"]},
            temperature=temperature,
        )
        torch.testing.assert_close(seen[name].logits["logits"], expected["logits"])


def test_a_scheduled_temperature_is_the_one_of_the_moment(build, three):
    hot = {"objective": "logits", "temperature": 8, "temperature_schedule": "linear_decay"}
    trainer = build(three, combine="mean_probabilities", trainer={"objectives": [hot]})
    batch = batch_of(trainer)
    trainer.model.set_progress(0.5)
    halfway = signals_of(trainer, batch)["logits"].logits["logits"] / 4.5
    each = [t(batch["input_ids"], batch["attention_mask"]).logits for t in three]
    expected = torch.stack([(z / 4.5).softmax(-1) for z in each]).mean(0)
    torch.testing.assert_close(halfway.softmax(-1), expected)


def test_confidence_without_labels_is_that_of_the_predictions(build, three, rows):
    unlabelled = build(three, combine="confidence", train_dataset=rows.remove_columns("labels"))
    labelled = build(three, combine="confidence")
    one, other = (signals_of(t, batch_of(t))["logits"].logits["logits"] for t in (unlabelled, labelled))
    assert one.isfinite().all()
    assert not torch.allclose(one, other)


def test_layers_come_from_the_teacher_that_the_objective_names(build, make_teacher):
    teachers = [make_teacher(1), make_teacher(2, num_hidden_layers=2, hidden_size=32, num_attention_heads=2)]
    trainer = build(teachers, trainer={"objectives": LAYERS_OF_EACH})
    batch = batch_of(trainer)
    seen = signals_of(trainer, batch)
    assert list(seen["relation"].projections) == [3]
    last = teachers[1](batch["input_ids"], batch["attention_mask"], output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(seen["hidden"].hidden_states[2], last)
    assert seen["logits"].hidden_states == {}
    trainer.train()
    assert all(torch.isfinite(torch.tensor(logged(trainer))))


def test_a_teacher_is_asked_for_nothing_that_nobody_needs(build, three):
    objectives = [
        {"objective": "logits", "teacher": 0},
        {"objective": "hidden", "teacher": 1},
        {"objective": "relation", "teacher": 1},
    ]
    trainer = build(three, trainer={"objectives": objectives})
    requests = [teacher._capture.request for teacher in trainer.teachers]
    assert requests[0].logits
    assert not requests[0].hidden_states
    assert not requests[1].logits
    assert requests[1].hidden_states
    assert requests[1].projections
    calls = count_passes(three)
    signals_of(trainer, batch_of(trainer))
    assert calls == [1, 1, 0]


def count_passes(models):
    """A list that counts how often each model runs."""
    calls = [0] * len(models)

    def count(index):
        def hook(*_):
            calls[index] += 1

        return hook

    for index, model in enumerate(models):
        model.register_forward_pre_hook(count(index))
    return calls


# ---- Routes ----


def test_every_row_learns_from_its_own_teacher(build, three):
    objectives = ["logits", "hidden", "relation"]
    trainer = build(three, combine="route", objectives=objectives)
    batch = batch_of(trainer)
    seen = signals_of(trainer, batch)
    for row, index in enumerate(batch["teacher_id"].tolist()):
        alone = {k: v[row : row + 1] for k, v in batch.items()}
        own = three[index](alone["input_ids"], alone["attention_mask"], output_hidden_states=True)
        real = alone["attention_mask"][0].bool()
        torch.testing.assert_close(seen["logits"].logits["logits"][row], own.logits[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            seen["hidden"].hidden_states[3][row][real], own.hidden_states[3][0][real], rtol=1e-4, atol=1e-5
        )
        assert seen["relation"].projections[3].query[row].shape == (len(real), 24)


def test_a_teacher_runs_only_on_its_rows(build, three, rows):
    trainer = build(three, combine="route")
    sizes = []
    three[0].register_forward_pre_hook(lambda *a: sizes.append(len(a[2]["input_ids"])), with_kwargs=True)
    batch = batch_of(trainer)
    signals_of(trainer, batch)
    assert sizes == [int((batch["teacher_id"] == 0).sum())]
    calls = count_passes(three)
    batch["teacher_id"] = torch.full_like(batch["teacher_id"], 2)
    signals_of(trainer, batch)
    assert calls == [0, 0, 1]


def test_routing_everything_to_one_teacher_is_distilling_from_it(build, three, rows):
    to_last = rows.remove_columns("teacher_id").add_column("teacher_id", [2] * len(rows))
    objectives = ["logits", "relation"]
    routed = trained(build(three, combine="route", objectives=objectives, train_dataset=to_last))
    plain = trained(build(three[2], trainer_class=DistillationTrainer, objectives=objectives))
    assert logged(routed) == pytest.approx(logged(plain), rel=1e-6)


def test_an_objective_with_a_teacher_of_its_own_sees_all_rows(build, three):
    objectives = ["logits", {"objective": "hidden", "teacher": 1}]
    trainer = build(three, combine="route", trainer={"objectives": objectives})
    calls = count_passes(three)
    batch = batch_of(trainer)
    seen = signals_of(trainer, batch)
    assert calls == [1, 1, 1]
    assert len(seen["hidden"].hidden_states[3]) == len(batch["input_ids"])
    row = batch["teacher_id"].tolist().index(1)
    own = three[1](batch["input_ids"], batch["attention_mask"]).logits[row]
    torch.testing.assert_close(seen["logits"].logits["logits"][row], own)


def test_text_keeps_its_teacher_when_it_is_tokenized(build, three, sentences):
    text = datasets.Dataset.from_dict(
        {"text": sentences[:16], "teacher_id": [i % 3 for i in range(16)], "x": [0] * 16}
    )
    trainer = build(three, combine="route", train_dataset=text, max_steps=1)
    assert set(trainer.train_dataset.column_names) >= {"input_ids", "teacher_id", "length"}
    assert "x" not in trainer.train_dataset.column_names
    trainer.train()


# ---- Architectures, labels, heads ----


def test_teachers_may_differ_in_architecture(build, make_teacher, tiny_tokenizer):
    set_seed(5)
    config = DistilBertConfig(
        vocab_size=len(tiny_tokenizer), dim=16, n_layers=2, n_heads=2, hidden_dim=32, id2label=LABELS,
        dropout=0.0, attention_dropout=0.0, max_position_embeddings=64,
    )  # fmt: skip
    teachers = [make_teacher(1), DistilBertForSequenceClassification(config).eval()]
    trainer = trained(build(teachers, trainer={"objectives": LAYERS_OF_EACH}, combine="mean_probabilities"))
    batch = batch_of(trainer)
    each = [t(batch["input_ids"], batch["attention_mask"]).logits.softmax(-1) for t in teachers]
    seen = signals_of(trainer, batch)
    torch.testing.assert_close(seen["logits"].logits["logits"].softmax(-1), torch.stack(each).mean(0))
    assert [line for line in trainer.describe().splitlines() if line.startswith("teacher 1: DistilBert")]


def test_labels_are_put_into_the_students_order(build, make_teacher):
    straight, crossed = make_teacher(1), make_teacher(2, id2label={0: "positive", 1: "negative"})
    trainer = build([straight, crossed])
    batch = batch_of(trainer)
    one, other = (t(batch["input_ids"], batch["attention_mask"]).logits for t in (straight, crossed))
    torch.testing.assert_close(signals_of(trainer, batch)["logits"].logits["logits"], (one + other.flip(-1)) / 2)


@pytest.mark.parametrize("combine", ["mean_logits", "mean_probabilities", "confidence", "route"])
@pytest.mark.parametrize("kind", ["tokens", "spans"])
def test_heads_of_tokens_and_spans_learn_from_several(
    build, make_teacher, tiny_bert_config, rows, tiny_tokenizer, kind, combine
):
    model_class = {"tokens": BertForTokenClassification, "spans": BertForQuestionAnswering}[kind]
    teachers = [make_teacher(seed, model_class) for seed in (1, 2, 3)]
    set_seed(4)
    student = model_class(tiny_bert_config(hidden_size=12, num_hidden_layers=2, id2label=LABELS))
    bare = rows.remove_columns("labels")
    objectives = ["logits", "labels"] if kind == "tokens" else ["logits"]
    if kind == "tokens":
        data = bare.add_column(
            "labels", [[-100, *[i % 2] * (len(ids) - 2), -100] for i, ids in enumerate(bare["input_ids"])]
        )
        trainer = {"data_collator": DataCollatorForTokenClassification(tiny_tokenizer)}
    else:
        data = bare.add_column("start_positions", [1] * len(bare)).add_column("end_positions", [2] * len(bare))
        trainer = None
    arguments = {"student": student, "train_dataset": data, "trainer": trainer, "combine": combine}
    run = trained(build(teachers, objectives=objectives, temperature=2.0, **arguments))
    metrics = run.evaluate(data)
    assert all(torch.isfinite(torch.tensor([*logged(run), metrics["eval_loss"]])))
    if combine == "confidence":
        accumulation = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
        half = trained(build(teachers, objectives=objectives, temperature=2.0, **arguments, **accumulation))
        assert logged(half) == pytest.approx(logged(run), rel=1e-4)


def test_a_regression_learns_from_the_mean(build, make_teacher, tiny_bert_config, rows):
    score = {"num_labels": 1, "id2label": {0: "score"}}
    teachers = [make_teacher(seed, **score) for seed in (1, 2)]
    student = make_teacher(3, **score, hidden_size=12)
    arguments = {"student": student, "train_dataset": rows.remove_columns("labels")}
    trainer = build(teachers, **arguments)
    batch = batch_of(trainer)
    one, other = (t(batch["input_ids"], batch["attention_mask"]).logits for t in teachers)
    torch.testing.assert_close(signals_of(trainer, batch)["logits"].logits["logits"], (one + other) / 2)
    with pytest.raises(ValueError, match="`--combine` is 'confidence', but a regression"):
        build(teachers, combine="confidence", **arguments)


# ---- Steps, memory, checkpoints, stores ----


@pytest.mark.parametrize("combine", ["confidence", "route"])
def test_accumulated_batches_give_the_update_of_one_large_batch(build, three, combine):
    large = trained(build(three, combine=combine, objectives=["logits", "labels"]))
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    small = trained(build(three, combine=combine, objectives=["logits", "labels"], **parts))
    assert logged(small) == pytest.approx(logged(large), rel=1e-5)
    assert logged(small, "grad_norm") == pytest.approx(logged(large, "grad_norm"), rel=1e-4)


def test_teachers_that_run_one_at_a_time_give_the_same(build, three):
    objectives = ["logits", {"objective": "hidden", "teacher": 1}]
    together = build(three, trainer={"objectives": objectives})
    one_by_one = build(three, trainer={"objectives": objectives}, offload_teachers=True)
    moves = []
    for index, teacher in enumerate(one_by_one.teachers):
        teacher.to = lambda device, index=index, move=teacher.to: (moves.append(index), move(device))
    together.train()
    one_by_one.train()
    assert logged(one_by_one) == logged(together)
    assert moves[:6] == [1, 1, 0, 0, 2, 2]


def test_a_resumed_run_continues_bit_for_bit(build, three):
    settings = {
        "trainer": {"objectives": ["logits", {"objective": "hidden", "teacher": 2}]},
        "combine": "confidence",
        "max_steps": 4,
        "train_sampling_strategy": "random",
    }
    whole = trained(build(three, **settings, save_strategy="steps", save_steps=2))
    resumed = trained(build(three, **settings), f"{whole.args.output_dir}/checkpoint-2")
    assert logged(resumed)[-2:] == logged(whole)[-2:]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("another", "teachers"),
        ("fewer", "teachers"),
        ({"combine": "mean_probabilities"}, "combine: mean_logits in the checkpoint, mean_probabilities now"),
        ({"teacher_weights": [2, 1, 1]}, "teacher_weights"),
        ({"trainer": {"objectives": [{"objective": "logits", "teacher": 1}]}}, "teacher_of"),
    ],
)
def test_resuming_with_other_teachers_is_refused(build, three, make_teacher, change, named):
    build(three, save_strategy="steps", save_steps=2, max_steps=2).train()
    teachers = {"another": [*three[:2], make_teacher(99)], "fewer": three[:2]}.get(str(change), three)
    other = build(teachers, **(change if isinstance(change, dict) else {}))
    with pytest.raises(ValueError, match=f"another distillation.*{named}"):
        other.train(resume_from_checkpoint=f"{other.args.output_dir}/checkpoint-2")


def test_stored_teachers_give_the_curve_of_live_ones(build, three, rows, tmp_path, tiny_tokenizer):
    folders = [str(tmp_path / f"stored_{index}") for index in range(3)]
    for teacher, folder in zip(three, folders, strict=True):
        precompute(
            rows, teacher, objectives=["logits"], output_dir=folder, processing_class=tiny_tokenizer, dtype="float32"
        )
    settings = {"objectives": ["logits"], "combine": "confidence", "train_sampling_strategy": "sequential"}
    live = build(three, **settings)
    stored = build(folders, train_dataset=None, **settings)
    mixed = build([folders[0], *three[1:]], train_dataset=None, **settings)
    for trainer in (live, stored, mixed):
        trainer.train()
    assert logged(stored) == pytest.approx(logged(live), rel=1e-5)
    assert logged(mixed) == pytest.approx(logged(live), rel=1e-5)


# ---- What cannot work ----


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher_weights": [1, 2]}, "`--teacher_weights` has 2 weights, but there are 3 teachers"),
        ({"teacher_weights": [1, 2, 0]}, r"`--teacher_weights` is \[1.0, 2.0, 0.0\]; every weight must be above 0"),
        ({"teacher_weights": [1, 2, 3], "combine": "route"}, "`--teacher_weights` has no meaning"),
        ({"combine": "vote"}, "`--combine` is 'vote'; allowed are mean_logits, mean_probabilities, confidence, route"),
        ({"objectives": ["relation"]}, r"'relation' compares layers.*3 teachers.*2 \(bert of 3 layers\).*`teacher`"),
        ({"objectives": ['{"objective": "hidden", "teacher": 3}']}, r"'hidden' has `teacher` 3; allowed are 0 to 2"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_by_flag(build, three, fields, message):
    with pytest.raises(ValueError, match=message):
        build(three, **fields)


@pytest.mark.parametrize("teachers", [None, [], "a/folder"])
def test_teachers_are_a_list(build, teachers):
    with pytest.raises(ValueError, match=r"`--teacher_models` is .*list of at least one"):
        build(teachers)


def test_routes_need_their_column_and_teachers_that_exist(build, three, rows):
    bare = rows.remove_columns("teacher_id")
    with pytest.raises(
        ValueError, match=r"needs the column 'teacher_id' in `train_dataset`, with a number from 0 to 2"
    ):
        build(three, combine="route", train_dataset=bare)
    far = bare.add_column("teacher_id", [7] * len(bare))
    with pytest.raises(
        ValueError, match=r"'teacher_id' of `train_dataset` has \[7\]; allowed is a number from 0 to 2"
    ):
        build(three, combine="route", train_dataset=far)
    with pytest.raises(ValueError, match=r"in `eval_dataset\['bare'\]`"):
        build(three, combine="route", trainer={"eval_dataset": {"good": rows, "bare": bare}})


def test_routed_layers_need_teachers_of_one_shape(build, three, make_teacher):
    deeper, wider = make_teacher(4, num_hidden_layers=4), make_teacher(5, hidden_size=32)
    with pytest.raises(ValueError, match=r"'hidden' compares layers, but the teachers differ.*4 layers"):
        build([three[0], deeper, three[1]], combine="route", objectives=["hidden"])
    with pytest.raises(ValueError, match=r"different things: teacher 0 gives .*24.*teacher 1 gives .*32"):
        build([three[0], wider, three[1]], combine="route", objectives=["hidden"])


def test_teachers_that_do_not_fit_the_student_are_named(build, three, make_teacher):
    with pytest.raises(ValueError, match=r"Teacher 1: .*different labels"):
        build([three[0], make_teacher(3, id2label={0: "dog", 1: "cat"})])
    with pytest.raises(ValueError, match=r"Teacher 1: The teacher's vocabulary has 7 entries"):
        build([three[0], make_teacher(3, vocab_size=7)])
    with pytest.raises(ValueError, match=r"different things: teacher 0.*teacher 1 gives .*start_logits"):
        build([three[0], make_teacher(3, BertForQuestionAnswering)])


def test_a_teacher_with_another_vocabulary_is_named(build, three, tmp_path, tiny_tokenizer):
    three[1].save_pretrained(tmp_path / "other")
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens(["zebra"])
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"Teacher 1: .*tokenizers differ.*zebra"):
        build([three[0], str(tmp_path / "other")])


def test_one_teacher_has_no_number_but_0(build, tiny_teacher):
    item = {"objective": "relation", "teacher": 1}
    with pytest.raises(ValueError, match="'relation' has `teacher` 1, but there is one teacher"):
        build(tiny_teacher, trainer_class=DistillationTrainer, trainer={"objectives": [item]})
