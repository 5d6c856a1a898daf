"""Students: shapes by name and grammar, one student per architecture, initialisation, sizes."""

from __future__ import annotations

import pytest
import torch
import transformers

from hf_distill.students.configuration import student_config
from hf_distill.students.creation import create_student
from hf_distill.students.shapes import NAMED_SHAPES, StudentShape, parse_shape, shape_of
from hf_distill.students.sizes import count_parameters, size_table

COMMON = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "num_labels": 3,
}
MODERN = {**COMMON, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
# Model name -> configuration of a tiny teacher.
TEACHERS = {
    "Bert": COMMON,
    "Roberta": {**COMMON, "type_vocab_size": 1},
    "XLMRoberta": {**COMMON, "type_vocab_size": 1},
    "Camembert": {**COMMON, "type_vocab_size": 1},
    "DistilBert": {
        "vocab_size": 60,
        "dim": 32,
        "n_layers": 4,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": 40,
        "num_labels": 3,
    },
    "Electra": {**COMMON, "embedding_size": 16},
    "Ernie": COMMON,
    "Albert": {**COMMON, "embedding_size": 16},
    "MobileBert": {**COMMON, "embedding_size": 16, "intra_bottleneck_size": 8, "num_feedforward_networks": 2},
    "ModernBert": {**MODERN, "cls_token_id": 1, "sep_token_id": 2},
    "NomicBert": {**COMMON, "head_dim": 8},
    "EuroBert": {**MODERN, "num_key_value_heads": 2},
    "MPNet": COMMON,
    "Deberta": {**COMMON, **RELATIVE},
    "DebertaV2": {**COMMON, **RELATIVE, "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "Llama": {**MODERN, "num_key_value_heads": 2},
    "Qwen2": {**MODERN, "num_key_value_heads": 2},
}
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def tiny_teacher(name: str, head: str = "ForSequenceClassification", **overrides):
    config = getattr(transformers, f"{name}Config")(**{**TEACHERS[name], **overrides})
    torch.manual_seed(0)
    return getattr(transformers, f"{name}{head}")(config).eval()


class TestShapes:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("6x384", (6, 384, 12, 1536)),
            ("4x312", (4, 312, 12, 1200)),
            ("4x312-ernie", (4, 312, 12, 1248)),
            ("6x768", (6, 768, 12, 3072)),
            ("3x384", (3, 384, 12, 1536)),
            ("12x384", (12, 384, 12, 1536)),
            ("12x256", (12, 256, 4, 1024)),
            ("T6", (6, 768, 12, 3072)),
            ("T3", (3, 768, 12, 3072)),
            ("T3-small", (3, 384, 12, 1536)),
            ("T4-tiny", (4, 312, 12, 1200)),
            ("T12-nano", (12, 256, 4, 1024)),
            (" 4×312 ", (4, 312, 12, 1200)),
            ("6x384:32h", (6, 384, 32, 1536)),
            ("4x312:24h", (4, 312, 24, 1200)),
            ("6x384:12h:1024", (6, 384, 12, 1024)),
            ("5x96", (5, 96, 12, 384)),
        ],
    )
    def test_names_and_grammar(self, name, expected):
        assert parse_shape(name) == StudentShape(*expected)

    def test_every_named_shape_is_written_and_read_back(self):
        assert all(parse_shape(str(shape)) == shape for shape in NAMED_SHAPES.values())

    @pytest.mark.parametrize("text", ["tiny", "6x", "6x384:32", "6x384:h", "384"])
    def test_what_cannot_be_read_lists_names_and_grammar(self, text):
        with pytest.raises(ValueError, match=r"(?s)--student_shape.*4x312.*t12-nano.*LAYERSxHIDDEN"):
            parse_shape(text)

    def test_heads_are_asked_for_where_twelve_do_not_divide(self):
        with pytest.raises(ValueError, match=r"4x128:64h"):
            parse_shape("4x128")

    def test_heads_must_divide_the_width(self):
        with pytest.raises(ValueError, match=r"7 heads do not divide.*384.*\[1, 2, 3, 4, 6, 8, 12"):
            parse_shape("6x384:7h")

    def test_numbers_must_be_positive(self):
        with pytest.raises(ValueError, match="num_layers=0"):
            parse_shape("0x384")


