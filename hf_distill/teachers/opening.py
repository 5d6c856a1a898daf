"""Turns what a user gives as a teacher into a `TeacherSource`; no other code depends on what was given.

A user gives a model, its Hub id, its folder, the folder of a stored teacher, a `TeacherSource`, or several of these.
It is decided here too whether a teacher reads the student's tokens (then the tokenizers are compared) or those of its
own tokenizer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn
from transformers import TrainingArguments

from ..capture.architectures import without_adapters
from ..hub.loading import load_model, load_tokenizer
from ..hub.tokenizers import check_same_tokens, ids_of_same_pieces, warn_of_other_rules
from ..settings import DistillationArguments, MultiTeacherArguments
from .alignment import AlignedTeacher, reads_like
from .base import LiveTeacher, TeacherSource, TokenColumns, own_tokens_of
from .several import SeveralTeachers
from .stored.manifest import is_stored_teacher
from .stored.teacher import StoredTeacher

# What an object of the user's that is no `TeacherSource` may have of one beside `signals`.
OF_OTHERS = frozenset(
    {"num_layers", "model_type", "config", "input_columns", "required_columns", "request", "match_labels", "to"}
    | {"probe", "check_rows", "fingerprint", "describe", "source"}
)


class OtherSource(TeacherSource):
    """An object of the user's that has `signals`, and whatever else of a `TeacherSource` it likes (`OF_OTHERS`)."""

    def __init__(self, given: Any) -> None:
        """Wrap it."""
        self.given = given

    @property
    def kind(self) -> str:
        """Name of the object's class."""
        return type(self.given).__name__

    def __getattribute__(self, name: str) -> Any:
        """What the object itself has, else what every teacher has."""
        if name in OF_OTHERS and hasattr(self.given, name):
            return getattr(self.given, name)
        return super().__getattribute__(name)

    def signals(self, inputs: Mapping[str, Tensor]) -> Any:
        """Those of the object."""
        return self.given.signals(inputs)


def may_teach(given: Any) -> bool:
    """Whether something is a teacher: a model, an id, a folder, a source of signals, or a list of such."""
    if isinstance(given, (str, os.PathLike, nn.Module)) or callable(getattr(given, "signals", None)):
        return True
    return isinstance(given, Sequence) and len(given) > 0 and all(may_teach(one) for one in given)


def sorted_by_kind(args: Any, data_collator: Any, teacher: Any, name: str) -> tuple[Any, Any, Any]:
    """Training arguments, collator and teacher, where the teacher may have been given in the arguments' place.

    Args:
        args: What stands in second place: training arguments, nothing, or a teacher.
        data_collator: What stands in third place; the training arguments, if a teacher stands before them.
        teacher: What was given as `name`.
        name: The keyword of the teacher, or of the teachers.

    Raises:
        TypeError: If `args` is something else, or there are two teachers.
    """
    if isinstance(data_collator, TrainingArguments):
        args, data_collator, second = data_collator, None, args
    elif args is None or isinstance(args, TrainingArguments):
        return args, data_collator, teacher
    else:
        args, second = None, args
    if second is None:
        return args, data_collator, teacher
    if isinstance(second, TrainingArguments) or not may_teach(second):
        raise TypeError(
            f"`args` is of type {type(second).__name__}: give the training arguments as the second argument, and the "
            f"teacher as `{name}=`."
        )
    if teacher is not None:
        raise TypeError(f"There are two teachers, one in the place of `args` and one as `{name}=`: give one.")
    return args, data_collator, second


