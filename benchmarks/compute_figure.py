"""Draw the scores of students against their training time, from the committed results.

    python benchmarks/compute_figure.py --output docs/figures/quality_against_compute.svg

Left: accuracy on SST-2 during four trainings of `time_to_quality.py`, including the making of first weights. Right:
the students of `sentence_students.py` on STS-B; every point is a separate training whose learning rate ends at 0, and
the time for storing the teacher's vectors is included.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
TEACHERS = {"SST-2": 0.884, "STS-B": 0.8811}
# Name of a training in the legend, by first weights, objectives and learning rate.
TRAININGS = {
    ("svd_embeddings", "logits", 6e-4): ("compressed embeddings, logits", "C1", "-"),
    ("teacher", "logits", 1e-4): ("cut out of the teacher, logits", "C0", "-"),
    ("teacher", "logits", 3e-4): ("the same, rate 3e-4", "C0", "--"),
    ("teacher", "relation logits", 1e-4): ("the same, relation too, constant rate", "C0", ":"),
}
STUDENTS = {
    ("6x384", "born"): ("6x384, cut out of the teacher", "C0", "o"),
    ("4x312", "born"): ("4x312, cut out of the teacher", "C2", "s"),
    ("6x384", "theirs"): ("6x384, the same, EmbedDistillLoss", "C1", "o"),
    ("4x312", "theirs"): ("4x312, the same, EmbedDistillLoss", "C3", "s"),
}


def lines_of(name: str) -> Iterator[dict[str, Any]]:
    """The lines of a file of results."""
    for line in (RESULTS / name).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def draw_classifiers(axes: Any) -> None:
    """Accuracy along every training."""
    found = {
        (result["init"], " ".join(result["objectives"]), result["learning_rate"]): result
        for result in lines_of("time_to_quality.jsonl")
    }
    for key, (label, color, style) in TRAININGS.items():
        result = found[key]
        minutes = [(result["start_seconds"] + seconds) / 60 for _, seconds, _ in result["curve"]]
        scores = [100 * score for _, _, score in result["curve"]]
        axes.plot(minutes, scores, color=color, linestyle=style, linewidth=1.3, label=label)


def draw_encoders(axes: Any) -> None:
    """The rank correlation of every sentence encoder."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for result in lines_of("sentence_students.jsonl"):
        score = result["scores"].get("glue/stsb", {}).get("cosine_spearman")
        if score is not None and result.get("seconds"):
            kind = "theirs" if result["variant"] == "theirs" else "born"
            found.setdefault((result["shape"], kind), []).append((result["seconds"] / 60, 100 * score))
    for key, (label, color, marker) in STUDENTS.items():
        axes.plot(*zip(*sorted(found[key]), strict=True), color=color, marker=marker, linewidth=1.0, label=label)
    axes.set_xscale("log")
    axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.minorticks_off()


def main() -> None:
    """Draw both panels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="docs/figures/quality_against_compute.svg")
    output = parser.parse_args().output
    with matplotlib.rc_context({"svg.hashsalt": "hf_distill", "svg.fonttype": "none", "font.size": 9}):
        picture = Figure(figsize=(9.6, 3.8), layout="constrained")
        for axes, task, what, draw in zip(
            picture.subplots(1, 2),
            TEACHERS,
            ("accuracy on SST-2", "Spearman on STS-B"),
            (draw_classifiers, draw_encoders),
            strict=True,
        ):
            draw(axes)
            axes.axhline(100 * TEACHERS[task], color="0.35", linestyle=":", linewidth=1.2, label="the teacher")
            axes.set_xlabel("minutes of one core")
            axes.set_title(f"{what}, in percent", fontsize=9, loc="left")
            axes.grid(visible=True, alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=7, loc="lower right")
        picture.savefig(output, metadata={"Date": None})


if __name__ == "__main__":
    main()
