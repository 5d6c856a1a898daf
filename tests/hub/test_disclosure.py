"""What others read has no secret and no folder of this machine, and stays what it is otherwise."""

import json
import shlex

import pytest

from hf_distill.hub.disclosure import is_secret_name, public, public_command, remember_secrets, without_secrets

TOKEN = "hf_AbCdEfGhIjKlMn1234"


@pytest.mark.parametrize("name", ["hub_token", "--hub-token", "HF_TOKEN", "token", "ES_PASSWORD", "api_key", "apiKey"])
def test_names_of_secrets_are_known(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["max_new_tokens", "tokenizer_name", "eos_token", "pad_token", "tokens", "keywords"])
def test_names_of_other_things_are_not_taken_for_secrets(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"push with {TOKEN}, please", "push with ***, please"),
        ("--hub_token abc --x 1", "--hub_token *** --x 1"),
        ("--hub_token=abc", "--hub_token=***"),
        ('{"hub_token": "a b c", "n": 1}', '{"hub_token": "***", "n": 1}'),
        ('{\\"hub_token\\": \\"abc\\"}', '{\\"hub_token\\": \\"***\\"}'),
        ("password: abc", "password: ***"),
        ("https://me:p@ss@host:9200/x", "https://***@host:9200/x"),
        ("https://host/x?token=abc&y=1", "https://host/x?token=***&y=1"),
        ("Authorization: Bearer abcdefgh", "Authorization: Bearer ***"),
        ("ghp_0123456789abcdefghij", "***"),
    ],
)
def test_secrets_in_text_are_hidden(text, shown):
    assert public(text) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/models/teacher", "teacher"),
        ("cannot load '/home/me/my models/teacher' from it: x", "cannot load 'teacher' from it: x"),
        ("a=/tmp/x/y,b=/mnt/z.", "a=y,b=z."),
        ("big=/home/me/my models/teacher", "big=teacher"),
        ("../../me/teacher", "teacher"),
        ("~/models/teacher", "teacher"),
        ("file:///home/me/x.csv", "x.csv"),
        (r"C:\Users\me\x.csv", "x.csv"),
        ('{"teacher_model": "/home/me/my models/t"}', '{"teacher_model": "t"}'),
    ],
)
def test_folders_of_the_machine_are_cut_to_their_last_name(text, shown):
    assert public(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "glue/sst2",
        "outputs/student",
        "https://huggingface.co/me/x/y",
        "and/or, 5 /s, 3/4",
        "/",
        "/m/02p0",
        "A token is a word; the password is secret.",
        "hf_distill and hf_distill_outputs",
        "see <a href='x'>y</a>",
        "max_new_tokens: 48, eos_token: [SEP]",
        "[{'score': 0.5, 'token': 1037, 'token_str': 'a', 'sequence': 'the cat.'}]",
    ],
)
def test_everything_else_stays(text):
    assert public(text) == text


def test_fields_are_hidden_by_their_names_at_any_depth():
    values = {"a": [{"hub_token": "x", "password": 123, "n_tokens": 5}], "path": "/tmp/x/y", "none_token": None}
    shown = {"a": [{"hub_token": "***", "password": "***", "n_tokens": 5}], "path": "y", "none_token": None}
    assert public(values) == shown


def test_labels_may_be_called_like_secrets():
    """A model that finds passwords and tokens in texts knows them by their names."""
    values = {"label2id": {"O": 0, "B-PASSWORD": 1, "API_KEY": 2}, "id2label": {"0": "O", "1": "B-PASSWORD"}}
    assert public(values) == without_secrets(values) == values


def test_names_that_become_equal_are_all_kept():
    assert public({"/home/a/x": 1, "/home/b/x": 2, "/tmp/x": 3}) == {"x": 1, "x (2)": 2, "x (3)": 3}


def test_a_secret_of_the_environment_is_hidden_wherever_it_is(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "quite-plain-words")
    assert public("the error says quite-plain-words there") == "the error says *** there"


def test_a_secret_that_was_given_once_is_hidden_everywhere_after():
    remember_secrets({"distill": json.dumps({"hub_token": "given-to-the-trainer"})})
    assert public("server: given-to-the-trainer is wrong") == "server: *** is wrong"


def test_a_command_for_others_can_be_read_and_split():
    words = ["hf-distill", "x", "--hub_token", "abc", "--secret=q", "--models", "a=/home/me/m", "--out", "/tmp/my out"]
    words += ["--distill", json.dumps({"hub_token": "abc", "teacher_model": "/home/me/t"}), "--bf16"]
    shown = ["hf-distill", "x", "--hub_token", "***", "--secret=***", "--models", "a=m", "--out", "my out"]
    shown += ["--distill", json.dumps({"hub_token": "***", "teacher_model": "t"}), "--bf16"]
    assert shlex.split(public_command(words)) == shown


def test_the_folder_of_a_shell_is_no_secret_and_a_variable_may_name_a_file(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("x")
    monkeypatch.setenv("PWD", "/home/somebody/runs")
    monkeypatch.setenv("OLDPWD", "/home/somebody")
    monkeypatch.setenv("GOOGLE_CREDENTIALS", str(tmp_path / "key"))
    monkeypatch.setenv("MY_SECRET", "long-enough-to-hide")
    for text in ("/home/somebody/runs/teacher", f"{tmp_path}/key/x"):
        assert without_secrets(text) == text
    assert public("/home/somebody/runs/teacher and long-enough-to-hide") == "teacher and ***"


def test_folders_of_a_run_whose_names_have_blanks_are_cut_in_the_midst_of_a_text():
    remember_secrets({"models": ["small=/home/me/my own models/tiny student"], "length": 5})
    assert public("made of /home/me/my own models/teacher here") == "made of teacher here"
    assert public("made of /home/me/my own models/tiny student") == "made of tiny student"
