"""What trainings cost on the simulated device, as a table: `python tests/simulated_cuda/report.py [before.json]`.

It prints the rows of the table in docs/gpu.md. Numbers of an earlier commit, which `--json` wrote there, stand before
an arrow where they differ.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEAD = (
    "| training | waits | blocking copies | queued copies | kernels | bytes of the losses |",
    "|---|---:|---:|---:|---:|---:|",
)


def measured(names: Sequence[str] = ()) -> dict[str, Any]:
    """Run the trainings of `runs.py`, or those that are named, in a process of their own.

    Returns:
        Name -> what it costs, or `error`.

    Raises:
        RuntimeError: If the process fails.
    """
    places = [HERE, HERE.parent, HERE.parent.parent]
    paths = [*map(str, places), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(HERE / "runs.py"), *names]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(found.stderr[-2000:])
    return json.loads(found.stdout.splitlines()[-1])


def costs(found: dict[str, Any]) -> list[float]:
    """Waits, blocking and queued copies, kernels, and bytes of the losses of one step."""
    blocking = sum(count for place, count in found["copies"].items() if place.startswith("blocking"))
    queued = sum(found["copies"].values()) - blocking
    return [sum(found["waits"].values()), blocking, queued, found["launches"], sum(found["loss_bytes"].values())]


def table(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """The rows of the table."""
    lines = list(HEAD)
    for name, found in now.items():
        if "waits" not in found:
            continue
        pairs = zip(
            costs(found), costs(before[name]) if "waits" in before.get(name, {}) else costs(found), strict=True
        )
        cells = [f"{old:,.0f} → {new:,.0f}" if old != new else f"{new:,.0f}" for new, old in pairs]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps(measured()) + "\n")
    else:
        earlier = json.loads(Path(sys.argv[1]).read_text()) if sys.argv[1:] else {}
        sys.stdout.write("\n".join(table(measured(), earlier)) + "\n")
