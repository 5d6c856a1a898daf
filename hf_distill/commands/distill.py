"""Distil: a student learns from a teacher on a textbook."""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForSequenceClassification, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_distill.commands.distill_family import members, table
from hf_distill.commands.folders import check_folders, writes_folder
from hf_distill.commands.results import cost_of_training, environment, finish
from hf_distill.commands.student_facts import completed, distillation_details, shown_command
from hf_distill.commands.textbook import read_textbook, stored_rows, texts_in
from hf_distill.corpus.build.loading import load_general_corpus
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.hub.model_card import shown_name
from hf_distill.hub.tokenizers import check_same_tokens, ids_of_same_pieces
from hf_distill.objectives import build_objectives
from hf_distill.settings import (
    DistillationArguments,
    MultiTeacherArguments,
    RunArguments,
    StudentArguments,
    TeacherArguments,
    TextbookArguments,
)
from hf_distill.settings.distill import Unset
from hf_distill.settings.parsing import changed_arguments
from hf_distill.storage.steps import writing_to
from hf_distill.students.creation import create_student
from hf_distill.students.first_weights import first_weights_of
from hf_distill.students.sizes import count_parameters, size_table
from hf_distill.students.vocabulary import TrimmedVocabulary, trim_vocabulary
from hf_distill.teachers.stored.manifest import is_stored_teacher
from hf_distill.teachers.stored.teacher import StoredTeacher
from hf_distill.trainers.distillation.card import card_facts
from hf_distill.trainers.distillation.family import train_family
from hf_distill.trainers.distillation.multi_teacher import MultiTeacherTrainer
from hf_distill.trainers.distillation.trainer import DistillationTrainer

logger = logging.getLogger(__name__)

# The usual one is for weights that mean nothing yet; it spoils those that were cut out of the teacher.
RATE_OF_CUT_STUDENTS = 1e-4
# What these fields of `MultiTeacherArguments` are where nobody set them.
ONLY_SEVERAL = {"combine": "mean_logits", "teacher_weights": None, "offload_teachers": False}


def run(
    student: StudentArguments,
    teacher: TeacherArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
    how_far: RunArguments | None = None,
) -> dict[str, Any]:
    """Distil a teacher, or several, into a student on text, with labels where objectives read them.

    Writes to `training.output_dir`: the plain student with its tokenizer, `results.json` and `arguments.yaml`, which
    repeats the run. With `training.push_to_hub` all but the arguments is pushed at the end.

    Args:
        student: Shape and first weights of the student; of several in one pass of the teacher, `FamilyArguments`.
        teacher: The teacher, as an id or folder; a folder that `precompute` wrote is a teacher without weights.
        textbook: The text; none for a stored teacher, which has its own rows.
        training: Objectives and training; `resume_from_checkpoint="last"` continues in `output_dir`.
            `MultiTeacherArguments` may name several teachers; students are shaped after the first.
        how_far: Whether the run is a dry one; see `dry_run` for its result.

    Returns:
        The content of `results.json`: student and teacher sizes, objectives as resolved, curve of every term, seconds.
        Of a family `students`, its name -> this content.

    Raises:
        ValueError: If no teacher is given, or models, objectives and text do not fit.
    """
    job = dry_run if how_far is not None and how_far.dry_run else None
    students = members(student, training)
    if len(students) == 1:
        [(alone, own)] = students.values()
        return (job or _train)(alone, teacher, textbook, own)
    if job is None:
        return _train_family(student, teacher, textbook, training)
    found = {name: job(one, teacher, textbook, own) for name, (one, own) in students.items()}
    return {"job": "family", "students": found}


@writes_folder()
def _train(
    student: StudentArguments, teacher: TeacherArguments, textbook: TextbookArguments, training: DistillationArguments
) -> dict[str, Any]:
    """Train one student, and write what `run` says."""
    started = time.perf_counter()
    ready = prepare(student, teacher, textbook, training)
    _describe(ready, student, teacher, textbook, training)
    ready.trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    return _write(ready, started, student, teacher, textbook, training)