def open_teachers(
    given: Any,
    args: DistillationArguments,
    *,
    student: Any = None,
    tokenizer: Any = None,
    own_tokenizer: Any = None,
    pairs: bool = False,
    collator: Any = None,
) -> TeacherSource:
    """The source of a training's signals.

    Args:
        given: One teacher, or a list of them; then the arguments are `MultiTeacherArguments`.
        args: Arithmetic and device of the teachers that are made live here, whether they read tokens of their own, and
            how several of them become one.
        student: The student, if it is known, which must share nothing with a teacher.
        tokenizer: That of the student.
        own_tokenizer: That of the teacher, if it was given; of several a list, or one for all.
        pairs: Whether the rows are pairs of texts.
        collator: A collator in place of ours, if there is one.

    Raises:
        TypeError: If something is no teacher.
        ValueError: If a setting has no effect on the teachers, or a tokenizer is missing or does not fit.
        OSError: If there is no such model.
    """
    is_list = isinstance(given, (list, tuple))
    several = list(given) if is_list else [given]
    flag = "--teacher_models" if is_list else "--teacher_model"
    if is_list and not isinstance(args, MultiTeacherArguments):
        raise ValueError(f"`--teacher_model` is a list of {len(several)}: MultiTeacherTrainer has several teachers.")
    _refuse_without_effect(several, args)
    for one in several:
        refuse_shared(student, one)
    options: dict[str, Any] = {"flag": flag, "dtype": args.teacher_dtype, "device": args.teacher_device}
    # Several stored for the same rows need different names for their columns.
    names = [f"teacher_{index}" for index in range(len(several))] if is_list else ["teacher"]
    sources = [open_teacher(one, name=name, **options) for one, name in zip(several, names, strict=True)]
    own = _one_for_each(own_tokenizer, len(sources))
    if args.align_tokenizers or args.teacher_text_column is not None or args.teacher_prompt:
        sources = _with_own_tokens(sources, several, tokenizer, own, args)
        _refuse_collator(sources, collator, args)
    else:
        for index, (source, one, theirs) in enumerate(zip(sources, several, own, strict=True)):
            try:
                share_tokens(source, one, tokenizer, theirs, pairs=pairs)
            except ValueError as error:
                raise ValueError(f"Teacher {index}: {error}" if is_list else str(error)) from error
    if isinstance(args, MultiTeacherArguments) and is_list:
        return SeveralTeachers(sources, args.combine, args.teacher_weights, offload=args.offload_teachers)
    return sources[0]


def open_teacher(
    given: Any, *, flag: str, name: str = "teacher", dtype: str = "auto", device: str | None = None
) -> TeacherSource:
    """A source of one teacher's signals.

    Args:
        given: A model, a Hub id, a folder of a model or of a stored teacher, or a source.
        flag: The argument that carried it, for errors.
        name: Begins the columns of a stored teacher.
        dtype: Arithmetic of a teacher that is made live here.
        device: Where that stays.

    Raises:
        TypeError: If it is something else.
        OSError: If there is no such model.
    """
    if isinstance(given, TeacherSource):
        return given.for_one_more()
    if isinstance(given, (str, os.PathLike)):
        if is_stored_teacher(given):
            return StoredTeacher(given, name=name)
        given = load_model(os.fspath(given), flag=flag)
    if isinstance(given, nn.Module):
        return LiveTeacher(given, dtype, device)
    if callable(getattr(given, "signals", None)):
        return OtherSource(given)
    raise TypeError(
        f"`{flag}` is of type {type(given).__name__}; a teacher is a model, a Hub id, a folder, or an object with "
        "`signals(batch)` (`hf_distill.TeacherSource`)."
    )


def _refuse_without_effect(given: Sequence[Any], args: DistillationArguments) -> None:
    """Refuse an arithmetic or a device that no teacher takes."""
    chosen = {"teacher_dtype": args.teacher_dtype == "int8", "teacher_device": args.teacher_device is not None}
    if any(chosen.values()) and not any(_is_made_live(one) for one in given):
        name = "teacher_dtype" if chosen["teacher_dtype"] else "teacher_device"
        raise ValueError(
            f"`--{name} {getattr(args, name)}` has no effect: a stored teacher does not run, and a source of signals "
            "decides for itself (`LiveTeacher(model, dtype=, device=)`). Leave it out, or give the teacher as a "
            "model, an id or a folder."
        )


def _is_made_live(given: Any) -> bool:
    return isinstance(given, nn.Module) or (isinstance(given, (str, os.PathLike)) and not is_stored_teacher(given))


