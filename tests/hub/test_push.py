"""What a push does to a repository."""

import json
import logging

import pytest
from huggingface_hub import HfApi

from hf_distill.hub.failures import PushError
from hf_distill.hub.model_card import CardFacts, ModelFacts, write_model_card
from hf_distill.hub.push import Target, contents, push_folder
from hf_distill.hub.selection import select_files


def uploads(hub):
    """Contents that were sent to the storage."""
    return hub.asked("PUT", "/storage/")


def test_a_student_is_pushed_in_one_commit_that_holds_the_selected_files_only(hub, student_folder):
    pushed = push_folder(student_folder, "anna/student")
    repo = hub.repo("anna/student")
    assert repo.files().keys() == {file.path for file in select_files(student_folder).files} | {".gitattributes"}
    assert repo.titles == ["initial commit", "Push a student with hf_distill"]
    assert pushed.commit.oid == repo.branches["main"][-1]
    assert pushed.target.url == f"{hub.url}/anna/student"
    assert repo.files()["model.safetensors"].content == (student_folder / "model.safetensors").read_bytes()


def test_a_corpus_is_pushed_as_a_data_set(hub, corpus_folder):
    pushed = push_folder(corpus_folder, "corpus")
    files = hub.repo("anna/corpus", "dataset").files()
    assert sum(path.endswith(".parquet") for path in files) == 3
    assert {"README.md", "statistics.json"} <= files.keys()
    assert pushed.target.url == f"{hub.url}/datasets/anna/corpus"


def test_the_card_on_the_hub_loads_from_the_hub_and_the_one_here_is_untouched(hub, student_folder, corpus_folder):
    here = {path: (student_folder / path).read_bytes() for path in ("README.md", "results.json", "distillation.json")}
    push_folder(student_folder, "student")
    push_folder(corpus_folder, "corpus")
    files = hub.repo("anna/student").files()
    card = files["README.md"].content.decode()
    assert card.count('from_pretrained("anna/student")') == 2
    assert 'from_pretrained("student")' not in card
    assert 'pipeline("text-classification", model="anna/student")' in card
    assert json.loads(files["distillation.json"].content)["student"]["hub_id"] == "anna/student"
    assert 'load_dataset("anna/corpus"' in hub.repo("anna/corpus", "dataset").files()["README.md"].content.decode()
    assert here == {path: (student_folder / path).read_bytes() for path in here}


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("sentence-similarity", 'encoder = SentenceTransformer("anna/small")'),
        ("text-ranking", 'reranker = CrossEncoder("anna/small")'),
        ("question-answering", 'AutoModelForQuestionAnswering.from_pretrained("anna/small")'),
        ("fill-mask", 'pipeline("fill-mask", model="anna/small")'),
    ],
)
def test_whatever_loads_the_model_loads_it_from_the_hub(tag, code, student_folder):
    """Also a model whose folder has marks of quotation in its name."""
    write_model_card(student_folder, CardFacts("my", [], ModelFacts('my "small" one'), pipeline_tag=tag))
    card = contents(select_files(student_folder), "README.md", "anna/small").decode()
    assert code in card
    assert '\\"' not in card


def test_special_tokens_of_any_name_reach_the_hub(student_folder):
    file = student_folder / "tokenizer_config.json"
    settings = {
        "entity_mask_token": "[MASK2]",
        "boi_token": "<boi>",
        "prefix_token": "\u2581<PRE>",
        "unk_token": "[UNK]",
    }
    file.write_text(json.dumps({**settings, "hub_token": "hf_abcDEF123456789"}))
    shown = json.loads(contents(select_files(student_folder), "tokenizer_config.json", "anna/small"))
    assert shown == {**settings, "hub_token": "***"}


def test_results_name_no_folder_of_this_machine(hub, student_folder):
    push_folder(student_folder, "student")
    results = json.loads(hub.repo("anna/student").files()["results.json"].content)
    assert results == {"job": "distill", "teacher": "teacher", "model": "student", "history": [{"loss": 0.5}]}


def test_pushing_again_sends_only_what_changed(hub, student_folder):
    first = push_folder(student_folder, "student")
    again = push_folder(student_folder, "student")
    assert again.commit.oid == first.commit.oid
    (student_folder / "README.md").write_text("---\ntags: [hf_distill]\n---\nBetter words.\n")
    push_folder(student_folder, "student")
    assert len(hub.repo("anna/student").branches["main"]) == 3
    assert len(uploads(hub)) == 1


