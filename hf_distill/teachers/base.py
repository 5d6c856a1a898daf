"""A teacher is a source of signals: the base class of all of them.

Shape legend: B rows, T padded length, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..capture.signals import SignalRequest
from ..objectives import WeightedObjective
from ..students.sentence import SentenceHead
from ..tasks.labels import names_of_head, order_by_name, order_by_number

logger = logging.get_logger(__name__)
CPU = torch.device("cpu")


class TokenColumns(NamedTuple):
    """The columns that another tokenizer than the student's makes of a row's text.

    Attributes:
        prefix: Begins their names.
        tokenizer: Makes them.
        text_column: The column that it reads, where that is not the student's text.
        prompt: Put before the text.
    """

    prefix: str
    tokenizer: Any
    text_column: str | None = None
    prompt: str = ""

    @property
    def is_other_text(self) -> bool:
        """Whether it reads another text than the student does, so that no token of one is one of the other."""
        return self.text_column is not None or bool(self.prompt)

    def owns(self, column: str) -> bool:
        """Whether a column is one of them."""
        return column.startswith(self.prefix)

    def select(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Those of them that are there, without their prefix."""
        return {name.removeprefix(self.prefix): value for name, value in columns.items() if self.owns(name)}


class TeacherSource:
    """The base of teachers: everything that is asked of one, with the answer of a teacher that has nothing to say.

    A source of your own needs `signals` alone. Who asks, in this order:

    - the opening (`hf_distill.teachers.opening`): `dataset`, `tokenizer`, `own_tokens`, `read_ids`; it sets
      `shared_ids`;
    - the trainer, once: `of`, `connect` (which calls `request` and `match_labels`), `to`, `probe`, `check_rows`,
      `collator`, `input_columns`, `kept_columns`, `members`;
    - the trainer, in every step: `signals`, and where teachers are offloaded `on_device` and `fetch`; in `predict`:
      `required_columns`;
    - checkpoints and cards: `fingerprint`, `describe`, `source`, `skeleton`, `place`.

    Attributes:
        num_layers: Layers that objectives may name; `None` for a source without any.
        model_type: `config.model_type` of the teacher, which decides defaults of some objectives; "" if unknown.
        config: Configuration of the teacher's model, whose vocabulary and labels are compared with the student's.
        model: The model that runs in this process; `None` if none does.
        dtype: The arithmetic that was chosen for it, a name of `--teacher_dtype`.
        device: Where it computes; batches of another device are fetched.
        head: How a sentence encoder makes one vector of a text (`SentenceHead`); `None` of another teacher.
        dataset: The only rows that the teacher knows, for a teacher whose signals were stored with them.
        own_tokens: The columns that it reads in place of the student's tokens, where it has another tokenizer.
        shared_ids: Ids of the tokenizer that teacher and student are known to have in common, if they are.
        input_columns: Columns of a batch that it reads beside those that the student reads.
        required_columns: Columns of a batch without which it says nothing.
        kept_columns: Columns of the rows that it reads, and that tokenizing must not drop.
    """

    num_layers: int | None = None
    model_type: str = ""
    config: PreTrainedConfig | None = None
    model: Any = None
    dtype: str = "auto"
    device: torch.device = CPU
    head: SentenceHead | None = None
    dataset: Any = None
    own_tokens: TokenColumns | None = None
    shared_ids: int | None = None
    input_columns: Sequence[str] = ()
    required_columns: Sequence[str] = ()
    kept_columns: Sequence[str] = ()

    def signals(self, inputs: Mapping[str, Tensor]) -> Any:
        """The signals of one batch, without gradient, on the batch's device.

        Args:
            inputs: `input_ids` (B, T), `attention_mask` (B, T) and all other columns of the batch.

        Returns:
            `Signals`, or, where objectives learn from different teachers, those of each objective by its name.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks `signals`.")

    def probe(self, inputs: Mapping[str, Tensor]) -> Any:
        """As `signals`, for a tiny batch of made-up tokens of which only the shapes count.

        Raises:
            ValueError: If what the teacher says cannot be compared with a student.
        """
        return self.signals(inputs)

    @property
    def members(self) -> list[TeacherSource]:
        """The single teachers in it, in the order in which they are counted."""
        return [self]

    def of(self, item: WeightedObjective) -> TeacherSource:
        """The teacher that an objective learns from.

        Raises:
            ValueError: If the objective names a teacher that does not exist.
        """
        if item.teacher not in (None, 0):
            raise ValueError(
                f"The objective {item.name!r} has `teacher` {item.teacher}, but there is one teacher, number 0; "
                "MultiTeacherTrainer has several."
            )
        return self

    def connect(self, objectives: Sequence[WeightedObjective], student_config: PreTrainedConfig) -> None:
        """Learn which objectives ask, and compare vocabulary and labels with the student's.

        Args:
            objectives: Bound to the depths of both sides.
            student_config: The student's configuration.

        Raises:
            ValueError: If the teacher cannot give what they need, or does not fit the student.
        """
        self.ask_for(union_of(item.objective.teacher_request for item in objectives), student_config)

    def ask_for(self, request: SignalRequest, student_config: PreTrainedConfig) -> None:
        """As `connect`, for signals instead of objectives.

        Raises:
            ValueError: If the teacher cannot give them, or does not fit the student.
        """
        self.request(request)
        if self.config is None:
            return  # Somebody's own source of signals, of which nothing more is known.
        sizes = self.config.vocab_size, student_config.vocab_size
        # Tables of embeddings may have more rows than the tokenizer has ids, and not the same number.
        are_padded = self.shared_ids is not None and min(sizes) >= self.shared_ids
        if sizes[0] != sizes[1] and not are_padded and self.own_tokens is None:
            raise ValueError(
                f"The teacher's vocabulary has {sizes[0]} entries, the student's {sizes[1]}, but both read the same "
                "`input_ids`. Create the student from the teacher: create_student(teacher, shape); or show that both "
                "have one tokenizer, with rows to spare: give the teacher's as `teacher_processing_class`."
            )
        if request.logits:
            self.match_labels(student_config)

    def request(self, request: SignalRequest) -> None:
        """Say which signals `signals` must give; a source of your own may give more.

        Raises:
            ValueError: If it cannot give one of them.
        """

    def match_labels(self, student_config: PreTrainedConfig) -> None:
        """Compare label names with the student's, and give logits in the student's order from now on.

        Raises:
            ValueError: If the two sides name different labels.
        """

    def read_ids(self, ids: Sequence[int] | None) -> None:
        """Read the ids of a trimmed tokenizer from now on, and speak about its vocabulary.

        Args:
            ids: For every id of the student's tokenizer the teacher's id of the same piece; `None`: they are the same.

        Raises:
            ValueError: If the teacher reads the ids of one tokenizer only.
        """
        if ids is not None:
            raise ValueError(f"{self.describe()} reads the ids of its own tokenizer, not those of a trimmed one.")

    def to(self, device: torch.device) -> None:
        """Move to the device of training."""

    @contextmanager
    def on_device(self, device: torch.device) -> Iterator[None]:
        """Be on a device within this context, and in the host's memory before and after it."""
        self.to(device)
        try:
            yield
        finally:
            self.to(CPU)

    def fetch(self, device: torch.device) -> None:
        """Prepare to be on a device soon, while something else computes there."""

    def tokenizer(self) -> Any:
        """The tokenizer of the rows that it knows; `None` for a teacher that reads any rows."""
        return None

    def check_rows(self, dataset: Any, what: str) -> None:
        """Refuse rows that it cannot read.

        Args:
            dataset: A data set of any kind, a mapping of several, or `None`.
            what: Its name in the message.

        Raises:
            ValueError: If there are such.
        """

    def collator(self, inner: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        """A collator that adds to the batches of `inner` what the teacher reads of the rows."""
        return inner

    @property
    def kind(self) -> str:
        """Name of its class, for messages."""
        return type(self).__name__

    @property
    def reads_any_rows(self) -> bool:
        """Whether it reads whatever rows were tokenized for the student."""
        return all(one.dataset is None and one.own_tokens is None for one in self.members)

    def fingerprint(self) -> dict[str, Any]:
        """Values that identify the teacher; a resumed run must find the same."""
        return {"teacher": self.kind}

    def describe(self) -> str:
        """Describe the teacher in words."""
        return self.kind

    def source(self) -> dict[str, Any]:
        """Return the origin of the model: `name`, and `hub_id` and `revision` if that is the Hub."""
        return {"name": self.kind, "hub_id": None, "revision": None}

    def skeleton(self) -> Any:
        """A model with the teacher's shape, perhaps without weights, to count parameters; `None` if there is none."""
        return self.model

    @property
    def place(self) -> str | None:
        """The folder or the id of the Hub that it came from, if it came from one."""
        return getattr(self.config, "name_or_path", None) or None


def own_tokens_of(teachers: Iterable[TeacherSource]) -> list[TokenColumns]:
    """The columns of all teachers that do not read the student's tokens; each once."""
    found = [teacher.own_tokens for teacher in teachers]
    return list({columns.prefix: columns for columns in found if columns is not None}.values())


def union_of(requests: Iterable[SignalRequest]) -> SignalRequest:
    """The signals of all requests."""
    union = SignalRequest()
    for request in requests:
        union = union | request
    return union


def label_permutation(teacher: PreTrainedConfig, student: PreTrainedConfig) -> list[int] | None:
    """For every label of the student its index in the teacher; `None` if the orders agree.

    Names are compared as everywhere (`hf_distill.tasks.labels.LabelNames`). Where one side has only default names
    (`LABEL_0` …), their numbers count the names of the other: one warning says so.

    Raises:
        ValueError: If the names or their number differ.
    """
    theirs, ours = names_of_head(teacher), names_of_head(student)
    order = order_by_name(theirs, ours)
    if order is None:
        order = order_by_number(theirs, ours)
        if order is not None:
            logger.warning_once(
                f"Label names cannot be compared: the teacher's are {theirs}, the student's {ours}. Their orders are "
                "taken to be the same; set `id2label` in both configurations to have them checked."
            )
    if order is not None:
        return None if order == list(range(len(order))) else order
    raise ValueError(
        f"Teacher and student have different labels: {theirs} against {ours}. Create the student from this teacher, "
        "set `id2label` on either side, or leave `logits` out of `--objectives`."
    )
