"""Temperatures, annealed targets, masked and causal language modelling, inside the trainer."""

import copy
from functools import partial

import datasets
import pytest
import torch
from trainings import logged, sharpened, trained
from transformers import (
    BertForMaskedLM,
    DataCollatorForTokenClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_distill import DistillationArguments, precompute
from hf_distill.trainers.distillation.collators import MaskingCollator, masking_collator

TRIPLE = [{"objective": "logits", "positions": "labels", "temperature": 2, "logits_loss": "kl"}, "labels:0.4"]


QUICK = {"max_steps": 6, "learning_rate": 5e-3, "train_sampling_strategy": "random"}


@pytest.fixture
def classify(build):
    """`classify(**arguments)`: a trainer of a classifier."""
    return partial(build, **QUICK)


@pytest.fixture
def fill_masks(make_trainer, tiny_bert_config, sentences):
    """`fill_masks(**arguments)`: a trainer of a masked language model."""
    set_seed(0)
    teacher = sharpened(BertForMaskedLM(tiny_bert_config()))
    set_seed(1)
    student = BertForMaskedLM(tiny_bert_config(hidden_size=12, num_hidden_layers=2))
    text = datasets.Dataset.from_dict({"text": sentences})
    given = {"teacher": teacher, "student": student, "train_dataset": text}
    return partial(make_trainer, **given, **QUICK, objectives=TRIPLE, mlm_probability=0.3)


def test_rows_without_labels_are_evaluated_on_what_needs_none(classify, rows):
    trainer = classify(objectives=["annealed", "logits"])
    found = trainer.evaluate(trainer.train_dataset.remove_columns("labels"))
    assert "eval_loss/logits/soft" in found
    assert "eval_loss/annealed/mixed" not in found
    with pytest.raises(ValueError, match=r"The column 'labels' holds.*wants one class a row as label"):
        classify(objectives=["annealed"], train_dataset=rows.map(lambda row: {"labels": 0.5})).train()


@pytest.mark.parametrize(
    "settings",
    [
        {"objectives": ["annealed"]},
        {"objectives": [{"objective": "logits", "temperature_schedule": "linear_decay"}], "temperature": 4.0},
        {
            "objectives": [
                {"objective": "logits", "temperature_schedule": {"name": "flsw", "beta": 2}, "temperature": 4}
            ]
        },
    ],
)
def test_a_resumed_run_continues_where_it_was_annealed_to(classify, settings):
    whole = trained(classify(**settings, save_strategy="steps", save_steps=3))
    resumed = trained(classify(**settings), f"{whole.args.output_dir}/checkpoint-3")
    assert logged(resumed) == logged(whole)


def test_resuming_with_another_temperature_schedule_is_refused(classify):
    moving = {"objective": "logits", "temperature_schedule": "flsw"}
    run = trained(classify(objectives=[moving], save_strategy="steps", save_steps=3))
    with pytest.raises(ValueError, match=r"another distillation.*flsw"):
        classify(objectives=["logits"]).train(resume_from_checkpoint=f"{run.args.output_dir}/checkpoint-3")


def test_annealing_ends_near_the_gold_labels(classify):
    annealed = trained(classify(objectives=["annealed", "labels:0.000001"], max_steps=40))
    mixed, hard = logged(annealed, "loss/annealed/mixed"), logged(annealed, "loss/labels/hard")
    assert mixed[-1] == pytest.approx(39 / 40 * hard[-1] + 1 / 40 * mixed[0], rel=0.2)
    assert abs(mixed[0] - hard[0]) > abs(mixed[-1] - hard[-1])


def test_accumulated_batches_of_masked_tokens_give_the_update_of_one_large_batch(classify):
    settings = {
        "objectives": [{"objective": "logits", "positions": "labels"}],
        "train_sampling_strategy": "sequential",
    }
    large = trained(classify(**settings))
    small = trained(classify(**settings, per_device_train_batch_size=2, gradient_accumulation_steps=4))
    assert logged(small) == pytest.approx(logged(large), rel=1e-5)


def test_a_masked_language_model_learns_soft_and_hard_labels_of_masked_tokens(fill_masks):
    trainer = fill_masks(max_steps=30)
    batch = next(iter(trainer.get_train_dataloader()))
    masked = batch["labels"] >= 0
    assert 0 < masked.float().mean() < 0.5
    assert (batch["input_ids"][masked] == trainer.processing_class.mask_token_id).float().mean() > 0.5
    before = trainer.evaluate(trainer.train_dataset)
    trainer.train()
    after = trainer.evaluate(trainer.train_dataset)
    assert after["eval_loss/logits/soft"] < before["eval_loss/logits/soft"]
    assert after["eval_loss/labels/hard"] < before["eval_loss/labels/hard"]
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] == after["eval_loss"]


