"""Sentence encoders: the head of an encoder, its files, and students of sentence encoders."""

import functools
import itertools
import json
import math
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from tokenizers import Tokenizer
from torch import nn
from trainings import sharpened, trained
from transformers import AutoModel, AutoTokenizer, BertModel, set_seed

from hf_distill import (
    MultiTeacherTrainer,
    StoredTeacher,
    create_student,
    load_task,
    precompute,
)
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import capture_of
from hf_distill.commands import evaluate
from hf_distill.hub.loading import load_model
from hf_distill.settings import EvaluationArguments, TaskArguments
from hf_distill.students.sentence import (
    POOLING_MODES,
    Dense,
    Normalize,
    SentenceHead,
    as_encoder,
    encode_texts,
    head_of,
    read_head,
)
from hf_distill.tasks.vectors import cosine_correlations, pairs_of, read_retrieval
from hf_distill.teachers.base import LiveTeacher
from hf_distill.trainers.distillation import model as model_module


@pytest.fixture
def encoder(tiny_bert_config):
    """A bare encoder whose attention is sharp enough that texts differ."""
    set_seed(0)
    return sharpened(BertModel(tiny_bert_config(), add_pooling_layer=False))


@pytest.fixture
def sentence_transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("sentence_transformers", reason="the extra `sentence` is not installed")


def save_sentence_encoder(folder, encoder, tokenizer, head):
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    head.save(folder, encoder.config.hidden_size)
    return str(folder)


@pytest.fixture
def teacher_folder(encoder, tiny_tokenizer, tmp_path):
    head = SentenceHead("mean", [Normalize()], prompts={"query": "find "}, max_length=32)
    return save_sentence_encoder(tmp_path / "teacher", encoder, tiny_tokenizer, head)


def vectors(encoder, head, tokenizer, texts):
    """Reference: one text at a time, without padding."""
    found = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = encoder(**inputs).last_hidden_state
            found.append(head(states, inputs["attention_mask"])[0])
    return torch.stack(found)


TWO = {"text": ["the cat", "a dog"]}
SIDES = ("sentence1", "sentence2")


@pytest.fixture
def distil(make_trainer, teacher_folder, tmp_path):
    """`distil(columns, **arguments)`: a trainer of a small student of the sentence encoder."""
    given = {"output_dir": str(tmp_path / "student"), "max_steps": 2, "learning_rate": 1e-3, "max_length": 32}
    given["train_sampling_strategy"] = "group_by_length"

    def make(columns, *, student=None, teacher=teacher_folder, **fields):
        rows = Dataset.from_dict(columns) if isinstance(columns, dict) else columns
        student = student or create_student(teacher_folder, "2x12:4h")
        return make_trainer(teacher, student=student, copies=False, train_dataset=rows, **given | fields)

    return make


# ---- The head ----


def slow_pool(states, length, mode):
    real = states[:length]
    weights = torch.arange(1, length + 1).float()[:, None]
    return {
        "mean": real.mean(0),
        "cls": real[0],
        "lasttoken": real[-1],
        "max": real.max(0).values,
        "weightedmean": (real * weights).sum(0) / weights.sum(),
        "mean_sqrt_len_tokens": real.sum(0) / math.sqrt(length),
    }[mode]


