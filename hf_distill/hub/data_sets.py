"""Data sets on the Hub: finds a configuration, whatever the layout of the repository.

A repository either holds files, whose README or folders name the configurations, or a loading script, which `datasets`
no longer runs. For most scripts the Hub keeps a parquet copy on a branch, with a folder for each configuration and, in
it, a folder for each split. `datasets` cannot load a configuration from that branch by name: it treats the whole
branch as one configuration, `default`, and guesses splits from folder names. So the folder is given instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, TypeVar

from huggingface_hub.errors import HTTPError, RevisionNotFoundError

logger = logging.getLogger(__name__)

PARQUET_BRANCH = "refs/convert/parquet"
# Splits that `datasets` recognises from folder names; it would also take `test_matched` for `test`.
_USUAL_SPLITS = frozenset({"train", "validation", "test"})
# Marks configurations of which the Hub converted only the first five gigabytes.
_PARTIAL = "partial-"
_SECONDS = 20.0

Loaded = TypeVar("Loaded")


class UnreadableDataSetError(FileNotFoundError):
    """A data set that cannot be read as requested; the message says what to do."""


def read_data_set(
    load: Callable[..., Loaded], path: str, config: str | None = None, revision: str | None = None, *, flag: str
) -> Loaded:
    """Read a data set from the Hub with `load_dataset` or `load_dataset_builder`.

    Args:
        load: One of the two functions.
        path: Id of the data set.
        config: Its configuration; `None` if there is only one, or a default.
        revision: Branch, tag or commit. If the main branch holds a loading script, the Hub's parquet copy is read.
        flag: The argument for local files, for error messages.

    Raises:
        UnreadableDataSetError: If it is a script without a parquet copy, or the copy lacks the configuration.
        OSError: As `load` does.
        ValueError: As `load` does.
    """
    import datasets

    name, where = _where(path, config, revision, flag)
    try:
        return load(path, name, **where)
    except (HTTPError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, (OSError, ValueError)):
            raise
        reason = " ".join(f"{type(error).__name__}: {error.__cause__ or error}".split()).rstrip(".")
        raise UnreadableDataSetError(
            f"the Hub does not give the data set {path!r} ({reason}): try again later, or give its files by `{flag}`"
        ) from error


def _where(path: str, config: str | None, revision: str | None, flag: str) -> tuple[str | None, dict[str, Any]]:
    """The name under which `load` finds a configuration, and its other arguments."""
    if revision != PARQUET_BRANCH:
        files = _files(path, revision) or ()
        script = f"{PurePosixPath(path).name}.py"
        if script not in files:
            return config, {} if revision is None else {"revision": revision}
        if revision not in (None, "main") or _files(path, PARQUET_BRANCH) is None:
            of_it = f" of it at revision {revision!r}" if revision else ""
            raise UnreadableDataSetError(
                f"the data set {path!r} is a loading script ({script}), which `datasets` no longer runs, and the Hub "
                f"keeps no parquet copy{of_it}: download its files and give their folder by `{flag}`, or take "
                "another data set of the same rows"
            )
    return None, {"revision": PARQUET_BRANCH, **_of_parquet_branch(path, config, flag)}


def _of_parquet_branch(path: str, config: str | None, flag: str) -> dict[str, Any]:
    """Return the arguments of `load` for the branch: the configuration's folder, and splits with unusual names."""
    files = [PurePosixPath(file) for file in _files(path, PARQUET_BRANCH) or ()]
    splits: dict[str, list[str]] = {}
    for file in files:
        if file.suffix == ".parquet" and len(file.parts) == 3:
            folder, split, _ = file.parts
            splits.setdefault(folder, [])
            if split not in splits[folder]:
                splits[folder].append(split)
    where = {} if config is None else {"data_dir": config}
    if not splits:
        return where
    if config is None and len(splits) > 1 and "default" in splits:
        config, where = "default", {"data_dir": "default"}
    if (config is None and len(splits) > 1) or (config is not None and config not in splits):
        asked = "has several configurations, and none was named" if config is None else f"has no {config!r}"
        raise UnreadableDataSetError(
            f"the Hub's parquet copy of {path!r} {asked}; its configurations are {sorted(splits)}. Name one of these, "
            f"or give files by `{flag}`"
        )
    folder = config or next(iter(splits))
    partial = [split for split in splits[folder] if split.startswith(_PARTIAL)]
    if partial:
        logger.warning(
            f"The Hub's parquet copy of {path!r} has only the first rows of {partial}: the data set is larger than "
            f"what the Hub converts. For all rows give its files by `{flag}`."
        )
    if _USUAL_SPLITS.issuperset(splits[folder]):
        return where
    inside = "" if config is not None else f"{folder}/"
    named = {split.removeprefix(_PARTIAL): f"{inside}{split}/*.parquet" for split in splits[folder]}
    return {**where, "data_files": named}


def _files(path: str, revision: str | None) -> list[str] | None:
    """Paths in a repository; `None` if the revision does not exist.

    The list is empty if the Hub cannot be reached: `datasets` then looks into its cache, or reports the error.
    """
    import datasets
    from huggingface_hub import HfApi

    api = HfApi(endpoint=datasets.config.HF_ENDPOINT, library_name="hf_distill")
    try:
        info = api.dataset_info(path, revision=revision, timeout=_SECONDS)
    except RevisionNotFoundError:
        return None
    except (HTTPError, OSError, ValueError):
        return []
    return [file.rfilename for file in info.siblings or ()]
