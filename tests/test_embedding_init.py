"""A student's word embeddings from those of its teacher."""

import pytest
import torch
from transformers import BertForMaskedLM, BertForSequenceClassification, set_seed

from hf_distill import create_student
from hf_distill.students.embedding_init import KEPT_VARIANCE, principal_components


def table(rows=40, width=12, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) @ torch.diag(
        torch.arange(1.0, 13.0)
    )


def test_the_compression_is_the_truncated_decomposition_of_the_centred_table():
    rows = table().double()
    centred = rows - rows.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    found, kept = principal_components(rows, 5)
    torch.testing.assert_close(found.abs(), (u * s)[:, :5].abs())
    assert kept == pytest.approx(float(s[:5].square().sum() / s.square().sum()))


def test_no_other_compression_keeps_more():
    rows = table()
    found, kept = principal_components(rows, 5)
    centred = rows - rows.mean(0)
    best = torch.linalg.lstsq(found, centred).solution
    error = (centred - found @ best).square().sum() / centred.square().sum()
    assert kept == pytest.approx(1 - error.item(), rel=1e-4)
    other = centred[:, :5]
    worse = (centred - other @ torch.linalg.lstsq(other, centred).solution).square().sum() / centred.square().sum()
    assert error < worse


def test_at_full_width_distances_are_kept():
    rows = table().double()
    found, kept = principal_components(rows, 12)
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(rows, rows), rtol=1e-4, atol=1e-4)
    assert kept == pytest.approx(1.0)


def test_signs_do_not_depend_on_the_order_of_rows_or_a_shift():
    rows, order = table(), torch.randperm(40, generator=torch.Generator().manual_seed(1))
    found, _ = principal_components(rows, 4)
    torch.testing.assert_close(principal_components(rows[order] + 3, 4)[0], found[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", [BertForSequenceClassification, BertForMaskedLM])
def test_a_student_has_compressed_word_embeddings_and_random_rest(tiny_bert_config, cls):
    set_seed(0)
    teacher = cls(tiny_bert_config())
    before = teacher.get_input_embeddings().weight.clone()
    student = create_student(teacher, "2x12:4h:16", init="svd_embeddings")
    plain = create_student(teacher, "2x12:4h:16", init="random")
    expected, kept = principal_components(before, 12)
    assert KEPT_VARIANCE[student] == kept
    torch.testing.assert_close(student.get_input_embeddings().weight.detach(), expected)
    assert student.get_input_embeddings().weight.requires_grad
    own = student.get_input_embeddings().weight
    others = {name: weight for name, weight in plain.named_parameters() if weight.shape != own.shape}
    assert others
    assert all(torch.equal(dict(student.named_parameters())[name], weight) for name, weight in others.items())
    if cls is BertForMaskedLM:
        assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert torch.equal(teacher.get_input_embeddings().weight, before)


def test_embeddings_cannot_be_widened_or_made_without_weights(tiny_bert_config):
    set_seed(0)
    teacher = BertForMaskedLM(tiny_bert_config())
    with pytest.raises(ValueError, match=r"width 24 cannot be widened to 48.*--student_init random"):
        create_student(teacher, "2x48:4h:64", init="svd_embeddings")
    with pytest.raises(ValueError, match="init='svd_embeddings' copies weights"):
        create_student(teacher.config, "2x12:4h:16", init="svd_embeddings", model_class="BertModel")
    with pytest.raises(ValueError, match="vocabular"):
        create_student(teacher, "2x12:4h:16", init="svd_embeddings", vocab_size=50)
