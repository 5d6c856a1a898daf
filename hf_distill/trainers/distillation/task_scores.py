"""The score of a student on a task while it is distilled: the curve over the steps (Contextualized Corpus, Figure 2).

If the training reaches the student's head and the head belongs to the task, the head is scored. Otherwise the head is
noise, and a linear probe is scored: ridge regression from the mean of the tokens' hidden states, in closed form and
without random numbers, fitted again in every evaluation.

A sentence encoder is scored by the cosines of its vectors, on pairs of texts or on retrieval. A reranker is scored by
the order in which it puts the documents that BM25 finds.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import datasets
import numpy as np
from transformers import DataCollatorWithPadding, EvalPrediction

from hf_distill.tasks.labels import LABEL_COLUMNS

from ...capture.architectures import without_adapters
from ...corpus.search.candidates import best_documents
from ...settings import DistillationArguments
from ...settings.distill import HEADLINE
from ...students.sentence import encode_texts
from ...tasks.files import HELD_OUT, hold_out
from ...tasks.labels import visible_labels
from ...tasks.loading import LoadedTask, load_task, takes_columns
from ...tasks.metrics.compute import build_compute_metrics, compute_scores, predictions_of
from ...tasks.rows.text import CANDIDATES_COLUMN, LENGTH_COLUMN, PAIR_COLUMN, tokenize_text
from ...tasks.rows.tokenizing import tokenize_task
from ...tasks.spec import TaskSpec
from ...tasks.vectors import DEEP, Reranking, Retrieval, VectorTask, is_retrieval, pairs_of, read_retrieval
from ...teachers.base import TeacherSource
from ..fine_tuning.heads import head_of
from ..fine_tuning.predictions import predict_texts
from ..fine_tuning.task_models import check_positions, label_order
from .model import DistillationModel

logger = logging.getLogger(__name__)

Way = Literal["head", "probe", "vectors"]
# (rows, what is asked of the student, collator, what is kept of the outputs) -> outputs and labels of all rows.
RunStudent = Callable[[datasets.Dataset, str, Any, Callable[[Any], Any] | None], tuple[Any, Any]]
PROBE_STRENGTH = 0.1


class TaskEvaluation:
    """Scores a student on the split of a task by which checkpoints are chosen.

    Attributes:
        task: The task, as many rows of it as are used.
        way: How the student is scored: by its `head`, by a `probe`, or by its `vectors`; set by `choose`.
    """

    def __init__(self, task: LoadedTask, tokenizer: Any, args: DistillationArguments) -> None:
        """Tokenize the rows.

        Args:
            task: With the split that is scored.
            tokenizer: The student's.
            args: Length of the rows, number and seed of the samples.

        Raises:
            ValueError: If there is no tokenizer.
        """
        if tokenizer is None:
            raise ValueError("`--eval_task` has text to tokenize: give `processing_class`.")
        self.spec: TaskSpec = task.spec
        self.tokenizer = tokenizer
        self.max_length = args.max_length
        self.way: Way = "head"
        self.vectors: VectorEvaluation | None = None
        self._order: list[int] | None = None
        self._whole, self._samples, self._seed = task, args.eval_task_samples, args.seed
        self._read(task)

    def _read(self, task: LoadedTask) -> None:
        """Tokenize the rows of a task that are scored."""
        self.task = task.subset(self._samples, self._samples, seed=self._seed)
        self.rows = self.task.split(self.spec.choice_split)
        tokens = tokenize_task(self.rows, self.spec, self.tokenizer, self.max_length)
        # Rows of like length together; scores know rows by their place.
        self.tokens = tokens.select(np.argsort(-np.asarray(tokens[LENGTH_COLUMN]), kind="stable"))

    def text_rows(self, teachers: Sequence[TeacherSource]) -> datasets.Dataset:
        """The evaluation split as held-out text: its tokens without labels.

        Raises:
            ValueError: If a teacher cannot read them.
        """
        check_readable(teachers)
        return self.tokens.remove_columns([name for name in LABEL_COLUMNS if name in self.tokens.column_names])

    def choose(self, model: DistillationModel) -> None:
        """Choose how this student is scored, and print it.

        Raises:
            ValueError: If neither its head nor a probe can be scored.
        """
        student = without_adapters(model.student)
        check_positions(student.config, self.max_length)
        pairs = pairs_of(self.task, self.spec.choice_split) if model.learns_vectors else None
        if pairs is not None:
            self.way, self.vectors = "vectors", VectorEvaluation(pairs, self.tokenizer, self.max_length)
            return
        reason = self._why_no_head(model, student)
        self.way = "head" if reason is None else "probe"
        if reason is None:
            order = label_order(student.config, self.spec, where="The student")
            self._order = None if order == list(range(len(order))) else order
            return
        if self.spec.kind != "text_classification":
            raise ValueError(
                f"`--eval_task` {self.spec.name!r} needs the student's head, because a probe reads rows only, but "
                f"{reason}. Add `logits` or `labels` to `--objectives`, with a teacher of this task."
            )
        learnt = ""
        if self.spec.train_split not in self.task.dataset or self.spec.train_split == self.spec.choice_split:
            learnt = f" It is fitted on {1 - HELD_OUT:.0%} of the rows and scored on the others."
            self._read(self._held_out(reason))
        model.show_features()
        logger.warning(
            f"`--eval_task` {self.spec.name}: {reason}, so the scores are those of a linear probe on layer "
            f"{model.deepest_layer} (`eval_probe/...`), not of the student as it is.{learnt}"
        )

    def _held_out(self, reason: str) -> LoadedTask:
        """The task with rows to fit a probe on and others to score, where all of them are to be scored.

        Raises:
            ValueError: If there is one text only.
        """
        train, scored = hold_out(self._whole.split(self.spec.choice_split), HELD_OUT, self.spec.text_columns)
        if not scored:
            raise ValueError(
                f"`--eval_task` {self.spec.name!r} is scored by a probe, because {reason}; that needs rows to fit it "
                "on, and there is one text only."
            )
        self.spec = dataclasses.replace(self.spec, train_split="train", evaluation_splits=("validation",))
        return LoadedTask(self.spec, datasets.DatasetDict(train=train, validation=scored), self._whole.source)

    def show(self, model: DistillationModel) -> None:
        """Be ready to score another student of the same kind, as in a search."""
        if self.way == "probe":
            model.show_features()

    def _why_no_head(self, model: DistillationModel, student: Any) -> str | None:
        """Return why the student's head cannot be scored; `None` if it can."""
        suffix = head_of(self.spec).suffix
        if not type(student).__name__.endswith(suffix):
            return f"the student is a {type(student).__name__} and no ...{suffix}"
        if not any(objective.student_request.logits for objective in model.objectives.values()):  # type: ignore[union-attr]
            return f"no objective of {sorted(model.objectives)} trains the student's head"
        try:
            label_order(student.config, self.spec, where="The student")
        except ValueError as error:
            return f"the student's head has other labels ({error})"
        return None

    @property
    def headline(self) -> str:
        """Name of the main score without `eval_`."""
        if self.vectors is not None:
            return self.vectors.headline
        return f"{'task' if self.way == 'head' else 'probe'}/{self.spec.headline}"

    def score(self, run: RunStudent, pad_to: int | None) -> dict[str, float]:
        """The task's scores as `task/<metric>`, `probe/<metric>` or `vectors/<metric>`.

        Args:
            run: Runs the student over rows.
            pad_to: Batches are padded to a multiple of it.
        """
        if self.vectors is not None:
            return self.vectors.score(run, pad_to)
        head = head_of(self.spec, self._order)
        collator = head.collator(self.tokenizer, pad_to)
        if self.way == "head":
            outputs, labels = run(self.tokens, "logits", collator, head.kept)
            prediction = EvalPrediction(predictions=outputs, label_ids=labels)
            own = self.spec.for_split(self.spec.choice_split)
            scores = build_compute_metrics(own, self.rows, self.tokens)(prediction)
            return {f"task/{name}": float(value) for name, value in scores.items()}
        known, targets = run(self._known_rows, "features", collator, None)
        features, labels = run(self.tokens, "features", collator, None)
        predicted = ridge(known, _as_targets(targets, self.spec), features)
        # A probe of several labels a row learns 0 and 1; a logit of 0 lies between them.
        predicted = predicted - 0.5 if self.spec.several_labels else predicted
        scores = compute_scores(self.spec, predictions_of(self.spec, predicted), np.asarray(labels))
        return {f"probe/{name}": float(value) for name, value in scores.items()}

    @functools.cached_property
    def _known_rows(self) -> datasets.Dataset:
        """The tokens of the training rows with a label, which a probe learns from."""
        train = self.task.train.select(visible_labels(self.task.train, self.spec).nonzero()[0])
        return tokenize_task(train, self.spec, self.tokenizer, self.max_length)


