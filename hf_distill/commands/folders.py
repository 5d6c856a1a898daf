"""The folders of a job: inputs are never overwritten, and only one run at a time writes to a folder."""

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

# Arguments that name inputs of a job: files, folders or ids, single or in a list, some as NAME=PATH.
READ = (
    *("teacher_model", "teacher_models", "student_model", "student_models", "model", "models", "encoder"),
    *("student_init_model", "masked_lm", "embeddings", "tokenizer_name", "task_teachers"),
    *("textbook", "corpus", "corpora", "runs", "task", "tasks", "data_dir", "eval_task", "eval_task_dir"),
)
# Inputs that are identified by their content. A job may write into the folder of its calibration text, so that the
# text is not in `READ`.
BY_CONTENT = (*READ, "calibration_text")
# Inputs that may contain the output folder, for example the working directory.
AROUND = frozenset({"task", "tasks", "data_dir", "eval_task", "eval_task_dir"})
# Arguments that name output folders; the first one that is set names the folder that the job locks.
WRITTEN = ("output_dir", "corpus_dir")
# Folders of steps, which several runs may share.
SHARED = ("work_dir", "index_dir")
# Files beside models and data that do not change a result: cards, results, and files that runs leave.
_BESIDE = re.compile(r"[._].*|.*\.(md|html|png|log)|(results|distillation|statistics)\.json|arguments\.yaml")
_BUILT_FILE = re.compile(r"train-\d{5}-of-\d{5}\.parquet")
_OTHER_FOLDERS = re.compile(r"checkpoint-\d+|runs|work|[._].*")


def writes_folder(*parts: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lock a job's output folder while the job runs, and refuse an output folder that is also an input.

    Args:
        parts: Patterns of subfolders that the job writes inside its folder, in addition to its own files.

    Returns:
        A decorator for a job, which is a function of argument classes.

    Raises:
        ValueError: From the job, if an input would be overwritten.
        FileExistsError: From the job, if a corpus would replace files that no build wrote.
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
            # The job of one shard shares the folder with the jobs of the others.
            if folder is None or any(getattr(item, "shard", None) is not None for item in given):
                return job(*args, **kwargs)
            with writing_to(folder, flag):
                return job(*args, **kwargs)

        return run

    return decorate


def check_room(folder: Path) -> None:
    """Refuse a folder for a corpus that has a model, whose card would be replaced, or a `data` that no build wrote.

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
    """Refuse an output folder that one of the arguments reads.

    Args:
        given: Instances of argument classes.
        flag: The argument that named the output folder.
        folder: The output folder; `None` if there is none.
        parts: Patterns of subfolders that are written inside it, in addition to the job's own files.
        inside: Whether it may lie inside an input.

    Raises:
        ValueError: If an input would be overwritten; the message names both flags.
    """
    for name, read in _fields(given, READ):
        around = inside or name.removeprefix("--") in AROUND
        places = _places(read)
        check_apart(folder, {name: places}, flag=flag, parts=("checkpoint-*", *parts), inside=around)
        for shared, where in _fields(given, SHARED):
            check_apart(where, {name: places}, flag=shared, parts=(), inside=around)


def _fields(given: Sequence[Any], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield flag and value of these fields, where they are set."""
    for name in names:
        for item in given:
            if name in {field.name for field in dataclasses.fields(item)} and getattr(item, name):
                yield f"--{name}", getattr(item, name)


def paths_in(value: Any) -> Iterator[Path]:
    """The local files and folders that a setting names: a path, NAME=PATH, or a list or mapping of these."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from paths_in(item)
    elif isinstance(value, (str, os.PathLike)):
        named = (Path(place).expanduser() for place in _places(os.fspath(value)))
        yield from (path for path in named if os.path.exists(path))


def wherever(value: Any, folder: Path) -> Any:
    """Make paths inside a folder relative to it (`./...`), so that settings stay equal when the folder is moved.

    Args:
        value: A setting, or a list or mapping of settings; the keys of a mapping are included.
        folder: The folder, as the settings write it.
    """
    if isinstance(value, Mapping):
        return {wherever(name, folder): wherever(item, folder) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [wherever(item, folder) for item in value]
    inside = isinstance(value, str) and Path(value).is_relative_to(folder) and str(folder) != "."
    return f"./{Path(value).relative_to(folder).as_posix()}" if inside else value


def by_content(value: Any, own: Path) -> Any:
    """Replace local paths in a setting by name and checksum of the content, so that moved copies compare equal.

    Args:
        value: A path, NAME=PATH, a list of these, or anything else, which is returned unchanged.
        own: The folder of the job. Paths inside it are identified by the step that wrote them, and a folder around it,
            such as the working directory, changes with every run; both are therefore identified by relative paths.
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
    """Path -> checksum of its content, for every local path that settings read; Hub ids are left out.

    Cards, results and other files that runs leave beside a model are ignored.

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
    """The paths that a value may mean: the value itself, or the part after the name in NAME=PATH."""
    items = [str(item) for item in (value if isinstance(value, (list, tuple)) else [value])]
    return [place for item in items for place in (item, item.partition("=")[2]) if place]
