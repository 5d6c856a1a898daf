"""The configurations of accelerate in `examples/configs/accelerate` train a student as one process would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from torch.testing import assert_close

SCRIPT = Path(__file__).with_name("launched_run.py")
ROOT = SCRIPT.parents[2]
CONFIGS = ROOT / "examples" / "configs" / "accelerate"


def start(name, folder, *options):
    """Start `accelerate launch` with a configuration."""
    places = [ROOT, SCRIPT.parent, SCRIPT.parents[1]]
    environment = {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, places)),
    }
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{name}.yaml")]
    command = [*launch, "--num_processes", "2", *options, str(SCRIPT), str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def result(folder, *started):
    for one in started:
        output, _ = one.communicate(timeout=540)
        assert one.returncode == 0, output[-3000:]
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two machines of one process each, which share a folder."""
    folder = tmp_path_factory.mktemp("nodes")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    place = ["--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
    started = [start("several_nodes", folder, *place, "--machine_rank", str(rank)) for rank in range(2)]
    return folder, result(folder, *started)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_a_sharded_student_learns_as_whole_ones_on_two_machines_do(name, nodes, tmp_path):
    if name == "zero3":
        pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    one, other = nodes[1], result(tmp_path, start(name, tmp_path))
    assert (one["processes"], one["sharded"], other["processes"], other["sharded"]) == (2, False, 2, True)
    for first, second in zip(one["history"], other["history"], strict=True):
        assert second == pytest.approx(first, rel=1e-4)
    assert other["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
    weights = [load_file(folder / "student" / "model.safetensors") for folder in (nodes[0], tmp_path)]
    assert weights[0].keys() == weights[1].keys()
    for key, weight in weights[0].items():
        assert_close(weights[1][key], weight, rtol=1e-4, atol=1e-6)
    assert other["resumed"] == other["history"]
    assert other["teacher"] == one["teacher"]
    assert (other["teacher_here"] < one["teacher_here"]) == (name == "zero3")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_two_machines_goes_on_from_a_checkpoint(nodes):
    assert nodes[1]["resumed"] == nodes[1]["history"]


def test_ddp_is_the_configuration_of_several_machines_on_one():
    ddp, nodes = (yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in ("ddp", "several_nodes"))
    own = {"num_machines", "num_processes", "machine_rank", "main_process_ip", "main_process_port", "rdzv_backend"}
    assert {k: v for k, v in ddp.items() if k not in own} == {k: v for k, v in nodes.items() if k not in own}
