"""The wheel, installed away from the repository, makes a small model of one file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture
def installed(tmp_path):
    """A folder with nothing in it but the package, as its wheel brings it."""
    source = tmp_path / "source"
    # The build writes beside its sources.
    shutil.copytree(ROOT / "hf_distill", source / "hf_distill", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "dist"), str(source)]
    subprocess.run([*pip, *built], check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").glob("hf_distill-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    return site


def test_the_path_from_a_csv(installed, tmp_path, tiny_teacher, tiny_tokenizer, sentences):
    teacher = tmp_path / "my-classifier"
    tiny_teacher.save_pretrained(teacher)
    tiny_tokenizer.save_pretrained(teacher)
    names = ("negative", "positive")
    rows = [f"{('bad', 'good')[i % 2]} {text},{names[i % 2]}" for i, text in enumerate(sentences)]
    (tmp_path / "reviews.csv").write_text("\n".join(["review,sentiment", *rows]), encoding="utf-8")
    quick = {"max_steps": 2, "report_to": "none", "disable_tqdm": True}
    words = ["pipeline", "--task", "reviews.csv", "--teacher_model", "my-classifier", "--student_shape", "1x12:2h:20"]
    words += [
        "--output_dir",
        "made",
        "--max_length",
        "32",
        "--use_cpu",
        "--distill",
        json.dumps(quick),
        "--adapt",
        json.dumps(quick),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "hf_distill", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "text in 'review', labels in 'sentiment' (2 classes)" in done.stderr
    assert "majority" in done.stdout
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "made" / "student")
    assert model.config.id2label == {0: "negative", 1: "positive"}
