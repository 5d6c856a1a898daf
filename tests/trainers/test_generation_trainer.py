"""An encoder that learns to write: what is measured, what a resumed training sees, what is saved and written."""

import math

import pytest
import torch
from datasets import Dataset
from trainings import assert_same_weights, logged, trained
from transformers import AutoModelForMaskedLM, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM, set_seed

from hf_distill import EncoderForGeneration, GenerationSettings, GenerationTrainer, GenerationTrainingArguments
from hf_distill.generation.packing import SpecialIds, pack
from hf_distill.generation.trainer import PackingCollator

SETTINGS = GenerationSettings(num_beams=2, max_new_tokens=6, batch_size=4, max_source_length=16)


@pytest.fixture(scope="session")
def rows(tiny_tokenizer, sentences):
    """Tokens of sentences, and of their first words as what is to be written."""
    sources = tiny_tokenizer(sentences[:24], add_special_tokens=False)["input_ids"]
    return Dataset.from_dict({"source": sources, "target": [ids[: 1 + len(ids) % 4] for ids in sources]})


@pytest.fixture
def model(tiny_tokenizer, tiny_bert_config):
    """`model(way)`: a tiny encoder that is to write."""

    def make(way="pseudo", **config):
        set_seed(0)
        masked_lm = BertForMaskedLM(tiny_bert_config(**config))
        ids = SpecialIds.from_tokenizer(tiny_tokenizer)
        return EncoderForGeneration(masked_lm, ids, way=way, settings=SETTINGS, tokenizer=tiny_tokenizer)

    return make


def trainer(model, folder, train=None, evaluation=None, **values):
    given = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    given |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 5, "learning_rate": 1e-3}
    args = GenerationTrainingArguments(str(folder), **(given | values))
    return GenerationTrainer(model, args, train_dataset=train, eval_dataset=evaluation)


# ---- Loss ----


@pytest.mark.parametrize("way", ["pseudo", "shift"])
def test_the_loss_of_an_evaluation_is_the_mean_over_all_tokens_without_smoothing(way, model, rows, tmp_path):
    encoder = model(way)
    run = trainer(encoder, tmp_path, None, rows, label_smoothing_factor=0.3)
    total, count = 0.0, 0
    encoder.eval()
    for row in rows:
        batch = pack(way, [row["source"]], [row["target"]], encoder.ids, max_source_length=16, max_target_length=6)
        with torch.no_grad():
            log_p = encoder(**batch).logits.log_softmax(-1)
        gold = [*row["target"], encoder.ids.separator]
        total -= sum(log_p[place, token].item() for place, token in enumerate(gold))
        count += len(gold)
    found = run.evaluate()
    assert found["eval_tokens"] == count
    assert found["eval_loss"] == pytest.approx(total / count, rel=1e-5)
    assert run.evaluate()["eval_loss"] == found["eval_loss"]


def test_what_was_not_set_is_xsums(model, rows, tmp_path):
    encoder = model()
    args = GenerationTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    run = GenerationTrainer(encoder, args, train_dataset=rows)
    assert (run.args.learning_rate, run.args.num_train_epochs) == (1.5e-4, 50)
    assert encoder.label_smoothing == 0.1


def test_smoothing_changes_what_is_learnt(model, rows, tmp_path):
    first = [
        logged(run)[0]
        for smoothing in (0.0, 0.2)
        if (run := trainer(model(), tmp_path, rows, max_steps=1, label_smoothing_factor=smoothing)).train()
    ]
    assert first[0] != pytest.approx(first[1], rel=1e-3)


@pytest.mark.parametrize("way", ["pseudo", "shift"])
def test_a_few_steps_make_the_loss_smaller(way, model, rows, tmp_path):
    run = trainer(model(way), tmp_path, rows, rows, max_steps=30, learning_rate=1e-2)
    before = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < before - 0.5


def test_batches_in_parts_are_as_batches_at_once(model, rows, tmp_path):
    runs = []
    for size, parts in ((8, 1), (2, 4)):
        values = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "max_steps": 2}
        runs.append(trained(trainer(model("shift"), tmp_path, rows, train_sampling_strategy="sequential", **values)))
    assert logged(runs[0]) == pytest.approx(logged(runs[1]), rel=1e-4)
    assert_same_weights(runs[0].model, runs[1].model, atol=1e-4)


def test_noise_is_for_training_and_depends_on_rows_and_seed_alone(rows, tiny_tokenizer):
    ids = SpecialIds.from_tokenizer(tiny_tokenizer)
    collator = PackingCollator(ids, "pseudo", 16, 6, seed=1)
    batch = rows.select(range(16)).to_list()
    first, again = collator(batch), collator(batch)
    assert torch.equal(first["input_ids"], again["input_ids"])
    other = PackingCollator(ids, "pseudo", 16, 6, seed=2)(batch)
    plain = collator.without_noise()(batch)
    assert not torch.equal(first["input_ids"], other["input_ids"])
    predicted = plain["labels"] != -100
    assert (plain["input_ids"][predicted] == ids.mask).all()
    assert not (first["input_ids"][predicted] == ids.mask).all()
    assert torch.equal(first["labels"], plain["labels"])


# ---- Checkpoints ----


