"""Fine-tuning on a task: one update for one batch however it is split, labels by name, resumable, plain folders."""

import json

import pytest
import torch
from datasets import DatasetDict
from tiny_data import labelled_rows
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_distill.settings import FineTuningArguments, TeacherArguments
from hf_distill.tasks.catalogue.registry import get_task
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.spec import FineTuningDefaults, TaskSpec
from hf_distill.teachers.base import LiveTeacher
from hf_distill.trainers import checkpoints
from hf_distill.trainers.fine_tuning import task_models, trainer as finetuning
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.task_models import (
    add_lora,
    check_positions,
    label_order,
    load_task_model,
    merge_lora,
    random_task_model,
)
from hf_distill.trainers.fine_tuning.trainer import FineTuningTrainer, TaskLoss, evaluate_model, finetune

SPEC = TaskSpec(
    "test/sentiment",
    ("sentence",),
    ("negative", "positive"),
    metrics=("accuracy", "f1"),
    evaluation_splits=("validation", "other"),
    fine_tuning=FineTuningDefaults(epochs=2, learning_rate=1e-3, batch_size=8, max_length=16),
)


@pytest.fixture(scope="session")
def sentiment(sentences):
    """A task that a tiny model can learn: does the sentence begin with "good"?"""
    texts = [f"{'good' if index % 2 else 'bad'} {text}" for index, text in enumerate(sentences)]
    labels = [index % 2 for index in range(len(texts))]
    rows = labelled_rows(texts, labels, SPEC.label_names, "sentence")
    parts = {"train": range(40), "validation": range(40, 52), "other": range(52, len(texts))}
    return LoadedTask(SPEC, DatasetDict({name: rows.select(part) for name, part in parts.items()}), "made here")


@pytest.fixture
def model(tiny_bert_config):
    set_seed(0)
    return BertForSequenceClassification(tiny_bert_config())


