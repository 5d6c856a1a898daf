"""A student that is cut out of its teacher and refitted, in every architecture."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from test_students import IDS, TEACHERS, tiny_teacher
from trainings import sharpened
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertModel,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaModel,
)
from transformers.integrations.peft import MIN_PEFT_VERSION

from hf_distill.kernels.least_squares import RIDGES, fit_linear
from hf_distill.students.creation import create_student
from hf_distill.students.first_weights import (
    below_head,
    first_weights_of,
    give_first_weights,
    importance_on_texts,
    tokenized_batches,
)
from hf_distill.students.refitting import KnownStates, refit, signals_of
from hf_distill.students.slicing import axes_of, choose_cut

CUTTABLE = [name for name in TEACHERS if name != "MobileBert"]
SMALLER = "2x16:4h:24"
SAME = "4x32:4h:48"


INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def expected_at(rows, ids):
    return [row["input_ids"] for row in rows].index(ids)


def output(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


class TestCutting:
    @pytest.mark.parametrize("name", CUTTABLE)
    def test_full_width_and_depth_give_the_teacher_itself(self, name):
        teacher = tiny_teacher(name)
        student = create_student(teacher, SAME, init="teacher")
        torch.testing.assert_close(output(student), output(teacher))

    @pytest.mark.parametrize("name", CUTTABLE)
    def test_a_head_is_put_on_a_base_model_and_taken_off(self, name):
        """Names of the weights in a model with a head begin with the name of its base."""
        kinds = [f"{name}Model", f"{name}ForSequenceClassification"]
        for kind, other in (kinds, kinds[::-1]):
            teacher = tiny_teacher(name, kind.removeprefix(name))
            student = create_student(teacher, SAME, model_class=other)
            found, expected = (
                model.base_model.eval()(input_ids=IDS).last_hidden_state for model in (student, teacher)
            )
            torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("name", CUTTABLE)
    def test_a_smaller_student_has_numbers_of_its_teacher_in_every_layer(self, name):
        # As wide as the student, embeddings would be widened.
        teacher = tiny_teacher(name, **({"embedding_size": 12} if name == "Electra" else {}))
        student = create_student(teacher, SMALLER, init="teacher")
        drawn = create_student(teacher, SMALLER, init="random")
        known = torch.cat([tensor.flatten() for tensor in teacher.state_dict().values()]).unique()
        gain = 2**0.25
        for weight, tensor in student.state_dict().items():
            if tensor.dim() == 2:
                close = torch.isin(tensor, known) | torch.isin(tensor / gain, known)
                near = (torch.cdist(tensor.flatten()[:8, None] / gain, known[:, None]).min(1).values < 1e-6).all()
                assert close.all() or near, weight
        assert any(not torch.equal(a, b) for a, b in zip(student.parameters(), drawn.parameters(), strict=True))
        assert torch.isfinite(output(student)).all()

    @pytest.mark.parametrize("name", CUTTABLE)
    def test_permuting_hidden_dimensions_changes_nothing(self, name):
        """A network does not know the order of its hidden dimensions, and neither may the choice among them."""
        teacher = tiny_teacher(name)
        permuted = tiny_teacher(name)
        order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
        axes = axes_of_model(teacher)
        for weight, tensor in permuted.state_dict().items():
            for position, axis in enumerate(axes[weight]):
                if axis.space == "hidden":
                    tensor.copy_(tensor.index_select(position, order))
        torch.testing.assert_close(output(permuted), output(teacher))
        students = [create_student(model, SMALLER, init="teacher") for model in (teacher, permuted)]
        torch.testing.assert_close(output(students[1]), output(students[0]))

    def test_lists_a_layer_are_cut_with_the_layers(self, caplog):
        from transformers import LongformerConfig, LongformerModel

        config = LongformerConfig(
            **{**TEACHERS["Bert"], "attention_window": [2, 4, 6, 8], "max_position_embeddings": 66}, pad_token_id=1
        )
        student = create_student(LongformerModel(config).eval(), SMALLER, init="random")
        assert student.config.attention_window == [2, 4]
        assert "no registered architecture" not in caplog.text
        create_student(LongformerModel(config).eval(), SMALLER)
        assert "no registered architecture" in caplog.text

    def test_what_cannot_be_cut_is_said_in_one_line(self):
        with pytest.raises(ValueError, match=r"64 hidden dimensions where its teacher has 32.*--student_shape"):
            create_student(tiny_teacher("Bert"), "2x64:4h:48", init="teacher")
        with pytest.raises(ValueError, match="bottlenecks"):
            create_student(tiny_teacher("MobileBert"), SMALLER, init="teacher")

    def test_a_larger_student_begins_with_random_weights_by_default_and_says_so(self, caplog):
        teacher = tiny_teacher("Bert")
        student = create_student(teacher, "2x64:4h:48")
        assert "begins with random weights" in caplog.text
        assert first_weights_of(student) is None

    @pytest.mark.parametrize("init", ["teacher", "teacher_layers"])
    @pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert", "Electra", "Albert", "Deberta"])
    def test_fewer_positions_and_more_words_share_their_first_rows(self, name, init):
        teacher = tiny_teacher(name)
        student = create_student(teacher, SAME, init=init, max_position_embeddings=20, vocab_size=70)
        assert student.config.max_position_embeddings == 20
        torch.testing.assert_close(output(student), output(teacher))

    def test_layers_that_are_named_may_be_more_than_the_teacher_has(self, caplog):
        student = create_student(tiny_teacher("Bert"), "6x16:4h:24", layers=[1, 1, 2, 3, 4, -1])
        assert first_weights_of(student).layers == (1, 1, 2, 3, 4, 4)
        assert caplog.text == ""
        with pytest.raises(ValueError, match=r"64 hidden dimensions where its teacher has 32.*--student_shape"):
            create_student(tiny_teacher("Bert"), "2x64:4h:48", layers=[1, 2])

    @pytest.mark.parametrize("init", ["teacher", "teacher_layers", "svd_embeddings"])
    def test_weights_that_are_not_there_are_not_taken(self, init):
        with pytest.raises(ValueError, match=f"init='{init}' copies weights"):
            create_student(tiny_teacher("Bert").to("meta"), SAME, init=init)
        offloaded = tiny_teacher("Bert")
        offloaded.classifier.to("meta")
        with pytest.raises(ValueError, match="not in memory"):
            create_student(offloaded, SAME, init=init)

    def test_adapters_beside_the_weights_are_to_be_merged_first(self):
        peft = pytest.importorskip("peft", minversion=MIN_PEFT_VERSION)
        teacher = tiny_teacher("Bert")
        teacher.add_adapter(peft.LoraConfig(r=2, target_modules=["query"]))
        with pytest.raises(ValueError, match=r"adapters beside its weights \(add_adapter\).*merge_and_unload"):
            create_student(teacher, SAME)
        create_student(teacher, SAME, init="random")


def axes_of_model(model):
    from hf_distill.students.configuration import student_config
    from hf_distill.students.shapes import shape_of

    heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads
    return axes_of(lambda shape: type(model)(student_config(model.config, shape)), shape_of(model), heads)


@pytest.fixture
def teacher(tiny_bert_config):
    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny_bert_config(hidden_size=32, num_hidden_layers=4, intermediate_size=48))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.dim() == 2:
                parameter.mul_(3)
    return model.eval()


class TestRefitting:
    def test_a_fit_is_ridge_regression_towards_the_weights_that_were_there(self):
        generator = torch.Generator().manual_seed(0)
        linear = torch.nn.Linear(3, 2)
        x, goal = torch.randn(50, 3, generator=generator), torch.randn(50, 2, generator=generator)
        start = torch.cat([linear.weight.detach().T, linear.bias.detach()[None]]).double()
        ones = torch.cat([x, torch.ones(50, 1)], 1).double()
        gram = ones.T @ ones
        damped = gram + 0.1 * gram.diagonal().mean() * torch.eye(4)
        expected = start + torch.linalg.solve(damped, ones.T @ (goal.double() - ones @ start))
        with torch.no_grad():
            fit_linear([linear], iter([(x[:20], goal[:20]), (x[20:], goal[20:])]), ridges=[0.1])
        found = torch.cat([linear.weight.detach().T, linear.bias.detach()[None]])
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize(("noise", "expected"), [(0.0, 1e-4), (3.0, 0.1), (30.0, 100.0)])
    def test_the_ridge_is_the_one_with_the_least_error_on_batches_kept_apart(self, noise, expected):
        generator = torch.Generator().manual_seed(0)
        truth = torch.randn(12, 2, generator=generator)
        x = torch.randn(10, 6, 12, generator=generator)
        goal = x @ truth + noise * torch.randn(10, 6, 2, generator=generator)
        ones = torch.cat([x, torch.ones(10, 6, 1)], -1).double()
        apart = torch.arange(10) % 5 == 1

        def fitted(rows, ridge):
            inputs, goals = ones[rows].flatten(0, 1), goal[rows].flatten(0, 1).double()
            gram = inputs.T @ inputs
            return torch.linalg.solve(gram + ridge * gram.diagonal().mean() * torch.eye(13), inputs.T @ goals)

        best = min(RIDGES, key=lambda ridge: (ones[apart] @ fitted(~apart, ridge) - goal[apart]).square().sum())
        assert best == expected
        linear = torch.nn.Linear(12, 2)
        with torch.no_grad():
            linear.weight.zero_(), linear.bias.zero_()
            fit_linear([linear], zip(x, goal, strict=True))
            found = torch.cat([linear.weight.T, linear.bias[None]])
        torch.testing.assert_close(found.double(), fitted(torch.ones(10, dtype=bool), best), atol=1e-5, rtol=1e-4)

    def test_states_are_nearer_to_the_teachers_with_a_refit_than_without(self, teacher, tiny_tokenizer, sentences):
        text = sentences * 4
        refitted = create_student(teacher, SMALLER, calibration_text=text, tokenizer=tiny_tokenizer)
        cut = create_student(teacher, SMALLER)
        assert first_weights_of(cut).explained == ()
        explained = first_weights_of(refitted).explained
        assert len(explained) == 2
        assert explained[0] > 0.5
        plain = explained_by(teacher, cut, tiny_tokenizer, text)
        assert all(after > before for after, before in zip(explained, plain, strict=True))

    @pytest.mark.parametrize("name", [name for name in CUTTABLE if name != "Albert"])
    def test_layers_of_any_architecture_are_fitted(self, name, tiny_tokenizer, sentences, monkeypatch):
        teacher = sharpened(tiny_teacher(name, vocab_size=len(tiny_tokenizer)))
        explained = []
        for is_fitted in (True, False):
            with monkeypatch.context() as patch:
                if not is_fitted:
                    patch.setattr("hf_distill.students.first_weights.can_be_refitted", lambda *_: False)
                student = create_student(teacher, SMALLER, calibration_text=sentences * 4, tokenizer=tiny_tokenizer)
            assert first_weights_of(student).refitted == is_fitted
            explained.append(first_weights_of(student).explained)
        assert all(fitted > cut for fitted, cut in zip(*explained, strict=True)), explained

    def test_a_refit_of_the_teacher_itself_leaves_it(self, teacher, tiny_tokenizer, sentences):
        student = create_student(teacher, SAME, calibration_text=sentences, tokenizer=tiny_tokenizer)
        torch.testing.assert_close(output(student), output(teacher), atol=1e-3, rtol=1e-3)
        assert first_weights_of(student).explained == pytest.approx([1.0] * 4, abs=1e-4)

    def test_the_same_text_gives_the_same_weights(self, teacher, tiny_tokenizer, sentences):
        students = [
            create_student(teacher, SMALLER, calibration_text=iter(sentences), tokenizer=tiny_tokenizer)
            for _ in range(2)
        ]
        for one, other in zip(*(student.parameters() for student in students), strict=True):
            assert torch.equal(one, other)

    def test_it_does_not_matter_which_texts_share_a_batch(self, teacher, tiny_tokenizer, sentences, monkeypatch):
        """Batches hold texts of like length: what is computed of a batch must not depend on its lengths."""
        monkeypatch.setattr("hf_distill.kernels.least_squares._best_ridge", lambda *_: 1e-3)
        rows = [tiny_tokenizer(text, truncation=True, max_length=32) for text in sentences]
        rows.sort(key=lambda row: len(row["input_ids"]))
        by_length, mixed = (
            [dict(tiny_tokenizer.pad(part, return_tensors="pt")) for part in parts]
            for parts in ([rows[i : i + 8] for i in range(0, len(rows), 8)], [rows[i::8] for i in range(8)])
        )
        axes = below_head(teacher, axes_of_model(teacher))
        students = [create_student(teacher, SMALLER).eval() for _ in range(2)]
        importance = importance_on_texts(teacher, axes, by_length)
        cut = choose_cut(teacher, students[0], [2, 4], importance, axes)
        for student, batches in zip(students, (by_length, mixed), strict=True):
            refit(teacher, student, cut, batches, axes)
        torch.testing.assert_close(output(students[0]), output(students[1]), atol=1e-5, rtol=1e-4)

    def test_no_fit_raises_the_error_on_its_own_texts(self, teacher, tiny_tokenizer, sentences):
        batches = list(tokenized_batches(sentences, tiny_tokenizer, 32, 10_000))
        student = create_student(teacher, SMALLER)
        axes = below_head(teacher, axes_of_model(teacher))
        cut = choose_cut(teacher, student.eval(), [2, 4], importance_on_texts(teacher, axes, batches), axes)

        def error():
            from hf_distill.students.first_weights import explained_variance

            return 1 - torch.tensor(explained_variance(teacher, student, cut, batches))

        before = error()
        refit(teacher, student, cut, batches, axes)
        assert (error() <= before).all()

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_the_teacher_is_left_as_it_was(self, attention, teacher, tiny_tokenizer, sentences):
        before = [parameter.clone() for parameter in teacher.parameters()]
        teacher.train()
        teacher.bert.embeddings.eval()
        teacher.set_attn_implementation(attention)
        teacher.config.output_attentions = attention == "eager"
        modes = [module.training for module in teacher.modules()]
        # A model that is to give attention maps gets hooks of transformers by its first pass.
        teacher(torch.tensor([[1, 2]]))
        hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in teacher.modules()]
        student = create_student(teacher, SMALLER, calibration_text=sentences, tokenizer=tiny_tokenizer)
        assert modes == [module.training for module in teacher.modules()]
        assert teacher.config._attn_implementation == attention
        assert teacher.config.output_attentions == (attention == "eager")
        assert student.config._attn_implementation == "sdpa"
        assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
        assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in teacher.modules()]

    def test_text_without_a_tokenizer_is_refused(self, teacher, sentences):
        with pytest.raises(ValueError, match="tokenizer="):
            create_student(teacher, SMALLER, calibration_text=sentences)

    @pytest.mark.parametrize("name", CUTTABLE)
    def test_a_student_as_large_as_its_teacher_explains_all_of_it(self, name, tiny_tokenizer, sentences):
        teacher = tiny_teacher(name, vocab_size=len(tiny_tokenizer))
        student = create_student(teacher, SAME, calibration_text=sentences[:20], tokenizer=tiny_tokenizer)
        assert first_weights_of(student).explained == pytest.approx([1.0] * 4, abs=1e-4)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ([{"input_ids": [5] * 300}], "a row of 300 tokens, but BertForSequenceClassification has 64 positions"),
            ([{"input_ids": [5, 2000]}], "the token 2000, but BertForSequenceClassification has .* word embeddings"),
            ({"text": ["a film"]}, "takes texts, or rows; it is of type dict"),
            (3, "takes texts, or rows; it is of type int"),
            ([{"text": "a film"}], r"Give the column of the texts, such as rows\['text'\]"),
        ],
    )
    def test_text_that_cannot_be_read_is_one_line(self, text, says, teacher, tiny_tokenizer):
        with pytest.raises((ValueError, TypeError), match=f"calibration_text= .*{says}"):
            create_student(teacher, SMALLER, calibration_text=text, tokenizer=tiny_tokenizer)

    @pytest.mark.parametrize("kind", ["series", "array", "columns of a stream", "folder of the tokenizer"])
    def test_texts_and_their_tokenizer_come_in_many_kinds(self, kind, teacher, tiny_tokenizer, sentences, tmp_path):
        if kind == "folder of the tokenizer":
            tiny_tokenizer.save_pretrained(tmp_path)
        texts = {
            "series": pd.Series(sentences),
            "array": np.array(sentences),
            "columns of a stream": datasets.Dataset.from_dict({"text": sentences}).to_iterable_dataset()["text"],
        }.get(kind, sentences)
        tokenizer = str(tmp_path) if kind == "folder of the tokenizer" else tiny_tokenizer
        found = create_student(teacher, SMALLER, calibration_text=texts, tokenizer=tokenizer)
        expected = create_student(teacher, SMALLER, calibration_text=sentences, tokenizer=tiny_tokenizer)
        torch.testing.assert_close(output(found), output(expected))

    def test_rows_without_text_are_left_out_and_none_at_all_is_said(self, teacher, tiny_tokenizer, sentences, caplog):
        rows = [tiny_tokenizer(text) for text in sentences]
        with_empty = create_student(
            teacher, SMALLER, calibration_text=[{"input_ids": []}, *rows], tokenizer=tiny_tokenizer
        )
        without = create_student(teacher, SMALLER, calibration_text=rows, tokenizer=tiny_tokenizer)
        torch.testing.assert_close(output(with_empty), output(without))
        assert caplog.text == ""
        student = create_student(teacher, SMALLER, calibration_text=[], tokenizer=tiny_tokenizer)
        assert "calibration_text= has no text" in caplog.text
        torch.testing.assert_close(output(student), output(create_student(teacher, SMALLER)))

    def test_no_tokens_are_no_refit(self, teacher, tiny_tokenizer, sentences):
        options = {"calibration_text": sentences, "tokenizer": tiny_tokenizer}
        student = create_student(teacher, SMALLER, calibration_tokens=0, **options)
        torch.testing.assert_close(output(student), output(create_student(teacher, SMALLER)))
        with pytest.raises(ValueError, match=r"calibration_tokens=-1 \(--calibration_tokens\)"):
            create_student(teacher, SMALLER, calibration_tokens=-1, **options)

    @pytest.mark.parametrize("init", ["random", "svd_embeddings"])
    def test_text_for_weights_that_read_none_is_refused(self, init, teacher, tiny_tokenizer, sentences):
        options = {"calibration_text": sentences, "tokenizer": tiny_tokenizer}
        with pytest.raises(ValueError, match=f"calibration_text= .*init='{init}' takes none"):
            create_student(teacher, SMALLER, init=init, **options)
        with pytest.raises(ValueError, match=r"calibration_text= .*this teacher has none"):
            create_student(teacher.config, SMALLER, **options)

    def test_pairs_are_read_as_pairs_and_tokens_as_they_are(self, tiny_tokenizer, sentences):
        pairs = list(zip(sentences[:20], sentences[20:40], strict=True))
        rows = [tiny_tokenizer(*pair) for pair in pairs]
        expected = sorted(row["input_ids"] for row in rows)
        for texts in (pairs, [list(pair) for pair in pairs], rows):
            found = []
            for batch in tokenized_batches(texts, tiny_tokenizer, 128, 10_000):
                for ids, mask, types in zip(*(batch[name].tolist() for name in INPUTS), strict=True):
                    count = sum(mask)
                    found.append(ids[:count])
                    assert types[:count] == tiny_tokenizer(*pairs[expected_at(rows, ids[:count])])["token_type_ids"]
            assert sorted(found) == expected

    def test_a_student_that_reads_pairs_has_its_teachers_answers_to_pairs(self, teacher, tiny_tokenizer, sentences):
        pairs = list(zip(sentences * 4, reversed(sentences * 4), strict=True))
        singles = [text for pair in pairs for text in pair]
        read = tiny_tokenizer(*map(list, zip(*pairs[:40], strict=True)), padding=True, return_tensors="pt")

        def error(calibration):
            student = create_student(
                teacher, SMALLER, calibration_text=calibration, tokenizer=tiny_tokenizer, calibration_tokens=4_000
            )
            with torch.no_grad():
                return (student.eval()(**read).logits - teacher(**read).logits).square().sum()

        assert error(pairs) < error(singles)

    @pytest.mark.parametrize("wrong", [["a", "b", "c"], 3, None, {"text": "a"}])
    def test_what_is_no_text_is_named(self, teacher, tiny_tokenizer, wrong):
        with pytest.raises(TypeError, match=r"calibration_text= has texts, pairs of texts, or rows with `input_ids`"):
            create_student(teacher, SMALLER, calibration_text=["fine", wrong], tokenizer=tiny_tokenizer)

    def test_one_text_is_not_read_letter_by_letter(self, teacher, tiny_tokenizer):
        with pytest.raises(TypeError, match=r"takes several texts, but it is one: 'a film'"):
            create_student(teacher, SMALLER, calibration_text="a film", tokenizer=tiny_tokenizer)

    def test_a_head_for_masked_words_comes_along(self, tiny_bert_config, tiny_tokenizer, sentences):
        torch.manual_seed(0)
        teacher = BertForMaskedLM(tiny_bert_config(hidden_size=32, num_hidden_layers=4, intermediate_size=48)).eval()
        student = create_student(teacher, SMALLER, calibration_text=sentences, tokenizer=tiny_tokenizer)
        assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight
        assert torch.isfinite(output(student)).all()


def explained_by(teacher, student, tokenizer, text):
    from hf_distill.students.first_weights import explained_variance

    batches = list(tokenized_batches(text, tokenizer, 64, 40_000))
    axes = below_head(teacher, axes_of_model(teacher))
    cut = choose_cut(teacher, student, [2, 4], importance_on_texts(teacher, axes, batches), axes)
    return explained_variance(teacher, student.eval(), cut, batches)


class TestOtherClasses:
    @pytest.mark.parametrize("name", ["Roberta", "MPNet", "Electra", "DistilBert", "ModernBert"])
    def test_a_plain_bert_learns_the_states_of_any_teacher(self, name, tiny_tokenizer, sentences):
        options = {"embedding_size": 32} if name == "Electra" else {}
        teacher = tiny_teacher(name, "Model", vocab_size=len(tiny_tokenizer), **options)
        student = create_student(
            teacher, SMALLER, model_class=BertModel, calibration_text=sentences * 2, tokenizer=tiny_tokenizer
        )
        assert type(student) is BertModel
        assert first_weights_of(student).explained[0] > 0.2

    def test_a_distilbert_of_a_bert_of_the_same_size_computes_the_same(self):
        torch.manual_seed(0)
        teacher = BertModel(BertConfig(**TEACHERS["Bert"], layer_norm_eps=1e-12)).eval()
        student = create_student(teacher, SAME, model_class=DistilBertModel).eval()
        with torch.no_grad():
            expected, found = teacher(input_ids=IDS).last_hidden_state, student(input_ids=IDS).last_hidden_state
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("padding", [0, 1])
    def test_a_bert_of_a_roberta_has_its_positions_and_segments(self, padding):
        torch.manual_seed(0)
        config = RobertaConfig(**TEACHERS["Roberta"], pad_token_id=padding)
        teacher = RobertaModel(config, add_pooling_layer=False).eval()
        student = create_student(teacher, SAME, model_class=BertModel).eval()
        assert student.config.max_position_embeddings == 40 - padding - 1
        with torch.no_grad():
            expected, found = teacher(input_ids=IDS).last_hidden_state, student(input_ids=IDS).last_hidden_state
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


class TestFactorisedEmbeddings:
    def test_words_are_narrow_and_the_states_are_the_teachers(self, teacher, tiny_tokenizer, sentences, tmp_path):
        student = create_student(
            teacher, SMALLER, embedding_size=12, calibration_text=sentences * 4, tokenizer=tiny_tokenizer
        )
        assert type(student) is ElectraForSequenceClassification
        assert student.get_input_embeddings().weight.shape == (len(tiny_tokenizer), 12)
        assert first_weights_of(student).explained[0] > 0.4
        student.save_pretrained(tmp_path)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        torch.testing.assert_close(output(loaded), output(student))

    def test_full_width_loses_nothing_but_the_order_of_norm_and_matrix(self, teacher, tiny_tokenizer, sentences):
        student = create_student(
            teacher, SAME, embedding_size=32, calibration_text=sentences * 4, tokenizer=tiny_tokenizer
        )
        assert min(first_weights_of(student).explained) > 0.9

    def test_a_head_that_electra_lacks_is_refused(self):
        with pytest.raises(ValueError, match=r"--student_embedding_size.*BertForNextSentencePrediction"):
            create_student(tiny_teacher("Bert", "ForNextSentencePrediction"), SMALLER, embedding_size=8)


def test_signals_of_a_layer_are_those_of_real_tokens_only(teacher, tiny_tokenizer, sentences):
    batches = list(tokenized_batches(sentences, tiny_tokenizer, 32, 10_000))
    axes = below_head(teacher, axes_of_model(teacher))
    student = create_student(teacher, SMALLER)
    cut = choose_cut(teacher, student, [2, 4], importance_on_texts(teacher, axes, batches), axes)
    for batch, found in zip(batches, signals_of(teacher, cut, 2, batches), strict=True):
        assert len(found.output) == int(batch["attention_mask"].sum())
        assert found.projections.shape[1] == 3 * 16
        assert found.neurons.shape[1] == 24


@pytest.mark.parametrize("name", CUTTABLE)
def test_layers_below_known_states_need_not_run_again(name, tiny_tokenizer, sentences):
    teacher = tiny_teacher(name, "Model", vocab_size=len(tiny_tokenizer))
    student = create_student(teacher, SMALLER)
    batches = list(tokenized_batches(sentences[:20], tiny_tokenizer, 16, 10_000))
    axes = below_head(teacher, axes_of_model(teacher))
    known = KnownStates(teacher, [2, 4])
    with known.kept():
        importance = importance_on_texts(teacher, axes, batches)
    cut = choose_cut(teacher, student, [2, 4], importance, axes)
    for layer in (2, 4):
        plain = list(signals_of(teacher, cut, layer, batches))
        for one, other in zip(plain, signals_of(teacher, cut, layer, batches, known), strict=True):
            torch.testing.assert_close(vars(other), vars(one))
    assert not any("forward" in module.__dict__ for module in teacher.modules())


def test_what_was_taken_is_a_line_for_a_person(teacher, tiny_tokenizer, sentences):
    student = create_student(teacher, SMALLER)
    found = give_first_weights(teacher, student, [2, 4], texts=sentences, tokenizer=tiny_tokenizer)
    assert "teacher layers 2, 4" in str(found)
    assert "64 texts" in str(found)


def test_what_was_only_chosen_on_text_is_not_said_to_be_fitted(tiny_tokenizer, sentences):
    for name, words in (("Bert", "(fitted on 20 texts"), ("Albert", "(chosen, not refitted, on 20 texts")):
        teacher = tiny_teacher(name, vocab_size=len(tiny_tokenizer))
        student = create_student(teacher, SMALLER, calibration_text=sentences[:20], tokenizer=tiny_tokenizer)
        assert words in str(first_weights_of(student))
