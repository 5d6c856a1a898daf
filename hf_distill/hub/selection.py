"""Selects the files of a folder that belong on the Hub: only files that a rule names.

Every other file is left out with a reason: a student's folder also holds checkpoints, projections, the state of the
optimizer, logs, and models that it was compared with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from hf_distill.storage.files import checksum_of, close_path, read_json
from hf_distill.storage.plain_values import NotFiniteError, listed

RepoType = Literal["model", "dataset"]
WHAT: dict[RepoType, str] = {"model": "student", "dataset": "corpus"}
# Files that a run writes beside a student: its card, the facts of the card, and the results.
CARD_FILE, FACTS_FILE, RESULTS_FILE = "README.md", "distillation.json", "results.json"
# The measurements of an export.
EXPORT_FILE = "export.json"
# The modules of a sentence encoder, in every folder of sentence-transformers.
MODULES_FILE = "modules.json"

# Files of an earlier push that readers would confuse with the new ones.
WEIGHTS = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
)
ONNX = ("*.onnx", "*.onnx_data", "onnx/*.onnx", "onnx/*.onnx_data")
SHARDS = ("data/train-*.parquet",)
DATA_FILES: dict[RepoType, tuple[str, ...]] = {"model": (*WEIGHTS, *ONNX), "dataset": SHARDS}

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "*vocab*.txt",
    "*.model",
    "bpe.codes",
    "chat_template.jinja",
)
_TEXTS = (CARD_FILE, "LICENSE*", "NOTICE*")
# Files that this library and optimum write beside an ONNX file.
_ONNX_SETTINGS = (
    *("config.json", "generation_config.json", "quantize_config.json", "ort_config.json"),
    *(EXPORT_FILE, RESULTS_FILE, FACTS_FILE),
)
ALLOWED: dict[RepoType, tuple[str, ...]] = {
    "model": (
        *_TEXTS,
        *WEIGHTS,
        *_TOKENIZER,
        "config.json",
        "generation_config.json",
        "encoder_generation.json",
        MODULES_FILE,
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "adapter_config.json",
        RESULTS_FILE,
        FACTS_FILE,
        *ONNX,
        EXPORT_FILE,
        *(f"onnx/{name}" for name in (*_TOKENIZER, *_ONNX_SETTINGS)),
    ),
    "dataset": (*_TEXTS, *SHARDS, "statistics.json", "figures/*.png"),
}

# Patterns that are left out even if another pattern allows them; one without a slash matches any part of the path.
_PICKLE = "a pickle, which runs code when it is read; a student's weights are safetensors"
DENIED: tuple[tuple[str, str], ...] = (
    ("_*", "begins with an underscore: belongs to the run (projections, markers of stages)"),
    (".*", "hidden"),
    ("checkpoint-*", "a checkpoint"),
    ("last-checkpoint", "a checkpoint"),
    ("optimizer*", "state of the training"),
    ("scheduler.pt", "state of the training"),
    ("scaler.pt", "state of the training"),
    ("rng_state*", "state of the training"),
    ("global_step*", "state of the training"),
    ("pytorch_model_fsdp*", "state of the training"),
    ("trainer_state.json", "state of the training"),
    ("training_args.bin", "settings of the training, which may hold a token"),
    *((name, "named like a secret") for name in ("*secret*", "*credential*", "*password*", "*.pem", "*.key")),
    ("arguments.yaml", "names folders of this machine; the card has the settings"),
    ("events.out.tfevents*", "a log"),
    ("*.bin", _PICKLE),
    ("*.pt", _PICKLE),
    ("*.pth", _PICKLE),
    ("*.pkl", _PICKLE),
    ("*.ckpt", _PICKLE),
)
_OUTDATED = "made from other weights than those beside it: `hf-distill export` makes it again"
# Jobs that make teachers.
_NO_STUDENTS = {"teach": "hf-distill teach", "mlm": "hf-distill mlm"}
# Names of weights in the trained module that are not the student's.
_NOT_OF_A_STUDENT = ("teacher.", "student.", "objectives.")


@dataclass(frozen=True)
class PushedFile:
    """A file that is uploaded: its path in the folder and on the Hub, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class LeftOut:
    """A file that is not uploaded, with the reason."""

    path: str
    size: int
    reason: str


