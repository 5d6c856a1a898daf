"""Every registered task loads from files in its official columns, becomes tokens, trains, and is scored."""

import gc
import math

import pytest
from task_fixtures import ROWS, write_task
from transformers import BertConfig, set_seed

from hf_distill.settings import FineTuningArguments
from hf_distill.tasks.catalogue.registry import get_task, list_tasks
from hf_distill.tasks.loading import load_task
from hf_distill.trainers.fine_tuning.heads import head_of
from hf_distill.trainers.fine_tuning.task_models import task_config
from hf_distill.trainers.fine_tuning.trainer import finetune

TASKS = [name for name in list_tasks() if not name.startswith("mine/")]


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """Every training ends with a collection of garbage, which would go through all that the suite holds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def tiny_model(tiny_tokenizer):
    """`tiny_model(spec)`: one layer, eight wide, with the head of a task."""

    def make(spec):
        set_seed(0)
        config = BertConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=64,
        )
        return head_of(spec).auto_class.from_config(task_config(config, spec))

    return make


@pytest.mark.parametrize("name", TASKS)
def test_a_task_loads_trains_two_steps_and_is_scored_on_every_split(name, tmp_path, tiny_model, tiny_tokenizer):
    spec = get_task(name)
    task = load_task(name, write_task(spec, tmp_path / "data"))
    joined = len(spec.split_sources.get(spec.train_split, ("one",)))
    assert len(task.train) == ROWS * (1 if spec.merge_duplicates else joined)
    args = FineTuningArguments(
        str(tmp_path / "out"),
        max_steps=2,
        per_device_train_batch_size=2,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )
    result = finetune(tiny_model(spec), task, tiny_tokenizer, args, max_length=32, save=False)
    assert result.steps == 2
    assert set(result.scores) == {*spec.evaluation_splits, *spec.averages}
    for scores in result.scores.values():
        assert set(spec.metrics) <= set(scores)
        assert all(math.isfinite(value) for value in scores.values())
    assert result.score == result.scores[spec.headline_split][spec.headline]
