"""The headings of the table that a training shows in a notebook."""

import pytest

pytest.importorskip("IPython", reason="pip install 'hf_distill[test]'")

from hf_distill.trainers.notebook_table import TermsInNotebookTable, heading, show_terms


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loss/relation/qq", "Loss of relation, qq"),
        ("kl/logits", "Divergence from the teacher (logits)"),
        ("task/matthews_correlation", "matthews correlation on the task"),
        ("films_agreement/logits", "Agreement with the teacher (logits), films"),
        ("my_films_probe/f1", "f1 of a linear probe, my films"),
        ("loss", "loss"),
        ("my/own", "my/own"),
    ],
)
def test_a_heading_is_words(name, words):
    assert heading(name) == words


@pytest.fixture
def table(make_trainer, sentences, monkeypatch):
    """The rows of the table that a trainer shows, and the trainer."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    monkeypatch.setattr("transformers.utils.notebook.text_to_html_table", lambda rows: shown.append(rows) or "")

    def make(**arguments):
        rows = [{"text": text} for text in sentences[:8]]
        trainer = make_trainer(objectives=["logits"], train_dataset=rows, **arguments)
        # As in a notebook: the stock table is there from the start.
        trainer.add_callback(TermsInNotebookTable.__base__)
        show_terms(trainer)
        trainer.train()
        return shown[-1]

    return make


def test_without_evaluations_the_terms_stand_beside_the_loss(table):
    head, *rows = table(max_steps=2, logging_steps=1)
    assert head == ["Step", "Training Loss", "Loss of logits, soft"]
    assert [row[0] for row in rows] == [1, 2]
    assert all(row[1] == pytest.approx(row[2]) for row in rows)


def test_an_evaluation_is_a_row(table, sentences):
    head, row = table(
        max_steps=2, logging_steps=1, eval_strategy="steps", eval_steps=2, eval_agreement=True,
        trainer={"eval_dataset": [{"text": text} for text in sentences[:8]]},
    )  # fmt: skip
    assert head[:3] == ["Step", "Training Loss", "Validation Loss"]
    assert set(head[3:]) == {
        "Loss of logits, soft", "Agreement with the teacher (logits)", "Divergence from the teacher (logits)",
    }  # fmt: skip
    assert row[0] == 2