def test_shards_of_an_earlier_push_do_not_stay_among_the_new_ones(hub, corpus_folder):
    push_folder(corpus_folder, "corpus")
    for shard in (corpus_folder / "data").glob("*.parquet"):
        shard.rename(shard.with_name(shard.name.replace("of-00003", "of-00002")))
    (corpus_folder / "data" / "train-00002-of-00002.parquet").unlink()
    push_folder(corpus_folder, "corpus")
    files = hub.repo("anna/corpus", "dataset").files()
    shards = sorted(path for path in files if path.endswith(".parquet"))
    assert shards == [f"data/train-0000{shard}-of-00002.parquet" for shard in range(2)]


def test_an_onnx_file_of_an_earlier_student_does_not_stay_beside_the_new_one(hub, student_folder):
    (student_folder / "onnx").mkdir()
    (student_folder / "onnx" / "model.onnx").write_bytes(b"?")
    push_folder(student_folder, "student")
    assert "onnx/model.onnx" in hub.repo("anna/student").files()
    (student_folder / "onnx" / "model.onnx").unlink()
    push_folder(student_folder, "student")
    assert "onnx/model.onnx" not in hub.repo("anna/student").files()


def test_a_private_repository_is_made_and_stays_so(hub, student_folder):
    push_folder(student_folder, "student", private=True)
    push_folder(student_folder, "student", private=True)
    push_folder(student_folder, "student")
    assert hub.repo("anna/student").private


def test_a_public_repository_is_no_place_for_what_should_be_private(hub, student_folder):
    push_folder(student_folder, "student")
    requests = len(uploads(hub))
    with pytest.raises(PushError, match="'anna/student' exists and is public"):
        push_folder(student_folder, "student", private=True)
    assert len(uploads(hub)) == requests


def test_a_branch_is_made_if_it_is_missing_and_the_main_one_keeps_its_files(hub, student_folder):
    push_folder(student_folder, "student")
    (student_folder / "generation_config.json").write_text("{}")
    for _ in range(2):
        pushed = push_folder(student_folder, "student", revision="with/slash")
    repo = hub.repo("anna/student")
    assert "generation_config.json" not in repo.files("main")
    assert "generation_config.json" in repo.files("with/slash")
    assert pushed.target.url.endswith("/anna/student/tree/with/slash")


def test_a_name_that_holds_something_else_is_taken_but_its_branches_are_free(hub, student_folder):
    api = HfApi(endpoint=hub.url)
    api.create_repo("anna/notes")
    content = b"---\ntags: [poems]\n---\n"
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="anna/notes")
    api.upload_file(path_or_fileobj=content, path_in_repo="README.md", repo_id="anna/notes")
    with pytest.raises(PushError, match="'anna/notes' is taken: the model there was not pushed by hf_distill"):
        push_folder(student_folder, "notes")
    push_folder(student_folder, "notes", revision="student")
    push_folder(student_folder, "notes", revision="student")
    repo = hub.repo("anna/notes")
    assert repo.files()["README.md"].content == content
    assert "model.safetensors" in repo.files("student")


def test_a_repository_with_a_card_and_nothing_else_is_free(hub, student_folder):
    api = HfApi(endpoint=hub.url)
    api.create_repo("anna/new")
    api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id="anna/new")
    push_folder(student_folder, "new")
    assert "model.safetensors" in hub.repo("anna/new").files()


def test_a_model_and_a_data_set_may_have_one_name(hub, student_folder, corpus_folder):
    push_folder(student_folder, "one")
    push_folder(corpus_folder, "one")
    assert {kind for kind, _ in hub.repos} == {"model", "dataset"}


def test_a_folder_without_a_card_is_pushed_with_a_warning(hub, student_folder, caplog):
    (student_folder / "README.md").unlink()
    with caplog.at_level(logging.WARNING):
        push_folder(student_folder, "student")
    assert "has no card (README.md)" in caplog.text


def test_the_command_that_repeats_a_push_has_everything_but_the_token():
    target = Target("me/x", private=True, revision="v 2", token="hf_secret")
    assert target.command("my folder") == "hf-distill push 'my folder' me/x --private --revision 'v 2'"
    assert "secret" not in repr(target)
