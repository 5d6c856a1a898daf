"""Fine-tunes a student on a task's labels and scores it beside its teacher and a baseline without a teacher."""

from __future__ import annotations

import copy
import os
import time
from typing import Any, Literal

from transformers import PreTrainedModel, set_seed

from hf_distill.commands.evaluate import score_model, score_vectors
from hf_distill.commands.folders import writes_folder
from hf_distill.commands.results import finish
from hf_distill.commands.student_facts import (
    adapted_facts,
    baseline_results,
    completed,
    searching_facts,
    shown_command,
    write_card,
)
from hf_distill.commands.teach import load_task_from
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.settings import (
    AdaptationArguments,
    EvaluationArguments,
    FineTuningArguments,
    TaskArguments,
    TeacherModelArguments,
)
from hf_distill.students.sentence import SentenceHead, keep_activation, read_head
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.majority import constant_remark, majority_line, majority_scores
from hf_distill.tasks.vectors import is_retrieval
from hf_distill.trainers.checkpoints import LAST_ASKED
from hf_distill.trainers.fine_tuning.sentence_pairs import finetune_pairs, learns_vectors, random_encoder
from hf_distill.trainers.fine_tuning.task_models import load_task_model, random_task_model
from hf_distill.trainers.fine_tuning.trainer import FineTuningResult, finetune, save_model

BASELINE_FOLDER = "baseline"
# A task's own learning rate suits pretrained weights; with it, random weights would hardly move.
RATE_FROM_SCRATCH = 3e-4
Way = Literal["adapt", "better", "keep"]


@writes_folder("baseline")
def run(
    task: TaskArguments,
    adaptation: AdaptationArguments,
    training: FineTuningArguments,
    teacher: TeacherModelArguments | None = None,
    *,
    way: Way = "adapt",
    baseline_training: FineTuningArguments | None = None,
) -> dict[str, Any]:
    """Fine-tune a student on the task's labels and score it.

    A folder in BEIR's layout has no labels to learn: a sentence encoder or a reranker is scored as it is, beside its
    teacher, and saved with a card that says so. A sentence encoder (a folder with modules.json) learns pairs of texts
    with a similarity score by the cosines of its vectors, and remains a sentence encoder; for any other task it gets a
    head.

    With a teacher (a model already fine-tuned on the task), its score and the student's retention of it are reported
    too; with `adaptation.from_scratch`, the same student with random weights is fine-tuned in the same way. Writes to
    `training.output_dir`: the adapted student with its tokenizer and card, `baseline/` with the same files,
    `results.json` and `arguments.yaml`.

    Args:
        task: The task and the location of its rows.
        adaptation: The student, and whether a baseline is trained without a teacher.
        training: Settings of the fine-tuning; unset ones come from the task's paper.
        teacher: The teacher to score beside the student.
        way: `adapt` trains the student; `keep` only scores it, with its own head; `better` trains it and keeps the
            version, before or after, with the better score on the task's `choice_split`.
        baseline_training: Settings for the baseline, if they differ from the student's.

    Returns:
        The content of `results.json`: `student`, `teacher`, `baseline` (each with `score`, `constant`, the only label
        that it predicts, or `None`, `scores`, `parameters`; `None` if not requested), `retention` (student / teacher),
        `gain` (student - baseline). If two versions of the student were compared, `student` has `choice`: the `split`,
        the scores `before` and `after` on it, and which version was `kept`, `distilled` or `adapted`.

    Raises:
        ValueError: If task, labels and models do not match.
    """
    started = time.perf_counter()
    if is_retrieval(task.task):
        return _score_search(task, adaptation, training, teacher)
    rows = load_task_from(task, seed=training.seed)
    head = read_head(adaptation.student_model, adaptation.student_revision)
    if head is not None and learns_vectors(rows.spec) and way != "keep":
        return _adapt_vectors(task, adaptation, training, teacher, rows, head)
    student, adapted = _student(task, adaptation, training, rows, way)
    reference = None
    if teacher is not None and teacher.teacher_model is not None:
        name, revision = teacher.teacher_model, teacher.teacher_revision
        reference = score_model(name, rows, training, task, flag="--teacher_model", revision=revision)
    baseline, random = None, None
    if adaptation.from_scratch:
        baseline, random = _baseline(task, adaptation, baseline_training or training, rows)
    facts = {
        **_facts_of(task, training, rows),
        **_compared(student, reference, baseline),
        "majority": majority_scores(rows),
    }
    given = (task, adaptation, training, *([teacher] if teacher else []))
    folder = str(training.output_dir)
    finish(folder, facts, started, *given, write=training.should_save)
    if training.should_save:
        command, tokenizer = shown_command("adapt", *given), _tokenizer(adaptation)
        if adapted is not None:
            known = adapted_facts(adapted, adaptation.student_model, rows.spec, facts, folder, command)
            write_card(folder, completed(known, adapted, tokenizer))
        if random is not None:
            place = os.path.join(folder, BASELINE_FOLDER)
            known = adapted_facts(random, None, rows.spec, baseline_results(facts), place, command)
            write_card(place, completed(known, random, tokenizer))
    return facts


