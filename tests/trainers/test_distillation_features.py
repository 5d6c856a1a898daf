"""Objectives between layers, through the trainer: projections are trained, clipped and saved beside the student."""

import pytest
import torch
from capture_cases import CASES, classifier_of
from safetensors.torch import load_file
from trainings import assert_same_weights, logged, trained
from transformers import AutoModel

from hf_distill import create_student

FEATURES = [
    {"objective": "hidden", "weight": 0.5},
    {"objective": "cosine", "projection": "tanh"},
    "pkd",
    {"objective": "fsp", "layers": "0+1:0+2,2:3"},
    {"objective": "nst", "layers": "0+1:0+2,2:3"},
    {"objective": "attention", "layers": "1:1,2:3", "loss": "kl"},
    {"objective": "attention", "name": "scores", "layers": "last", "loss": "mse_sum", "weight": 0.1},
    {"objective": "tinybert", "weight": 0.2, "schedule": "linear_decay"},
]
EVERYTHING = [*FEATURES, "relation", "logits:0.5"]


def test_all_objectives_learn_together(build):
    trainer = build(objectives=EVERYTHING, learning_rate=3e-3, max_steps=16, num_train_epochs=2)
    initial = {name: p.detach().clone() for name, p in trainer.model.objectives.named_parameters()}
    trainer.train()
    entry = trainer.state.log_history[0]
    named = {key.split("/")[1] for key in entry if key.startswith("loss/")}
    assert named == {"hidden", "cosine", "pkd", "fsp", "nst", "attention", "scores", "tinybert", "relation", "logits"}
    assert {"loss/hidden/s0_t0", "loss/hidden/s1_t2", "loss/fsp/s0-1_t0-2", "loss/tinybert/embeddings"} <= entry.keys()
    weights = {**trainer.model.weights, "tinybert": entry["weight/tinybert"]}
    terms = sum(weights[key.split("/")[1]] * value for key, value in entry.items() if key.startswith("loss/"))
    assert entry["loss"] == pytest.approx(terms, rel=1e-5)
    for name in ("hidden/s2_t3", "cosine/s2_t3", "nst/s2_t3", "attention/s2_t3", "tinybert/hidden"):
        found = logged(trainer, f"loss/{name}")
        assert sum(found[-4:]) < sum(found[:4]), name
    assert initial
    for name, parameter in trainer.model.objectives.named_parameters():
        assert not torch.equal(parameter, initial[name]), name


def test_accumulated_batches_give_the_update_of_one_large_batch(build):
    large = trained(build(objectives=EVERYTHING, per_device_train_batch_size=16))
    small = trained(build(objectives=EVERYTHING, per_device_train_batch_size=4, gradient_accumulation_steps=4))
    keys = [key for key in large.state.log_history[0] if key.startswith("loss")]
    for key in (*keys, "grad_norm"):
        assert logged(small, key) == pytest.approx(logged(large, key), rel=1e-3), key
    assert_same_weights(large.model, small.model, rtol=1e-3, atol=2e-5)


def test_a_resumed_run_continues_bit_for_bit_with_its_projections(build, dropping_student):
    settings = {
        "student": dropping_student,
        "objectives": [*EVERYTHING, {"objective": "bert_emd", "cost_attention": True}],
        "projection_learning_rate": 1e-2,
        "projection_weight_decay": 0.2,
        "max_steps": 6,
        "train_sampling_strategy": "random",
    }
    whole = trained(build(**settings, save_strategy="steps", save_steps=3))
    resumed = trained(build(**settings), f"{whole.args.output_dir}/checkpoint-3")
    assert logged(resumed) == logged(whole)
    assert_same_weights(whole.model, resumed.model)
    masses = [t.model.objectives["bert_emd"].teacher_masses for t in (whole, resumed)]
    assert torch.equal(*masses)
    assert masses[0].std() > 0
    for one, other in zip(whole.optimizer.param_groups, resumed.optimizer.param_groups, strict=True):
        assert {k: v for k, v in one.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}
    projection = next(whole.model.objectives["hidden"].parameters())
    (own,) = (g for g in whole.optimizer.param_groups if any(p is projection for p in g["params"]))
    assert (own["initial_lr"], own["weight_decay"]) == (1e-2, 0.2)


@pytest.mark.parametrize("change", [{"layers": "last"}, {"projection": "tanh"}, {"shared_projection": True}])
def test_resuming_with_other_layers_or_projections_is_refused(build, change):
    build(objectives=["hidden"], save_strategy="steps", save_steps=2, max_steps=2).train()
    other = build(objectives=[{"objective": "hidden", **change}])
    with pytest.raises(ValueError, match=r"another distillation \(objectives"):
        other.train(resume_from_checkpoint=f"{other.args.output_dir}/checkpoint-2")


