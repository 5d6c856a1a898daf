"""What must hold for a distillation of any encoder: through the trainer, on tiny classifiers of five architectures."""

import copy
import re

import pytest
import torch
from capture_cases import CASES, DROPOUTS, SIZES, classifier_of
from safetensors.torch import load_file
from trainings import assert_same_weights, logged, trained
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, PreTrainedModel

from hf_distill import create_student
from hf_distill.capture.architectures import describe_architecture, forward_columns
from hf_distill.students.shapes import shape_of

ARCHITECTURES = [case for case in CASES if str(case) in {"bert", "roberta", "distilbert", "modernbert", "deberta-v2"}]
LABELS = ["entailment", "neutral", "contradiction"]
RELATIONS = ["qq", "kk", "vv", "qk"]
RELATION = {"objective": "relation", "relations": RELATIONS}
# ModernBERT normalises before its projections: that norm belongs to them.
NORM_OF_PROJECTIONS = "attn_norm"


@pytest.fixture(params=ARCHITECTURES, ids=str)
def case(request):
    return request.param


@pytest.fixture
def make_classifier(case, tiny_tokenizer):
    """`make_classifier(seed, **overrides)`: a classifier of the architecture that is sure of what it says."""

    def make(seed=0, **overrides):
        fields = {"vocab_size": len(tiny_tokenizer), "id2label": dict(enumerate(LABELS)), **overrides}
        model = classifier_of(case, seed, **fields)
        with torch.no_grad():
            output_layer(model).weight.mul_(8)
        return model

    return make


@pytest.fixture
def distil(make_trainer, rows):
    """`distil(student, teacher, ...)`: a trainer with both objectives."""
    rows = rows.select(range(32)).remove_columns("labels")
    given = {"objectives": [RELATION, {"objective": "logits", "logits_loss": "kl"}], "max_steps": 2}

    def make(student, teacher, *, train_dataset=rows, **arguments):
        return make_trainer(teacher, student=student, copies=False, train_dataset=train_dataset, **given | arguments)

    return make


def terms(trainer, batch):
    """Every unweighted term of one batch, nothing random in it."""
    trainer.model.eval()
    with torch.no_grad():
        outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)[1]
    return {name: float(value) for name, value in outputs["terms"].items()}


def padded(ids, side, width):
    """Rows of ids as a batch of `width`, with the positions that every token has without padding."""
    input_ids = torch.zeros(len(ids), width, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    position_ids = torch.zeros_like(input_ids)
    for row, values in enumerate(ids):
        where = slice(0, len(values)) if side == "right" else slice(width - len(values), width)
        input_ids[row, where] = torch.tensor(values)
        attention_mask[row, where] = 1
        position_ids[row, where] = torch.arange(len(values))
    return {"input_ids": input_ids, "attention_mask": attention_mask}, position_ids


def output_layer(model: PreTrainedModel):
    """The linear layer whose outputs are the labels."""
    found = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == len(LABELS)]
    return found[-1]


def test_nothing_is_left_to_learn_from_a_teacher_that_one_already_is(make_classifier, distil, rows):
    teacher = make_classifier()
    same = distil(copy.deepcopy(teacher), teacher).evaluate(rows)
    other = distil(make_classifier(seed=1), teacher).evaluate(rows)
    for relation in RELATIONS:
        assert abs(same[f"eval_loss/relation/{relation}"]) < 1e-6
        assert other[f"eval_loss/relation/{relation}"] > 1e-3
    assert abs(same["eval_loss/logits/soft"]) < 1e-6
    assert other["eval_loss/logits/soft"] > 1e-3


@pytest.mark.parametrize("more", [1, 7])
def test_more_padding_changes_no_term(make_classifier, distil, rows, more):
    trainer = distil(make_classifier(seed=1), make_classifier())
    ids = rows[:6]["input_ids"]
    longest = max(map(len, ids))
    tight, loose = (terms(trainer, padded(ids, "right", width)[0]) for width in (longest, longest + more))
    assert set(tight) == {f"relation/{r}" for r in RELATIONS} | {"logits/soft"}
    assert loose == pytest.approx(tight, rel=1e-4)