@pytest.mark.parametrize("mode", POOLING_MODES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_every_pooling_sees_real_tokens_only(mode, side):
    states = torch.randn(3, 6, 5)
    lengths = [6, 4, 1]
    mask = torch.tensor([[1] * n + [0] * (6 - n) for n in lengths])
    rows = states.clone()
    if side == "left":
        mask = mask.flip(1)
        rows = torch.stack([torch.cat((row[n:], row[:n])) for row, n in zip(states, lengths, strict=True)])
    expected = torch.stack([slow_pool(row, n, mode) for row, n in zip(states, lengths, strict=True)])
    torch.testing.assert_close(SentenceHead(mode)(rows, mask), expected)


def test_an_unknown_pooling_is_named():
    with pytest.raises(ValueError, match=r"median.*allowed are mean, cls"):
        SentenceHead("median")


def test_a_head_comes_back_from_its_files(tmp_path):
    head = SentenceHead(
        ("cls", "mean"),
        [Dense(8, 3, activation="Tanh"), Normalize(), Dense(3, 2, bias=False)],
        prompts={"query": "query: "},
        default_prompt="query",
        max_length=17,
    )
    head.save(tmp_path, 4)
    again = read_head(str(tmp_path))
    states, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 1], [1, 1, 0]])
    torch.testing.assert_close(again(states, mask), head(states, mask))
    assert again.describe() == "cls+mean, dense 8 -> 3, normalize, dense 3 -> 2"
    assert (again.prompts, again.default_prompt, again.max_length) == ({"query": "query: "}, "query", 17)
    assert read_head(str(tmp_path / "1_Pooling")) is None


def test_a_vector_that_is_cut_short_is_so_here_and_there(
    sentence_transformers, encoder, tiny_tokenizer, sentences, tmp_path
):
    """Of a unit vector the first numbers alone have another length: a student does not normalise then."""
    head = SentenceHead("mean", [Normalize()], truncate_dim=5)
    folder = save_sentence_encoder(tmp_path / "cut", encoder, tiny_tokenizer, head)
    model = sentence_transformers.SentenceTransformer(folder, device="cpu")
    expected = torch.tensor(model.encode(sentences[:6]))
    assert expected.shape == (6, 5)
    for found in (read_head(folder), as_encoder(model)[1]):
        torch.testing.assert_close(vectors(encoder, found, tiny_tokenizer, sentences[:6]), expected)
        assert (found.truncate_dim, found.width(24), found.normalizes) == (5, 5, False)
        assert found.describe() == "mean, normalize, the first 5 numbers"
        assert found.for_student(12).describe() == "mean"


def test_an_activation_may_be_any_and_keeps_its_settings_or_says_that_it_loses_them(
    sentence_transformers, encoder, tiny_tokenizer, sentences, tmp_path
):
    from sentence_transformers.base.modules import Dense as TheirDense
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = save_sentence_encoder(tmp_path / "bare", encoder, tiny_tokenizer, SentenceHead("mean"))
    transformer = sentence_transformers.SentenceTransformer(folder, device="cpu")[0]
    for activation in (nn.Softplus(), nn.LeakyReLU(0.5)):
        modules = [transformer, Pooling(24, "mean"), TheirDense(24, 7, activation_function=activation)]
        model = sentence_transformers.SentenceTransformer(modules=modules, device="cpu")
        head = as_encoder(model)[1]
        expected = torch.tensor(model.encode(sentences[:4]))
        torch.testing.assert_close(vectors(encoder, head, tiny_tokenizer, sentences[:4]), expected)
        if isinstance(activation, nn.Softplus):
            head.save(tmp_path / "saved", 24)
            again = read_head(str(tmp_path / "saved"))
            torch.testing.assert_close(vectors(encoder, again, tiny_tokenizer, sentences[:4]), expected)
        else:
            with pytest.raises(ValueError, match=r"LeakyReLU\(negative_slope=0.5\), of whose settings"):
                head.save(tmp_path / "lost", 24)


def test_an_order_of_poolings_that_the_old_fields_cannot_say_is_kept(tmp_path):
    SentenceHead(("mean", "cls")).save(tmp_path, 4)
    assert read_head(str(tmp_path)).pooling == ("mean", "cls")