class VectorEvaluation:
    """Scores a student by the cosines between its vectors of texts.

    Attributes:
        task: Pairs of texts, or retrieval.
        way: What the student is asked for, which begins the names of the scores.
        last: The student's scores of the last evaluation.
        teacher: Those of its teacher, once they are asked for.
    """

    way = "vectors"
    task: Any

    def __init__(self, task: VectorTask | Reranking, tokenizer: Any, max_length: int) -> None:
        """Tokenize the texts.

        Args:
            task: The task.
            tokenizer: The student's.
            max_length: Where texts are cut, in tokens.

        Raises:
            ValueError: If there is no tokenizer.
        """
        if tokenizer is None:
            raise ValueError("`--eval_task` has text to tokenize: give `processing_class`.")
        self.task = task
        self.tokenizer, self.max_length = tokenizer, max_length
        self.last: dict[str, float] = {}
        self.teacher: dict[str, float] = {}
        tokens = tokenize_text(datasets.Dataset.from_dict(self._texts()), tokenizer, max_length=max_length)
        # The pass gathers labels: here the number of the text.
        self.tokens = tokens.add_column("labels", list(range(len(tokens))))
        self.tokens = self.tokens.select(np.argsort(-np.asarray(tokens[LENGTH_COLUMN]), kind="stable"))

    def _texts(self) -> dict[str, list[str]]:
        """The columns of what is read, a row for each thing that the student is asked for."""
        return {"text": list(self.task.texts)}

    def text_rows(self, teachers: Sequence[TeacherSource]) -> Any:
        """The texts as held-out ones, of retrieval the queries; documents are many.

        Raises:
            ValueError: If a teacher cannot read them.
        """
        check_readable(teachers)
        tokens = self.tokens
        if isinstance(self.task, Retrieval):
            tokens = tokens.select(np.flatnonzero(np.asarray(tokens["labels"][:]) >= len(self.task.documents)))
        return tokens.remove_columns("labels")

    def choose(self, model: DistillationModel) -> None:
        """Check that the student learns vectors.

        Raises:
            ValueError: If it does not.
        """
        if not model.learns_vectors:
            raise ValueError(
                f"`--eval_task` {self.task.name!r} is scored on vectors of texts, which no objective of "
                f"{sorted(model.objectives)} trains: add `embedding` or `similarity`."
            )

    def show(self, model: DistillationModel) -> None:
        """Be ready to score another student of the same kind, as in a search."""

    @property
    def headline(self) -> str:
        """Name of the main score without `eval_`."""
        return f"{self.way}/{self.task.headline}"

    def score(self, run: RunStudent, pad_to: int | None) -> dict[str, float]:
        """The scores as `vectors/<metric>`, or `ranking/<metric>`; arguments as in `TaskEvaluation.score`."""
        collator = DataCollatorWithPadding(self.tokenizer, pad_to_multiple_of=pad_to)
        values, numbers = run(self.tokens, "vectors" if self.way == "vectors" else "logits", collator, None)
        self.last = self.task.scores(values[np.argsort(numbers)])
        return {f"{self.way}/{name}": value for name, value in self.last.items()}

    def score_teacher(self, teacher: TeacherSource) -> dict[str, float] | None:
        """The scores of a teacher that runs here and reads these texts; `None` of any other."""
        own = teacher.own_tokens
        if teacher.model is None or teacher.head is None or (own is not None and own.text_column is not None):
            return None
        tokenizer, prompt = (self.tokenizer, "") if own is None else (own.tokenizer, own.prompt)
        vectors = encode_texts(
            teacher.model, teacher.head, tokenizer, self.task.texts, max_length=self.max_length, prompt=prompt
        )
        self.teacher = self.task.scores(vectors)
        return self.teacher


