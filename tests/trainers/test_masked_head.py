"""A masked-LM head is trained on the masked tokens alone, with the loss that the whole model would have."""

import pytest
import torch
from datasets import Dataset
from transformers import BertForMaskedLM, set_seed

from hf_distill.settings import MaskedHeadArguments
from hf_distill.tasks.rows.text import tokenize_text
from hf_distill.trainers.fine_tuning.masked_lm_head import MaskedHeadTrainer


@pytest.fixture
def make(tmp_path, tiny_tokenizer, tiny_bert_config, sentences):
    """`make(**arguments)`: a trainer of a tiny model."""
    rows = tokenize_text(Dataset.from_dict({"text": sentences}), tiny_tokenizer, max_length=24)

    def trainer(*, freeze_encoder=True, dropout=0.0, **arguments):
        set_seed(0)
        settings = {"mlm_probability": 0.3, "use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_steps": 2}
        return MaskedHeadTrainer(
            BertForMaskedLM(tiny_bert_config(hidden_dropout_prob=dropout)),
            MaskedHeadArguments(str(tmp_path / "out"), **settings | arguments),
            freeze_encoder=freeze_encoder,
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=tiny_tokenizer,
        )

    return trainer


def test_the_loss_is_that_of_the_whole_model(make):
    trainer = make()
    batch = next(iter(trainer.get_train_dataloader()))
    expected = trainer.model(**batch).loss
    torch.testing.assert_close(trainer.compute_loss(trainer.model, dict(batch)), expected)


def test_the_losses_of_parts_add_up_to_that_of_the_whole_step(make):
    trainer = make(per_device_train_batch_size=8)
    batch = next(iter(trainer.get_train_dataloader()))
    whole = trainer.compute_loss(trainer.model, dict(batch))
    items = (batch["labels"] != -100).sum()
    parts = [
        trainer.compute_loss(trainer.model, {name: x[part] for name, x in batch.items()}, num_items_in_batch=items)
        for part in (slice(0, 3), slice(3, None))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_a_batch_in_which_nothing_is_masked_has_no_loss(make):
    trainer = make()
    batch = next(iter(trainer.get_train_dataloader()))
    batch["labels"] = torch.full_like(batch["labels"], -100)
    assert trainer.compute_loss(trainer.model, batch).item() == 0


def test_a_frozen_encoder_has_neither_gradients_nor_dropout(make):
    trainer = make(dropout=0.5)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    one, two = (trainer.compute_loss(trainer.model, dict(batch)) for _ in range(2))
    assert one.item() == two.item()
    one.backward()
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.grad is not None}
    assert trained
    assert all(name.startswith("cls.") for name in trained)


def test_a_free_encoder_has_both(make):
    trainer = make(dropout=0.5, freeze_encoder=False)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    one, two = (trainer.compute_loss(trainer.model, dict(batch)) for _ in range(2))
    assert one.item() != two.item()
    one.backward()
    assert trainer.model.bert.embeddings.word_embeddings.weight.grad is not None


def test_accuracy_and_loss_are_those_of_all_logits(make):
    trainer = make(per_device_eval_batch_size=7)
    found = trainer.masked_accuracy()
    right, count, total = 0, 0, 0.0
    for batch in trainer.get_eval_dataloader():
        with torch.no_grad():
            output = trainer.model.eval()(**batch)
        masked = batch["labels"] != -100
        right += int((output.logits.argmax(-1) == batch["labels"])[masked].sum())
        count += int(masked.sum())
        total += float(output.loss) * int(masked.sum())
    assert found == {
        "masked_tokens": count,
        "masked_accuracy": round(right / count, 4),
        "masked_loss": pytest.approx(total / count, abs=1e-3),
    }
    assert trainer.masked_accuracy() == found, "the same tokens are masked again"


def test_no_size_of_the_batches_changes_the_score(make):
    found = [make(per_device_eval_batch_size=size).masked_accuracy() for size in (1, 7, 64)]
    assert found[0]["masked_tokens"] > 100
    for other in found[1:]:
        assert {**other, "masked_loss": 0} == {**found[0], "masked_loss": 0}
        assert other["masked_loss"] == pytest.approx(found[0]["masked_loss"], abs=2e-4)


def test_rows_without_a_masked_token_measure_nothing(make):
    trainer = make(mlm_probability=1e-9)
    with pytest.raises(ValueError, match=r"No token of the evaluation rows is masked.*--textbook_eval_rows"):
        trainer.masked_accuracy()


def test_a_checkpoint_holds_a_plain_model(make, tmp_path):
    make(save_strategy="steps", save_steps=2).train()
    loaded = BertForMaskedLM.from_pretrained(tmp_path / "out" / "checkpoint-2")
    assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight


def test_several_processes_are_refused(make, monkeypatch):
    monkeypatch.setattr(MaskedHeadArguments, "world_size", 2)
    with pytest.raises(ValueError, match="one process on one device, but there are 2 processes"):
        make()