def summary(results: dict[str, Any]) -> str:
    """Report the scores of student, teacher, baseline and majority."""
    lines = []
    for role in ("student", "teacher", "baseline"):
        if results[role] is not None:
            remark = constant_remark(results[role]["constant"])
            lines.append(f"{role}: {results['metric']} {results[role]['score']:.4f} on {results['split']}{remark}")
    return "\n".join(filter(None, [*lines, majority_line(results["majority"])]))


def _facts_of(task: TaskArguments, training: FineTuningArguments, rows: LoadedTask) -> dict[str, Any]:
    """The results that are known before any training."""
    spec = rows.spec
    return {
        "job": "adapt",
        "task": spec.name,
        "kind": spec.kind,
        "metric": spec.headline,
        "split": spec.headline_split,
        "split_rows": len(rows.split(spec.headline_split)),
        "max_eval_samples": task.max_eval_samples,
        "seed": training.seed,
        "data": rows.source,
        "settings_source": spec.fine_tuning.source,
    }


def _compared(
    student: dict[str, Any], teacher: dict[str, Any] | None, baseline: dict[str, Any] | None
) -> dict[str, Any]:
    """Combine the results of the models, with the differences between the student's score and the others."""
    return {
        "student": student,
        "teacher": teacher,
        "baseline": baseline,
        "retention": student["score"] / teacher["score"] if teacher and teacher["score"] else None,
        "gain": student["score"] - baseline["score"] if baseline else None,
    }


def _score_search(
    task: TaskArguments,
    adaptation: AdaptationArguments,
    training: FineTuningArguments,
    teacher: TeacherModelArguments | None,
) -> dict[str, Any]:
    """Score a sentence encoder or a reranker on a retrieval task, beside its teacher, and save it with its card.

    Raises:
        ValueError: If a training is requested, or a model gives neither vectors nor scores.
    """
    started = time.perf_counter()
    if adaptation.from_scratch:
        raise ValueError(
            f"`--from_scratch` trains a baseline on labels, but `--task` {task.task!r} is a search, on which nothing "
            "is trained: leave it out."
        )
    source, folder = adaptation.student_model, str(training.output_dir)
    found = _score_vectors(task, training, source, adaptation.student_revision, adaptation.tokenizer_name)
    facts = _facts_of_vectors(task, found, {"source": source, **_kept(found)}, None, training, teacher)
    if not training.should_save:
        return finish(folder, facts, started, write=False)
    model = load_model(source, flag="--student_model", revision=adaptation.student_revision)
    head = read_head(source, adaptation.student_revision)
    keep_activation(model, [model])
    save_model(model, _tokenizer(adaptation), folder, head)
    return _finish_vectors(model, facts, started, task, adaptation, training, teacher)


def _adapt_vectors(
    task: TaskArguments,
    adaptation: AdaptationArguments,
    training: FineTuningArguments,
    teacher: TeacherModelArguments | None,
    rows: LoadedTask,
    head: SentenceHead,
) -> dict[str, Any]:
    """Train the vectors of a sentence encoder on scored pairs, and score them beside those of its teacher."""
    started = time.perf_counter()
    source, tokenizer = adaptation.student_model, _tokenizer(adaptation)
    given: dict[str, Any] = {"flag": "--student_model", "revision": adaptation.student_revision}
    set_seed(training.seed)
    model = load_model(source, **given)
    result = finetune_pairs(model, head, rows, tokenizer, training, max_length=task.max_length)
    student, baseline, random = _trained(result, source, str(training.output_dir)), None, None
    if adaptation.from_scratch:
        own = _from_scratch(training)
        set_seed(training.seed)
        made = finetune_pairs(*random_encoder(model, head), rows, tokenizer, own, max_length=task.max_length)
        baseline, random = _trained(made, source, str(own.output_dir)), made.model
    found = {**_facts_of(task, training, rows), "kind": "vectors", "metric": result.metric, "majority": None}
    facts = _facts_of_vectors(task, found, student, baseline, training, teacher)
    return _finish_vectors(model, facts, started, task, adaptation, training, teacher, random=random)


def _score_vectors(
    task: TaskArguments,
    training: FineTuningArguments,
    name: str,
    revision: str | None = None,
    tokenizer: str | None = None,
) -> dict[str, Any]:
    """Score a sentence encoder or a reranker without training it."""
    evaluation = EvaluationArguments(
        name,
        revision,
        tokenizer,
        eval_batch_size=training.per_device_eval_batch_size,
        bf16=training.bf16,
        use_cpu=training.use_cpu,
        seed=training.seed,
    )
    return score_vectors(task, evaluation, read_head(name, revision))


def _kept(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("score", "constant", "scores", "parameters")}


