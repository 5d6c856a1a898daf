"""A bidirectional GRU as student: the one of TextBrewer (table 3: one layer of 768 on BERT's word embeddings).

Shape legend: B rows, T padded length, E width of the embeddings, H width of one direction, C outputs of the head.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from ..capture.signals import Signals
from ..objectives import LabelsObjective


class BiGRUConfig(PreTrainedConfig):
    """Sizes of a bidirectional GRU.

    Attributes:
        vocab_size: Entries of the word embeddings.
        embedding_size: E.
        hidden_size: Width of a layer's output: 2 H.
        num_hidden_layers: Layers.
        dropout: Share of a layer's input that is dropped in training.
    """

    model_type = "bigru"

    def __init__(
        self,
        vocab_size: int = 30522,
        embedding_size: int = 768,
        hidden_size: int = 1536,
        num_hidden_layers: int = 1,
        dropout: float = 0.1,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        if hidden_size % 2:
            raise ValueError(f"`hidden_size` is {hidden_size}; two directions need an even number.")
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.dropout = dropout
        self.pad_token_id = pad_token_id
        super().__init__(**kwargs)


class BiGRULayer(nn.Module):
    """One layer: a GRU from left to right beside one from right to left."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forwards = nn.GRU(input_size, hidden_size // 2, batch_first=True)
        self.backwards = nn.GRU(input_size, hidden_size // 2, batch_first=True)

    def forward(self, states: Tensor, reverse: Tensor) -> Tensor:
        """(B, T, input) -> (B, T, 2 H); `reverse` (B, T) turns the real tokens of each row round."""
        right = self.forwards(states)[0]
        left = _take(self.backwards(_take(states, reverse))[0], reverse)
        return torch.cat((right, left), -1)


class BiGRUPreTrainedModel(PreTrainedModel):
    """The base of both heads: word embeddings, recurrent layers, and their call.

    Padding never reaches a real token: the tokens of a row are brought to its beginning, whatever the padding side,
    and the second direction starts at the last of them.
    """

    config_class = BiGRUConfig
    config: BiGRUConfig
    # Objectives take hidden states from the output: there is no attention to capture.
    signals_in_output = True
    layers_name = "layers"

    def __init__(self, config: BiGRUConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        widths = [config.embedding_size, *[config.hidden_size] * config.num_hidden_layers]
        self.layers = nn.ModuleList(BiGRULayer(before, after) for before, after in pairwise(widths))
        self.dropout = nn.Dropout(config.dropout)

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        self.embeddings = cast(nn.Embedding, value)

    def encode(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Embeddings (B, T, E) and the output of every layer (B, T, 2 H)."""
        to_front, reverse = _orders(mask)
        # Where each token went, to bring it back.
        back = to_front.argsort(-1)
        states = self.embeddings(input_ids)
        all_states, front = [states], _take(states, to_front)
        for layer in self.layers:
            front = layer(self.dropout(front), reverse)
            all_states.append(_take(front, back))
        return tuple(all_states)


class BiGRUWithHead(BiGRUPreTrainedModel):
    """A BiGRU whose states, or what a subclass makes of them, are classified."""

    output_class: type[ModelOutput]

    def __init__(self, config: BiGRUConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, cast(int, config.num_labels))
        self.post_init()

    def features(self, states: Tensor, mask: Tensor) -> Tensor:
        """Choose the features to classify from the last states (B, T, 2 H)."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> ModelOutput:
        """Logits, the task's own loss where there are labels, hidden states if asked for."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.encode(input_ids, mask)
        logits = self.classifier(self.dropout(self.features(states[-1], mask)))
        loss = None
        if labels is not None:
            signals = Signals(attention_mask=mask, logits={"logits": logits})
            loss = LabelsObjective(cast(Any, self.config.problem_type))(signals, None, {"labels": labels})["hard"]
        return self.output_class(loss=loss, logits=logits, hidden_states=states if output_hidden_states else None)


class BiGRUForSequenceClassification(BiGRUWithHead):
    """A BiGRU whose mean over the real tokens is classified: logits (B, C)."""

    output_class = SequenceClassifierOutput

    def features(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, 2 H) means over the real tokens."""
        weights = mask.to(states.dtype)[..., None]
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


class BiGRUForTokenClassification(BiGRUWithHead):
    """A BiGRU with a label for every token: logits (B, T, C)."""

    output_class = TokenClassifierOutput

    def features(self, states: Tensor, mask: Tensor) -> Tensor:
        """The states themselves."""
        return states


_HEADS: dict[str, type[BiGRUWithHead]] = {
    "ForSequenceClassification": BiGRUForSequenceClassification,
    "ForTokenClassification": BiGRUForTokenClassification,
}


def create_bigru(
    teacher: PreTrainedModel, hidden_size: int = 1536, num_hidden_layers: int = 1, *, seed: int = 42
) -> BiGRUWithHead:
    """A BiGRU for a teacher's task, on a copy of the teacher's word embeddings (TextBrewer, section 4.1).

    Args:
        teacher: A model with a head for sequences or tokens.
        hidden_size: Width of a layer's output, both directions together.
        num_hidden_layers: Layers.
        seed: Of the random weights.

    Raises:
        ValueError: If the teacher has another head.
    """
    chosen = next((cls for ending, cls in _HEADS.items() if type(teacher).__name__.endswith(ending)), None)
    if chosen is None:
        raise ValueError(f"A BiGRU has a head for sequences or tokens, the teacher is {type(teacher).__name__}.")
    words = cast(nn.Embedding, teacher.get_input_embeddings()).weight
    config = BiGRUConfig(
        vocab_size=words.shape[0],
        embedding_size=words.shape[1],
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        pad_token_id=teacher.config.pad_token_id or 0,
        id2label=teacher.config.id2label,
        label2id=teacher.config.label2id,
        problem_type=teacher.config.problem_type,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        student = chosen(config)
    with torch.no_grad():
        student.embeddings.weight.copy_(words)
    return student


def _orders(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (B, T) that bring the real tokens to the front, and those that turn the front round."""
    real = mask.bool()
    to_front = (~real).to(torch.int8).argsort(dim=-1, stable=True)
    lengths = real.sum(-1, keepdim=True)
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return to_front, torch.where(place < lengths, lengths - 1 - place, place)


def _take(states: Tensor, positions: Tensor) -> Tensor:
    """(B, T, D) states in the order of (B, T) positions."""
    return states.gather(1, positions[..., None].expand_as(states))


AutoConfig.register(BiGRUConfig.model_type, BiGRUConfig)
AutoModelForSequenceClassification.register(BiGRUConfig, BiGRUForSequenceClassification)
AutoModelForTokenClassification.register(BiGRUConfig, BiGRUForTokenClassification)
