"""The snippets of the page about the Hub run, one after the other, against the stand-in."""

import re
import shutil
from pathlib import Path

import datasets

import hf_distill

PAGE = Path(hf_distill.__file__).parents[1] / "docs" / "hub.md"


def test_the_snippets_run(
    hub, monkeypatch, tmp_path, student_folder, tiny_teacher, tiny_student, tiny_tokenizer, sentences
):
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    shutil.copytree(student_folder, tmp_path / "outputs" / "student")
    names = {
        "DistillationTrainer": hf_distill.DistillationTrainer,
        "DistillationArguments": lambda *a, **k: hf_distill.DistillationArguments(
            *a, **k, use_cpu=True, report_to="none", disable_tqdm=True
        ),
        "student": tiny_student,
        "teacher": tiny_teacher,
        "tokenizer": tiny_tokenizer,
        "textbook": datasets.Dataset.from_dict({"text": sentences[:8]}),
    }
    for block in blocks[:2]:
        exec(compile(block, PAGE.name, "exec"), names)
    assert hub.repo("anna/my-student").private
    card = hub.repo("anna/my-trained").files()["README.md"].content.decode()
    assert "license: apache-2.0" in card
    # What the last block reads is read in a process of its own, in the end-to-end test.
    assert {"from_pretrained", "pipeline(", "load_dataset("} <= set(re.findall(r"from_pretrained|\w+\(", blocks[2]))