def test_modules_that_are_unknown_or_lead_elsewhere_are_refused(tmp_path):
    SentenceHead("mean").save(tmp_path, 4)
    modules = json.loads((tmp_path / "modules.json").read_text())
    for more, message in (
        ({"path": "2_CNN", "type": "sentence_transformers.models.CNN"}, "CNN; known are"),
        ({"path": "../other", "type": "sentence_transformers.models.Dense"}, "leads out of the folder"),
    ):
        (tmp_path / "modules.json").write_text(json.dumps([*modules, {"idx": 2, "name": "2", **more}]))
        with pytest.raises(ValueError, match=message):
            read_head(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", {}, "modules.json is {}; it must be a list"),
        ("modules.json", [{"path": ""}], "a sentence encoder begins with Transformer and Pooling"),
        ("1_Pooling/config.json", {"pooling_mode": 3}, "`pooling_mode` of a pooling is 3; it must be a list"),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, "`prompts` must be `name: value` pairs"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "`truncate_dim` .* is 0; it must be at least 1"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "`max_seq_length` is 'long'; it must be a number"),
        ("2_Dense/config.json", {"in_features": 9, "out_features": 3}, r"describes the weights .*\(3, 9\).*\(3, 4\)"),
        ("2_Dense/config.json", {"in_features": 4}, "`out_features` is None; it must be a number"),
    ],
)
def test_files_that_hold_something_else_are_one_line(file, content, message, tmp_path):
    SentenceHead("mean", [Dense(4, 3)]).save(tmp_path, 4)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_head(str(tmp_path))


def test_an_encoder_that_names_the_class_of_its_pretraining_is_loaded_without_that_head(teacher_folder):
    path = Path(teacher_folder, "config.json")
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    assert type(load_model(teacher_folder, flag="--teacher_model")).__name__ == "BertModel"


# ---- The signal ----


def test_a_capture_gives_the_vector_and_stops_before_the_head(tiny_teacher, tiny_tokenizer, sentences):
    """Padding changes nothing, and the classifier does not run."""
    head = SentenceHead("mean", [Normalize()])
    inputs = tiny_tokenizer(sentences[:5], padding=True, return_tensors="pt")
    capture = capture_of(tiny_teacher, SignalRequest(pooled=True), head)
    signals, output = capture.run(**inputs)
    assert output is None
    torch.testing.assert_close(
        signals.pooled, vectors(tiny_teacher.bert, head, tiny_tokenizer, sentences[:5]), rtol=1e-5, atol=1e-5
    )
    both = capture_of(tiny_teacher, SignalRequest(pooled=True, logits=True), head)(**inputs)
    torch.testing.assert_close(both.pooled, signals.pooled)
    assert both.logits["logits"].shape == (5, 2)


def test_a_capture_needs_to_know_the_pooling(tiny_teacher):
    with pytest.raises(ValueError, match="say how tokens become the vector"):
        capture_of(tiny_teacher, SignalRequest(pooled=True))


# ---- Training ----


@pytest.mark.parametrize("objective", ["embedding", "similarity"])
def test_a_student_comes_nearer_and_loads_as_a_sentence_encoder(objective, distil, sentences, tmp_path):
    rows = Dataset.from_dict({"text": sentences})
    learning = {"objectives": [objective], "max_steps": 30, "learning_rate": 5e-3}
    trainer = distil(rows, trainer={"eval_dataset": rows}, eval_agreement=True, **learning)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.8 * before["eval_loss"]
    assert after["eval_agreement"] > before["eval_agreement"]
    trainer.save_model()
    head = head_of(load_model(str(tmp_path / "student"), flag="--model"))
    assert head.describe() == "mean, normalize"
    assert head.prompts == {"query": "find "}
    assert AutoModel.from_pretrained(tmp_path / "student").config.hidden_size == 12


def test_an_optimizer_of_ones_own_trains_a_dense_layer_that_comes_later(distil, sentences, teacher_folder):
    student = create_student(teacher_folder, "2x12:4h")
    given = {"optimizers": (torch.optim.SGD(student.parameters(), lr=0.1), None)}
    settings = {"objectives": ["embedding"], "student_dense_width": 24}
    trainer = distil({"text": sentences}, student=student, trainer=given, **settings)
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert {id(parameter) for parameter in trainer.model.sentence_head.parameters()} <= held


