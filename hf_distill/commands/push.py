"""Pushes a student or a corpus to the Hub, or shows what would be pushed."""

from __future__ import annotations

import dataclasses
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_distill.hub.push import push_folder
from hf_distill.hub.selection import Selection, select_files
from hf_distill.settings import PushArguments


def run(pushing: PushArguments) -> dict[str, Any]:
    """Upload a folder as one commit, or with `dry_run` only report what would be uploaded.

    Args:
        pushing: The folder, the repository, and further settings.

    Returns:
        `repo` (with its owner once known), `repo_type`, `files` and `left_out` (path, size, reason), `bytes`,
        `dry_run`; `url` and `commit` if something was pushed.

    Raises:
        ValueError: If the folder holds neither a student nor a corpus, or the repository name is invalid.
        PushError: If the Hub cannot be reached or refuses the upload; the folder is unchanged.
    """
    check_repo(pushing.repo)
    if pushing.dry_run:
        return _facts(select_files(pushing.folder), pushing.repo)
    pushed = push_folder(
        pushing.folder, pushing.repo, private=pushing.private, revision=pushing.revision, token=pushing.token
    )
    return {
        **_facts(pushed.selection, pushed.target.repo),
        "dry_run": False,
        "url": pushed.target.url,
        "commit": pushed.commit.oid,
    }


def _facts(selection: Selection, repo: str) -> dict[str, Any]:
    return {
        "job": "push",
        "repo": repo,
        "repo_type": selection.repo_type,
        "files": [dataclasses.asdict(file) for file in selection.files],
        "left_out": [dataclasses.asdict(file) for file in selection.left_out],
        "bytes": selection.size,
        "dry_run": True,
    }


def check_repo(name: str) -> None:
    """Refuse an invalid repository name.

    Raises:
        ValueError: If the name is invalid.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"`--repo` {name!r} is not a valid name of a repository: {error}") from error


def summary(results: dict[str, Any]) -> str:
    """List the files that were or would be uploaded, and the files that are left out with the reason."""
    width = max(len(item["path"]) for item in (*results["files"], *results["left_out"]))
    verb = "would be uploaded" if results["dry_run"] else "uploaded"
    size = _size(results["bytes"])
    lines = [f"{_count(results['files'])} ({size}) {verb} to {results['repo']} ({results['repo_type']}):"]
    lines += [f"  {item['path']:<{width}}  {_size(item['size']):>9}" for item in results["files"]]
    if results["left_out"]:
        lines.append(f"{_count(results['left_out'])} left out:")
        lines += [
            f"  {item['path']:<{width}}  {_size(item['size']):>9}  {item['reason']}" for item in results["left_out"]
        ]
    if results["dry_run"]:
        lines.append("nothing was sent; the same command without --dry_run uploads these files")
    else:
        lines.append(f"{results['repo']} is at {results['url']} (commit {results['commit']})")
    return "\n".join(lines)


def _count(files: list[Any]) -> str:
    return f"{len(files)} file{'' if len(files) == 1 else 's'}"


def _size(size: int) -> str:
    """A size in bytes in a readable unit."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
