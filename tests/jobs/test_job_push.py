"""The push job: what it shows, what it returns."""

import json

import pytest
from tiny_data import save_model

from hf_distill.commands.distill import run as distill
from hf_distill.commands.push import run as push, summary as format_push
from hf_distill.hub.failures import PushError
from hf_distill.settings import (
    DistillationArguments,
    PushArguments,
    StudentArguments,
    TeacherArguments,
    TextbookArguments,
)


@pytest.fixture
def folder(tmp_path, tiny_student, tiny_tokenizer):
    """A student with a checkpoint's optimizer beside it."""
    save_model(tmp_path / "small", tiny_student, tiny_tokenizer)
    (tmp_path / "small" / "README.md").write_text("---\ntags: [hf_distill]\n---\n")
    (tmp_path / "small" / "checkpoint-1").mkdir()
    (tmp_path / "small" / "checkpoint-1" / "optimizer.pt").write_bytes(bytes(1500))
    return str(tmp_path / "small")


def test_a_dry_run_shows_every_file_with_size_and_reason_and_asks_nobody(folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    results = push(PushArguments(folder, "me/small", dry_run=True))
    shown = format_push(results)
    assert "5 files" in shown.splitlines()[0]
    assert shown.splitlines()[0].endswith("would be uploaded to me/small (model):")
    for item in results["files"]:
        assert f"  {item['path']}" in shown
    assert "1 files left out:" not in shown
    assert "1 file left out:\n  checkpoint-1/optimizer.pt     1.5 kB  a checkpoint" in shown
    assert results["bytes"] == sum(item["size"] for item in results["files"])
    assert {"url", "commit"}.isdisjoint(results)
    json.dumps(results)


def test_a_push_says_what_was_uploaded_and_where_it_is(hub, folder):
    results = push(PushArguments(folder, "small", private=True, revision="v1"))
    assert hub.repo("anna/small").private
    assert results["repo"] == "anna/small"
    assert results["url"] == f"{hub.url}/anna/small/tree/v1"
    assert results["commit"] == hub.repo("anna/small").branches["v1"][-1]
    assert {item["path"] for item in results["files"]} <= hub.repo("anna/small").files("v1").keys()
    assert " uploaded to anna/small (model):" in format_push(results)
    assert "token" not in json.dumps(results).replace("tokenizer", "")


def distilled(tmp_path, tiny_teacher, tiny_tokenizer, sentences):
    """Distil a student that is pushed at the end."""
    save_model(tmp_path / "teacher", tiny_teacher, tiny_tokenizer)
    (tmp_path / "text.txt").write_text("\n".join(sentences[:16]))
    settings = {"max_steps": 1, "use_cpu": True, "disable_tqdm": True, "report_to": "none", "max_length": 16}
    return distill(
        StudentArguments(student_shape="2x12:2h:20"),
        TeacherArguments(str(tmp_path / "teacher")),
        TextbookArguments([str(tmp_path / "text.txt")]),
        DistillationArguments(str(tmp_path / "student"), push_to_hub=True, hub_strategy="end", **settings),
    )


def test_a_distillation_with_push_to_hub_ends_on_the_hub_with_its_results(
    hub, tmp_path, tiny_teacher, tiny_tokenizer, sentences
):
    facts = distilled(tmp_path, tiny_teacher, tiny_tokenizer, sentences)
    files = hub.repo("anna/student").files()
    assert {"model.safetensors", "README.md", "results.json", "tokenizer.json"} <= files.keys()
    results = json.loads(files["results.json"].content)
    assert results["steps"] == facts["steps"] == 1
    assert str(tmp_path) not in files["results.json"].content.decode()
    assert hub.repo("anna/student").titles == ["initial commit", "End of training"]


def test_a_distillation_whose_push_fails_has_everything_on_disk(
    hub, tmp_path, tiny_teacher, tiny_tokenizer, sentences
):
    hub.faults = lambda method, path: "drop" if method == "PUT" else None
    with pytest.raises(PushError, match="Everything is kept in"):
        distilled(tmp_path, tiny_teacher, tiny_tokenizer, sentences)
    found = {path.name for path in (tmp_path / "student").iterdir()}
    assert {"model.safetensors", "README.md", "results.json", "arguments.yaml"} <= found