def _facts_of_vectors(
    task: TaskArguments,
    found: dict[str, Any],
    student: dict[str, Any],
    baseline: dict[str, Any] | None,
    training: FineTuningArguments,
    teacher: TeacherModelArguments | None,
) -> dict[str, Any]:
    """The results of a sentence encoder or a reranker, beside those of its teacher."""
    reference = None
    if teacher is not None and teacher.teacher_model is not None:
        name = teacher.teacher_model
        reference = {"source": name, **_kept(_score_vectors(task, training, name, teacher.teacher_revision))}
    told = ("model", "score", "scores", "constant", "parameters")
    return {
        **{name: value for name, value in found.items() if name not in told},
        "job": "adapt",
        **_compared(student, reference, baseline),
    }


def _finish_vectors(
    model: Any,
    facts: dict[str, Any],
    started: float,
    task: TaskArguments,
    adaptation: AdaptationArguments,
    training: FineTuningArguments,
    teacher: TeacherModelArguments | None,
    *,
    random: Any = None,
) -> dict[str, Any]:
    """Write results and cards for a sentence encoder or a reranker, and for its baseline."""
    given, folder = (task, adaptation, training, *([teacher] if teacher else [])), str(training.output_dir)
    finish(folder, facts, started, *given, write=training.should_save)
    if training.should_save:
        command = shown_command("adapt", *given)
        write_card(folder, searching_facts(model, adaptation.student_model, facts, folder, command))
        if random is not None:
            place = os.path.join(folder, BASELINE_FOLDER)
            write_card(place, searching_facts(random, None, baseline_results(facts), place, command))
    return facts


def _student(
    task: TaskArguments, adaptation: AdaptationArguments, training: FineTuningArguments, rows: LoadedTask, way: Way
) -> tuple[dict[str, Any], PreTrainedModel | None]:
    """The facts of the student, and its model if it was saved here."""
    source, folder = adaptation.student_model, str(training.output_dir)
    given: dict[str, Any] = {"flag": "--student_model", "revision": adaptation.student_revision}
    if way == "keep":
        return score_model(source, rows, training, task, tokenizer_name=adaptation.tokenizer_name, **given), None
    set_seed(training.seed)
    model = load_task_model(source, rows.spec, **given)
    before = None
    if way == "better":
        untrained = copy.copy(training)
        untrained.num_train_epochs, untrained.max_steps, untrained.resume_from_checkpoint = 0.0, -1, None
        before = finetune(copy.deepcopy(model), rows, _tokenizer(adaptation), untrained, save=False, **_lengths(task))
        set_seed(training.seed)
    after = finetune(model, rows, _tokenizer(adaptation), training, **_lengths(task))
    if before is None:
        return _trained(after, source, folder), after.model
    split, metric = rows.spec.choice_split, rows.spec.headline
    scores = {"before": before.scores[split][metric], "after": after.scores[split][metric]}
    kept = after if scores["after"] > scores["before"] else before
    if kept is before and training.should_save:
        save_model(before.model, _tokenizer(adaptation), folder)
    choice = {"split": split, **scores, "kept": "adapted" if kept is after else "distilled"}
    return _trained(kept, source, folder) | {"choice": choice}, kept.model


def _baseline(
    task: TaskArguments, adaptation: AdaptationArguments, training: FineTuningArguments, rows: LoadedTask
) -> tuple[dict[str, Any], PreTrainedModel]:
    """Fine-tune the same student with random weights on the same rows; return its facts and the model."""
    own = _from_scratch(training)
    set_seed(training.seed)
    model = random_task_model(
        adaptation.student_model, rows.spec, flag="--student_model", revision=adaptation.student_revision
    )
    result = finetune(model, rows, _tokenizer(adaptation), own, **_lengths(task))
    return _trained(result, adaptation.student_model, str(own.output_dir)), result.model


def _from_scratch(training: FineTuningArguments) -> FineTuningArguments:
    """The settings of the baseline: its own folder, and a learning rate for random weights if none is given."""
    own = copy.copy(training)
    if own.learning_rate is None:
        own.learning_rate = RATE_FROM_SCRATCH
    own.output_dir = os.path.join(str(training.output_dir), BASELINE_FOLDER)
    if own.resume_from_checkpoint not in LAST_ASKED:
        own.resume_from_checkpoint = None
    return own


def _lengths(task: TaskArguments) -> dict[str, Any]:
    """Return the settings for the length of rows and the overlap of windows, in tokens."""
    return {"max_length": task.max_length, "doc_stride": task.doc_stride}


def _trained(result: FineTuningResult, source: str, folder: str) -> dict[str, Any]:
    """Return the facts to report about a model that was trained here."""
    details = result.to_dict()
    return {
        "source": source,
        **{name: details[name] for name in ("score", "constant", "scores")},
        "parameters": result.model.num_parameters(),
        "model": folder,
        **{
            name: details[name] for name in ("train_rows", "steps", "train_loss", "fp32_matmul", "settings", "history")
        },
        "training_seconds": result.seconds,
    }


def _tokenizer(adaptation: AdaptationArguments) -> Any:
    """The student's tokenizer."""
    if adaptation.tokenizer_name is not None:
        return load_tokenizer(adaptation.tokenizer_name, flag="--tokenizer_name")
    return load_tokenizer(adaptation.student_model, flag="--student_model", revision=adaptation.student_revision)
