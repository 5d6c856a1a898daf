"""The folders of a job: what it reads is never written to, and one run at a time writes to its own."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import xxhash

from hf_distill.storage.files import WEIGHTS, checksum_of
from hf_distill.storage.folders import check_apart
from hf_distill.storage.steps import writing_to

P = ParamSpec("P")
R = TypeVar("R")

# Arguments that name what a job reads: files, folders or ids, alone or in a list, some as NAME=WHERE.
READ = (
    *("teacher_model", "teacher_models", "student_model", "student_models", "model", "models", "encoder"),
    *("student_init_model", "masked_lm", "embeddings", "tokenizer_name", "task_teachers"),
    *("textbook", "corpus", "corpora", "runs", "task", "tasks", "data_dir", "eval_task", "eval_task_dir"),
)
# What is known by its content: of the text that first weights are fitted on, a part of a job may be taken.
BY_CONTENT = (*READ, "calibration_text")
# Those that may lie around the output, such as the working directory.
AROUND = frozenset({"task", "tasks", "data_dir", "eval_task", "eval_task_dir"})
# Arguments that name what it writes; the first that there is names the folder that it holds.
WRITTEN = ("output_dir", "corpus_dir")
# Folders of steps, which several runs may share.
SHARED = ("work_dir", "index_dir")
# What lies beside models and data and decides nothing: cards, results, and what runs have left.
_BESIDE = re.compile(r"[._].*|.*\.(md|html|png|log)|(results|distillation|statistics)\.json|arguments\.yaml")
_BUILT_FILE = re.compile(r"train-\d{5}-of-\d{5}\.parquet")
_OTHER_FOLDERS = re.compile(r"checkpoint-\d+|runs|work|[._].*")


def writes_folder(*parts: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a job hold its output folder while it runs, and refuse one that it reads.

    Args:
        parts: Patterns of what the job writes inside its folder beside files of its own.

    Returns:
        A decorator for a job: a function of argument classes.

    Raises:
        ValueError: From the job, if an input would be written to.
        FileExistsError: From the job, if a corpus would take the place of files that no build wrote.
        FolderInUseError: From the job, if another process writes to the folder.
    """

    def decorate(job: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(job)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            given = [item for item in (*args, *kwargs.values()) if dataclasses.is_dataclass(item)]
            flag, folder = next(_fields(given, WRITTEN), ("", None))
            check_folders(given, flag, folder, parts)
            if folder is not None and flag == "--corpus_dir":
                check_room(Path(folder).expanduser())
            # One shard of many has the folder with the others.
            if folder is None or any(getattr(item, "shard", None) is not None for item in given):
                return job(*args, **kwargs)
            with writing_to(folder, flag):
                return job(*args, **kwargs)

        return run

    return decorate


def check_room(folder: Path) -> None:
    """Refuse a folder for a corpus with a model, whose card would be replaced, or with a `data` that no build wrote.

    Raises:
        FileExistsError: If it has one of them.
    """
    data = folder / "data"
    strange = sorted(f.name for f in data.iterdir() if not _BUILT_FILE.fullmatch(f.name)) if data.is_dir() else []
    if strange:
        raise FileExistsError(
            f"`--corpus_dir` is {str(folder)!r}, whose folder `data` holds files that no build wrote ({strange[:3]}); "
            "name another folder."
        )
    weights = sorted(file.name for file in folder.iterdir() if WEIGHTS.fullmatch(file.name)) if folder.is_dir() else []
    if weights:
        raise FileExistsError(
            f"`--corpus_dir` is {str(folder)!r}, which holds a model ({weights[0]}), whose card would be lost; name "
            "another folder."
        )


def check_folders(given: Sequence[Any], flag: str, folder: Any, parts: Sequence[str], *, inside: bool = False) -> None:
    """Refuse a folder that is written where one of the arguments reads it.

    Args:
        given: Instances of argument classes.
        flag: The argument that named the folder.
        folder: What is written; `None` is none.
        parts: Patterns of what is written inside it beside files of the job's own.
        inside: Whether it may lie inside of what is read.

    Raises:
        ValueError: If one does; the message names both flags.
    """
    for name, read in _fields(given, READ):
        around = inside or name.removeprefix("--") in AROUND
        places = _places(read)
        check_apart(folder, {name: places}, flag=flag, parts=("checkpoint-*", *parts), inside=around)
        for shared, where in _fields(given, SHARED):
            check_apart(where, {name: places}, flag=shared, parts=(), inside=around)


def _fields(given: Sequence[Any], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Flag and value of these fields, where they have one."""
    for name in names:
        for item in given:
            if name in {field.name for field in dataclasses.fields(item)} and getattr(item, name):
                yield f"--{name}", getattr(item, name)


def paths_in(value: Any) -> Iterator[Path]:
    """The files and folders of this machine that a setting names: a path, NAME=WHERE, a list or mapping of such."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from paths_in(item)
    elif isinstance(value, (str, os.PathLike)):
        named = (Path(place).expanduser() for place in _places(os.fspath(value)))
        yield from (path for path in named if os.path.exists(path))


def wherever(value: Any, folder: Path) -> Any:
    """Settings without the place of a folder, in paths that lead into it: moved or renamed, it is the same folder.

    Args:
        value: A setting, or a list or mapping of such; of a mapping the names too.
        folder: The folder, as the settings write it.
    """
    if isinstance(value, Mapping):
        return {wherever(name, folder): wherever(item, folder) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [wherever(item, folder) for item in value]
    inside = isinstance(value, str) and Path(value).is_relative_to(folder) and str(folder) != "."
    return f"./{Path(value).relative_to(folder).as_posix()}" if inside else value


def by_content(value: Any, own: Path) -> Any:
    """A setting with the content of what it names on this machine: moved, or written again, that is the same.

    Args:
        value: A path, NAME=WHERE, a list of such, or anything else, which stays as it is.
        own: The folder of a job. What lies in it is known by who wrote it, and a folder around it, such as the working
            directory, changes with every run: both are named by their places.
    """
    if isinstance(value, (list, tuple)):
        return [by_content(item, own) for item in value]
    for place in _places(value) if isinstance(value, (str, os.PathLike)) else ():
        path = Path(place).expanduser()
        if os.path.exists(path):
            here, there = Path(os.path.realpath(own)), Path(os.path.realpath(path))
            name = str(value).removesuffix(place)
            if here.is_relative_to(there) or there.is_relative_to(here):
                return [name, os.path.relpath(there, here)]
            return [name, path.name, content_of(path)]
    return value


def contents(given: Mapping[str, Any]) -> dict[str, str]:
    """Path -> checksum of its content, of all that settings read on this machine; ids of the Hub are left out.

    Cards, results and what runs leave beside a model do not count.

    Args:
        given: Name of a setting -> its value.
    """
    paths = (path for name in BY_CONTENT for path in paths_in(given.get(name)))
    return {str(path): content_of(path) for path in paths}


def content_of(path: Path) -> str:
    """The checksum of a file, or of the files of a folder with their names."""
    if path.is_file():
        return _checksum(path)
    digest = xxhash.xxh3_128()
    for root, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not _OTHER_FOLDERS.fullmatch(name))
        for name in sorted(files):
            if not _BESIDE.fullmatch(name):
                file = Path(root, name)
                line = f"{file.relative_to(path).as_posix()} {_checksum(file)}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _checksum(file: Path) -> str:
    facts = file.stat()
    return _read_once(os.path.realpath(file), facts.st_size, facts.st_mtime_ns)


@functools.cache
def _read_once(file: str, _size: int, _changed: int) -> str:
    return checksum_of(file)


def _places(value: Any) -> list[str]:
    """The paths that a value may mean: itself, or what stands behind the name in NAME=WHERE."""
    items = [str(item) for item in (value if isinstance(value, (list, tuple)) else [value])]
    return [place for item in items for place in (item, item.partition("=")[2]) if place]