def test_a_resumed_run_masks_the_same_tokens(fill_masks):
    whole = trained(fill_masks(save_strategy="steps", save_steps=3, num_train_epochs=2))
    resumed = trained(fill_masks(), f"{whole.args.output_dir}/checkpoint-3")
    assert logged(resumed) == logged(whole)


def test_masks_depend_on_seed_and_rows(tiny_tokenizer, sentences):
    rows = [{"input_ids": ids} for ids in tiny_tokenizer(sentences[:8])["input_ids"]]
    collate = MaskingCollator(tiny_tokenizer, seed=1)
    first = collate(rows)["labels"]
    state = torch.get_rng_state()
    assert torch.equal(collate(rows)["labels"], first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(collate(rows[::-1])["labels"].flip(0), first)
    assert not torch.equal(MaskingCollator(tiny_tokenizer, seed=2)(rows)["labels"], first)


def test_no_size_of_the_batches_changes_what_is_masked_in_an_evaluation(fill_masks):
    found = []
    for size in (1, 5, 64):
        trainer = fill_masks(per_device_eval_batch_size=size)
        found.append(trainer.evaluate(trainer.train_dataset.select(range(24)))["eval_loss/labels/hard"])
    assert found[1:] == pytest.approx([found[0]] * 2, abs=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_of_an_evaluation_are_masked_by_themselves(tiny_tokenizer, sentences, side):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.padding_side = side
    rows = [{"input_ids": ids} for ids in tokenizer(sentences[:32])["input_ids"]]
    collate = MaskingCollator(tokenizer, seed=1).of_each_row()
    batch, masked = collate(rows), 0
    for number, row in enumerate(rows):
        own, width = collate([row]), len(row["input_ids"])
        cells = slice(width) if side == "right" else slice(-width, None)
        for name in ("input_ids", "labels"):
            assert torch.equal(batch[name][number, cells], own[name][0])
        assert (batch["labels"][number] != -100).sum() == (own["labels"] != -100).sum()
        masked += int((own["labels"] != -100).sum())
        shown = own["labels"][0] != -100
        assert torch.equal(own["labels"][0][shown], torch.tensor(row["input_ids"])[shown])
    words = sum(len(row["input_ids"]) - 2 for row in rows)
    assert 0.08 < masked / words < 0.22


def test_a_share_of_masks_must_be_one(tmp_path):
    with pytest.raises(ValueError, match=r"--mlm_probability.*within 0 and 1"):
        DistillationArguments(str(tmp_path), mlm_probability=15, use_cpu=True)


def test_masks_need_a_mask_token_and_a_teacher_that_reads_them(fill_masks, tmp_path, tiny_tokenizer, sentences):
    trainer = fill_masks()
    with pytest.raises(ValueError, match=r"--mlm_probability.*NoneType.*no mask token"):
        masking_collator(trainer.args, None, [])
    text = datasets.Dataset.from_dict({"text": sentences})
    precompute(text, trainer.teacher.model, ["logits"], tmp_path / "stored", processing_class=tiny_tokenizer)
    with pytest.raises(ValueError, match=r"--mlm_probability.*stored teacher has read the rows without masks"):
        fill_masks(teacher=str(tmp_path / "stored"), train_dataset=None, tokenizer=None, objectives=["logits"])


# ---- Causal language models: the label of a token is the next one


@pytest.fixture
def write_on(make_trainer, tiny_tokenizer, rows):
    """`write_on(teacher=..., **arguments)`: a trainer of a causal language model on the labels of `rows`."""
    shown = rows.remove_columns("labels").map(
        # Some labels are hidden, the first among them, which nothing predicts.
        lambda row: {"labels": [-100 if token % 3 == 0 else token for token in row["input_ids"]]}
    )
    students = [causal_model(len(tiny_tokenizer), layers, width) for layers, width in ((2, 12), (3, 24))]
    given = {"teacher": None, "student": students[0], "train_dataset": shown, "learning_rate": 1e-3}
    return partial(make_trainer, **given, weight_decay=0.0, warmup_steps=0, max_grad_norm=0.0), students[1]


def causal_model(vocab_size, layers, width):
    set_seed(layers)
    config = Qwen2Config(
        vocab_size=vocab_size, hidden_size=width, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


def next_token_losses(model, row, values):
    """What the model misses of one row, token by token, each counted where the next one has a label."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
    return [values(logits[place], label) for place, label in enumerate(row["labels"][1:]) if label != -100]


def test_labels_of_a_causal_model_are_those_of_the_next_tokens(write_on):
    make, _ = write_on
    trainer = make(objectives=["labels"], gradient_accumulation_steps=2, per_device_train_batch_size=4)
    batch, student = trainer.train_dataset.select(range(8)), copy.deepcopy(trainer.student)
    losses = [loss for row in batch for loss in next_token_losses(student, row, lambda said, label: -said[label])]
    trainer.train()
    assert logged(trainer)[0] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    assert trainer.evaluate(batch)["eval_loss"] < float(torch.stack(losses).mean())
    found = trainer.predict(batch)
    for row, labels in zip(found.label_ids, batch["labels"], strict=True):
        assert list(row[: len(labels)]) == labels


def test_a_causal_model_learns_what_trainer_teaches_it(write_on):
    make, _ = write_on
    ours = trained(make(objectives=["labels"]))
    stock = Trainer(
        copy.deepcopy(make(objectives=["labels"]).student), TrainingArguments(**{
            name: getattr(ours.args, name)
            for name in ("output_dir", "max_steps", "per_device_train_batch_size", "logging_steps", "use_cpu",
                         "learning_rate", "adam_epsilon", "max_grad_norm", "disable_tqdm", "train_sampling_strategy")
        }, report_to="none", save_strategy="no"),
        train_dataset=ours.train_dataset, data_collator=DataCollatorForTokenClassification(ours.processing_class),
    )  # fmt: skip
    assert logged(ours) == pytest.approx(logged(trained(stock)), rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        ({"objective": "logits", "positions": "labels"}, lambda said, label, taught: -(taught.exp() * said).sum()),
        (
            {"objective": "annealed", "gold_share": 1.0},
            lambda said, label, taught: -said[label] if label != -100 else -(taught.exp() * said).sum(),
        ),
    ],
    ids=["labels", "annealed"],
)
def test_targets_of_a_causal_model_stand_where_the_next_token_is_predicted(write_on, objective, value):
    make, teacher = write_on
    trainer = make(teacher=teacher, objectives=[objective])
    rows = trainer.train_dataset.select(range(8))
    losses = []
    for row in rows:
        with torch.no_grad():
            ids = torch.tensor([row["input_ids"]])
            said, taught = (one(input_ids=ids).logits[0].log_softmax(-1) for one in (trainer.student, teacher))
        labels = [*row["labels"][1:], -100]
        shown = [place for place, label in enumerate(labels) if label != -100 or "gold_share" in objective]
        losses += [value(said[place], labels[place], taught[place]) for place in shown]
    assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_a_causal_model_fills_no_masks(write_on):
    make, _ = write_on
    with pytest.raises(ValueError, match=r"`--mlm_probability` 0.15 .*a Qwen2ForCausalLM predicts the next token"):
        make(objectives=["labels"], mlm_probability=0.15)