def test_the_side_of_the_padding_changes_no_relation(case, make_classifier, distil, rows):
    # Heads read the first place of a row, so logits are those of a padding token under left padding.
    trainer = distil(make_classifier(seed=1), make_classifier(), objectives=["relation"])
    ids = rows[:6]["input_ids"]
    found = []
    for side in ("right", "left"):
        batch, positions = padded(ids, side, max(map(len, ids)) + 2)
        if case.model_type == "roberta":
            positions = (positions + SIZES["pad_token_id"] + 1) * batch["attention_mask"]
        assert "position_ids" in forward_columns(trainer.student)
        found.append(terms(trainer, {**batch, "position_ids": positions}))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_the_teacher_says_the_same_of_the_same_batch_throughout_training(make_classifier, distil, rows):
    teacher = make_classifier(**{name: 0.5 for name in DROPOUTS}).train()
    before = copy.deepcopy(teacher.state_dict())
    same_batch_thrice = rows.select(list(range(8)) * 3)
    trainer = distil(make_classifier(seed=1), teacher, train_dataset=same_batch_thrice, max_steps=3)
    heard, signals = [], trainer.teacher.signals
    trainer.teacher.signals = lambda inputs: heard.append(signals(inputs)) or heard[-1]
    trainer.train()
    first, *later = heard
    assert len(later) == 2
    for other in later:
        assert torch.equal(first.logits["logits"], other.logits["logits"])
        for layer, projections in first.projections.items():
            for side in ("query", "key", "value"):
                assert torch.equal(getattr(projections, side), getattr(other.projections[layer], side))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("layer", [2, 3])
def test_gradients_end_at_the_projections_of_the_distilled_layer(case, make_classifier, distil, layer):
    trainer = distil(make_classifier(seed=1), make_classifier(), objectives=[RELATION | {"student_layer": layer}])
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).backward()
    path = re.escape(describe_architecture(trainer.student).spec.layers)
    below, at, beyond = {}, {}, {}
    for name, parameter in trainer.student.named_parameters():
        index = re.search(rf"(?:^|\.){path}\.(\d+)\.", name)
        if index is not None:
            number = int(index[1]) + 1
            (below if number < layer else at if number == layer else beyond)[name] = parameter.grad
        elif "embed" in name and "rel_" not in name:
            below[name] = parameter.grad
        elif name.startswith(("classifier", "pooler", "pre_classifier", "head")):
            beyond[name] = parameter.grad
    projections = {name for name in at if any(f".{part}." in name for part in case.parts[1:])}
    reached = {name for name, gradient in at.items() if gradient is not None}
    weights = {name for name in below if name.endswith("weight") and "token_type" not in name}
    assert {name for name in weights if below[name] is None or not below[name].any()} == set()
    assert {name for name in projections if name.endswith("weight") and not at[name].any()} == set()
    assert {name for name in reached - projections if NORM_OF_PROJECTIONS not in name} == set()
    assert {name for name, gradient in beyond.items() if gradient is not None} == set()
    assert weights
    assert projections
    assert beyond


def test_eight_accumulated_rows_give_the_update_of_a_batch_of_eight(make_classifier, distil):
    student, teacher = make_classifier(seed=1), make_classifier()
    large = trained(distil(copy.deepcopy(student), teacher, max_steps=3))
    parts = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    small = trained(distil(student, teacher, max_steps=3, **parts))
    for key in ("loss", "grad_norm", "loss/relation/vv", "loss/logits/soft"):
        assert logged(small, key) == pytest.approx(logged(large, key), rel=1e-3)
        assert len(logged(large, key)) == 3
    assert_same_weights(large.student, small.student, rtol=1e-4, atol=1e-5)


def test_labels_are_matched_by_name(make_classifier, distil, rows):
    teacher = make_classifier()
    order = [2, 0, 1]
    student = make_classifier(id2label={i: LABELS[label] for i, label in enumerate(order)})
    student.load_state_dict(teacher.state_dict())
    assert distil(copy.deepcopy(student), teacher).evaluate(rows)["eval_loss/logits/soft"] > 1e-3
    layer = output_layer(student)
    with torch.no_grad():
        layer.weight.copy_(layer.weight[order])
        layer.bias.copy_(layer.bias[order])
    assert abs(distil(student, teacher).evaluate(rows)["eval_loss/logits/soft"]) < 1e-6


def test_the_exported_student_is_a_plain_model_of_its_shape(make_classifier, distil, tmp_path):
    teacher = make_classifier()
    trainer = trained(distil(create_student(teacher, "2x12:2h:20"), teacher))
    trainer.save_model(tmp_path / "student")
    stored = load_file(tmp_path / "student" / "model.safetensors")
    assert stored.keys() == trainer.student.state_dict().keys()
    assert not any(re.search("teacher|objectives|^student", name) for name in stored)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "student", output_loading_info=True, dtype=torch.float32
    )
    assert {name: keys for name, keys in info.items() if keys} == {}
    assert type(loaded) is type(teacher)
    assert loaded.config.id2label == dict(enumerate(LABELS))
    assert str(shape_of(loaded)) == "2x12:2h:20"
    batch = DataCollatorWithPadding(trainer.processing_class)([trainer.train_dataset[i] for i in range(4)])
    inputs = {name: value for name, value in batch.items() if name in forward_columns(loaded)}
    trainer.student.eval()
    assert torch.equal(loaded(**inputs).logits, trainer.student(**inputs).logits)