@pytest.mark.parametrize(("loss", "rows"), [("kl", 3), ("mse", 2), ("both", 2)])
def test_similarities_of_too_few_texts_are_refused(loss, rows, distil, sentences):
    def make(size):
        given = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8}
        return distil({"text": sentences}, objectives=[{"objective": "similarity", "loss": loss}], **given)

    assert trained(make(rows)).state.log_history[0]["grad_norm"] > 0
    with pytest.raises(ValueError, match=f"need {rows} of them, but `--per_device_train_batch_size` is {rows - 1};"):
        make(rows - 1)


def test_a_dense_layer_is_trained_saved_and_gone_on_with(distil, sentences, tmp_path):
    settings = {"objectives": ["embedding"], "student_dense_width": 24, "save_strategy": "steps", "save_steps": 2}
    whole, resumed = (
        distil({"text": sentences}, output_dir=str(tmp_path / name), max_steps=4, **settings)
        for name in ("whole", "resumed")
    )
    began = whole.model.sentence_head.steps[0].linear.weight.clone()
    whole.train()
    resumed.train(str(tmp_path / "whole" / "checkpoint-2"))
    dense = whole.model.sentence_head.steps[0].linear.weight
    assert not torch.equal(dense, began)
    assert not list(whole.model.objectives["embedding"].parameters())
    for trainer in (whole, resumed):
        trainer.save_model()
        head = read_head(trainer.args.output_dir)
        assert head.describe() == "mean, dense 12 -> 24, normalize"
        torch.testing.assert_close(head.steps[0].linear.weight, dense, rtol=0, atol=0)


def test_a_dense_layer_of_a_third_width_has_a_projection_behind_it(distil):
    """The student's vector is neither as wide as the student nor as its teacher's, at two lengths."""
    objectives = [{"objective": "embedding", "dims": [4]}]
    trainer = trained(distil({"text": ["the cat", "a dog"] * 8}, objectives=objectives, student_dense_width=18))
    assert trainer.model.sentence_head.describe() == "mean, dense 12 -> 18, normalize"
    widths = [(one.in_features, one.out_features) for one in trainer.model.objectives["embedding"].projections]
    assert widths == [(18, 24), (4, 24)]


def test_a_student_that_is_a_sentence_encoder_keeps_its_modules(distil, tiny_tokenizer, encoder, tmp_path):
    student = BertModel(encoder.config, add_pooling_layer=False)
    folder = save_sentence_encoder(
        tmp_path / "first", student, tiny_tokenizer, SentenceHead("cls", [Dense(24, 6), Normalize()])
    )
    trainer = distil(TWO, student=folder, objectives=["hidden"])
    trainer.save_model()
    assert read_head(trainer.args.output_dir).describe() == "cls, dense 24 -> 6, normalize"


def test_a_teacher_without_modules_is_pooled_by_the_mean_and_says_so(encoder, caplog, tiny_tokenizer):
    teacher = LiveTeacher(encoder)
    teacher.request(SignalRequest(pooled=True))
    inputs = tiny_tokenizer(["the cat", "a dog sees a bird"], padding=True, return_tensors="pt")
    expected = vectors(encoder, SentenceHead("mean"), tiny_tokenizer, ["the cat", "a dog sees a bird"])
    torch.testing.assert_close(teacher.signals(inputs).pooled, expected, rtol=1e-5, atol=1e-5)


# ---- Against sentence-transformers ----


