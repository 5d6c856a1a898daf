"""Temperatures, annealed targets and masked language modelling, inside the trainer."""

from functools import partial

import datasets
import pytest
import torch
from trainings import logged, sharpened, trained
from transformers import BertForMaskedLM, set_seed

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