@pytest.mark.parametrize("name", TEACHERS)
class TestEveryArchitecture:
    SHAPE = StudentShape(2, 24, 2, 40)

    def test_a_student_runs_and_reloads_as_a_plain_model(self, name, tmp_path):
        teacher = tiny_teacher(name)
        student = create_student(teacher, self.SHAPE).eval()
        assert type(student) is type(teacher)
        assert shape_of(student) == self.SHAPE
        assert student.config.vocab_size == teacher.config.vocab_size
        logits = student(input_ids=IDS).logits
        assert logits.shape == (1, 3)
        student.save_pretrained(tmp_path)
        reloaded, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            tmp_path, output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert shape_of(reloaded) == self.SHAPE
        torch.testing.assert_close(reloaded.eval()(input_ids=IDS).logits, logits)

    def test_the_weights_have_the_width_asked_for(self, name):
        student = create_student(tiny_teacher(name), self.SHAPE)
        widths = {size for parameter in student.base_model.parameters() for size in parameter.shape}
        assert {40, 24} <= widths | {size // 2 for size in widths}
        assert 48 not in widths - {2 * 24}

    def test_the_seed_alone_decides_the_weights(self, name):
        teacher = tiny_teacher(name)
        before = torch.random.get_rng_state()
        one = create_student(teacher, self.SHAPE, seed=1).state_dict()
        assert torch.equal(before, torch.random.get_rng_state())
        torch.rand(3)
        again = create_student(teacher, self.SHAPE, seed=1).state_dict()
        other = create_student(teacher, self.SHAPE, seed=2).state_dict()
        assert all(torch.equal(one[key], again[key]) for key in one)
        assert any(not torch.equal(one[key], other[key]) for key in one)

    def test_all_of_the_teachers_layers_make_a_copy_of_it(self, name):
        teacher = tiny_teacher(name)
        student = create_student(teacher, shape_of(teacher), init="teacher_layers").eval()
        weights = teacher.state_dict()
        assert all(torch.equal(weights[key], value) for key, value in student.state_dict().items())
        torch.testing.assert_close(student(input_ids=IDS).logits, teacher(input_ids=IDS).logits)

    def test_every_second_layer_by_default(self, name):
        teacher = tiny_teacher(name)
        small = StudentShape(2, 32, 4, 48)
        student = create_student(teacher, small, init="teacher_layers")
        states = {}
        for side, model in (("teacher", teacher), ("student", student)):
            states[side] = {
                key: value for key, value in model.base_model.state_dict().items() if "layer_groups" not in key
            }
        compared = 0
        for key, value in states["student"].items():
            for student_layer, teacher_layer in ((0, 1), (1, 3)):
                for path in ("encoder.layer", "transformer.layer", "layers"):
                    if key.startswith(f"{path}.{student_layer}."):
                        source = key.replace(f"{path}.{student_layer}.", f"{path}.{teacher_layer}.")
                        assert torch.equal(value, states["teacher"][source]), key
                        compared += 1
        assert compared > 10 or name == "Albert"

    def test_parameters_are_counted_once_and_in_full(self, name):
        student = create_student(tiny_teacher(name), self.SHAPE)
        count = count_parameters(student)
        assert count.total == sum(parameter.numel() for parameter in student.parameters())
        assert count.backbone + count.head == count.total
        assert min(count.embeddings, count.layers, count.head) > 0


class TestConfiguration:
    def test_labels_positions_dropout_and_special_tokens_stay_the_teachers(self):
        teacher = tiny_teacher(
            "Roberta",
            id2label={0: "no", 1: "maybe", 2: "yes"},
            label2id={"no": 0, "maybe": 1, "yes": 2},
            hidden_dropout_prob=0.3,
            pad_token_id=7,
        )
        config = create_student(teacher, "2x24").config
        assert config.id2label == {0: "no", 1: "maybe", 2: "yes"}
        assert config.label2id == {"no": 0, "maybe": 1, "yes": 2}
        assert (config.hidden_dropout_prob, config.pad_token_id, config.max_position_embeddings) == (0.3, 7, 40)

    def test_other_labels_can_be_asked_for(self):
        student = create_student(tiny_teacher("Bert"), "2x24", num_labels=5)
        assert student.classifier.out_features == 5
        assert len(student.config.id2label) == 5

    def test_what_belongs_to_the_teacher_does_not_reach_the_student(self, tmp_path):
        tiny_teacher("Bert").to(torch.bfloat16).save_pretrained(tmp_path)
        teacher = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
        assert teacher.dtype == torch.bfloat16
        student = create_student(teacher, "2x24")
        assert student.dtype == torch.float32
        assert student.config._name_or_path == ""
        assert student.training
        assert teacher.config.num_hidden_layers == 4

    def test_the_weights_are_drawn_in_float32_whatever_the_type(self):
        teacher = tiny_teacher("Bert")
        half = create_student(teacher, "2x24", dtype="bfloat16")
        full = create_student(teacher, "2x24")
        assert half.dtype == torch.bfloat16
        expected = full.bert.embeddings.word_embeddings.weight.to(torch.bfloat16)
        assert torch.equal(half.bert.embeddings.word_embeddings.weight, expected)

    def test_modernbert_keeps_its_pattern_of_local_and_global_layers(self):
        teacher = transformers.ModernBertConfig(**{**TEACHERS["ModernBert"], "num_hidden_layers": 6})
        pattern = teacher.layer_types
        assert student_config(teacher, StudentShape(4, 24, 2, 40)).layer_types == pattern[:4]
        assert student_config(teacher, StudentShape(8, 24, 2, 40)).layer_types == pattern + pattern[:2]
        chosen = student_config(teacher, StudentShape(2, 24, 2, 40), layers=[2, 4])
        assert chosen.layer_types == ["sliding_attention", "full_attention"]

    def test_grouped_queries_keep_their_ratio(self):
        config = transformers.LlamaConfig(**TEACHERS["Llama"])
        assert student_config(config, StudentShape(2, 48, 12, 40)).num_key_value_heads == 6
        assert student_config(config, StudentShape(2, 48, 3, 40)).num_key_value_heads == 1

    def test_a_full_width_embedding_follows_the_width(self):
        config = transformers.ElectraConfig(**{**TEACHERS["Electra"], "embedding_size": 32})
        assert student_config(config, StudentShape(2, 24, 2, 40)).embedding_size == 24

    def test_rotary_heads_of_odd_size_are_refused(self):
        with pytest.raises(ValueError, match=r"even size.*gives 13.*\[1, 2, 3, 4, 6, 12"):
            student_config(transformers.LlamaConfig(**TEACHERS["Llama"]), parse_shape("4x312:24h"))


class TestTeacherKinds:
    def test_a_folder_a_configuration_and_an_instance_give_the_same_student(self, tmp_path):
        teacher = tiny_teacher("Bert")
        teacher.save_pretrained(tmp_path)
        students = [create_student(kind, "2x24") for kind in (teacher, teacher.config, str(tmp_path))]
        assert {type(student) for student in students} == {transformers.BertForSequenceClassification}
        first = students[0].state_dict()
        assert all(torch.equal(first[key], other.state_dict()[key]) for other in students for key in first)

    def test_a_configuration_without_a_class_gives_the_base_model(self):
        assert type(create_student(transformers.BertConfig(**COMMON), "2x24")) is transformers.BertModel

    @pytest.mark.parametrize(
        "model_class",
        ["AutoModelForMaskedLM", "BertForMaskedLM", transformers.AutoModelForMaskedLM, transformers.BertForMaskedLM],
    )
    def test_another_class_by_name_or_type(self, model_class):
        student = create_student(tiny_teacher("Bert"), "2x24", model_class=model_class)
        assert type(student) is transformers.BertForMaskedLM

    def test_layers_of_a_saved_teacher_with_another_head(self, tmp_path):
        teacher = tiny_teacher("Bert", "ForMaskedLM")
        teacher.save_pretrained(tmp_path)
        for source in (teacher, str(tmp_path)):
            student = create_student(
                source, "1x32:4h:48", init="teacher_layers", layers=[-1], model_class="BertForMaskedLM"
            )
            assert torch.equal(
                student.bert.encoder.layer[0].attention.self.query.weight,
                teacher.bert.encoder.layer[3].attention.self.query.weight,
            )
        classifier = create_student(
            teacher, "1x32:4h:48", init="teacher_layers", layers=[2], model_class="BertForSequenceClassification"
        )
        assert torch.equal(
            classifier.bert.encoder.layer[0].output.dense.weight, teacher.bert.encoder.layer[1].output.dense.weight
        )
        assert torch.equal(
            classifier.bert.embeddings.word_embeddings.weight, teacher.bert.embeddings.word_embeddings.weight
        )


class TestErrors:
    def test_other_widths_cannot_take_the_teachers_layers(self):
        with pytest.raises(ValueError, match=r"4x32:4h:48.*2x24:12h:96.*2x32:4h:48.*init='teacher'"):
            create_student(tiny_teacher("Bert"), "2x24", init="teacher_layers")

    @pytest.mark.parametrize(
        ("layers", "says"), [([1], "names 1 teacher layers"), ([1, 5], "--student_layers.*no layer 5")]
    )
    def test_layers_that_do_not_fit(self, layers, says):
        with pytest.raises(ValueError, match=says):
            create_student(tiny_teacher("Bert"), "2x32:4h:48", init="teacher_layers", layers=layers)

    def test_layers_need_their_initialisation(self):
        with pytest.raises(ValueError, match="init='random'"):
            create_student(tiny_teacher("Bert"), "2x24", layers=[1, 2], init="random")
        with pytest.raises(ValueError, match="96 neurons where its teacher has 48"):
            create_student(tiny_teacher("Bert"), "2x24", layers=[1, 2])

    def test_a_deeper_student_has_to_name_its_layers(self):
        with pytest.raises(ValueError, match=r"6 layers.*teacher of 4"):
            create_student(tiny_teacher("Bert"), "6x32:4h:48", init="teacher_layers")

    def test_unknown_initialisation(self):
        with pytest.raises(ValueError, match=r"'svd'.*teacher, teacher_layers, svd_embeddings, random"):
            create_student(tiny_teacher("Bert"), "2x24", init="svd")

    def test_a_configuration_has_no_weights_to_copy(self):
        with pytest.raises(ValueError, match="give the teacher as a model"):
            create_student(transformers.BertConfig(**COMMON), "2x32:4h:48", init="teacher_layers")

    def test_no_teacher(self):
        with pytest.raises(TypeError, match="not int"):
            create_student(3, "2x24")

    @pytest.mark.parametrize("model_class", ["BertForNothing", "AutoModelForCTC", "BertConfig"])
    def test_no_such_model_class(self, model_class):
        with pytest.raises(ValueError, match=model_class):
            create_student(tiny_teacher("Bert"), "2x24", model_class=model_class)


# Parameters of the papers' students in millions: embeddings, layers, together (pooler and head apart).
PUBLISHED = {
    ("Bert", "6x384", 30522, 512, 2): (11.9, 10.6, 22.6),
    ("Bert", "12x384", 30522, 512, 2): (11.9, 21.3, 33.2),
    ("Bert", "4x312", 30522, 512, 2): (9.7, 4.6, 14.3),
    ("Bert", "4x312", 21128, 512, 2): (6.8, 4.6, 11.3),
    ("Bert", "6x768", 30522, 512, 2): (23.8, 42.5, 66.4),
    ("Bert", "12x768", 30522, 512, 2): (23.8, 85.1, 108.9),
    ("Roberta", "6x384", 50265, 514, 1): (19.5, 10.6, 30.2),
    ("XLMRoberta", "6x384", 250002, 514, 1): (96.2, 10.6, 107),
    ("XLMRoberta", "12x384", 250002, 514, 1): (96.2, 21.3, 117),
    ("Ernie", "4x312-ernie", 40000, 2048, 4): (13.1, 4.7, 17.8),
}


@pytest.mark.parametrize(("model", "expected"), PUBLISHED.items(), ids=lambda item: "-".join(map(str, item)))
def test_sizes_are_the_published_ones(model, expected):
    name, shape, vocab_size, positions, types = model
    config = getattr(transformers, f"{name}Config")(
        vocab_size=vocab_size, max_position_embeddings=positions, type_vocab_size=types
    )
    with torch.device("meta"):
        student = getattr(transformers, f"{name}Model")(student_config(config, parse_shape(shape)))
    count = count_parameters(student)
    in_millions = [number / 1e6 for number in (count.embeddings, count.layers, count.backbone)]
    assert in_millions[:2] == pytest.approx(expected[:2], abs=0.05)
    # The tables round the sum more coarsely than its parts.
    assert in_millions[2] == pytest.approx(expected[2], abs=0.06 if expected[2] < 100 else 0.5)


def test_the_size_table_shows_both_models_and_their_ratio():
    teacher = tiny_teacher("Bert")
    student = create_student(teacher, "2x24")
    table = size_table(teacher, student)
    lines = table.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "4x32 (4, 48)" in table
    assert "2x24 (12, 96)" in table
    ratio = count_parameters(student).total / count_parameters(teacher).total
    assert f"{ratio:.1%}" in lines[-1]


def test_the_width_of_the_feed_forward_layers_is_the_one_that_the_model_reads():
    sizes = {"dim": 24, "n_heads": 4, "n_layers": 2, "hidden_dim": 40}
    config = transformers.DistilBertConfig(**sizes, vocab_size=30, max_position_embeddings=16)
    config.intermediate_size = 32  # As a configuration that was made from that of a BERT.
    assert shape_of(config) == StudentShape(2, 24, 4, 40)
    student = create_student(transformers.AutoModelForSequenceClassification.from_config(config), "1x12:2h:20")
    assert student.distilbert.transformer.layer[0].ffn.lin1.out_features == 20