@writes_folder()
def _train_family(
    student: StudentArguments, teacher: TeacherArguments, textbook: TextbookArguments, training: DistillationArguments
) -> dict[str, Any]:
    """Train several students in one pass of the teachers, and write each as if it were alone."""
    started = time.perf_counter()
    students = members(student, training)
    teachers = open_teachers(teacher, training)
    begun, ready = {}, {}
    with ExitStack() as stack:
        for name, (one, own) in students.items():
            check_folders((one, teacher, textbook, own), "--output_dir", own.output_dir, ())
            stack.enter_context(writing_to(str(own.output_dir)))
            # A tokenizer remembers how it cut last.
            theirs = replace(teachers, tokenizers=copy.deepcopy(teachers.tokenizers))
            begun[name] = begin(one, textbook, own, theirs)
        # The first trainer freezes the teachers, and may let them compute faster than while students are made.
        for name, (one, own) in students.items():
            ready[name] = make_trainer(begun.pop(name), own, teachers)
            _describe(ready[name], one, teacher, textbook, own)
            others = ", ".join(other for other in students if other != name)
            ready[name].trainer.card_details["hardware"] += f"; in one pass of the teacher with {others}"
        teachers.let_go()
        resumed: Any = training.resume_from_checkpoint
        train_family([prepared.trainer for prepared in ready.values()], resumed)
        results = {
            name: _write(ready[name], started, one, teacher, textbook, own, family=list(students))
            for name, (one, own) in students.items()
        }
    return {"job": "family", "model": str(training.output_dir), "students": results}


def _describe(
    ready: Prepared,
    student: StudentArguments,
    teacher: TeacherArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
) -> None:
    """Say what will be trained, here and on the card."""
    begun = ready.begun
    logger.warning("\n".join([ready.trainer.describe(), f"first weights: {begun.first_weights}", begun.sizes]))
    command = shown_command("distill", student, teacher, textbook, training)
    rows = len(begun.train_rows)
    details = distillation_details(begun.first_weights, textbook, rows, command, environment())
    ready.trainer.card_details = details


def _write(
    ready: Prepared,
    started: float,
    student: StudentArguments,
    teacher: TeacherArguments,
    textbook: TextbookArguments,
    training: DistillationArguments,
    **further: Any,
) -> dict[str, Any]:
    """Write a trained student with its card and its results, to which `further` belongs; returns these."""
    trainer, begun = ready.trainer, ready.begun
    trainer.card_details |= {"seconds": trainer.whole_run.facts()["training_seconds"]}
    # Everything is on disk before anything is pushed.
    trainer.save_model(_internal_call=True)
    evaluation = trainer.evaluate() if trainer.eval_dataset is not None else None
    vectors = trainer.evaluation.vectors
    teachers_vectors = None if vectors is None else vectors.score_teacher(trainer.teachers[0])
    if training.world_size == 1:
        # A student that is spread over processes cannot be asked by one of them.
        told = completed(card_facts(trainer, ""), trainer.student, trainer.processing_class)
        trainer.card_details |= {"example": told.example, "limits": told.limits}
    trainer.create_model_card()
    facts = {
        "job": "distill",
        "model": str(training.output_dir),
        "teacher": ready.teachers if len(ready.teachers) > 1 else ready.teachers[0],
        "teacher_parameters": ready.teacher_parameters,
        "student_shape": student.student_shape if student.student_model is None else None,
        "student_parameters": count_parameters(trainer.student).total,
        "student_init": begun.student_init,
        "first_weights": begun.first_weights,
        "objectives": trainer.manifest()["objectives"],
        "textbook": textbook.textbook,
        "textbook_rows": len(begun.train_rows),
        **trainer.whole_run.facts(),
        "evaluation": evaluation,
        **({} if vectors is None or teachers_vectors is None else {f"teacher_{vectors.way}": teachers_vectors}),
        "best": _best(trainer),
        "seed": training.seed,
        "settings": changed_arguments(student, training),
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
        "evaluations": [entry for entry in trainer.state.log_history if "eval_loss" in entry],
        **further,
    }
    given = (student, teacher, textbook, training)
    finish(str(training.output_dir), facts, started, *given, write=training.should_save)
    if training.push_to_hub:
        trainer.push_to_hub()
    return facts