def arguments(folder, **fields):
    given = {"report_to": "none", "use_cpu": True, "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    return FineTuningArguments(str(folder), **{**given, **fields})


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def largest_difference(left, right):
    return max((left[name] - right[name]).abs().max().item() for name in left)


class GradNorms(TrainerCallback):
    def __init__(self):
        self.losses, self.norms = [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "grad_norm" in logs:
            self.losses.append(float(logs["loss"]))
            self.norms.append(float(logs["grad_norm"]))


def architectures(vocab_size):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    common = {"vocab_size": vocab_size, "pad_token_id": 0, "max_position_embeddings": 64}
    return {
        "bert": None,
        "roberta": RobertaConfig(**sizes, **common, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
        "distilbert": DistilBertConfig(
            vocab_size=vocab_size, dim=16, n_layers=2, n_heads=2, hidden_dim=16, dropout=0.0, attention_dropout=0.0,
            seq_classif_dropout=0.0, max_position_embeddings=64,
        ),
        "modernbert": ModernBertConfig(
            **sizes, **common, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3
        ),
        "deberta-v2": DebertaV2Config(**sizes, **common, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert", "deberta-v2"])
def test_accumulated_small_batches_give_the_update_of_one_large_batch(
    name, sentiment, tiny_tokenizer, tiny_bert_config, tmp_path
):
    config = architectures(len(tiny_tokenizer))[name] or tiny_bert_config()
    set_seed(0)
    start = AutoModelForSequenceClassification.from_config(config)
    found = {}
    # 40 rows in updates of 12: the last update is one short micro-batch more than the first ones.
    for size, accumulation in ((12, 1), (4, 3), (6, 2)):
        copy = AutoModelForSequenceClassification.from_config(config)
        copy.load_state_dict(start.state_dict())
        norms = GradNorms()
        args = arguments(
            tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, num_train_epochs=1,
            train_sampling_strategy="sequential", optim="sgd", learning_rate=0.1,
        )  # fmt: skip
        result = finetune(copy, sentiment, tiny_tokenizer, args, callbacks=[norms], save=False)
        found[accumulation] = (norms, weights(result.model))
    whole_norms, whole = found[1]
    assert len(whole_norms.losses) == 4
    for accumulation in (2, 3):
        norms, split = found[accumulation]
        assert norms.losses == pytest.approx(whole_norms.losses, rel=1e-3)
        assert norms.norms == pytest.approx(whole_norms.norms, rel=1e-3)
        assert largest_difference(whole, split) < 2e-5


def test_regression_accumulates_exactly_too(tiny_tokenizer, tiny_bert_config, sentences, tmp_path):
    spec = TaskSpec("t", ("sentence",), None, metrics=("pearson", "spearman"), fine_tuning=SPEC.fine_tuning)
    labels = [len(text) / 10 for text in sentences]
    rows = labelled_rows(sentences, labels, None, "sentence")
    task = LoadedTask(spec, DatasetDict(train=rows, validation=rows), "made here")
    results = []
    for size, accumulation in ((10, 1), (5, 2)):
        set_seed(0)
        model = BertForSequenceClassification(tiny_bert_config(num_labels=1))
        args = arguments(
            tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
            train_sampling_strategy="sequential", optim="sgd", learning_rate=0.01,
        )  # fmt: skip
        results.append(finetune(model, task, tiny_tokenizer, args, save=False))
    assert largest_difference(weights(results[0].model), weights(results[1].model)) < 1e-5
    assert results[0].metric == "pearson"
    assert set(results[0].scores["validation"]) == {"loss", "pearson", "spearman"}
    assert results[0].model.config.problem_type == "regression"


def test_it_learns_evaluates_every_split_and_writes_a_plain_folder(model, sentiment, tiny_tokenizer, tmp_path):
    result = finetune(model, sentiment, tiny_tokenizer, arguments(tmp_path, num_train_epochs=12, learning_rate=5e-3))
    assert list(result.scores) == ["validation", "other"]
    assert set(result.scores["other"]) == {"loss", "accuracy", "f1"}
    assert result.score == result.scores["validation"]["accuracy"] > 0.8
    assert (result.metric, result.train_rows, result.steps) == ("accuracy", 40, 12 * 5)
    json.dumps(result.to_dict())
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.id2label == {0: "negative", 1: "positive"}
    assert largest_difference(weights(result.model), weights(loaded)) == 0
    assert (tmp_path / "tokenizer.json").is_file()
    assert evaluate_model(loaded, sentiment, tiny_tokenizer) == {
        split: {key: pytest.approx(value, rel=1e-5) for key, value in scores.items()}
        for split, scores in result.scores.items()
    }


def test_unset_arguments_are_the_tasks_and_set_ones_stay(tmp_path):
    spec = get_task("glue/sst2")
    filled = arguments(tmp_path).with_task_defaults(spec)
    assert (filled.learning_rate, filled.num_train_epochs, filled.per_device_train_batch_size) == (1e-5, 10, 32)
    assert (filled.warmup_steps, filled.weight_decay) == (0.06, 0.01)
    own = arguments(tmp_path, learning_rate=3e-5, warmup_steps=0, gradient_accumulation_steps=4)
    kept = own.with_task_defaults(spec)
    assert (kept.learning_rate, kept.warmup_steps, kept.per_device_train_batch_size) == (3e-5, 0, 8)
    assert own.num_train_epochs is None, "the arguments given are not changed"
    best = arguments(tmp_path, load_best_model_at_end=True, eval_strategy="epoch", save_strategy="epoch")
    assert best.with_task_defaults(get_task("cola")).metric_for_best_model == "matthews_correlation"
    best.metric_for_best_model = "eval_f2"
    with pytest.raises(
        ValueError, match=r"`--metric_for_best_model f2` is not measured on .*cola'; measured are loss, matt"
    ):
        best.with_task_defaults(get_task("cola"))
    assert best.greater_is_better is True


def test_rows_of_like_length_share_a_batch(model, sentiment, tiny_tokenizer, tmp_path):
    widths = []

    class Widths(TrainerCallback):
        def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
            widths.extend(
                (batch["attention_mask"].numel(), int(batch["attention_mask"].sum())) for batch in train_dataloader
            )

    totals = {}
    for strategy in ("group_by_length", "random"):
        widths.clear()
        args = arguments(tmp_path, max_steps=1, train_sampling_strategy=strategy, per_device_train_batch_size=4)
        finetune(model, sentiment, tiny_tokenizer, args, callbacks=[Widths()], save=False)
        totals[strategy] = sum(width for width, _ in widths)
        assert sum(tokens for _, tokens in widths) < totals[strategy] <= 40 * 16
    assert totals["group_by_length"] < totals["random"]


@pytest.mark.parametrize("stop", [3, 7])
def test_a_resumed_run_continues_bit_for_bit(stop, sentiment, tiny_tokenizer, tiny_bert_config, tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == stop

    def run(folder, callbacks=None, **fields):
        set_seed(0)
        model = BertForSequenceClassification(tiny_bert_config(hidden_dropout_prob=0.1))
        args = arguments(tmp_path / folder, save_strategy="steps", save_steps=stop, save_total_limit=None, **fields)
        return finetune(model, sentiment, tiny_tokenizer, args, callbacks=callbacks)

    whole = run("whole")
    run("broken", [Stop()])
    resumed = run("broken", resume_from_checkpoint="last")
    assert resumed.steps == whole.steps == 10
    assert largest_difference(weights(whole.model), weights(resumed.model)) == 0
    losses = [[log["loss"] for log in result.history if "loss" in log] for result in (whole, resumed)]
    assert losses[0] == losses[1]


def test_resuming_without_a_checkpoint_starts_and_says_so(model, sentiment, tiny_tokenizer, tmp_path, warnings_of):
    said = warnings_of(checkpoints)
    args = arguments(tmp_path, max_steps=1, resume_from_checkpoint="last")
    assert finetune(model, sentiment, tiny_tokenizer, args).steps == 1
    assert "no checkpoint" in said[0]


def test_the_best_checkpoint_by_the_headline_metric_is_kept(model, sentiment, tiny_tokenizer, tmp_path):
    args = arguments(
        tmp_path, load_best_model_at_end=True, eval_strategy="epoch", save_strategy="epoch", num_train_epochs=4,
        learning_rate=5e-3,
    )  # fmt: skip
    result = finetune(model, sentiment, tiny_tokenizer, args)
    during = [log["eval_accuracy"] for log in result.history if "eval_accuracy" in log]
    assert len(during) == 4
    assert result.score == pytest.approx(max(during))


def test_rows_with_a_hidden_label_are_left_out_of_training_and_of_scores(
    model, sentiment, tiny_tokenizer, tmp_path, warnings_of
):
    said = warnings_of(finetuning)
    texts = sentiment.train["sentence"][:10]
    hidden = labelled_rows(texts, [-1, -1, *sentiment.train["label"][2:10]], SPEC.label_names, "sentence")
    task = LoadedTask(SPEC, DatasetDict({"train": hidden, "validation": hidden}), "made here")
    result = finetune(model, task, tiny_tokenizer, arguments(tmp_path, max_steps=1), save=False)
    assert result.train_rows == 8
    assert "2 training rows with a hidden label" in said[0]
    shown = LoadedTask(SPEC, DatasetDict({"validation": hidden.select(range(2, 10))}), "made here")
    expected = evaluate_model(result.model, shown, tiny_tokenizer)["validation"]
    assert result.scores["validation"]["accuracy"] == expected["accuracy"]


def test_plain_training_arguments_work_as_they_are(model, sentiment, tiny_tokenizer, tmp_path):
    args = TrainingArguments(
        str(tmp_path), max_steps=2, report_to="none", use_cpu=True, save_strategy="no", dataloader_pin_memory=False
    )
    result = finetune(model, sentiment, tiny_tokenizer, args, save=False)
    assert result.settings["learning_rate"] == 5e-5
    assert result.steps == 2


def test_a_head_of_another_size_or_too_few_positions_is_an_error(
    sentiment, tiny_tokenizer, tiny_bert_config, tmp_path
):
    three = BertForSequenceClassification(tiny_bert_config(num_labels=3))
    with pytest.raises(ValueError, match="head of 2 outputs, the model has 3"):
        finetune(three, sentiment, tiny_tokenizer, arguments(tmp_path))
    short = BertForSequenceClassification(tiny_bert_config(max_position_embeddings=8))
    with pytest.raises(ValueError, match="`--max_length` is 16, but the model has 8 positions"):
        finetune(short, sentiment, tiny_tokenizer, arguments(tmp_path))
    with pytest.raises(ValueError, match="has 62 positions"):
        check_positions(RobertaConfig(max_position_embeddings=64, pad_token_id=1), 63)


def test_a_model_with_another_label_order_scores_the_same(tiny_teacher, sentiment, tiny_tokenizer):
    expected = evaluate_model(tiny_teacher, sentiment, tiny_tokenizer)
    with torch.no_grad():
        for parameter in tiny_teacher.classifier.parameters():
            parameter.copy_(parameter.flip(0))
    tiny_teacher.config.id2label = {0: "Positive", 1: "Negative"}
    tiny_teacher.config.label2id = {"Positive": 0, "Negative": 1}
    assert label_order(tiny_teacher.config, SPEC, where="it") == [1, 0]
    permuted = evaluate_model(tiny_teacher, sentiment, tiny_tokenizer)
    assert permuted == {split: pytest.approx(scores) for split, scores in expected.items()}


def test_a_model_with_other_labels_is_refused_and_one_without_names_is_questioned(
    tiny_bert_config, sentiment, tiny_tokenizer, warnings_of
):
    said = warnings_of(task_models)
    other = tiny_bert_config(id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1})
    with pytest.raises(ValueError, match=r"`--teacher_model` has the labels \['cat', 'dog'\]"):
        label_order(other, SPEC, where="`--teacher_model`")
    assert label_order(tiny_bert_config(), SPEC, where="it") == [0, 1]
    assert "have no names to compare (['LABEL_0', 'LABEL_1'] against" in said[0]
    with pytest.raises(ValueError, match="needs one"):
        label_order(tiny_bert_config(), get_task("stsb"), where="it")
    assert label_order(tiny_bert_config(num_labels=1), get_task("stsb"), where="it") == [0]


def test_a_classifier_is_made_of_an_encoder_without_head(tiny_bert_config, tmp_path):
    BertModel(tiny_bert_config(), add_pooling_layer=False).half().save_pretrained(tmp_path)
    model = load_task_model(str(tmp_path), get_task("mnli"), flag="--teacher_model")
    assert model.config.num_labels == 3
    assert model.config.label2id == {"entailment": 0, "neutral": 1, "contradiction": 2}
    assert model.dtype == torch.float32, "training in half precision is asked for, not inherited"
    with pytest.raises(OSError, match="`--teacher_model`: cannot load 'no/model'"):
        load_task_model("no/model", get_task("mnli"), flag="--teacher_model")


def test_a_head_for_another_task_is_replaced_and_that_is_said(tiny_teacher, tmp_path, warnings_of):
    said = warnings_of(task_models)
    tiny_teacher.save_pretrained(tmp_path)
    assert load_task_model(str(tmp_path), get_task("mnli"), flag="--m").classifier.out_features == 3
    same = load_task_model(str(tmp_path), SPEC, flag="--m")
    assert largest_difference(weights(tiny_teacher), weights(same)) == 0
    assert not said
    other = load_task_model(str(tmp_path), TaskSpec("t", ("sentence",), ("cat", "dog")), flag="--m")
    assert "has the labels ['negative', 'positive'], the task 't' has ['cat', 'dog']" in said[0]
    assert not torch.equal(other.classifier.weight, tiny_teacher.classifier.weight)
    assert torch.equal(other.bert.pooler.dense.weight, tiny_teacher.bert.pooler.dense.weight)
    words = TaskSpec("w", ("tokens",), ("negative", "positive"), metrics=("accuracy",), kind="token_classification")
    load_task_model(str(tmp_path), words, flag="--m")
    assert "(BertForSequenceClassification) does not fit 'w'" in said[1]


def test_a_constant_predictor_is_called_one(tiny_teacher, sentiment, tiny_tokenizer, warnings_of):
    said = warnings_of(finetuning)
    with torch.no_grad():
        tiny_teacher.classifier.bias.copy_(torch.tensor([-1e4, 1e4]))
    evaluate_model(tiny_teacher, sentiment, tiny_tokenizer)
    assert len(said) == 2
    assert "split 'validation': the model predicts only 'positive', whatever the text says" in said[0]


def test_random_weights_have_the_same_shape_and_follow_the_seed(tiny_teacher, tmp_path):
    tiny_teacher.save_pretrained(tmp_path)
    made = []
    for seed in (1, 1, 2):
        set_seed(seed)
        made.append(weights(random_task_model(str(tmp_path), SPEC, flag="--student_model")))
    assert {name: tensor.shape for name, tensor in made[0].items()} == {
        name: tensor.shape for name, tensor in tiny_teacher.state_dict().items()
    }
    assert largest_difference(made[0], made[1]) == 0
    assert largest_difference(made[0], made[2]) > 0
    assert largest_difference(made[0], weights(tiny_teacher)) > 0


def test_lora_trains_little_and_is_saved_as_a_plain_model(model, sentiment, tiny_tokenizer, tmp_path):
    before = weights(model)
    lora = TeacherArguments(lora_r=2, lora_target_modules=["query", "value"])
    wrapped = add_lora(model, lora, SPEC)
    trainable = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
    assert trainable < 0.2 * model.num_parameters()
    args = arguments(tmp_path, num_train_epochs=4, learning_rate=1e-2)
    result = finetune(wrapped, sentiment, tiny_tokenizer, args)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    after = weights(loaded)
    assert set(after) == set(before)
    changed = {name for name in before if (before[name] - after[name]).abs().max() > 0}
    assert changed
    assert all("query.weight" in n or "value.weight" in n or "classifier" in n for n in changed)
    again = evaluate_model(loaded, sentiment, tiny_tokenizer)
    assert again["validation"]["loss"] == pytest.approx(result.scores["validation"]["loss"], rel=1e-5)


def test_without_a_rank_there_is_no_lora(model):
    assert add_lora(model, TeacherArguments(), SPEC) is merge_lora(model) is model
    with pytest.raises(ValueError, match="need `--lora_r`"):
        TeacherArguments(lora_alpha=4)
    with pytest.raises(ValueError, match="`--lora_r` is 0"):
        TeacherArguments(lora_r=0)


def test_lora_names_the_way_out_where_layers_do_not_exist(model):
    with pytest.raises(ValueError, match="--lora_target_modules"):
        add_lora(model, TeacherArguments(lora_r=2, lora_target_modules=["no_such_layer"]), SPEC)


def test_the_loss_of_a_task_against_a_plain_sum():
    logits = torch.tensor([[1.0, -1.0], [0.5, 2.0], [0.0, 3.0]])
    labels = torch.tensor([0, 1, -1])
    plain = sum(-torch.log_softmax(logits[row], -1)[labels[row]] for row in (0, 1))
    loss = TaskLoss(head_of(SPEC))
    assert loss({"logits": logits}, labels).item() == pytest.approx(plain.item() / 2)
    assert loss({"logits": logits}, labels, torch.tensor(8)).item() == pytest.approx(plain.item() / 8)
    flipped = TaskLoss(head_of(SPEC, [1, 0]))({"logits": logits.flip(-1)}, labels)
    assert flipped.item() == pytest.approx(plain.item() / 2)
    values, targets = torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([0.0, 4.0, float("nan")])
    assert TaskLoss(head_of(get_task("stsb")))({"logits": values}, targets).item() == pytest.approx((1 + 4) / 2)
    assert TaskLoss(head_of(SPEC))({"logits": logits[:1]}, torch.tensor([-1])).item() == 0.0


def test_the_trainer_is_a_trainer_but_for_its_loss(model):
    from transformers import Trainer

    assert issubclass(FineTuningTrainer, Trainer)
    own = [name for name in vars(FineTuningTrainer) if not name.startswith("__")]
    assert own == ["input_folders", "compute_loss", "evaluation_loop"]


def test_a_model_that_was_a_teacher_must_be_freed_first(model, sentiment, tiny_tokenizer, tmp_path):
    LiveTeacher(model)
    with pytest.raises(ValueError, match=r"All parameters of the BertForSequenceClassification are frozen"):
        finetune(model, sentiment, tiny_tokenizer, arguments(tmp_path, max_steps=1))
    assert finetune(model.requires_grad_(True), sentiment, tiny_tokenizer, arguments(tmp_path, max_steps=1)).steps == 1