# ---- Weights ----


def refuse_shared(student: Any, teacher: Any) -> None:
    """Refuse a student that is a teacher or holds modules or weights of one: what trains would change the target.

    Args:
        student: The student, if it is known.
        teacher: Whatever was given as a teacher.

    Raises:
        ValueError: If something is shared; the message names the first parameters.
    """
    model = teacher if isinstance(teacher, nn.Module) else getattr(teacher, "model", None)
    if not isinstance(student, nn.Module) or not isinstance(model, nn.Module):
        return
    if model is student:
        raise ValueError("`model` and the teacher are the same object: give the student a copy (`copy.deepcopy`).")
    held = {_storage(parameter) for parameter in model.parameters()} - {0}
    names = [name for name, parameter in student.named_parameters() if _storage(parameter) in held]
    if names:
        raise ValueError(
            f"The student shares {len(names)} parameters with the teacher ({', '.join(names[:3])}), which would "
            "be frozen as the teacher's: give the student copies (`copy.deepcopy`)."
        )


def _storage(parameter: nn.Parameter) -> int:
    """Return the address of the numbers in memory; 0 where there are none."""
    try:
        return parameter.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0  # A kind of tensor without memory of its own.


# ---- Tokens ----


def share_tokens(source: TeacherSource, given: Any, tokenizer: Any, own_tokenizer: Any, *, pairs: bool) -> None:
    """Compare the student's tokenizer with that of a teacher, and tell the teacher how many ids both have.

    Where the student's vocabulary was trimmed, the teacher learns its own id of every piece of it. A teacher that was
    given as a model is known by the folder that it was loaded from, where its tokenizer lies there and has the same
    tokens, or the student's among them.

    Args:
        source: The teacher.
        given: What it was given as; the tokenizer of an id or folder lies beside it.
        tokenizer: The student's.
        own_tokenizer: The teacher's, if it was given.
        pairs: Whether the rows are pairs of texts.

    Raises:
        ValueError: If the two differ.
    """
    theirs = _tokenizer_of(source, given, tokenizer, own_tokenizer)
    source.shared_ids = None
    source.read_ids(None)
    if theirs is not None and tokenizer is not None:
        ids = _ids_of_trimmed(theirs, tokenizer) if source.dataset is None else None
        if ids is None:
            check_same_tokens(theirs, tokenizer, pairs=pairs)
        else:
            source.read_ids(ids)
        source.shared_ids = _num_ids(tokenizer)


def _ids_of_trimmed(theirs: Any, ours: Any) -> list[int] | None:
    """For every id of a trimmed tokenizer the id of the same piece in the full one; `None` if it is not trimmed."""
    are_fast = getattr(theirs, "is_fast", False) and getattr(ours, "is_fast", False)
    return ids_of_same_pieces(theirs, ours) if are_fast and theirs.get_vocab() != ours.get_vocab() else None


def _tokenizer_of(source: TeacherSource, given: Any, tokenizer: Any, own_tokenizer: Any) -> Any:
    """The tokenizer of a teacher; `None` if it is not known."""
    if source.dataset is not None:
        return source.tokenizer()
    if own_tokenizer is not None:
        return own_tokenizer
    if not isinstance(given, (str, os.PathLike)):
        return None if tokenizer is None else _tokenizer_beside(given, tokenizer)
    try:
        found = load_tokenizer(os.fspath(given), flag="--teacher_model")
    except OSError:
        return None  # A folder with weights only: the sizes of the vocabularies are compared all the same.
    warn_of_other_rules(os.fspath(given), found)
    return found