@pytest.mark.parametrize(
    "steps", [[], [Normalize()], [Dense(24, 7, activation="Tanh"), Normalize()]], ids=["bare", "unit", "dense"]
)
@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken", "weightedmean", "max"])
def test_what_is_saved_here_gives_the_same_vectors_there(
    sentence_transformers, mode, steps, encoder, tiny_tokenizer, sentences, tmp_path
):
    head = SentenceHead(mode, steps, prompts={"query": "find "}, max_length=9)
    folder = save_sentence_encoder(tmp_path, encoder, tiny_tokenizer, head)
    model = sentence_transformers.SentenceTransformer(folder, device="cpu")
    cutting = functools.partial(tiny_tokenizer, truncation=True, max_length=9)
    ours = vectors(encoder, head, cutting, sentences)
    torch.testing.assert_close(torch.tensor(model.encode(sentences)), ours.detach(), rtol=1e-5, atol=1e-5)
    assert model.prompts["query"] == "find "
    assert model.max_seq_length == 9
    # And the object, as a teacher.
    inner, read = as_encoder(model)
    torch.testing.assert_close(vectors(inner, read, cutting, sentences[:4]), ours[:4], rtol=1e-5, atol=1e-5)
    # And what that package saves.
    model.save(str(tmp_path / "theirs"))
    torch.testing.assert_close(
        vectors(inner, read_head(str(tmp_path / "theirs")), tiny_tokenizer, ["the cat"]),
        vectors(encoder, head, tiny_tokenizer, ["the cat"]), rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_an_object_of_sentence_transformers_is_a_teacher_and_a_student(
    sentence_transformers, distil, teacher_folder, tmp_path
):
    teacher = sentence_transformers.SentenceTransformer(teacher_folder, device="cpu")
    student = create_student(teacher, "2x12:4h")
    trainer = trained(distil(TWO, student=student, teacher=teacher, objectives=["similarity"]))
    trainer.save_model()
    saved = sentence_transformers.SentenceTransformer(trainer.args.output_dir, device="cpu")
    again = distil(TWO, student=saved, objectives=["embedding"], output_dir=str(tmp_path / "again"))
    assert again.model.sentence_head.describe() == "mean, normalize"
    assert isinstance(again.model.objectives["embedding"].projections[0], nn.Linear)
    assert AutoTokenizer.from_pretrained(trainer.args.output_dir).model_max_length


def test_the_card_is_one_of_that_ecosystem(distil, tmp_path):
    trainer = trained(distil(TWO, objectives=["embedding"]))
    trainer.save_model()
    trainer.create_model_card()
    text = (tmp_path / "student" / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["library_name"] == "sentence-transformers"
    assert header["pipeline_tag"] == "sentence-similarity"
    assert {"sentence-transformers", "sentence-similarity", "knowledge-distillation"} <= set(header["tags"])
    assert 'SentenceTransformer("student")' in text
    assert "| vector of a text | mean, normalize: 12 numbers | mean, normalize: 24 numbers |" in text


def test_a_push_takes_every_module_along(hub, distil, tiny_tokenizer):
    trainer = trained(distil(TWO, objectives=["embedding"], student_dense_width=24, hub_model_id="anna/encoder"))
    trainer.push_to_hub()
    model = load_model("anna/encoder", flag="--model")
    head = head_of(model)
    assert head.describe() == "mean, dense 12 -> 24, normalize"
    expected = vectors(trainer.student.eval(), trainer.model.sentence_head, tiny_tokenizer, TWO["text"])
    torch.testing.assert_close(vectors(model.eval(), head, tiny_tokenizer, TWO["text"]), expected)


def test_what_was_pushed_loads_there(sentence_transformers, hub, distil, tiny_tokenizer):
    trainer = trained(distil(TWO, objectives=["similarity"], hub_model_id="anna/encoder"))
    trainer.push_to_hub()
    model = sentence_transformers.SentenceTransformer("anna/encoder", device="cpu")
    expected = vectors(trainer.student.eval(), trainer.model.sentence_head, tiny_tokenizer, TWO["text"])
    torch.testing.assert_close(torch.tensor(model.encode(TWO["text"])), expected, rtol=1e-5, atol=1e-5)


def test_vectors_that_are_stored_train_as_those_of_the_teacher(distil, teacher_folder, sentences, tmp_path):
    rows, objectives = Dataset.from_dict({"text": sentences}), ["embedding", "similarity"]
    precompute(rows, teacher_folder, objectives, tmp_path / "stored", dtype="float32", max_length=32)
    losses = []
    for teacher, its_rows in ((teacher_folder, rows), (str(tmp_path / "stored"), None)):
        trainer = distil(its_rows, teacher=teacher, objectives=objectives)
        losses.append(trainer.train().training_loss)
        assert trainer.model.sentence_head.describe() == "mean, normalize"
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    stored = StoredTeacher(tmp_path / "stored")
    assert len(stored.dataset[0]["teacher_pooled"]) == 24


def test_several_teachers_each_give_their_vectors(distil, teacher_folder, encoder, sentences):
    items = [{"objective": "embedding", "teacher": 0}, {"objective": "similarity", "teacher": 1}]
    both = {"teacher": [teacher_folder, encoder], "trainer_class": MultiTeacherTrainer}
    trainer = distil({"text": sentences}, objectives=items, **both)
    assert math.isfinite(trainer.train().training_loss)
    assert trainer.model.sentence_head.describe() == "mean, normalize"


def test_a_teacher_with_a_tokenizer_of_its_own(distil, teacher_folder, encoder, tiny_tokenizer, sentences):
    """Vectors are of rows: nothing has to be aligned, and the loss is that of the teacher's own reading."""
    other = AutoTokenizer.from_pretrained(teacher_folder)
    words = sorted(other.get_vocab().items(), key=lambda pair: pair[1])
    flipped = {word: i for i, (word, _) in enumerate([*words[:5], *reversed(words[5:])])}
    backend = json.loads(other.backend_tokenizer.to_str())
    backend["model"]["vocab"] = flipped
    student_tokenizer = type(other)(tokenizer_object=Tokenizer.from_str(json.dumps(backend)), model_max_length=64)
    student = create_student(teacher_folder, "2x12:4h", init="random")
    given = {"student": student, "tokenizer": student_tokenizer, "align_tokenizers": True}
    trainer = distil({"text": sentences[:8]}, objectives=["embedding"], **given)
    batch = next(iter(trainer.get_train_dataloader()))
    found = trainer.teacher.signals(batch).pooled
    texts = [tiny_tokenizer.decode(ids, skip_special_tokens=True) for ids in batch["teacher0_input_ids"]]
    expected = vectors(encoder, SentenceHead("mean", [Normalize()]), tiny_tokenizer, texts)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own", ["tokenized before", "tokenized by the collator"])
def test_a_teacher_may_read_another_text(own, distil, encoder, tiny_tokenizer, sentences):
    """A translation behind a prompt: the teacher's vectors are those of its own text, in every kind of rows."""
    texts = [{"text": text, "english": other} for text, other in zip(sentences[:8], sentences[8:16], strict=True)]
    rows = Dataset.from_list(texts)
    if own == "tokenized by the collator":
        rows = rows.with_transform(lambda batch: batch)
    trainer = distil(
        rows, objectives=["embedding"], teacher_text_column="english", teacher_prompt="the ",
        train_sampling_strategy="sequential", remove_unused_columns=own == "tokenized before",
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    read = [f"the {row['english']}" for row in texts]
    expected = vectors(encoder, SentenceHead("mean", [Normalize()]), tiny_tokenizer, read)
    torch.testing.assert_close(trainer.teacher.signals(batch).pooled, expected, rtol=1e-4, atol=1e-5)
    ids = tiny_tokenizer([row["text"] for row in texts], padding=True, return_tensors="pt")["input_ids"]
    assert torch.equal(batch["input_ids"], ids)
    assert math.isfinite(trainer.train().training_loss)
    assert trainer.model.sentence_head.prompts == {}
    assert trainer.manifest()["teacher_prompt"] == "the "


def test_other_texts_are_for_what_speaks_about_rows(distil):
    with pytest.raises(ValueError, match="read different texts"):
        distil(TWO, objectives=["relation"], teacher_prompt="the ")
    with pytest.raises(ValueError, match="no column 'english' for the teacher to read"):
        distil(TWO, objectives=["embedding"], teacher_text_column="english")


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_tokens_of_a_prompt_are_pooled_only_where_the_encoder_says_so(mode, encoder, tiny_tokenizer, sentences):
    """The states of all tokens, pooled without those of the prompt."""
    prompt, texts = "the old ", sentences[:5]
    tokens = tiny_tokenizer([prompt + text for text in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        states, mask = encoder(**tokens).last_hidden_state, tokens["attention_mask"].clone()
    mask[:, :3] = 0  # [CLS] and the two words.
    places = torch.arange(1, mask.shape[1] + 1)
    weights = {"weightedmean": mask * places, "mean": mask, "mean_sqrt_len_tokens": mask}.get(mode)
    if weights is not None:
        total = weights.sum(1, keepdim=True).float()
        expected = (states * weights[..., None]).sum(1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)
    elif mode == "max":
        expected = states.masked_fill(mask[..., None] == 0, -math.inf).amax(1)
    else:
        expected = states[torch.arange(5), (mask if mode == "cls" else mask * places).argmax(1)]
    head = SentenceHead(mode, include_prompt=False)
    found = encode_texts(encoder, head, tiny_tokenizer, texts, batch_size=2, prompt=prompt)
    assert np.allclose(found, expected.numpy(), atol=1e-5)
    assert head.not_pooled == 0


def test_a_student_pools_the_tokens_of_a_prompt_as_its_teacher_does():
    for pooled in (True, False):
        assert SentenceHead("mean", include_prompt=pooled).for_student(8).include_prompt == pooled


def test_a_prompt_is_pooled_again_after_an_encoding_that_failed(encoder, tiny_tokenizer):
    head = SentenceHead("mean", include_prompt=False)
    encoder.embeddings.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encode_texts(encoder, head, tiny_tokenizer, ["a good film"], prompt="find ")
    assert head.not_pooled == 0


def test_a_prompt_that_the_teacher_has_by_default_is_asked_for(distil, encoder, tiny_tokenizer, tmp_path, caplog):
    head = SentenceHead("mean", prompts={"query": "find "}, default_prompt="query")
    folder = save_sentence_encoder(tmp_path / "prompted", encoder, tiny_tokenizer, head)
    model_module.logger.warning_once.cache_clear()
    with caplog.at_level("WARNING"):
        distil(TWO, student=create_student(folder, "2x12:4h"), teacher=folder, objectives=["embedding"])
    assert "give it as `--teacher_prompt`" in caplog.text


# ---- Evaluation ----


@pytest.fixture
def alike(sentences, tmp_path):
    """A task of pairs, and retrieval in BEIR's layout, whose gold is that of words in common."""
    folder = tmp_path / "alike"
    folder.mkdir()
    pairs = [(a, b, len(set(a.split()) & set(b.split()))) for a, b in itertools.pairwise(sentences[:31])]
    lines = "".join(json.dumps({"one": a, "two": b, "label": float(c)}) + "\n" for a, b, c in pairs)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(lines)
    (folder / "task.yaml").write_text("text_columns: [one, two]\nlabel_names: null\nmetrics: [spearman]\n")
    search = tmp_path / "search"
    (search / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", sentences[:20]), ("queries", [s.split()[0] for s in sentences[:5]])):
        rows = [json.dumps({"_id": f"{name[0]}{i}", "text": text}) for i, text in enumerate(texts)]
        (search / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    judged = [f"q{i}\tc{i}\t1" for i in range(5)]
    (search / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return {"pairs": str(folder), "search": str(search)}


@pytest.mark.parametrize(("kind", "headline"), [("pairs", "cosine_spearman"), ("search", "ndcg@10")])
def test_a_student_is_scored_by_its_vectors_while_it_learns(
    kind, headline, alike, distil, encoder, tiny_tokenizer, sentences, tmp_path
):
    best = {"metric_for_best_model": "headline", "load_best_model_at_end": True}
    saved = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = trained(distil({"text": sentences}, objectives=["embedding"], eval_task=alike[kind], **best, **saved))
    found = trainer.evaluate()
    assert trainer.args.metric_for_best_model == f"vectors/{headline}"
    task = trainer.evaluation.vectors.task
    head = SentenceHead("mean", [Normalize()])
    own = task.scores(vectors(trainer.student.eval(), head, tiny_tokenizer, task.texts).numpy())
    assert found[f"eval_vectors/{headline}"] == pytest.approx(own[headline], abs=1e-5)
    teachers = trainer.evaluation.vectors.score_teacher(trainer.teacher)
    expected = task.scores(vectors(encoder, head, tiny_tokenizer, task.texts).numpy())
    assert teachers == pytest.approx(expected, abs=1e-5)
    trainer.create_model_card()
    assert f"| {headline} |" in (tmp_path / "student" / "README.md").read_text()


@pytest.mark.parametrize(("kind", "metric"), [("pairs", "cosine_spearman"), ("search", "ndcg@10")])
def test_the_verb_scores_a_sentence_encoder(kind, metric, alike, teacher_folder, encoder, tiny_tokenizer, tmp_path):
    facts = evaluate.run(
        TaskArguments(alike[kind]), EvaluationArguments(teacher_folder, output_dir=str(tmp_path / "e"), use_cpu=True)
    )
    task = read_retrieval(alike[kind]) if kind == "search" else pairs_of(load_task(alike[kind]))
    cutting = functools.partial(tiny_tokenizer, truncation=True, max_length=32)
    own = task.scores(vectors(encoder, SentenceHead("mean", [Normalize()]), cutting, task.texts).numpy())
    assert facts["score"] == pytest.approx(own[metric], abs=1e-5)
    assert metric in evaluate.summary(facts)


def test_mteb_scores_the_pairs_of_the_page_as_we_do(teacher_folder, encoder, tiny_tokenizer, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What it says of sentence-transformers.
        pytest.importorskip("mteb", reason="no extra has it")
        page = (Path(__file__).parent.parent / "docs" / "sentence_encoders.md").read_text(encoding="utf-8")
        [block] = re.findall(r"^```python\n(import mteb\n.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
        monkeypatch.chdir(tmp_path)
        shutil.copytree(teacher_folder, "student")
        namespace = {"SentenceTransformer": pytest.importorskip("sentence_transformers").SentenceTransformer}
        exec(compile(block, "sentence_encoders.md", "exec"), namespace)
    pairs, head = namespace["pairs"], SentenceHead("mean", [Normalize()])
    left, right = (vectors(encoder, head, tiny_tokenizer, [row[name] for row in pairs]) for name in SIDES)
    own = cosine_correlations((left * right).sum(-1).numpy(), np.array([row["score"] for row in pairs]))
    found = namespace["found"].task_results[0].scores["test"][0]
    assert {name: found[name] for name in own} == pytest.approx(own, abs=1e-4)


def test_retrieval_is_for_students_that_learn_vectors(alike, distil):
    with pytest.raises(ValueError, match="add `embedding` or `similarity`"):
        distil(TWO, eval_task=alike["search"])


def test_texts_that_are_cut_are_counted(encoder, tiny_tokenizer, caplog):
    texts = ["a good film", "the old cat runs to the river", "a cat"]
    encode_texts(encoder, SentenceHead("mean"), tiny_tokenizer, texts, max_length=5)
    assert "2 of 3 texts have 5 tokens or more; longer ones are cut off" in caplog.text