@pytest.mark.parametrize("way", ["pseudo", "shift"])
def test_a_resumed_training_is_the_uninterrupted_one(way, model, rows, tmp_path):
    values = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps", "eval_steps": 2}
    values["save_total_limit"] = 2
    whole = trained(trainer(model(way, hidden_dropout_prob=0.1), tmp_path / "whole", rows, rows, **values))
    resumed = trainer(model(way, hidden_dropout_prob=0.1), tmp_path / "resumed", rows, rows, **values)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert logged(whole)[4:] == logged(resumed)[4:]
    assert_same_weights(whole.model, resumed.model)


def test_the_checkpoint_with_the_least_loss_can_be_kept(model, rows, tmp_path):
    values = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    run = trained(trainer(model(), tmp_path, rows, rows, load_best_model_at_end=True, learning_rate=0.05, **values))
    assert run.evaluate()["eval_loss"] == pytest.approx(min(logged(run, "eval_loss")), rel=1e-5)


def test_what_is_saved_writes_after_two_lines_and_is_a_plain_model(model, rows, sentences, tmp_path):
    run = trained(trainer(model(), tmp_path, rows, max_steps=2))
    run.save_model()
    written = run.predict_texts(rows)
    again = EncoderForGeneration.from_pretrained(tmp_path)
    assert again.generate_texts(sentences[:24]) == written
    assert again.settings == SETTINGS
    assert_same_weights(AutoModelForMaskedLM.from_pretrained(tmp_path), run.model.masked_lm)


# ---- Texts ----


def test_predictions_are_texts(model, rows, tmp_path):
    with pytest.raises(ValueError, match="call `predict_texts"):
        trainer(model(), tmp_path).predict(rows)


def test_texts_come_in_the_order_of_their_rows(model, rows, tmp_path):
    run = trainer(model(), tmp_path)
    whole = run.predict_texts(rows)
    assert len(whole) == len(rows)
    assert [run.predict_texts(rows.select([number]))[0] for number in range(6)] == whole[:6]


def test_batches_have_the_longest_sources_first_and_leave_out_what_is_known(model, rows, tmp_path):
    run = trainer(model(), tmp_path)
    batches = list(run.iter_texts(rows, known={3, 5}))
    numbers = [number for batch in batches for number, _ in batch]
    assert sorted(numbers) == sorted(set(range(24)) - {3, 5})
    lengths = [len(rows[number]["source"]) for number in numbers]
    assert lengths == sorted(lengths, reverse=True)


def test_an_empty_source_is_written_for(model, tmp_path):
    rows = Dataset.from_dict({"source": [[], [5, 6]], "target": [[5], [6]]})
    assert len(trainer(model(), tmp_path).predict_texts(rows)) == 2


# ---- Wrong inputs ----


def test_rows_that_have_no_room_are_refused(model, tmp_path):
    args = GenerationTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match="`--max_source_length` 62 and `--max_target_length` 6 need 68 positions"):
        GenerationTrainer(model(), args, max_source_length=62)


def test_a_model_without_a_tokenizer_asks_for_one(model, tmp_path):
    encoder = model()
    encoder.tokenizer = None
    args = GenerationTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match="give it as `processing_class`"):
        GenerationTrainer(encoder, args)


def test_an_evaluation_without_rows_says_so(model, tmp_path):
    with pytest.raises(ValueError, match="give it as `eval_dataset`"):
        trainer(model(), tmp_path).evaluate()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_smoothing_factor": 1.0}, "`--label_smoothing_factor` is 1.0; it must be at least 0 and below 1"),
        ({"metric_for_best_model": "rougeL"}, "`--metric_for_best_model` is 'rougeL'"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        GenerationTrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **values)


def test_an_encoder_of_another_kind_learns_to_write(rows, tiny_tokenizer, tmp_path):
    set_seed(0)
    config = RobertaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=32, max_position_embeddings=64, type_vocab_size=1, pad_token_id=0,
    )  # fmt: skip
    ids = SpecialIds.from_tokenizer(tiny_tokenizer)
    encoder = EncoderForGeneration(RobertaForMaskedLM(config), ids, settings=SETTINGS, tokenizer=tiny_tokenizer)
    run = trained(trainer(encoder, tmp_path, rows, rows, max_steps=2))
    assert math.isfinite(run.evaluate()["eval_loss"])
    assert len(run.predict_texts(rows.select(range(3)))) == 3


# ---- Settings of `Trainer`


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bf16_full_eval", True),
        ("include_for_metrics", ["loss"]),
        ("batch_eval_metrics", True),
        ("label_names", ["labels"]),
    ],
)
def test_settings_without_a_use_are_refused_by_name(name, value, model, rows, tmp_path):
    with pytest.raises(ValueError, match=f"`--{name}` would have no effect on a training that writes"):
        trainer(model(), tmp_path, rows, **{name: value})


@pytest.mark.parametrize("setting", [{"neftune_noise_alpha": 5.0}, {"activation_checkpointing": True}])
def test_noise_and_activations_are_those_of_the_masked_model(setting, model, rows, tmp_path):
    plain, other = (trainer(model(), tmp_path, rows, max_steps=2, **given) for given in ({}, setting))
    plain.train()
    other.train()
    assert (logged(other) == pytest.approx(logged(plain), abs=1e-4)) is ("activation_checkpointing" in setting)