def _tokenizer_beside(model: Any, tokenizer: Any) -> Any:
    """The tokenizer in the folder that a model was loaded from; `None` if there is none with the same tokens."""
    inner = without_adapters(model)
    name = getattr(getattr(inner, "config", None), "name_or_path", None) or ""
    folder = Path(name).expanduser() if name else None
    if folder is not None and not folder.is_dir():
        commit = getattr(inner.config, "_commit_hash", None)
        file = try_to_load_from_cache(name, "tokenizer_config.json", revision=commit) if commit else None
        folder = Path(file).parent if isinstance(file, str) else None
    if folder is None or not (folder / "tokenizer_config.json").is_file() or not hasattr(tokenizer, "get_vocab"):
        return None
    try:
        found = load_tokenizer(str(folder), flag="--teacher_model")
    except (OSError, ImportError):
        return None
    # Tokens may have been added since, to both.
    is_known = found.get_vocab() == tokenizer.get_vocab() or ids_of_same_pieces(found, tokenizer) is not None
    return found if is_known else None


def _num_ids(tokenizer: Any) -> int | None:
    """One more than the largest id of a tokenizer; `None` for what has no vocabulary."""
    ids = tokenizer.get_vocab().values() if hasattr(tokenizer, "get_vocab") else ()
    return max(ids) + 1 if ids else None


def _with_own_tokens(
    sources: Sequence[TeacherSource],
    given: Sequence[Any],
    tokenizer: Any,
    own_tokenizers: Sequence[Any],
    args: DistillationArguments,
) -> list[TeacherSource]:
    """The teachers, those with another tokenizer or text than the student wrapped so that they read their own."""
    flag = "align_tokenizers"
    if not args.align_tokenizers:
        flag = "teacher_prompt" if args.teacher_text_column is None else "teacher_text_column"
    if tokenizer is None:
        raise ValueError(f"`--{flag}` needs the student's tokenizer: give it as `processing_class`.")
    text: dict[str, Any] = {"text_column": args.teacher_text_column, "prompt": args.teacher_prompt or ""}
    known: list[TokenColumns] = []
    found: list[TeacherSource] = []
    for index, (source, one, theirs) in enumerate(zip(sources, given, own_tokenizers, strict=True)):
        who = f"teacher {index}" if len(sources) > 1 else "the teacher"
        if source.model is None:
            raise ValueError(
                f"`--{flag}` needs live teachers, which read the text anew, but {who} does not run here: "
                f"{source.describe()}."
            )
        if theirs is None and isinstance(one, (str, os.PathLike)):
            theirs = load_tokenizer(os.fspath(one), flag="--teacher_model")
        if theirs is None and not args.align_tokenizers:
            # Another text, and nothing said of another tokenizer.
            theirs = _tokenizer_beside(one, tokenizer)
        if theirs is None:
            raise ValueError(
                f"`--{flag}` needs the tokenizer of {who}: give it as `teacher_processing_class`, or give "
                f"{who} as an id or folder that has it."
            )
        source.read_ids(None)
        if reads_like(theirs, tokenizer) and not any(text.values()):
            source.shared_ids = _num_ids(tokenizer)
            found.append(source)
            continue
        columns = next((columns for columns in known if reads_like(theirs, columns.tokenizer)), None)
        if columns is None:
            columns = TokenColumns(f"teacher{index}_", theirs, **text)
            known.append(columns)
        found.append(AlignedTeacher(source, columns))
    return found


def _refuse_collator(sources: Sequence[TeacherSource], collator: Any, args: DistillationArguments) -> None:
    """Refuse a collator where rows are padded for several tokenizers."""
    if own_tokens_of(sources) and (collator is not None or args.mlm_probability is not None):
        what = "`data_collator`" if args.mlm_probability is None else "`--mlm_probability`"
        raise ValueError(
            f"Teachers that read their own tokens or texts (`--align_tokenizers`, `--teacher_text_column`, "
            f"`--teacher_prompt`) need the collator that pads them all: {what} cannot be used with them."
        )


def _one_for_each(tokenizers: Any, count: int) -> list[Any]:
    """The tokenizer of each teacher; one that is no list is that of all."""
    if not isinstance(tokenizers, (list, tuple)):
        return [tokenizers] * count
    if len(tokenizers) != count:
        raise ValueError(
            f"`teacher_processing_class` has {len(tokenizers)} tokenizers, but there are {count} teachers; give one "
            "for each."
        )
    return list(tokenizers)
