"""Pushes a student or a corpus to the Hub as one commit, with only the files that `hub.selection` selects.

Weights and shards are uploaded one by one before the commit. So an interrupted push continues with the missing files
when it is repeated, and readers of the repository never see a partial upload.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, constants
from huggingface_hub.errors import RevisionNotFoundError

from ..storage.files import read_json, read_text
from .dataset_card import LOCAL_FOLDER
from .disclosure import public, without_secrets
from .failures import PushError, as_push_error, check_reachable
from .selection import (
    CARD_FILE,
    EXPORT_FILE,
    FACTS_FILE,
    RESULTS_FILE,
    WHAT,
    RepoType,
    Selection,
    is_data_file,
    select_files,
)
from .usage import quoted

logger = logging.getLogger(__name__)
# The tag in the cards of models and corpora that were made with this package.
OUR_TAG = "hf_distill"
# Code on a card that precedes the name of a model or corpus.
_LOADING = ("from_pretrained(", "load_dataset(", "SentenceTransformer(", "CrossEncoder(", "model=")


@dataclass(frozen=True)
class Target:
    """The repository that a push goes to.

    Attributes:
        repo: `name` or `owner/name`; includes the owner once `open_repository` has been called.
        repo_type: `model` or `dataset`.
        private: Whether the repository must be private.
        revision: Branch; `None` for the main one.
        token: Token for the Hub; `None` takes that of HF_TOKEN or `hf auth login`.
    """

    repo: str
    repo_type: RepoType = "model"
    private: bool = False
    revision: str | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def api(self) -> HfApi:
        """A client for the configured Hub."""
        return HfApi(endpoint=constants.ENDPOINT, token=self.token, library_name="hf_distill")

    @property
    def url(self) -> str:
        """The page of the repository."""
        kind = "datasets/" if self.repo_type == "dataset" else ""
        return f"{constants.ENDPOINT}/{kind}{self.repo}" + (f"/tree/{self.revision}" if self.revision else "")

    def command(self, folder: str | os.PathLike[str]) -> str:
        """The command that pushes a folder to this target, without the token."""
        flags = ["--private"] if self.private else []
        flags += ["--revision", self.revision] if self.revision else []
        return shlex.join(["hf-distill", "push", os.fspath(folder), self.repo, *flags])


@dataclass(frozen=True)
class Pushed:
    """The result of a push: what was uploaded, where to, and in which commit."""

    selection: Selection
    target: Target
    commit: CommitInfo


def push_folder(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str | None = None,
) -> Pushed:
    """Upload the folder of a student or a corpus as one commit; repository and branch are created if missing.

    Args:
        folder: A folder that `distill`, `evaluate` or `build_corpus` wrote.
        repo: `name` or `owner/name`.
        private: Whether the repository is private; an existing public repository is refused.
        revision: Branch to push to; a new branch starts from the main one.
        token: Token for the Hub; `None` takes that of HF_TOKEN or `hf auth login`.
        commit_message: Title of the commit.

    Returns:
        The repository and the commit (`target.url`, `commit.oid`).

    Raises:
        ValueError: If the folder holds nothing to push (see `select_files`).
        PushError: If the Hub cannot be reached or refuses the upload. The local folder is unchanged, and the message
            ends with the command that continues.
    """
    selection = select_files(folder)
    target = Target(repo, selection.repo_type, private, revision, token)
    with as_push_error(repo, token, kept_note(target, folder)):
        target = open_repository(target)
        return Pushed(selection, target, upload(selection, target, commit_message))


def kept_note(target: Target, folder: str | os.PathLike[str]) -> str:
    """Return the sentence that ends every error of a push."""
    return f"Everything is kept in {os.fspath(folder)!r}; to go on: {target.command(folder)}"


def open_repository(target: Target) -> Target:
    """Check or create the repository and branch of a push, and check that they are meant for it.

    Returns:
        The target, with its owner.

    Raises:
        PushError: If offline mode is on, there is no token, the repository is public although it should be private, or
            it holds something else.
    """
    check_reachable(target.token)
    api = target.api
    url = api.create_repo(
        target.repo, repo_type=target.repo_type, private=True if target.private else None, exist_ok=True
    )
    target = replace(target, repo=url.repo_id)
    if target.private and not api.repo_info(target.repo, repo_type=target.repo_type).private:
        raise PushError(
            f"{target.repo!r} exists and is public, which `private` does not change: make it private in its settings "
            f"({target.url}/settings), or name another repository."
        )
    try:
        there = api.list_repo_files(target.repo, repo_type=target.repo_type, revision=target.revision)
    except RevisionNotFoundError:
        api.create_branch(target.repo, branch=str(target.revision), repo_type=target.repo_type)
    else:
        _check_content(target, there)
    return target


def upload(selection: Selection, target: Target, commit_message: str | None = None) -> CommitInfo:
    """Upload the selected files, and delete weights or shards of an earlier push that no longer exist."""
    api = target.api
    where = {"repo_id": target.repo, "repo_type": target.repo_type, "revision": target.revision}
    if not selection.has(CARD_FILE):
        logger.warning("%s has no card (README.md): its page on the Hub will be empty.", selection.folder)
    read = {file.path: contents(selection, file.path, target.repo) for file in selection.files}
    additions = [
        CommitOperationAdd(path, str(content) if isinstance(content, Path) else content)
        for path, content in read.items()
    ]
    for addition in additions:
        if is_data_file(addition.path_in_repo, target.repo_type):
            # Upload each file before the commit: a repeated push need not upload it again.
            api.preupload_lfs_files(additions=[addition], free_memory=False, **where)  # type: ignore[arg-type]
    gone = [
        CommitOperationDelete(path)
        for path in api.list_repo_files(target.repo, repo_type=target.repo_type, revision=target.revision)
        if is_data_file(path, target.repo_type) and not selection.has(path)
    ]
    message = commit_message or f"Push a {WHAT[target.repo_type]} with hf_distill"
    return api.create_commit(operations=[*additions, *gone], commit_message=message, **where)  # type: ignore[call-overload]


def _check_content(target: Target, paths: list[str]) -> None:
    """Refuse to overwrite content that hf_distill did not push, recognised by the card's tags or its facts."""
    if set(paths) <= {".gitattributes", ".gitignore", CARD_FILE, "LICENSE"}:
        return  # Every new repository begins with these files.
    tags: list[str] = []
    if CARD_FILE in paths:
        card = target.api.hf_hub_download(target.repo, CARD_FILE, repo_type=target.repo_type, revision=target.revision)
        tags = RepoCard.load(card, repo_type=target.repo_type, ignore_metadata_errors=True).data.get("tags") or []
    if OUR_TAG not in tags and FACTS_FILE not in paths:
        raise PushError(
            f"The name {target.repo!r} is taken: the {target.repo_type} there was not pushed by hf_distill. Name "
            "another repository, push to a branch of its own (`--revision`), or delete that one first."
        )


