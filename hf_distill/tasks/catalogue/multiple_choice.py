"""Tasks that choose one of several endings, as data; a `task.yaml` with these fields does the same for other data."""

from __future__ import annotations

from hf_distill.tasks.spec import TaskSpec
from hf_distill.tasks.spec_values import FineTuningDefaults

SWAG = TaskSpec(
    name="swag",
    text_columns=("sent1", "sent2"),
    choice_columns=("ending0", "ending1", "ending2", "ending3"),
    label_names=("0", "1", "2", "3"),
    kind="multiple_choice",
    hub_path="allenai/swag",
    hub_config="regular",
    folder_names=("SWAG",),
    column_aliases={"sent1": ("context",)},
    fine_tuning=FineTuningDefaults(
        epochs=3.0,
        learning_rate=2e-5,
        batch_size=16,
        warmup=0.1,
        source="BERT, section 4.4 (3 epochs, 2e-5, batch 16)",
    ),
    licence="MIT (SWAG)",
)

MULTIPLE_CHOICE_TASKS = (SWAG,)
