"""An encoder that transformers does not know and that computes its attention itself: `my_plugin/model.py`."""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput


class PlainConfig(PreTrainedConfig):
    model_type = "plain_encoder"

    def __init__(
        self,
        vocab_size=100,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=64,
        **more,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        super().__init__(**more)


class PlainAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4)
        )

    def forward(self, states, mask):
        query, key, value = (
            part(states).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = query @ key.mT / query.shape[-1] ** 0.5
        mixed = scores.masked_fill(~mask[:, None, None], -1e9).softmax(-1) @ value
        return self.output(mixed.transpose(1, 2).flatten(-2))


class PlainLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention = PlainAttention(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden_size) for _ in range(2))
        self.inner = nn.Linear(config.hidden_size, config.intermediate_size)
        self.outer = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, states, mask):
        states = states + self.attention(self.norms[0](states), mask)
        return states + self.outer(nn.functional.gelu(self.inner(self.norms[1](states))))


class PlainPreTrainedModel(PreTrainedModel):
    config_class = PlainConfig
    base_model_prefix = "model"

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(std=0.02)
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()


class PlainModel(PlainPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(PlainLayer(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings

    def set_input_embeddings(self, value):
        self.embeddings = value

    def forward(self, input_ids, attention_mask=None, **_):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.embeddings(input_ids) + self.positions.weight[: input_ids.shape[1]]
        for layer in self.layers:
            states = layer(states, mask.bool())
        return BaseModelOutput(last_hidden_state=states)


class PlainForSequenceClassification(PlainPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = PlainModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, labels=None, **_):
        logits = self.classifier(self.model(input_ids, attention_mask).last_hidden_state[:, 0])
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