def test_projections_are_clipped_with_the_student(build):
    objective = {"objective": "hidden", "weight": 1e4, "projection": "linear"}
    settings = {"objectives": [objective], "optim": "sgd", "lr_scheduler_type": "constant", "warmup_steps": 0}
    trainer = build(**settings, learning_rate=1.0, weight_decay=0.0, max_grad_norm=0.5, max_steps=1)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name: p.detach() - before[name] for name, p in trainer.model.named_parameters()}
    length = torch.stack([x.square().sum() for x in moved.values()]).sum().sqrt()
    assert logged(trainer, "grad_norm")[0] > 100
    assert length.item() == pytest.approx(0.5, rel=1e-3)
    assert any(x.any() for name, x in moved.items() if name.startswith("objectives."))


def test_the_saved_student_has_no_projection(build, tmp_path):
    trainer = trained(build(objectives=EVERYTHING))
    assert any(p.numel() == 12 * 24 for p in trainer.model.objectives.parameters())
    trainer.save_model(tmp_path / "student")
    stored = load_file(tmp_path / "student" / "model.safetensors")
    assert stored.keys() == trainer.student.state_dict().keys()
    loaded, info = AutoModel.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not info["missing_keys"]
    assert loaded.config.hidden_size == 12


def test_layers_and_projections_are_printed_before_training(build):
    text = build(objectives=["hidden", {"objective": "nst", "layers": "0+1:0+2"}]).describe()
    assert "objective: hidden x 1 (layers [[0, 0], [1, 2], [2, 3]], projection fitted 12 -> 24, one a match)" in text
    assert "objective: nst x 1 (layers [[[0, 1], [0, 2]]], projection identity)" in text


def test_a_card_names_the_layers(build, tmp_path):
    trainer = trained(build(objectives=["hidden", {"objective": "nst", "layers": "0+1:0+2"}]))
    trainer.create_model_card()
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "student 0+1 <- teacher 0+2" in card
    assert "TinyBERT" in card


def test_bfloat16_stays_close_to_float32(build):
    full = trained(build(objectives=EVERYTHING))
    half = trained(build(objectives=EVERYTHING, bf16=True))
    assert logged(half) == pytest.approx(logged(full), rel=0.05)


# The compiler looks at `.grad` of every tensor it meets, and torch warns about that.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_compiled_student_gives_the_same_losses(build):
    plain = trained(build(objectives=EVERYTHING, max_steps=2))
    compiled = build(objectives=EVERYTHING, max_steps=2, torch_compile=True, torch_compile_backend="aot_eager")
    compiled.train()
    assert logged(compiled) == pytest.approx(logged(plain), rel=1e-5)


def test_heads_that_do_not_fit_are_refused_before_training(build, tiny_teacher):
    student = create_student(tiny_teacher, "2x12:2h:20")
    with pytest.raises(ValueError, match=r"'attention' with loss=mse.*student has 2 attention heads.*teacher 4"):
        build(student=student, objectives=["attention"])


# --- architectures ---------------------------------------------------------------------------------------------------

ARCHITECTURES = [case for case in CASES if str(case) in {"distilbert", "electra", "modernbert"}]
LAYERWISE = [
    "hidden",
    "nst",
    {"objective": "attention", "loss": "ce_mean"},
    {"objective": "attention", "name": "scores", "loss": "mse"},
    {"objective": "pkd", "layers": "last"},
]


@pytest.fixture(params=ARCHITECTURES, ids=str)
def make_classifier(request, tiny_tokenizer):
    """`make_classifier(seed)`: a classifier of the architecture."""
    return lambda seed=0: classifier_of(request.param, seed, vocab_size=len(tiny_tokenizer))


def test_any_encoder_has_nothing_to_learn_from_itself_and_something_from_another(build, make_classifier, rows):
    teacher = make_classifier()
    settings = {"teacher": teacher, "objectives": [o for o in LAYERWISE if "ce_mean" not in str(o)]}
    same = build(student=teacher, **settings).evaluate(rows.select(range(16)))
    other = build(student=make_classifier(1), **settings).evaluate(rows.select(range(16)))
    terms = [key for key in same if key.startswith("eval_loss/")]
    assert len(terms) == 4 + 4 + 3 + 1
    assert all(abs(same[term]) < 1e-6 for term in terms)
    assert all(other[term] > 1e-4 for term in terms)


def test_accumulation_is_exact_on_any_encoder(build, make_classifier):
    teacher = make_classifier()
    student = create_student(teacher, "2x16:4h:20")
    settings = {"teacher": teacher, "student": student, "objectives": LAYERWISE, "max_steps": 2}
    large = trained(build(**settings))
    small = trained(build(**settings, per_device_train_batch_size=2, gradient_accumulation_steps=4))
    for key in ("loss", "grad_norm", "loss/hidden/s2_t3", "loss/nst/s1_t2", "loss/attention/s2_t3"):
        assert logged(small, key) == pytest.approx(logged(large, key), rel=1e-3), key