class RankingEvaluation(VectorEvaluation):
    """Scores a reranker by the order in which it puts the candidates of queries."""

    way = "ranking"

    def __init__(self, task: Reranking, tokenizer: Any, max_length: int, text_column: str) -> None:
        """As `VectorEvaluation`; `text_column` is that of the queries in held-out rows."""
        super().__init__(task, tokenizer, max_length)
        self.text_column = text_column

    def _texts(self) -> dict[str, list[str]]:
        pairs = self.task.pairs
        return {"text": [query for query, _ in pairs], PAIR_COLUMN: [candidate for _, candidate in pairs]}

    def text_rows(self, teachers: Sequence[TeacherSource]) -> Any:
        """The queries with their candidates as held-out rows.

        Raises:
            ValueError: If a teacher cannot read them.
        """
        if any(one.dataset is not None for one in teachers):
            check_readable(teachers)
        task = self.task
        columns = {self.text_column: task.queries, CANDIDATES_COLUMN: task.candidates, "labels": task.gains}
        return datasets.Dataset.from_dict({name: list(values) for name, values in columns.items()})

    def choose(self, model: DistillationModel) -> None:
        """Check that the student gives one score.

        Raises:
            ValueError: If it does not.
        """
        student = model.student.get_base_model() if hasattr(model.student, "get_base_model") else model.student
        if not type(student).__name__.endswith("ForSequenceClassification") or student.config.num_labels != 1:
            raise ValueError(
                f"`--eval_task` {self.task.name!r} is put in order by one score of a query and a document, which "
                f"{type(student).__name__} does not give: take a teacher with `num_labels=1`."
            )

    def score_teacher(self, teacher: TeacherSource) -> dict[str, float] | None:
        """The scores of a teacher that runs here and reads these texts; `None` of any other."""
        own = teacher.own_tokens
        if teacher.model is None or (own is not None and own.text_column is not None):
            return None
        tokenizer, prompt = (self.tokenizer, "") if own is None else (own.tokenizer, own.prompt)
        queries, candidates = zip(*self.task.pairs, strict=True)
        queries = tuple(prompt + query for query in queries)
        scores = predict_texts(teacher.model, tokenizer, queries, candidates, max_length=self.max_length)[:, 0]
        self.teacher = self.task.scores(scores)
        return self.teacher