def summary(results: dict[str, Any]) -> str:
    """Say what the training cost and where the student is; of a dry run everything that it found.

    Of a family there is a table.
    """
    if results["job"] == "family":
        students = results["students"]
        if "model" in results:
            return table(students)
        return "\n\n".join(f"{name}\n{summary(found)}" for name, found in students.items())
    if results["job"] == "dry_run":
        from hf_distill.reports.dry_run import format_dry_run

        return format_dry_run(results)
    return f"{cost_of_training(results)}; student in {results['model']}"


def dry_run(
    student: StudentArguments, teacher: TeacherArguments, textbook: TextbookArguments, training: DistillationArguments
) -> dict[str, Any]:
    """Prepare a distillation as `run` does, run the first batch forward, and stop; nothing is trained or saved.

    Args:
        student: As for `run`.
        teacher: As for `run`.
        textbook: As for `run`.
        training: As for `run`.

    Returns:
        What `hf_distill.reports.dry_run.first_batch` says, with `settings` (what differs from the defaults), `sizes`,
        `first_weights` and `rows`.

    Raises:
        ValueError: What `run` would raise before its first step.
    """
    from hf_distill.reports.dry_run import first_batch

    with tempfile.TemporaryDirectory() as scratch:
        quiet = copy.copy(training)
        quiet.output_dir, quiet.push_to_hub, quiet.report_to = scratch, False, []
        ready = prepare(student, teacher, textbook, quiet)
        found = first_batch(ready.trainer, quiet)
    return {
        "job": "dry_run",
        "settings": changed_arguments(student, training),
        "sizes": ready.begun.sizes,
        "first_weights": ready.begun.first_weights,
        "rows": len(ready.begun.train_rows),
        **found,
    }


def _best(trainer: Any) -> dict[str, Any] | None:
    """The best evaluation, and whether the student is that of it; `None` where nothing decides which is best."""
    state, args = trainer.state, trainer.args
    if args.metric_for_best_model is None or state.best_global_step is None:
        return None
    return {
        "metric": args.metric_for_best_model,
        "value": state.best_metric,
        "step": state.best_global_step,
        "loaded": args.load_best_model_at_end,
    }


@dataclass(frozen=True)
class Begun:
    """A student with its first weights, and its rows.

    Attributes:
        student: The model.
        tokenizer: That of its rows.
        train_rows: Rows to learn from.
        eval_rows: Rows that are held back, if any.
        sizes: The table of teacher and student.
        student_init: Where the first weights came from: the name of a way to make them, or a model.
        first_weights: The same in words, with what was kept of the teacher.
    """

    student: Any
    tokenizer: Any
    train_rows: datasets.Dataset
    eval_rows: datasets.Dataset | None
    sizes: str
    student_init: str
    first_weights: str


@dataclass(frozen=True)
class Prepared:
    """A distillation that has only to be started.

    Attributes:
        trainer: The trainer with its models and rows.
        begun: What the trainer was made of.
        teachers: Ids or folders of the teachers.
        teacher_parameters: Parameters of all of them.
    """

    trainer: Any
    begun: Begun
    teachers: list[str]
    teacher_parameters: int


def prepare(
    student: StudentArguments, teacher: TeacherArguments, textbook: TextbookArguments, training: DistillationArguments
) -> Prepared:
    """Load, read and check everything that `distill` needs; see there.

    Raises:
        ValueError: If no teacher is given, or models, objectives and text do not fit.
    """
    teachers = open_teachers(teacher, training)
    ready = make_trainer(begin(student, textbook, training, teachers), training, teachers)
    teachers.let_go()
    return ready