STATISTICS_FILE = "statistics.json"
# Files of transformers and peft that may contain the local path of a model.
CONFIGURATIONS = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")
# Their fields that hold a path or an id; in other fields a text that looks like a path may be a token.
_PATHS = ("name_or_path", "_file", "cache_dir", "model_name", "tokenizer_class_path", "auto_mapping")


def contents(selection: Selection, path: str, repo: str) -> Path | bytes:
    """Return a file as it is uploaded: the file itself, or its text without private parts.

    A card's code is changed to load the model or corpus from its repository; secrets and local folders are removed.

    Args:
        selection: The selected files.
        path: One of them.
        repo: Id of the repository.
    """
    source = selection.folder / path
    if path == CARD_FILE:
        text = read_text(source)
        for name in _local_names(selection):
            for call in _LOADING:
                text = text.replace(f"{call}{quoted(name)}", f"{call}{quoted(repo)}")
        return str(public(text)).encode()
    name = Path(path).name
    if name in (RESULTS_FILE, EXPORT_FILE, STATISTICS_FILE):
        return _as_json(public(read_json(source)))
    if name in CONFIGURATIONS:
        return _configuration(source)
    if name == FACTS_FILE:
        facts = public(read_json(source))
        return _as_json({**facts, "student": {**facts.get("student", {}), "hub_id": repo}})
    return source


def _local_names(selection: Selection) -> list[str]:
    """Return the names by which the card in this folder refers to the model or corpus."""
    if selection.repo_type == "dataset":
        return [LOCAL_FOLDER]
    if not selection.has(FACTS_FILE):
        return []
    student = read_json(selection.folder / FACTS_FILE).get("student", {})
    return [name for name in (student.get("hub_id"), student.get("name")) if name]


def _configuration(source: Path) -> Path | bytes:
    """The file itself if nothing in it is private, else its text without the private parts."""
    values = read_json(source)
    shown = without_secrets(_without_folders(values))
    return source if shown == values else _as_json(shown)


def _without_folders(values: Any) -> Any:
    """Remove local folders from the path fields of a configuration."""
    if isinstance(values, list):
        return [_without_folders(item) for item in values]
    if not isinstance(values, Mapping):
        return values
    return {
        name: public(value) if isinstance(value, str) and str(name).endswith(_PATHS) else _without_folders(value)
        for name, value in values.items()
    }


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
