"""The student of a distillation before its first update: its rows, its vocabulary and its first weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from transformers import AutoModelForSequenceClassification, TrainerCallback, set_seed
from transformers.trainer_callback import ExportableState

from hf_distill.commands.distill_teachers import Teachers
from hf_distill.commands.textbook import (
    calibration_rows,
    plain_text,
    read_eval_task,
    read_textbook,
    stored_rows,
    texts_in,
)
from hf_distill.hub.loading import checksum_of_embeddings, load_model, load_tokenizer
from hf_distill.hub.model_card import shown_name
from hf_distill.hub.tokenizers import check_same_tokens, ids_of_same_pieces
from hf_distill.kernels.cpu import configure_fp32_matmul
from hf_distill.objectives import build_objectives
from hf_distill.settings import DistillationArguments, StudentArguments, TextbookArguments
from hf_distill.students.creation import create_student, has_weights
from hf_distill.students.embedding_init import KEPT_VARIANCE
from hf_distill.students.first_weights import CalibrationRow, first_weights_of
from hf_distill.students.sentence import read_head
from hf_distill.students.sizes import size_table
from hf_distill.students.vocabulary import TrimmedVocabulary, trim_vocabulary
from hf_distill.tasks.loading import LoadedTask
from hf_distill.trainers.checkpoints import resumes


@dataclass(frozen=True)
class Begun:
    """A student with its first weights, and its rows.

    Attributes:
        student: The model.
        tokenizer: The tokenizer of its rows.
        train_rows: Rows to train on.
        eval_rows: Held-out rows, if any.
        sizes: The table of teacher and student sizes.
        student_init: The origin of the first weights: the name of an initialisation, or a model.
        first_weights: The same in words, with what was kept of the teacher.
        identity: Distinguishes these weights from others, also if the run resumes from a checkpoint.
        eval_task: The task that it is scored on, if the trainer cannot load it by name.
    """

    student: Any
    tokenizer: Any
    train_rows: datasets.Dataset
    eval_rows: datasets.Dataset | None
    sizes: str
    student_init: str
    first_weights: str
    identity: str | None
    eval_task: LoadedTask | None = None


class FirstWeightsNote(TrainerCallback, ExportableState):
    """Stores the origin of the first weights in every checkpoint, because a resumed run does not make them again.

    Attributes:
        words: `Begun.first_weights` of the call that made them.
    """

    def __init__(self, words: str) -> None:
        """Create the note of a new run."""
        self.words = words

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint."""
        return {"args": {"words": self.words}, "attributes": {}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take over the note of the checkpoint if there is one."""
        self.words = state.stateful_callbacks.get(type(self).__name__, self.state())["args"]["words"]


def begin(
    student: StudentArguments, textbook: TextbookArguments, training: DistillationArguments, teachers: Teachers
) -> Begun:
    """Read the rows and make the student; for a family this happens before any trainer changes the teachers.

    Raises:
        ValueError: If models and text do not match.
    """
    if textbook.with_labels and training.mlm_probability is not None:
        raise ValueError("`--with_labels` and `--mlm_probability` both fill `labels`: leave one of them out.")
    set_seed(training.seed)
    # Fit first weights with the same arithmetic as the training, whatever this process has set before.
    configure_fp32_matmul(training.fp32_matmul)
    first, tokenizer = teachers.models[0], teachers.tokenizers[0]
    origin = _origin(student, teachers)
    if student.student_model is not None:
        own = load_tokenizer(student.student_model, flag="--student_model")
        # The student's vocabulary may be a subset of the teacher's.
        if training.align_tokenizers or ids_of_same_pieces(tokenizer, own) is not None:
            tokenizer = own
        else:
            check_same_tokens(tokenizer, own)
    existing = None if student.student_model is None else _existing_student(student.student_model, first, training)
    # A new student gets the labels of its teacher.
    config = first.config if existing is None else existing.config
    eval_task = read_eval_task(textbook, training, config)
    if teachers.stored:
        train_rows, eval_rows = stored_rows(textbook, training, teachers.stored)
    else:
        train_rows, eval_rows = read_textbook(textbook, training, tokenizer, config)
    # The weights of a resumed run come from its checkpoint.
    goes_on = resumes(training.resume_from_checkpoint, str(training.output_dir))
    text = _calibration_text(student, training, train_rows, origin) if existing is None and not goes_on else None
    trimmed = None if existing is not None else _trim(student, training, teachers, origin, train_rows)
    if trimmed is not None:
        origin, tokenizer = trimmed.model, trimmed.tokenizer
    student_model = existing or make_student(student, origin, training.seed, text, tokenizer)
    if (
        eval_rows is None
        and training.eval_task is None
        and (training.eval_strategy != "no" or training.eval_agreement)
    ):
        raise ValueError(
            "There is nothing to evaluate on: hold rows out with `--textbook_eval_rows`, or name a task with "
            "`--eval_task`."
        )
    begun = student.student_model or _init_of(student, student_model)
    weights = "those of the checkpoint" if goes_on else _first_weights(student, student_model)
    weights += f"; vocabulary: {trimmed}" if trimmed else ""
    sizes = size_table(first, student_model)
    chosen = (student.student_init, student.student_init_model, student.student_layers)
    identity: str | None = " ".join(str(value) for value in chosen if value) or "as by default"
    if existing is not None:
        identity = checksum_of_embeddings(existing)
    return Begun(student_model, tokenizer, train_rows, eval_rows, sizes, begun, weights, identity, eval_task)


def _existing_student(name: str, teacher: Any, training: DistillationArguments) -> Any:
    """Load the model of `--student_model`; an encoder without a head gets one with the teacher's labels for logits.

    Args:
        name: Its id or folder.
        teacher: The first teacher, possibly without weights.
        training: Settings with the objectives.
    """
    found = load_model(name, flag="--student_model")
    classifies = type(teacher).__name__.endswith("ForSequenceClassification")
    items = build_objectives(training.objectives or ["relation"], training.objective_options()) if classifies else []
    learns_logits = any(item.objective.student_request.logits for item in items)
    if not learns_logits or "For" in type(found).__name__:
        return found
    labels = {field: getattr(teacher.config, field) for field in ("id2label", "label2id", "problem_type")}
    return AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32, **labels)


def _init_of(student: StudentArguments, model: Any) -> str:
    """The name of the initialisation of a new student."""
    return student.student_init or ("random" if first_weights_of(model) is None else "teacher")


def _first_weights(student: StudentArguments, model: Any) -> str:
    """Describe the origin of a student's first weights."""
    if student.student_model is not None:
        return f"the weights of {shown_name(student.student_model)}"
    taken = first_weights_of(model)
    begun = _init_of(student, model).replace("_", " ")
    origin = "the teacher" if student.student_init_model is None else shown_name(student.student_init_model)
    if model in KEPT_VARIANCE:
        begun += f", which keep {KEPT_VARIANCE[model]:.1%} of the variance of those of {origin}"
    return begun if taken is None else f"cut out of {origin}: {taken}"


def _origin(student: StudentArguments, teachers: Teachers) -> Any:
    """The model that the student is made from: that of `--student_init_model`, else the first teacher.

    Raises:
        ValueError: If its tokens are not the teacher's, or weights of a stored teacher are requested, which has none.
    """
    name = student.student_init_model
    if name is not None:
        try:
            check_same_tokens(teachers.tokenizers[0], load_tokenizer(name, flag="--student_init_model"))
        except ValueError as error:
            raise ValueError(
                f"`--student_init_model {name}` has another tokenizer than the teacher {teachers.names[0]}, which the "
                "student shares: name the model that was stored, or one with its tokenizer."
            ) from error
        return load_model(name, flag="--student_init_model")
    is_stored = teachers.stored and teachers.sources[0] is teachers.stored[0]
    if is_stored and student.student_model is None and student.student_init not in (None, "random"):
        raise ValueError(
            f"`--student_init {student.student_init}` takes weights, which a stored teacher does not have: name the "
            "model that was stored with `--student_init_model`."
        )
    return teachers.models[0]


def _calibration_text(
    student: StudentArguments, training: DistillationArguments, textbook: datasets.Dataset, origin: Any
) -> Iterator[CalibrationRow] | None:
    """The text for refitting first weights: the named text, else the textbook; `None` if nothing is refitted.

    Args:
        student: Settings of the student.
        training: Settings with the column of the text.
        textbook: The rows to train on.
        origin: The model that the weights come from; for a stored teacher a model without weights.
    """
    if not student.calibration_tokens:
        return None
    if student.calibration_text is not None:
        textbook = plain_text(student.calibration_text, training.text_column, "--calibration_text")
    elif student.student_init not in (None, "teacher") or not has_weights(origin):
        return None
    return calibration_rows(textbook, training.text_column)


def _trim(
    student: StudentArguments, training: DistillationArguments, teachers: Teachers, origin: Any, rows: datasets.Dataset
) -> TrimmedVocabulary | None:
    """Trim the vocabulary of the model that the student is made from; `None` if the student keeps all of it.

    Raises:
        ValueError: If there is no text to count pieces in, or a teacher cannot read the tokens of such a student.
    """
    if student.student_vocabulary is None:
        return None
    if teachers.stored or training.align_tokenizers:
        what = "a stored teacher's rows have" if teachers.stored else "`--align_tokenizers` compares"
        raise ValueError(
            f"`--student_vocabulary {student.student_vocabulary}` goes with live teachers of one tokenizer, but "
            f"{what} the tokens of the full one: store the signals of a teacher that `hf-distill vocabulary` made."
        )
    texts = texts_in(rows, training.text_column)
    if texts is None:
        raise ValueError("`--student_vocabulary` counts the pieces of text, but the textbook has tokens only.")
    # A student inherits the prompts of a sentence encoder, unless it learns to do without.
    head = None if training.teacher_prompt is not None else read_head(teachers.names[0])
    return trim_vocabulary(
        teachers.tokenizers[0],
        origin,
        texts,
        size=student.student_vocabulary or None,
        prompts=() if head is None else head.prompts.values(),
    )


def make_student(
    student: StudentArguments,
    teacher: Any,
    seed: int,
    text: Iterable[CalibrationRow] | None = None,
    tokenizer: Any = None,
) -> Any:
    """Make the student that the arguments describe: cut out of a teacher's weights and refitted on `text`."""
    return create_student(
        teacher,
        student.student_shape,
        init=student.student_init,
        layers=student.student_layers,
        calibration_text=text,
        calibration_tokens=student.calibration_tokens,
        tokenizer=tokenizer,
        embedding_size=student.student_embedding_size,
        seed=seed,
    )
