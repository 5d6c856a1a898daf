"""Tags of words and answers in a context, learnt from a teacher with another tokenizer."""

import pytest
import torch
from datasets import Dataset
from tiny_data import save_model, write_task
from tokenizer_cases import character_tokenizer, halving_tokenizer
from trainings import sharpened
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    set_seed,
)

from hf_distill import DistillationArguments, DistillationTrainer
from hf_distill.commands import distill
from hf_distill.settings import RunArguments, StudentArguments, TeacherArguments, TextbookArguments
from hf_distill.teachers.alignment import first_of_pieces, sum_over_pieces

TAGS = {0: "O", 1: "B-PER", 2: "I-PER"}


def pieces_of(rows, width):
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])


def test_a_piece_has_the_tag_of_its_first_token():
    logits = torch.randn(2, 5, 3)
    pieces = pieces_of([[0, 1, 1, -1, 2], [0, 0, 1]], 5)
    found = first_of_pieces(logits, pieces, 3)
    torch.testing.assert_close(found[0], logits[0, [0, 1, 4]])
    torch.testing.assert_close(found[1, :2], logits[1, [0, 2]])


def test_a_piece_has_the_probability_of_its_tokens():
    scores = torch.randn(2, 5, requires_grad=True)
    pieces = pieces_of([[0, 1, 1, -1, 2], [0, 0, 1]], 5)
    found = sum_over_pieces(scores, pieces, 3)
    for row, count in ((0, 3), (1, 2)):
        real = pieces[row] >= 0
        tokens = scores[row][real].softmax(-1)
        expected = torch.stack([tokens[pieces[row][real] == piece].sum() for piece in range(count)])
        torch.testing.assert_close(found[row, :count].softmax(-1), expected)
    found[0].sum().backward()
    assert scores.grad.isfinite().all()
    assert scores.grad[0, 3] == 0


@pytest.fixture
def models(tiny_bert_config, sentences):
    """`models(model_class, **config)`: a teacher and a student with tokenizers of their own, and these."""

    def make(model_class, **config):
        tokenizers = halving_tokenizer(sentences), character_tokenizer(sentences)
        made = []
        for seed, tokenizer in enumerate(tokenizers):
            set_seed(seed)
            size = {"vocab_size": len(tokenizer), "max_position_embeddings": 256}
            made.append(sharpened(model_class(tiny_bert_config(**size, **config))))
        return (*made, *tokenizers)

    return make


def build(models, tmp_path, rows, **fields):
    teacher, student, theirs, ours = models
    settings = {"align_tokenizers": True, "max_length": 200, "objectives": ["logits"], "max_steps": 2}
    settings |= {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    return DistillationTrainer(
        student,
        DistillationArguments(str(tmp_path / "out"), **{**settings, **fields}),
        teacher_model=teacher,
        teacher_processing_class=theirs,
        train_dataset=rows,
        processing_class=ours,
    )


def signals_of_both(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    taught = trainer.teacher.signals(batch)
    [prefix] = {name.removesuffix("piece_mask") for name in batch if name.endswith("piece_mask")}
    return batch, taught, batch[prefix + "piece_mask"], prefix


def test_tags_of_words_are_compared_word_by_word(models, tmp_path, sentences):
    made = models(BertForTokenClassification, id2label=TAGS, num_labels=3)
    texts = sentences[:8]
    trainer = build(made, tmp_path, Dataset.from_dict({"text": texts}), per_device_train_batch_size=8)
    _, taught, mask, _ = signals_of_both(trainer)
    assert taught.logits["logits"].shape == (*mask.shape, 3)
    # Slow reference: letters of two make a piece, so that a word has half as many pieces as letters.
    teacher, _, theirs, _ = made
    expected = []
    for text in texts:
        with torch.no_grad():
            expected.append(teacher(**theirs(text, return_tensors="pt")).logits[0])
    for logits in expected:
        row = int((mask.sum(1) == len(logits)).nonzero()[0])
        candidates = [
            taught.logits["logits"][row][: len(logits)] for row in range(len(mask)) if mask[row].sum() == len(logits)
        ]
        assert any(torch.allclose(one, logits, atol=1e-4) for one in candidates), row
    assert trainer.train().training_loss > 0


def test_the_loss_of_answers_is_that_of_pieces(models, tmp_path, sentences):
    rows = Dataset.from_dict({"text": sentences[:4], "text_pair": sentences[4:8]})
    trainer = build(
        models(BertForQuestionAnswering),
        tmp_path,
        rows,
        per_device_train_batch_size=4,
        objectives=[{"objective": "logits", "logits_loss": "kl"}],
    )
    batch, taught, mask, prefix = signals_of_both(trainer)
    trainer.model.eval()
    with torch.no_grad():
        found = trainer.model(teacher_signals=taught, **batch)
        ours = trainer.student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    total = 0.0
    for name in ("start_logits", "end_logits"):
        for row in range(4):
            pieces, count = batch[prefix + "student_pieces"][row], int(mask[row].sum())
            tokens = ours[name][row][pieces >= 0].softmax(-1)
            own = torch.stack([tokens[pieces[pieces >= 0] == piece].sum() for piece in range(count)])
            target = taught.logits[name][row, :count].softmax(-1)
            total += float((target * (target / own).log()).sum()) / 8
    assert float(found["loss"]) == pytest.approx(total, rel=1e-4)
    assert trainer.train().training_loss > 0


def test_what_has_no_counterpart_is_named(models, tmp_path, sentences, tiny_bert_config):
    rows = Dataset.from_dict({"text": sentences[:4]})
    with pytest.raises(ValueError, match=r"speak about single tokens of another vocabulary"):
        build(models(BertForMaskedLM), tmp_path, rows)
    with pytest.raises(ValueError, match=r"needs a label for every token \(`positions=labels`"):
        build(
            models(BertForTokenClassification, id2label=TAGS, num_labels=3),
            tmp_path,
            rows,
            objectives=[{"objective": "logits", "positions": "labels"}],
        )


def test_a_task_of_words_is_read_as_text_for_both(models, tmp_path, sentences):
    teacher, student, theirs, ours = models(BertForTokenClassification, id2label=TAGS, num_labels=3)
    rows = [{"words": text.split(), "tags": ["O"] * len(text.split())} for text in sentences[:16]]
    write_task(
        tmp_path / "names",
        rows,
        12,
        kind="token_classification",
        text_columns=["words"],
        label_column="tags",
        label_names=list(TAGS.values()),
        metrics=["f1"],
    )
    results = distill.run(
        StudentArguments(student_model=save_model(tmp_path / "small", student, ours)),
        TeacherArguments(save_model(tmp_path / "large", teacher, theirs)),
        TextbookArguments([str(tmp_path / "names")]),
        DistillationArguments(
            str(tmp_path / "student"),
            objectives=["logits"],
            align_tokenizers=True,
            max_steps=2,
            max_length=200,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
        ),
        RunArguments(),
    )
    assert results["textbook_rows"] > 0
    assert results["steps"] == 2
