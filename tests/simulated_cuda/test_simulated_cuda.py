"""No training mixes devices or waits for the device in a step: every objective, trainer and kind of teacher.

The device is simulated (`device.py`): whole trainings run on it, and what a GPU would refuse or wait for is seen.
"""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import report
import torch

from hf_distill.objectives import list_objectives

PAGE = Path(__file__).parents[2].joinpath("docs", "gpu.md").read_text(encoding="utf-8")
# What cannot be computed without a wait, and what is not done yet: waits and blocking copies of one step.
ALLOWED = {
    "bert_emd": (1, 0),  # The CPU finds the cheapest transport.
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    torch.version.cuda is not None, reason="this build of torch has real CUDA in the simulated one's place"
)
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler")
def test_no_training_mixes_devices_or_waits():
    found = report.measured()
    problems = []
    for name, costs in found.items():
        if "error" in costs or costs["mixes"]:
            problems.append((name, costs.get("error") or costs["mixes"]))
        elif "waits" in costs:
            waits, blocking, *_ = report.costs(costs)
            most = ALLOWED.get(name, (0, 0))
            if waits > most[0] or blocking > most[1]:
                problems.append((name, costs["waits"], costs["copies"]))
            cells = rf"\| (\d+ → )?{waits:,.0f} \| (\d+ → )?{blocking:,.0f} \|"
            if not re.search(rf"^\| {re.escape(name)} {cells}", PAGE, re.MULTILINE):
                problems.append((name, "is otherwise in docs/gpu.md: python tests/simulated_cuda/report.py"))
    assert not problems, "\n".join(map(str, problems))


def test_every_objective_has_a_training():
    """By name in the source: importing it would make this process believe in a GPU."""
    source = Path(report.__file__).with_name("runs.py").read_text()
    assert [name for name in list_objectives() if f'"{name}"' not in source] == []
    assert importlib.util.find_spec("device") is not None
