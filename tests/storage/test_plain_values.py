"""Names in errors: the one that somebody may have meant."""

import pytest

from hf_distill.storage.plain_values import did_you_mean


@pytest.mark.parametrize(
    ("given", "known", "hint"),
    [
        ("txt", ["text", "label"], " Did you mean 'text'?"),
        ("Review", ["review"], " Did you mean 'review'?"),
        ("wiki", ["text", "label"], ""),
        ("text", [], ""),
        (["lable", "txet"], ["text", "label"], " Did you mean 'label' or 'text'?"),
        ("epochs", ["num_train_epochs", "seed"], " Did you mean 'num_train_epochs'?"),
        (
            "batch_size",
            ["eval_batch_size", "train_batch_size"],
            " Did you mean 'eval_batch_size' or 'train_batch_size'?",
        ),
        (["labl", "lable"], ["label"], " Did you mean 'label'?"),
    ],
)
def test_a_close_name_is_asked_about(given, known, hint):
    assert did_you_mean(given, known) == hint
