"""What a push that fails says, what it leaves, and how it goes on."""

import re
import shlex

import pytest
from huggingface_hub import constants

from hf_distill.hub.failures import PushError
from hf_distill.hub.push import push_folder


@pytest.fixture
def refused(student_folder):
    """`refused(repo, ...)`: the words of a push that fails with the way on and leaves the folder untouched."""

    def push(repo="student", **options):
        before = {path: path.stat().st_mtime_ns for path in student_folder.rglob("*")}
        with pytest.raises(PushError) as failed:
            push_folder(student_folder, repo, **options)
        message = str(failed.value)
        assert f"Everything is kept in {str(student_folder)!r}" in message
        assert shlex.split(message.rpartition("to go on: ")[2])[:4] == [
            *("hf-distill", "push"),
            *(str(student_folder), repo),
        ]
        assert before == {path: path.stat().st_mtime_ns for path in student_folder.rglob("*")}
        assert "hf_wrong" not in message
        return message

    return push


def test_no_token(hub, refused, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "There is no token for the Hub: log in with `hf auth login`, set HF_TOKEN, or give `--token`" in refused()
    assert hub.requests == []


def test_a_wrong_token_and_where_it_came_from(hub, refused, monkeypatch):
    assert "The Hub does not know the token that was given" in refused(token="hf_wrong")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "The Hub does not know the token in HF_TOKEN" in refused()


def test_a_token_that_may_only_read(hub, refused):
    assert "The token that was given of 'anna' may not write to 'student'" in refused(token="hf_anna_reads")


def test_a_repository_of_somebody_else(hub, refused, student_folder):
    assert "The token in HF_TOKEN of 'anna' may not write to 'bob/student': its name is taken" in refused(
        "bob/student"
    )
    push_folder(student_folder, "bob/student", token="hf_bob")
    assert "may not write to 'bob/student'" in refused("bob/student")


def test_a_branch_name_that_cannot_be(hub, refused):
    assert "Invalid reference name for a branch: refs/x" in refused(revision="refs/x")


def test_a_card_that_the_hub_does_not_understand(hub, refused, student_folder):
    (student_folder / "README.md").write_text("---\nlicense: do what you like\n---\n")
    assert re.search('Invalid metadata in README.md.*"license" must be one of', refused())


def test_a_name_that_cannot_be(hub, refused):
    # The name alone would be found in the command to go on, too.
    assert "The Hub does not take 'a/b/c': Repo id must be in the form" in refused("a/b/c")


def test_an_offline_hub(hub, refused, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it" in refused()
    assert hub.requests == []


def test_no_network(hub, refused, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert re.search(r"The Hub at http://127.0.0.1:9 cannot be reached, or broke off \(.*refused", refused())


def test_a_hub_that_breaks(hub, refused):
    hub.faults = lambda method, path: 507 if "/commit/" in path else None
    assert "The Hub answered 507 (the Hub says: broken)" in refused()


@pytest.mark.parametrize(
    ("part", "status"), [("/commit/", 409), ("/commit/", 412), ("/preupload/", 404), ("create", 409)]
)
def test_whatever_the_hub_answers_is_one_line(hub, refused, part, status):
    hub.faults = lambda method, path: status if part in path else None
    message = refused()
    assert "\n" not in message
    assert f"The Hub answered {status}" in message or "failed: 'url'" in message


@pytest.mark.parametrize("fault", ["drop", 503])
def test_an_upload_that_breaks_off_goes_on_with_the_missing_shard(hub, corpus_folder, fault):
    def second_upload(method, path):
        return fault if method == "PUT" and len(hub.asked("PUT", "/storage/")) == 1 else None

    hub.faults = second_upload
    with pytest.raises(PushError, match="Everything is kept"):
        push_folder(corpus_folder, "corpus")
    repo = hub.repo("anna/corpus", "dataset")
    assert repo.files().keys() == {".gitattributes"}, "readers never see half a corpus"
    assert len(hub.objects) == 1
    hub.faults = lambda method, path: None
    push_folder(corpus_folder, "corpus")
    assert len(hub.asked("PUT", "/storage/")) == 3, "no shard was sent twice"
    assert sum(path.endswith(".parquet") for path in repo.files()) == 3


def test_a_commit_that_breaks_off_needs_no_second_upload(hub, student_folder):
    hub.faults = lambda method, path: "drop" if "/commit/" in path else None
    with pytest.raises(PushError, match="cannot be reached, or broke off"):
        push_folder(student_folder, "student")
    hub.faults = lambda method, path: None
    push_folder(student_folder, "student")
    assert len(hub.asked("PUT", "/storage/")) == 1
