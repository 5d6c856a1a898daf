"""Models and inputs of the capture tests."""

from __future__ import annotations

import torch
from capture_cases import SIZES
from torch import nn
from transformers import BertConfig, BertModel

from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture


def layers(*indices: int) -> frozenset[int]:
    return frozenset(indices)


def make_bert(model_class: type = BertModel, **overrides) -> nn.Module:
    torch.manual_seed(0)
    return model_class(BertConfig(**{**SIZES, "max_position_embeddings": 16, **overrides})).eval()


def make_batch() -> dict[str, torch.Tensor]:
    """Row 1 is padded on the right, row 2 on the left."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1, 40, (3, 8), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 5:] = 0
    attention_mask[2, :3] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


class Student(nn.Module):
    """A loss inside the module that is compiled, as the trainer does it."""

    def __init__(self, model: nn.Module, request: SignalRequest) -> None:
        super().__init__()
        self.model = model
        self.capture = SignalCapture(model, request)

    def forward(self, **inputs) -> torch.Tensor:
        signals = self.capture(**inputs)
        tensors = [*signals.hidden_states.values(), *signals.attention_scores.values(), *signals.logits.values()]
        for projections in signals.projections.values():
            tensors += [projections.query, projections.key, projections.value]
        return sum(tensor.square().mean() for tensor in tensors)