def as_reranking(task: Retrieval, depth: int = DEEP) -> Reranking:
    """The reranking of what BM25 finds: its best documents, then answers that it missed.

    Args:
        task: Queries, documents and judgements.
        depth: Documents that are found for a query at most.
    """
    documents, queries = task.texts[: len(task.documents)], list(task.texts[len(task.documents) :])
    candidates, gains = [], []
    for row, (hits, answers) in enumerate(zip(best_documents(queries, documents, depth), task.gains, strict=True)):
        places = [place for place in dict.fromkeys([*hits, *answers]) if task.documents[place] != task.queries[row]]
        candidates.append([documents[place] for place in places])
        gains.append([float(answers.get(place, 0.0)) for place in places])
    return Reranking(task.name, task.split, queries, candidates, gains)


def check_readable(teachers: Sequence[TeacherSource]) -> None:
    """Refuse teachers that cannot read the text of `--eval_task`.

    Raises:
        ValueError: If there is one.
    """
    if not all(teacher.reads_any_rows for teacher in teachers):
        raise ValueError(
            "`--eval_task` without held-out rows measures the loss on the task's text, which a stored teacher, or one "
            "with its own tokenizer, cannot read: hold back rows with `--textbook_eval_rows`, or give `eval_dataset`."
        )


def task_to_evaluate(
    given: LoadedTask | VectorTask | Reranking | None, args: DistillationArguments, teachers: Sequence[TeacherSource]
) -> LoadedTask | VectorTask | Reranking:
    """The task of `eval_task`, loaded if only its name is known.

    A folder of retrieval is one of reranking where the teachers have a head with one score and give no vectors.

    Raises:
        ValueError: If the name is unknown, or there is none though `metric_for_best_model` asks for a task.
    """
    if given is not None:
        return given
    if args.eval_task is None:
        raise ValueError(
            f"`--metric_for_best_model {HEADLINE}` is the main score of a task: name it by `--eval_task`."
        )
    if is_retrieval(args.eval_task):
        found = read_retrieval(args.eval_task, limit=args.eval_task_samples)
        reranks = all(one.head is None and getattr(one.config, "num_labels", None) == 1 for one in teachers)
        return as_reranking(found) if reranks else found
    try:
        return load_task(args.eval_task, args.eval_task_dir, splits="evaluation", flag="--eval_task", to_score=True)
    except ValueError as error:
        if not takes_columns(args.eval_task):
            raise
        # Arguments of a training have no columns; those of `hf-distill distill` have, and bring the loaded task.
        raise ValueError(f"{error} In Python: `eval_task=load_task({args.eval_task!r}, text_columns=...)`.") from error


def ridge(known: np.ndarray, targets: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Outputs (M, C) for features (M, D) of a ridge regression from features (N, D) to targets (N, C).

    Features are brought to mean 0 and variance 1 of those that are known; the penalty is a tenth of their number.
    """
    known, features = known.astype(np.float64), features.astype(np.float64)
    mean, spread = known.mean(0), known.std(0)
    spread[spread < 1e-12] = 1.0
    known, features = (known - mean) / spread, (features - mean) / spread
    penalty = PROBE_STRENGTH * len(known) * np.eye(known.shape[1])
    weights = np.linalg.solve(known.T @ known + penalty, known.T @ (targets - targets.mean(0)))
    return features @ weights + targets.mean(0)


def _as_targets(labels: Any, spec: TaskSpec) -> np.ndarray:
    """Labels (N,) as one-hot rows (N, C), or as values (N, 1) in regression."""
    values = np.asarray(labels)
    if spec.several_labels:
        return values.astype(np.float64)
    return values.astype(np.float64)[:, None] if spec.label_names is None else np.eye(spec.num_labels)[values]