def begin(
    student: StudentArguments, textbook: TextbookArguments, training: DistillationArguments, teachers: Teachers
) -> Begun:
    """Read the rows and make the student, which several trainers may do before one of them changes the teachers.

    Raises:
        ValueError: If models and text do not fit.
    """
    if textbook.with_labels and training.mlm_probability is not None:
        raise ValueError("`--with_labels` and `--mlm_probability` both fill `labels`: leave one of them out.")
    set_seed(training.seed)
    first, tokenizer = teachers.models[0], teachers.tokenizers[0]
    origin = _origin(student, teachers)
    if student.student_model is not None:
        own = load_tokenizer(student.student_model, flag="--student_model")
        # The student's vocabulary may be a part of the teacher's.
        if training.align_tokenizers or ids_of_same_pieces(tokenizer, own) is not None:
            tokenizer = own
        else:
            check_same_tokens(tokenizer, own)
    existing = None if student.student_model is None else _existing_student(student.student_model, first, training)
    if teachers.stored:
        train_rows, eval_rows = stored_rows(textbook, training, teachers.stored)
    else:
        # A student that is to be made has the labels of its teacher.
        config = first.config if existing is None else existing.config
        train_rows, eval_rows = read_textbook(textbook, training, tokenizer, config)
    # The weights of a run that goes on come from its checkpoint.
    begins = training.resume_from_checkpoint is None or not has_checkpoints(training.output_dir)
    text = calibration_text(student, training, train_rows) if existing is None and begins else None
    trimmed = None if existing is not None else trim(student, training, teachers, origin, train_rows)
    if trimmed is not None:
        origin, tokenizer = trimmed.model, trimmed.tokenizer
    student_model = existing or make_student(student, origin, training.seed, text, tokenizer)
    if isinstance(training.learning_rate, Unset) and first_weights_of(student_model) is not None:
        training.learning_rate = RATE_OF_CUT_STUDENTS
    if (
        eval_rows is None
        and training.eval_task is None
        and (training.eval_strategy != "no" or training.eval_agreement)
    ):
        raise ValueError(
            "There is nothing to evaluate on: hold rows back with `--textbook_eval_rows`, or name a task with "
            "`--eval_task`."
        )
    begun = student.student_model or _init_of(student, student_model)
    weights = _first_weights(student, student_model) + (f"; vocabulary: {trimmed}" if trimmed else "")
    return Begun(student_model, tokenizer, train_rows, eval_rows, size_table(first, student_model), begun, weights)


def make_trainer(begun: Begun, training: DistillationArguments, teachers: Teachers) -> Prepared:
    """Bring a student and its teachers together.

    Raises:
        ValueError: If models, objectives and rows do not fit.
    """
    several = len(teachers.sources) > 1
    trainer_class: type[Any] = MultiTeacherTrainer if several else DistillationTrainer
    given: Any = {"teacher_models": teachers.sources} if several else {"teacher_model": teachers.sources[0]}
    trainer = trainer_class(
        begun.student,
        training,
        train_dataset=begun.train_rows,
        eval_dataset=begun.eval_rows,
        processing_class=begun.tokenizer,
        teacher_processing_class=teachers.tokenizers if several else teachers.tokenizers[0],
        **given,
    )
    parameters = sum(count_parameters(model).total for model in teachers.models)
    return Prepared(trainer, begun, list(teachers.names), parameters)


def _existing_student(name: str, teacher: Any, training: DistillationArguments) -> Any:
    """The model of `--student_model`; a bare encoder that is to learn logits gets a head with the teacher's labels.

    Args:
        name: Its id or folder.
        teacher: The first teacher, perhaps without weights.
        training: Has the objectives.
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
    """Name the way in which the first weights of a new student were made."""
    return student.student_init or ("random" if first_weights_of(model) is None else "teacher")


def _first_weights(student: StudentArguments, model: Any) -> str:
    """Say in words where the first weights of a student came from."""
    if student.student_model is not None:
        return f"the weights of {shown_name(student.student_model)}"
    taken = first_weights_of(model)
    begun = _init_of(student, model).replace("_", " ")
    origin = "the teacher" if student.student_init_model is None else shown_name(student.student_init_model)
    return begun if taken is None else f"cut out of {origin}: {taken}"


def _origin(student: StudentArguments, teachers: Teachers) -> Any:
    """The model that the student is made of: that of `--student_init_model`, else the first teacher.

    Raises:
        ValueError: If its tokens are not the teacher's, or weights of a stored teacher are wanted, which has none.
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


def has_checkpoints(folder: Any) -> bool:
    """Whether an output folder holds a checkpoint, whole or not."""
    return any(Path(str(folder)).glob(f"{PREFIX_CHECKPOINT_DIR}-*"))


def calibration_text(
    student: StudentArguments, training: DistillationArguments, textbook: datasets.Dataset
) -> Iterator[str] | None:
    """The texts that first weights are refitted on: those that are named, else the textbook's, else none."""
    rows = textbook
    if student.calibration_text is not None:
        rows = load_general_corpus(student.calibration_text, flag="--calibration_text")
    return texts_in(rows, training.text_column) if student.calibration_tokens else None


