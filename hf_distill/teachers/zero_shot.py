"""Zero-shot labels: a model of natural language inference scores how well each label fits a text.

A text is the premise, and every label makes a hypothesis: "This example is about sports.". The entailment scores are
stored as the logits of a classifier with these labels, and a student learns from them. The probabilities are those of
the `zero-shot-classification` pipeline of transformers (Yin et al. 2019).

Shape legend: B rows, C labels.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import xxhash
from torch import Tensor
from transformers import PreTrainedConfig

from ..capture.architectures import longest_row
from ..capture.signals import SignalRequest, Signals
from ..hub.tokenizers import tokenizer_hash
from ..storage.files import read_text
from ..tasks.rows.text import PAIR_COLUMN, check_texts, columns_of, say_cut
from .base import LiveTeacher, TeacherSource
from .stored.precompute import Precomputed, precompute

# The column with the number of a row's text; the stored rows keep it.
TEXT_NUMBER = "text_number"
DEFAULT_TEMPLATE = "This example is {}."


class ZeroShotTeacher(TeacherSource):
    """A model of natural language inference that speaks as a classifier with labels of one's own.

    It knows some texts and reads their numbers, in the column `text_number`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        candidate_labels: Mapping[str, str],
        texts: Sequence[str],
        *,
        hypothesis_template: str = DEFAULT_TEMPLATE,
        multi_label: bool = False,
        dtype: str = "auto",
    ) -> None:
        """Make the hypotheses.

        Args:
            model: A classifier of pairs with a label named entailment.
            tokenizer: Its tokenizer.
            candidate_labels: Name of a label -> its description, which goes into the hypothesis.
            texts: The texts that it will be asked about.
            hypothesis_template: The hypothesis, with `{}` where the description goes; in the language of the texts.
            multi_label: Whether several labels may fit a text: then each is a question of its own, entailment
                against contradiction.
            dtype: Arithmetic, as for `LiveTeacher`.

        Raises:
            ValueError: If there are fewer than two labels, the template has no place for them, or the model has no
                label of entailment.
        """
        if len(candidate_labels) < 2:
            raise ValueError(f"`--candidate_labels` has {list(candidate_labels)}; give at least two labels.")
        if hypothesis_template.count("{}") != 1:
            raise ValueError(f"`--hypothesis_template` {hypothesis_template!r} must have one {{}} for the label.")
        self.nli = LiveTeacher(model, dtype)
        self.nli.request(SignalRequest(logits=True))
        self.model, self.dtype = self.nli.model, dtype
        self.num_layers, self.model_type = self.nli.num_layers, self.nli.model_type
        self.entailment, self.contradiction = _places(self.nli.config.id2label or {})
        self.tokenizer_of_pairs, self.texts = tokenizer, texts
        self.labels, self.template, self.multi_label = dict(candidate_labels), hypothesis_template, multi_label
        self.hypotheses = [hypothesis_template.format(description) for description in candidate_labels.values()]
        self.max_length = min(longest_row(self.model) or 512, 512)
        # Texts that it was asked about and that fill all that it reads.
        self.at_limit = 0
        self.config: PreTrainedConfig = copy.deepcopy(self.nli.config)
        self.config.id2label = dict(enumerate(candidate_labels))
        self.config.label2id = {name: number for number, name in enumerate(candidate_labels)}
        self.config.problem_type = "multi_label_classification" if multi_label else "single_label_classification"
        self.input_columns = [TEXT_NUMBER, "input_ids", "attention_mask"]

    def request(self, request: SignalRequest) -> None:
        """Say which signals `signals` must give.

        Raises:
            ValueError: If it is more than logits: no layer has seen the text alone.
        """
        if request != SignalRequest(logits=True):
            raise ValueError(
                "`--candidate_labels` makes the logits of a classifier, and nothing else: store them for the "
                "objective `logits`."
            )

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the model reads its inputs."""
        return self.nli.device

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.nli.to(device)

    def signals(self, inputs: Mapping[str, Tensor]) -> Signals:
        """The logits (B, C) of some texts: their softmax, or of several labels a row their sigmoid, are probabilities.

        Args:
            inputs: `text_number` (B,), and the tokens of the student, which are only counted.
        """
        mask = inputs["attention_mask"]
        numbers = inputs.get(TEXT_NUMBER, torch.zeros(len(mask), dtype=torch.long)).tolist()
        pairs = [(self.texts[number], hypothesis) for number in numbers for hypothesis in self.hypotheses]
        first, second = zip(*pairs, strict=True)
        tokens = self.tokenizer_of_pairs(
            list(first),
            list(second),
            truncation="only_first",
            padding=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        full = tokens["attention_mask"].sum(1) >= self.max_length
        # A made-up row that shows the signals is no text.
        self.at_limit += int(full.view(len(numbers), -1).any(1).sum()) if TEXT_NUMBER in inputs else 0
        logits = self.nli.signals({name: values.to(mask.device) for name, values in tokens.items()}).logits["logits"]
        scores = logits[:, self.entailment].float()
        if self.multi_label:
            scores = scores - logits[:, self.contradiction].float()
        return Signals(attention_mask=mask, logits={"logits": scores.view(len(numbers), len(self.hypotheses))})

    def fingerprint(self) -> dict[str, Any]:
        """That of the model, and what the hypotheses say, of which texts."""
        said = {"candidate_labels": str(self.labels), "hypothesis_template": self.template}
        # The student's tokens of a text may be fewer than those that the model reads.
        texts = "".join(f"{len(text)}:{text}" for text in self.texts).encode("utf-8", "surrogatepass")
        read = {
            "zero_shot_texts": xxhash.xxh3_128_hexdigest(texts),
            "zero_shot_tokenizer": tokenizer_hash(self.tokenizer_of_pairs),
        }
        return {**self.nli.fingerprint(), **said, "multi_label": str(self.multi_label), **read}

    def describe(self) -> str:
        """Describe the teacher in words."""
        return f"{self.nli.describe()}, zero-shot with {len(self.labels)} labels"

    def source(self) -> dict[str, Any]:
        """Return the origin of the model."""
        return self.nli.source()


def _places(id2label: Mapping[Any, str]) -> tuple[int, int]:
    """The outputs of entailment and of what speaks against it.

    Raises:
        ValueError: If no label is named entailment.
    """
    names = {int(number): str(name).lower() for number, name in id2label.items()}
    found = [number for number, name in names.items() if name.startswith("entail")]
    if len(found) != 1:
        raise ValueError(
            f"`--candidate_labels` needs a teacher of natural language inference, but the labels of `--teacher_model` "
            f"are {list(id2label.values())}: one of them must be named entailment (`id2label` in its configuration)."
        )
    against = [number for number, name in names.items() if name.startswith("contra")]
    # As the pipeline of transformers: otherwise the first output that is another one, or the last.
    return found[0], against[0] if against else (max(names) if found[0] == 0 else 0)


def read_candidate_labels(given: Sequence[str]) -> dict[str, str]:
    """Labels with their descriptions.

    Args:
        given: `name`, or `name=description`, one each; or one file that has them, one a line.

    Raises:
        ValueError: If a name is missing or occurs twice.
    """
    file = Path(given[0]).expanduser() if len(given) == 1 else None
    lines = read_text(file).splitlines() if file is not None and file.is_file() else given
    found: dict[str, str] = {}
    for line in filter(str.strip, lines):
        name, equals, description = (part.strip() for part in line.partition("="))
        if not name or (equals and not description) or name in found:
            raise ValueError(
                f"`--candidate_labels` has {line!r}; write every label once, as name or name=description."
            )
        found[name] = description or name
    return found


def precompute_zero_shot(
    dataset: datasets.Dataset,
    model: Any,
    tokenizer: Any,
    candidate_labels: Mapping[str, str],
    output_dir: str | os.PathLike[str],
    *,
    hypothesis_template: str = DEFAULT_TEMPLATE,
    multi_label: bool = False,
    processing_class: Any = None,
    text_column: str = "text",
    teacher_dtype: str = "auto",
    **options: Any,
) -> Precomputed:
    """Store the soft labels of texts that nobody has labelled.

    The folder is a stored teacher with a head of these labels: students are distilled from it by `logits`.

    Args:
        dataset: Rows with a column of text.
        model: A model of natural language inference.
        tokenizer: Its tokenizer.
        candidate_labels: As for `ZeroShotTeacher`.
        output_dir: As for `precompute`.
        hypothesis_template: As for `ZeroShotTeacher`.
        multi_label: As for `ZeroShotTeacher`.
        processing_class: The student's tokenizer, by which the rows are stored. Default: the teacher's.
        text_column: Column of the text.
        teacher_dtype: Arithmetic of the teacher.
        options: For `precompute`.

    Raises:
        ValueError: If the rows have no text, or are pairs.
    """
    columns = columns_of(dataset)
    if text_column not in columns or PAIR_COLUMN in columns:
        raise ValueError(
            f"`--candidate_labels` reads single texts in the column {text_column!r} (`--text_column`); the rows have "
            f"{columns}."
        )
    texts = dataset[text_column][:]
    check_texts({text_column: texts}, text_column, range(len(texts)))
    teacher = ZeroShotTeacher(
        model,
        tokenizer,
        candidate_labels,
        texts,
        hypothesis_template=hypothesis_template,
        multi_label=multi_label,
        dtype=teacher_dtype,
    )
    own = processing_class or tokenizer
    teacher.config.vocab_size = max(teacher.config.vocab_size if own is tokenizer else 0, len(own))
    teacher.config.pad_token_id = own.pad_token_id
    done = precompute(
        dataset.add_column(TEXT_NUMBER, list(range(len(texts)))),
        teacher,
        ["logits"],
        output_dir,
        processing_class=own,
        text_column=text_column,
        teacher_dtype=teacher_dtype,
        **options,
    )
    because = "so many tokens of text and label the teacher reads"
    say_cut(teacher.at_limit, len(texts), teacher.max_length, "texts", because)
    return done
