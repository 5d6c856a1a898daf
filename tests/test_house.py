"""How many files of the package take part in a job: few enough to read. The bounds may fall and never rise."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from datasets import Dataset

import hf_distill
from hf_distill import DistillationArguments, DistillationTrainer, build_contextualized_corpus

PACKAGE = Path(hf_distill.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
# Upper bounds: a change that needs fewer files lowers its bound here.
FILES_OF = {"constructing a trainer": 14, "a step": 8, "a corpus build": 14}


class Trace:
    """The files of the package, in the order in which a function of each is called first; importing counts not."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._seen: set[str] = set()

    def __enter__(self) -> Trace:
        self._before = sys.getprofile()
        sys.setprofile(self._see)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(self._before)

    def _see(self, frame, event, argument) -> None:
        code = frame.f_code
        if event != "call" or code.co_filename in self._seen or not code.co_filename.startswith(str(PACKAGE)):
            return
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(str(PACKAGE)):
                return
            frame = frame.f_back
        self._seen.add(code.co_filename)
        self.files.append(Path(code.co_filename).relative_to(PACKAGE).as_posix())


@pytest.fixture
def make_trainer(tiny_teacher, tiny_student, tiny_tokenizer, sentences, tmp_path):
    """Makes the trainer of the README's first snippet."""

    def make():
        args = DistillationArguments(
            str(tmp_path), objectives=["relation"], max_steps=2, per_device_train_batch_size=4, report_to=[]
        )
        rows = Dataset.from_dict({"text": sentences[:16]})
        return DistillationTrainer(
            tiny_student, args, train_dataset=rows, teacher_model=tiny_teacher, processing_class=tiny_tokenizer
        )

    return make


def listed(heading: str) -> list[str]:
    """The files that a list of the page names, in its order."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\d\. \[`([^`]+)`\]", section, flags=re.MULTILINE)


def check_list(heading: str, files: list[str]) -> None:
    """A list of the page is short, and all that it names took part."""
    names = listed(heading)
    assert 0 < len(names) <= 8
    assert set(names) <= set(files)


def test_files_of_constructing_a_trainer(make_trainer):
    with Trace() as trace:
        make_trainer()
    assert len(trace.files) <= FILES_OF["constructing a trainer"], trace.files


def test_files_of_a_step(make_trainer, monkeypatch):
    trainer, traces = make_trainer(), []
    step = DistillationTrainer.training_step

    def traced(self, *given, **named):
        with Trace() as trace:
            loss = step(self, *given, **named)
        traces.append(trace.files)
        return loss

    monkeypatch.setattr(DistillationTrainer, "training_step", traced)
    trainer.train()
    assert len(traces) == 2
    assert len(traces[-1]) <= FILES_OF["a step"], traces[-1]
    check_list("How a step runs", traces[-1])


def test_files_of_a_corpus_build(sentences, tmp_path):
    general = Dataset.from_dict({"text": [f"{one} {other}" for one in sentences[:16] for other in sentences[16:20]]})
    with Trace() as trace:
        build_contextualized_corpus(sentences[30:40], general, work_dir=tmp_path, engine="bm25s", top_k=5)
    assert len(trace.files) <= FILES_OF["a corpus build"], trace.files
    check_list("How a corpus is built", trace.files)
