"""Only what belongs to a student or a corpus is pushed, and everything else has its reason."""

import json

import pytest
import torch
from hub_cases import LEFTOVERS, touch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from hf_distill.hub.selection import select_files

STUDENT = {
    "README.md",
    "config.json",
    "distillation.json",
    "model.safetensors",
    "results.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def paths(files):
    return {file.path for file in files}


def test_of_a_students_folder_weights_tokenizer_card_and_results_are_pushed(student_folder):
    selection = select_files(student_folder)
    assert selection.repo_type == "model"
    assert paths(selection.files) == STUDENT
    assert selection.size == sum((student_folder / path).stat().st_size for path in STUDENT)


def test_what_a_training_leaves_stays_with_its_reason(student_folder):
    left_out = {file.path: file.reason for file in select_files(student_folder).left_out}
    assert left_out.keys() == LEFTOVERS.keys()
    for path, reason in LEFTOVERS.items():
        assert reason in left_out[path], path


def test_of_a_corpus_shards_card_and_statistics_are_pushed(corpus_folder):
    selection = select_files(corpus_folder)
    assert selection.repo_type == "dataset"
    shards = {f"data/train-{shard:05d}-of-00003.parquet" for shard in range(3)}
    assert paths(selection.files) == {"README.md", "statistics.json"} | shards
    assert {file.path: file.reason.partition(":")[0] for file in selection.left_out} == {
        "_finished.json": "begins with an underscore",
        "arguments.yaml": "names folders of this machine; the card has the settings",
        "results.json": "not part of a corpus",
        "work/hits/hits.arrow": "work of the build",
    }


@pytest.mark.parametrize("folder", ["student_folder", "corpus_folder"])
def test_every_file_is_either_pushed_or_left_out(folder, request):
    root = request.getfixturevalue(folder)
    selection = select_files(root)
    everything = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert sorted(file.path for file in (*selection.files, *selection.left_out)) == everything


def test_sharded_weights_sentencepiece_models_and_onnx_are_a_students_too(student_folder):
    (student_folder / "model.safetensors").rename(student_folder / "model-00001-of-00002.safetensors")
    more = ["model.safetensors.index.json", "spiece.model", "vocab.txt", "onnx/model_quantized.onnx", "LICENSE"]
    touch(student_folder, more)
    assert {*more, "model-00001-of-00002.safetensors"} <= paths(select_files(student_folder).files)


def test_beside_an_onnx_file_only_named_files_are_pushed(student_folder):
    named = ["onnx/model.onnx", "onnx/config.json", "onnx/tokenizer.json", "onnx/export.json", "onnx/ort_config.json"]
    other = ["onnx/credentials.json", "onnx/notes.json", "LICENSE.key", "secrets.model", "passwords_vocab.txt"]
    touch(student_folder, [*named, *other])
    selection = select_files(student_folder)
    assert set(named) <= paths(selection.files)
    assert set(other) <= paths(selection.left_out)


def test_a_folder_of_onnx_files_may_be_a_link(student_folder, tmp_path):
    touch(tmp_path / "elsewhere", ["model.onnx", "model.onnx_data", "notes.txt"])
    touch(tmp_path / "logs", ["one.txt"])
    (student_folder / "onnx").symlink_to(tmp_path / "elsewhere")
    (student_folder / "logs").symlink_to(tmp_path / "logs")
    selection = select_files(student_folder)
    assert {"onnx/model.onnx", "onnx/model.onnx_data"} <= paths(selection.files)
    assert "onnx/notes.txt" in paths(selection.left_out)
    assert not any(path.startswith("logs") for path in paths((*selection.files, *selection.left_out)))


def test_a_sentence_encoder_without_the_weights_of_a_module_is_refused(student_folder):
    touch(student_folder, ["2_Dense/config.json", "2_Dense/pytorch_model.bin"])
    (student_folder / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "2_Dense"}]))
    with pytest.raises(ValueError, match=r"2_Dense/pytorch_model.bin' is a pickle.*lacks these weights"):
        select_files(student_folder)
    touch(student_folder, ["2_Dense/model.safetensors"])
    save_file({"linear.weight": torch.zeros(2)}, student_folder / "2_Dense" / "model.safetensors")
    assert {"2_Dense/config.json", "2_Dense/model.safetensors"} <= paths(select_files(student_folder).files)


def test_the_folder_of_an_export_is_a_student(tmp_path):
    touch(tmp_path, ["config.json", "model.onnx", "export.json", "README.md", "arguments.yaml"])
    assert paths(select_files(tmp_path).files) == {"config.json", "model.onnx", "export.json", "README.md"}


def test_an_adapter_is_a_student(student_folder, tmp_path, tiny_student):
    get_peft_model(tiny_student, LoraConfig(target_modules=["query"])).save_pretrained(tmp_path / "adapter")
    found = paths(select_files(tmp_path / "adapter").files)
    assert found == {"adapter_config.json", "adapter_model.safetensors", "README.md"}


@pytest.mark.parametrize("part", ["teacher.bert.weight", "objectives.hidden.projection.weight", "student.bert.weight"])
def test_weights_with_more_than_the_student_in_them_are_refused(student_folder, part):
    weights = student_folder / "model.safetensors"
    save_file({**load_file(weights), part: torch.zeros(2)}, weights)
    with pytest.raises(ValueError, match=r"model\.safetensors' holds more than a student \('" + part):
        select_files(student_folder)


@pytest.mark.parametrize("job", ["teach", "mlm"])
def test_a_teacher_is_refused(student_folder, job):
    (student_folder / "results.json").write_text(json.dumps({"job": job}))
    with pytest.raises(ValueError, match=r"is a teacher .* only students and corpora"):
        select_files(student_folder)


def test_a_stored_teacher_is_refused(tmp_path):
    touch(tmp_path, ["config.json", "manifest.json", "signals-00000-of-00001.arrow"])
    with pytest.raises(ValueError, match="is a stored teacher"):
        select_files(tmp_path)


def test_a_folder_of_folders_says_what_is_inside(student_folder, corpus_folder):
    with pytest.raises(ValueError, match=r"neither a student .* nor a corpus") as refused:
        select_files(student_folder.parent)
    assert str(refused.value).endswith(f"Inside are {corpus_folder}, {student_folder}.")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"There is no folder '.*nowhere'"):
        select_files(tmp_path / "nowhere")
