"""Fine-tuning by two processes (gloo) is fine-tuning by one with batches twice as large."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import save_model, write_rows
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, set_seed

from hf_distill.cli import main

ROOT = Path(__file__).parents[2]


def words(folder, batch_size, flags):
    return [*flags, "--output_dir", str(folder), "--per_device_train_batch_size", batch_size]


def two_processes(folder, batch_size, flags):
    """The verb under torchrun."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "hf_distill",
    ]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    command = [*launcher, "teach", *words(folder, batch_size, flags)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path, sentences, tiny_bert_config, tiny_tokenizer):
    set_seed(0)
    save_model(tmp_path / "encoder", BertForSequenceClassification(tiny_bert_config()), tiny_tokenizer)
    for stem in ("train", "validation"):
        write_rows(tmp_path / f"{stem}.jsonl", [{"sentence": t, "label": i % 2} for i, t in enumerate(sentences)])
    flags = [
        "--task", "sst2", "--data_dir", str(tmp_path), "--teacher_model", str(tmp_path / "encoder"),
        "--max_length", "16", "--max_steps", "6", "--optim", "sgd", "--learning_rate", "0.1",
        "--train_sampling_strategy", "sequential", "--logging_steps", "1", "--save_strategy", "no",
        "--use_cpu", "--disable_tqdm", "true",
    ]  # fmt: skip
    assert main(["teach", *words(tmp_path / "one", "8", flags)]) == 0
    alone = json.loads((tmp_path / "one" / "results.json").read_text())
    together = two_processes(tmp_path / "two", "4", flags)
    assert together["settings"]["world_size"] == 2
    losses = [[log["loss"] for log in result["history"] if "loss" in log] for result in (alone, together)]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert together["score"] == pytest.approx(alone["score"])
    left, right = (AutoModelForSequenceClassification.from_pretrained(tmp_path / name) for name in ("one", "two"))
    for name, tensor in left.state_dict().items():
        assert (tensor - right.state_dict()[name]).abs().max() < 1e-5, name