def trim(
    student: StudentArguments, training: DistillationArguments, teachers: Any, origin: Any, rows: datasets.Dataset
) -> TrimmedVocabulary | None:
    """The model that a student is made of with a smaller vocabulary; `None` if the student keeps the whole one.

    Raises:
        ValueError: If there is no text to trim it by, or a teacher cannot read the tokens of such a student.
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
    size = student.student_vocabulary or None
    return trim_vocabulary(teachers.tokenizers[0], origin, texts, size=size)


def make_student(
    student: StudentArguments, teacher: Any, seed: int, text: Iterable[str] | None = None, tokenizer: Any = None
) -> Any:
    """The student that the arguments describe, cut out of a teacher's weights and refitted on `text`."""
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


@dataclass
class Teachers:
    """The teachers of one run.

    Attributes:
        names: Ids or folders, in the order in which teachers are counted.
        sources: Their models, or `StoredTeacher`.
        models: Their models, without weights (on the meta device) where a teacher is stored.
        stored: Those that bring their own rows.
        tokenizers: That of each; they are alike unless `--align_tokenizers` lets them differ.
    """

    names: list[str]
    sources: list[Any] = field(default_factory=list)
    models: list[Any] = field(default_factory=list)
    stored: list[StoredTeacher] = field(default_factory=list)
    tokenizers: list[Any] = field(default_factory=list)

    def open(self, name: str, number: str, flag: str, revision: str | None = None) -> None:
        """Open the next one.

        Args:
            name: Its id or folder.
            number: Begins the columns of its signals, where it is stored.
            flag: The setting that named it.
            revision: Its revision on the Hub.
        """
        if is_stored_teacher(name):
            source = StoredTeacher(name, name=number)
            self.stored.append(source)
            self.sources.append(source)
            self.models.append(source.skeleton())
            self.tokenizers.append(source.tokenizer())
            return
        model = load_model(name, flag=flag, revision=revision)
        self.sources.append(model)
        self.models.append(model)
        self.tokenizers.append(load_tokenizer(name, flag=flag, revision=revision))

    def let_go(self) -> None:
        """Keep no model: a trainer may hold smaller copies (`--teacher_dtype int8`)."""
        self.sources.clear()
        self.models.clear()


def open_teachers(teacher: TeacherArguments, training: DistillationArguments) -> Teachers:
    """Load the one teacher of `--teacher_model`, or those of `--teacher_models`.

    Raises:
        ValueError: If neither or both are given, a setting of several is given for one, or two teachers have
            different vocabularies without `--align_tokenizers`.
        OSError: If there is no such model or tokenizer.
    """
    several = training.teacher_models if isinstance(training, MultiTeacherArguments) else None
    if several:
        return _open_several(several, teacher, align=training.align_tokenizers)
    _refuse_settings_of_several(training)
    name = teacher.teacher_model
    if name is None:
        raise ValueError(
            "`--teacher_model` is missing: give the Hub id or folder of the teacher, or those of several as "
            "`--teacher_models`."
        )
    found = Teachers([name])
    found.open(name, "teacher", "--teacher_model", teacher.teacher_revision)
    return found


def _open_several(names: list[str], teacher: TeacherArguments, *, align: bool) -> Teachers:
    if teacher.teacher_model is not None or teacher.teacher_revision is not None:
        given = "teacher_model" if teacher.teacher_model is not None else "teacher_revision"
        raise ValueError(f"`--{given}` is for one teacher: leave it out, or leave `--teacher_models` out.")
    found = Teachers(list(names))
    for index, name in enumerate(names):
        # Columns of stored signals need a name for each teacher.
        found.open(name, f"teacher_{index}", "--teacher_models")
    for other in [] if align else found.tokenizers[1:]:
        check_same_tokens(other, found.tokenizers[0])
    return found


def _refuse_settings_of_several(training: DistillationArguments) -> None:
    """Refuse settings that have no effect on one teacher."""
    if not isinstance(training, MultiTeacherArguments):
        return
    given = [f"`--{name}`" for name, unset in ONLY_SEVERAL.items() if getattr(training, name) != unset]
    if given:
        raise ValueError(f"{', '.join(given)} has no effect on one teacher: name several with `--teacher_models`.")
