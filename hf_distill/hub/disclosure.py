"""Makes text and data safe to publish: without secrets, and without the local folders of this machine.

Everything that a run writes for other readers passes through here: cards and their facts, reports, results,
statistics, tables, and the files of a push.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

HIDDEN = "***"

# Endings of the names of secrets. Numbers of tokens, and special tokens of a vocabulary, are not secrets.
_SECRET_ENDINGS = (
    *("token", "password", "passwd", "passphrase", "pwd", "secret", "apikey", "api_key", "access_key", "secret_key"),
    *("private_key", "credential", "credentials", "basic_auth", "bearer", "authorization", "hf_token"),
)
_SPECIAL_TOKENS = (
    *("bos", "eos", "pad", "unk", "sep", "cls", "mask", "start", "end", "decoder_start", "image", "newline"),
    *("special", "additional_special", "forced_bos", "forced_eos"),
)
_SECRET_WORDS = r"[\w-]*(?:token|passwor[dt]|passwd|passphrase|pwd|secret|api[_-]?key|access[_-]?key|private[_-]?key)"
# Tokens that are recognised by their format: Hub (with a capital letter or a digit), GitHub, GitLab, OpenAI, Slack,
# AWS.
_TOKEN = re.compile(
    r"\b(?:hf_(?=\w*[A-Z0-9])\w{8,}|api_org_\w{8,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|sk-[\w-]{16,}|xox[abpr]-[\w-]{10,}|AKIA[A-Z0-9]{12,})"
)
_SPECIAL_TOKEN = re.compile(r"[\u2581\s]*[<\[{]\S{1,40}[>\]}]")
_URL_USER = re.compile(r"([a-zA-Z][\w+.-]*://)[^\s/'\"<>]+@")
# `--hub_token X`, `--hub_token=X`, `hub_token: X`, `"hub_token": "X"` (also with escaped quotes), `?token=X`.
_NAMED = re.compile(
    rf"(?P<name>(?<![\w])(?:--)?{_SECRET_WORDS})(?P<between>\\*[\"']?\s*[=:]\s*|\s+(?=\S))"
    r"(?P<value>\\*\"[^\"\\]*\\*\"|\\*'[^'\\]*\\*'|[^\s,;&'\"(){}\[\]]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(authorization[\s\"':=]+(?:bearer\s+|basic\s+)?)(?!bearer\b|basic\b)[\w.~+/=-]{6,}", re.IGNORECASE
)
_FILE_URL = re.compile(r"file://(?=/)")

# First folders of absolute paths; those of this machine are added.
_ROOTS = frozenset(
    (
        *("home", "Users", "root", "tmp", "var", "mnt", "media", "data", "scratch", "opt", "srv", "work"),
        *("workspace", "workspaces", "content", "private", "usr", "gpfs", "lustre", "nfs", "storage", "net"),
        *("export", "exports", "dev", "shared", "projects", "project", "kaggle", "cluster", "dbfs"),
        *("Volumes", "app", "run"),
    )
)
_POSIX_PATH = re.compile(r"(?<![\w/.:~*+<-])(?:~[\w.-]*|\.\.(?:/\.\.)*)?/[^\s'\"`,;:)(\]\[}{|<>*]+(?<![.])")
_QUOTED_PATH = re.compile(r"(?P<quote>[\"'`])(?P<path>(?:~|\.\./|/|file:///)[^\"'`\n]*)(?P=quote)")
_WINDOWS_PATH = re.compile(r"(?<!\w)[A-Za-z]:[\\/]+[^\s'\"`,;:)(\]\[}{|<>*]+")
_FOLDERS_OF_SHELL = frozenset(("PWD", "OLDPWD"))
_known_secrets: set[str] = set()
_known_folders: set[str] = set()


def is_secret_name(name: str) -> bool:
    """Whether a flag, a field or a variable of that name holds a secret: `hub_token`, `ES_PASSWORD`, `api-key`."""
    plain = name.strip("-").replace("-", "_").lower()
    if plain.endswith("_token") and plain.removesuffix("_token") in _SPECIAL_TOKENS:
        return False
    return plain.endswith(_SECRET_ENDINGS)


def remember_secrets(values: Any) -> None:
    """Remember the secrets in the settings of a run, so that they are hidden wherever they appear later.

    Local folders with blanks in their names are remembered too, because no pattern can find their end in a text.
    """
    for name, value in _named_values(values):
        if is_secret_name(name) and isinstance(value, str) and len(value) >= 8:
            _known_secrets.add(value)
    for text in _texts(values):
        path = _place_of(text)
        folder = str(PurePosixPath(path).parent)
        if " " in folder and "\n" not in folder and _is_path_of_machine(path):
            _known_folders.add(folder)


def without_secrets(value: Any) -> Any:
    """Replace secrets in plain data or a text by `***`: by field or flag name, by format, or if they are known."""
    return _walk(value, _hide)


def public(value: Any) -> Any:
    """Make plain data or a text public: without secrets, and with local paths shortened to their last name."""
    return _walk(value, lambda text: _shorten(_hide(text)))


def public_command(words: Sequence[str]) -> str:
    """Make a command line public, quoted for the shell.

    Args:
        words: The program and its arguments.
    """
    shown: list[str] = []
    hide_next = False
    for word in words:
        name, sign, value = word.partition("=")
        is_flag = word.startswith("--") and " " not in name
        if hide_next and not is_flag:
            shown.append(HIDDEN)
        elif is_flag and sign:
            shown.append(f"{name}={HIDDEN if is_secret_name(name) else public(value)}")
        elif sign and not word.startswith("-") and re.fullmatch(r"[\w.-]+", name):
            shown.append(f"{name}={public(value)}")
        else:
            shown.append(word if is_flag else public(word))
        hide_next = is_flag and not sign and is_secret_name(name)
    return shlex.join(shown).replace(f"'{HIDDEN}'", HIDDEN)


def _walk(value: Any, change: Any) -> Any:
    """Apply `change` to every text in plain data, and hide every secret field."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        changed: dict[Any, Any] = {}
        for key, item in value.items():
            changed[_new_key(key, change, changed)] = _hidden_or(key, item, change)
        return changed
    if isinstance(value, (list, tuple)):
        return [_walk(item, change) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return change(value) if isinstance(value, str) else value


def _new_key(key: Any, change: Any, taken: Mapping[Any, Any]) -> Any:
    """The changed name of a field; a number is added if the name exists already, so that nothing is lost."""
    name = change(key) if isinstance(key, str) else key
    number = 2
    while name in taken:
        name, number = f"{name.removesuffix(f' ({number - 1})')} ({number})", number + 1
    return name


def _hidden_or(key: Any, value: Any, change: Any) -> Any:
    if key == "label2id":
        # The labels of a model that finds passwords in text may have such names.
        return value
    if not isinstance(key, str) or not is_secret_name(key) or isinstance(value, (Mapping, bool)) or not value:
        return _walk(value, change)
    # Tokenizers have special tokens of any name, such as `entity_mask_token`; they never look like a Hub token.
    return value if key.endswith("token") and _SPECIAL_TOKEN.fullmatch(str(value)) else HIDDEN


def _named_values(values: Any) -> Iterable[tuple[str, Any]]:
    """Every name with its value, from nested mappings, including mappings that are written as text."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield str(key), value
            yield from _named_values(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _named_values(value)
    elif isinstance(values, str):
        for found in _NAMED.finditer(values):
            yield found["name"], found["value"].strip("\\\"'")


def _texts(values: Any) -> Iterable[str]:
    """Every text in plain data."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        for value in values:
            yield from _texts(value)
    elif type(values) is str:  # default values of settings are instances of a subclass
        yield values


def _place_of(text: str) -> str:
    """The path in `PATH` or `NAME=PATH`."""
    found = re.match(r"[\w.@+-]+=(?=(?:[/~.]|[A-Za-z]:)[^=]*$)", text)
    return text[found.end() :] if found else text


def _hide(text: str) -> str:
    """A text with its secrets hidden."""
    for secret in sorted(_known_secrets | _environment_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _URL_USER.sub(rf"\1{HIDDEN}@", text)
    text = _TOKEN.sub(HIDDEN, _HEADER.sub(rf"\1{HIDDEN}", text))
    return _NAMED.sub(_hide_named, text)


def _hide_named(found: re.Match[str]) -> str:
    name, between, value = found["name"], found["between"], found["value"]
    # In prose a blank separates words; only after a flag it separates the value.
    follows = between.strip() != "" or name.startswith("--")
    if (
        not follows
        or not is_secret_name(name)
        or value.startswith("--")
        # The id of a piece in a vocabulary, as a pipeline prints it.
        or (name.lower().endswith("token") and value.isdigit())
        or value.strip("\\\"'") in ("", "null", "None")
    ):
        return found[0]
    quote = re.match(r"\\*[\"']", value)
    mark = quote[0] if quote else ""
    return f"{name}{between}{mark}{HIDDEN}{mark}"


def _environment_secrets() -> set[str]:
    """Values of environment variables whose names mark them as secrets.

    The shell's own `PWD` and `OLDPWD`, and variables that name the file of a secret, hold paths and are skipped.
    """
    named = {name: value for name, value in os.environ.items() if len(value) >= 8 and is_secret_name(name)}
    return {value for name, value in named.items() if name not in _FOLDERS_OF_SHELL and not os.path.exists(value)}


def _shorten(text: str) -> str:
    """Shorten every local path in a text to its last name."""
    place = _place_of(text)
    if "\n" not in text and _is_path_of_machine(place):
        return text.removesuffix(place) + _last_name(place)
    text = _QUOTED_PATH.sub(_shorten_quoted, text)
    text = _FILE_URL.sub("", text)
    for folder in _own_folders():
        # Names with blanks: no pattern can separate them from the surrounding words.
        text = text.replace(folder + os.sep, "/tmp/")
    text = _WINDOWS_PATH.sub(lambda found: _last_name(found[0]), text)
    return _POSIX_PATH.sub(lambda found: _last_name(found[0]) if _is_path_of_machine(found[0]) else found[0], text)


def _shorten_quoted(found: re.Match[str]) -> str:
    """Shorten a path in quotation marks, whose names may contain blanks."""
    path, quote = found["path"], found["quote"]
    return f"{quote}{_last_name(path)}{quote}" if _is_path_of_machine(path) else found[0]


@functools.lru_cache(maxsize=4096)
def _is_path_of_machine(text: str) -> bool:
    """Whether a text is a local path."""
    if re.match(r"[A-Za-z]:[\\/]", text) or text.startswith("file:///"):
        return True
    if text.startswith(("~", "../")):
        return "/" in text and re.match(r"~[\w.-]*/|\.\./", text) is not None
    parts = PurePosixPath(text).parts
    return len(parts) > 1 and parts[0] == "/" and (parts[1] in _ROOTS or os.path.isdir(f"/{parts[1]}"))


def _last_name(path: str) -> str:
    windows = re.match(r"[A-Za-z]:[\\/]", path)
    name = PureWindowsPath(path).name if windows else PurePosixPath(path).name
    return name if name not in ("", "..") else "."


def _own_folders() -> list[str]:
    """The folders of this run, its process and its user whose names contain a blank, longest first."""
    folders = {os.path.expanduser("~"), os.fspath(Path.cwd())} | _known_folders
    return sorted((folder for folder in folders if " " in folder), key=len, reverse=True)
