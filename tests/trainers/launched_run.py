"""A short training for `test_accelerate_configs.py`, started by `accelerate launch` with one of its configurations.

Sharding needs GPUs for accelerate: here the CPU stands in for them, over gloo.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType
from distributed_run import model, rows
from transformers import DefaultDataCollator

from hf_distill import DistillationArguments, DistillationTrainer

SHARDED = any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))
OBJECTIVES = ["relation", "logits", "labels"]


def be_a_gpu() -> None:
    """Let accelerate take the CPU for a GPU of each process."""
    PartialState._prepare_backend = lambda *args: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = lambda state: setattr(state, "device", torch.device("cpu"))
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        # It would be compiled, for processes that share memory.
        importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None
        settle = DeepSpeedPlugin.__post_init__
        # Small weights would stay whole.
        small = {"stage3_param_persistence_threshold": 0}
        DeepSpeedPlugin.__post_init__ = lambda plugin: (
            settle(plugin),
            plugin.deepspeed_config["zero_optimization"].update(small),
        )


def build(output_dir: str) -> DistillationTrainer:
    """A trainer of three steps, whose parts are the same in every process."""
    args = DistillationArguments(
        output_dir,
        objectives=OBJECTIVES,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        max_steps=3,
        save_steps=2,
        logging_steps=1,
        train_sampling_strategy="sequential",
        dataloader_num_workers=0,
        disable_tqdm=True,
        report_to="none",
        use_cpu=not SHARDED,
    )
    teacher, student = model(32, 3, seed=0), model(16, 2, seed=1)
    return DistillationTrainer(student, args, DefaultDataCollator(), rows(), teacher_model=teacher)


def losses(trainer: DistillationTrainer) -> list[dict[str, float]]:
    """What was logged at every step."""
    return [{k: v for k, v in entry.items() if "loss" in k} for entry in trainer.state.log_history if "loss" in entry]


def main(output_dir: str) -> None:
    if SHARDED:
        be_a_gpu()
    trainer = build(output_dir)
    trainer.train()
    metrics = trainer.evaluate(rows(37))
    trainer.save_model(f"{output_dir}/student")
    again = build(output_dir)
    again.train(resume_from_checkpoint=str(Path(output_dir, "checkpoint-2")))
    found = {"sharded": trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled, "history": losses(trainer)}
    found |= {"metrics": {k: v for k, v in metrics.items() if "loss" in k}, "resumed": losses(again)}
    # Of weights that are shared out by an engine a process has none while it does not run.
    teacher = sum(weight.numel() for weight in trainer.teacher.model.parameters())
    found |= {"teacher": trainer.teacher.describe(), "teacher_here": teacher}
    found["processes"] = trainer.args.world_size
    if trainer.is_world_process_zero():
        Path(output_dir, "result.json").write_text(json.dumps(found))
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    # As in `distributed_run.py`.
    os._exit(0)
