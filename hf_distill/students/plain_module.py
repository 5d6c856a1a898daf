"""An adapter that makes any `nn.Module` a student or teacher: it behaves as a transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput


class ModuleConfig(PreTrainedConfig):
    """The configuration of a wrapped module: the facts about it that a trainer needs.

    Attributes:
        vocab_size: Number of token ids that it accepts.
        hidden_size: Width of its hidden states, if it returns any.
        num_hidden_layers: Number of hidden states that it returns in addition to the embeddings; 0 if none.
    """

    model_type = "module"

    def __init__(
        self, vocab_size: int | None = None, hidden_size: int = 0, num_hidden_layers: int = 0, **kwargs: Any
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        super().__init__(**kwargs)


class ModuleStudent(PreTrainedModel):
    """A module that takes `input_ids` and `attention_mask` and gives logits.

    The module returns the logits, or a mapping with `logits` and `hidden_states` (a sequence: embeddings first, then
    one per layer). The adapter saves the module's weights as they are named in the module, and loads them again:
    `ModuleStudent.from_pretrained(folder, module=MyModule())`.
    """

    config_class = ModuleConfig
    signals_in_output = True
    layers_name = ""

    def __init__(self, config: ModuleConfig, module: nn.Module) -> None:
        """Wrap `module`; see `as_student`."""
        super().__init__(config)
        self.module = module
        self.all_tied_weights_keys = {}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> ModelOutput:
        """Logits and, if asked for, hidden states.

        Raises:
            TypeError: If the module returns neither a tensor nor a mapping with `logits`.
        """
        output = self.module(input_ids, attention_mask)
        if isinstance(output, Tensor):
            output = {"logits": output}
        if not isinstance(output, Mapping) or "logits" not in output:
            raise TypeError(
                f"{type(self.module).__name__} must return its logits, or a mapping with `logits` and perhaps "
                f"`hidden_states`; it returned {type(output).__name__}."
            )
        shown = output.keys() if output_hidden_states else output.keys() - {"hidden_states"}
        return ModelOutput({name: output[name] for name in sorted(shown)})


def as_student(
    module: nn.Module,
    teacher: PreTrainedModel | None = None,
    *,
    vocab_size: int | None = None,
    hidden_size: int = 0,
    num_hidden_layers: int = 0,
) -> ModuleStudent:
    """Wrap any module as a student for a trainer.

    Args:
        module: A module that is called as `module(input_ids, attention_mask)`. It returns logits, or a mapping with
            `logits` and `hidden_states` (embeddings first, then one per layer).
        teacher: Its vocabulary size, label names and `problem_type` are taken over.
        vocab_size: Number of token ids that the module accepts, if no teacher is given.
        hidden_size: Width of the hidden states that it returns.
        num_hidden_layers: Number of hidden states that it returns in addition to the embeddings.

    Raises:
        ValueError: If neither a teacher nor the size of the vocabulary is given.
    """
    if teacher is None and vocab_size is None:
        raise ValueError("as_student: give the `teacher`, or the `vocab_size` of the module's token ids.")
    names = ("id2label", "label2id", "problem_type")
    labels = {} if teacher is None else {name: getattr(teacher.config, name) for name in names}
    config = ModuleConfig(
        vocab_size=vocab_size if vocab_size is not None else teacher.config.vocab_size,  # type: ignore[union-attr]
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        **labels,
    )
    return ModuleStudent(config, module)