@dataclass(frozen=True)
class Selection:
    """The files that a push of a folder uploads, and those that it leaves out.

    Attributes:
        folder: The folder.
        repo_type: `model` for a student, `dataset` for a corpus.
        files: The files to upload, by path.
        left_out: The other files, by path.
    """

    folder: Path
    repo_type: RepoType
    files: tuple[PushedFile, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def size(self) -> int:
        """Bytes to upload."""
        return sum(file.size for file in self.files)

    def has(self, path: str) -> bool:
        """Whether a file is uploaded."""
        return any(file.path == path for file in self.files)


def select_files(folder: str | os.PathLike[str]) -> Selection:
    """Sort the files of a student's or a corpus's folder into those for the Hub and the others.

    Raises:
        ValueError: If the folder holds neither a student nor a corpus, or it holds a teacher, or weights that are not
            only the student's.
    """
    root = Path(folder).expanduser()
    repo_type = _repo_type(root)
    files, left_out = [], []
    outdated = onnx_is_outdated(root)
    for path, size in _walk(root, repo_type):
        reason = _OUTDATED if outdated and path.startswith("onnx/") else _reason(path, repo_type, root)
        if reason is None:
            files.append(PushedFile(path, size))
        else:
            left_out.append(LeftOut(path, size, reason))
    selection = Selection(root, repo_type, tuple(files), tuple(left_out))
    _check_weights(selection)
    return selection


def checksum_of_weights(folder: str | os.PathLike[str]) -> str:
    """The checksums of all weight files of a model; empty if the folder has none."""
    files = {file for pattern in WEIGHTS for file in Path(folder).expanduser().glob(pattern)}
    return " ".join(checksum_of(file) for file in sorted(files))


def onnx_is_outdated(folder: str | os.PathLike[str]) -> bool:
    """Whether the ONNX files in a model's folder were made from other weights than the current ones."""
    try:
        made_of = read_json(Path(folder).expanduser() / "onnx" / EXPORT_FILE).get("weights")
    except (OSError, ValueError, AttributeError):
        return False
    return bool(made_of) and made_of != checksum_of_weights(folder)


def is_data_file(path: str, repo_type: RepoType) -> bool:
    """Whether a path in a repository is one of the weights or shards."""
    return _matches(path, DATA_FILES[repo_type])


def _repo_type(root: Path) -> RepoType:
    """Return the kind of repository for the folder: a model or a data set.

    Raises:
        ValueError: If the folder holds nothing that can be pushed.
    """
    if not root.is_dir():
        raise ValueError(f"There is no folder {str(root)!r}.{close_path(root)}")
    if (root / "manifest.json").is_file() and any(root.glob("signals-*.arrow")):
        raise ValueError(f"{str(root)!r} is a stored teacher: no signals and no weights of a teacher are uploaded.")
    made_by = _NO_STUDENTS.get(_job(root))
    if made_by is not None:
        raise ValueError(
            f"{str(root)!r} is a teacher (its results.json is one of `{made_by}`): only students and corpora are "
            f"pushed. To share it as it is: hf upload REPO {root}"
        )
    found = _kind(root)
    if found is not None:
        return found
    inside = [name for name in sorted(os.listdir(root)) if (root / name).is_dir() and _kind(root / name)]
    hint = f" Inside are {', '.join(str(root / name) for name in inside)}." if inside else ""
    raise ValueError(
        f"{str(root)!r} is neither a student (config.json with model.safetensors or model.onnx, or an adapter) nor "
        f"a corpus (data/train-*.parquet).{hint}"
    )


def _kind(root: Path) -> RepoType | None:
    if any(root.glob(SHARDS[0])):
        return "dataset"
    for config, weights in (
        ("config.json", "model*.safetensors"),
        ("adapter_config.json", "adapter*.safetensors"),
        ("config.json", "model*.onnx"),
    ):
        if (root / config).is_file() and any(root.glob(weights)):
            return "model"
    return None


def _job(root: Path) -> Any:
    """The job that wrote the folder, from its results."""
    try:
        results = read_json(root / RESULTS_FILE)
    except (OSError, ValueError):
        return None
    return results.get("job") if isinstance(results, dict) else None


def _walk(root: Path, repo_type: RepoType) -> Iterator[tuple[str, int]]:
    """Every file by its path inside the folder, with its size; in linked folders only files that may be pushed."""
    inside = {path.partition("/")[0] for path in (*ALLOWED[repo_type], *_files_of_modules(root)) if "/" in path}
    linked = [folder for folder in root.iterdir() if folder.name in inside and folder.is_symlink()]
    for path in sorted({*root.rglob("*"), *(path for folder in linked for path in folder.rglob("*"))}):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path.stat().st_size


def _reason(path: str, repo_type: RepoType, root: Path) -> str | None:
    """The reason why a file is left out; `None` if it is uploaded."""
    parts = PurePosixPath(path).parts
    for pattern, reason in DENIED:
        if any(fnmatchcase(part, pattern) for part in parts):
            return reason
    if _matches(path, ALLOWED[repo_type]) or path in _files_of_modules(root):
        return None
    above = [root.joinpath(*parts[:depth]) for depth in range(1, len(parts))]
    if any((folder / "config.json").is_file() for folder in above):
        return "another model"
    if parts[0] == "work" and repo_type == "dataset":
        return "work of the build"
    return f"not part of a {WHAT[repo_type]}"


def _files_of_modules(root: Path) -> set[str]:
    """Files of the modules of a sentence encoder, without those of the encoder itself, which are in `ALLOWED`."""
    try:
        modules = read_json(root / MODULES_FILE)
    except (OSError, ValueError):
        return set()
    listed = modules if isinstance(modules, list) else []
    paths = [module.get("path") for module in listed if isinstance(module, dict)]
    files = ("config.json", "model.safetensors")
    return {f"{path}/{file}" for path in paths if isinstance(path, str) and path for file in files}


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path matches one of the patterns, part by part: a star does not match a slash."""
    parts = path.split("/")
    return any(
        len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))
        for wanted in (pattern.split("/") for pattern in patterns)
    )


def _check_weights(selection: Selection) -> None:
    """Check that weights are finite and only the student's: sharded strategies save the whole trained module.

    A sentence encoder is pushed only with the weights of all its modules.
    """
    modules = _files_of_modules(selection.folder)
    for left in selection.left_out:
        weights = left.path.removesuffix("pytorch_model.bin") + "model.safetensors"
        if weights != left.path and weights in modules and not selection.has(weights):
            raise ValueError(
                f"{str(selection.folder / left.path)!r} is {_PICKLE}, and the sentence encoder lacks these weights "
                "without it: load it with `SentenceTransformer` and save it again."
            )
    for file in selection.files:
        if selection.repo_type == "model" and file.path.endswith(".safetensors"):
            check_weight_file(selection.folder / file.path)


def check_weight_file(path: Path) -> None:
    """Check that the weights in a safetensors file are finite and only a student's; tensors are read one at a time.

    Raises:
        NotFiniteError: If a weight is not finite; the message names file and tensors.
        ValueError: If the file is damaged, or holds more than a student.
    """
    try:
        with safe_open(path, framework="pt") as tensors:
            names = list(tensors.keys())
            wrong = [name for name in names if not _is_finite(tensors.get_tensor(name))]
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}.") from error
    if wrong:
        raise NotFiniteError(f"The weights in {str(path)!r} are not finite (NaN or infinite): {listed(wrong)}.")
    foreign = [name for name in names if name.startswith(_NOT_OF_A_STUDENT)]
    if foreign:
        raise ValueError(
            f"{str(path)!r} holds more than a student ({foreign[0]!r} and {len(foreign) - 1} more tensors): save the "
            "plain student with `trainer.student.save_pretrained`."
        )


def _is_finite(values: Any) -> bool:
    """Whether a tensor has no NaN and no infinity; one-byte numbers are quantised weights and are not checked."""
    return not values.is_floating_point() or values.itemsize == 1 or bool(values.isfinite().all())
