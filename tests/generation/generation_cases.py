"""Tiny encoders that write, and beam search over one source as plainly as it can be said."""

from __future__ import annotations

import torch
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    EuroBertConfig,
    RobertaConfig,
)

from hf_distill.generation.model import EncoderForGeneration
from hf_distill.generation.packing import IGNORED, SpecialIds, pack

VOCABULARY = 40
IDS = SpecialIds(begin=2, separator=3, mask=4, pad=0, vocabulary_size=VOCABULARY)
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_ROBERTA = {**_SIZES, "pad_token_id": 1, "type_vocab_size": 1}
_DISTIL_NAMES = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
}
_DISTIL = {_DISTIL_NAMES.get(name, name): value for name, value in _SIZES.items()}
CONFIGS = {
    "bert": lambda: BertConfig(**_SIZES),
    # Its positions begin behind the padding's, and it knows one token type.
    "roberta": lambda: RobertaConfig(**_ROBERTA),
    # Its attention does not know its layer, and it knows no token types.
    "distilbert": lambda: DistilBertConfig(**_DISTIL),
    # Its layers are one module.
    "albert": lambda: AlbertConfig(**_SIZES, embedding_size=16),
    # Its positions are turned into queries and keys, and two heads share a key.
    "eurobert": lambda: EuroBertConfig(**_SIZES, num_key_value_heads=2),
    "electra": lambda: ElectraConfig(**_SIZES, embedding_size=16),
}


def make_encoder(name="bert", way="pseudo", *, seed=0, **options):
    """An encoder with random weights so large that its predictions differ from place to place."""
    torch.manual_seed(seed)
    masked_lm = AutoModelForMaskedLM.from_config(CONFIGS[name]())
    with torch.no_grad():
        for parameter_name, parameter in masked_lm.named_parameters():
            if parameter.dim() == 1 and "norm" not in parameter_name.lower():
                parameter.normal_(std=0.5)
    return EncoderForGeneration(masked_lm.eval(), IDS, way=way, **options)


def make_sources(count=5, seed=0, longest=12):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(5, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def next_log_p(model, source, written):
    """Log p of each next token: the whole row is computed anew, with its full mask and nothing stored."""
    batch = pack(model.way, [source], [written], model.ids, max_source_length=100, max_target_length=100)
    rows, columns = (batch.pop("labels") != IGNORED).nonzero(as_tuple=True)
    return model.predict(**batch, rows=rows[-1:], columns=columns[-1:])[0].double().log_softmax(dim=-1)


def plain_beam_search(model, source, settings, repeatable=()):
    """(tokens, score) of the best hypothesis, with every open hypothesis followed to the last step."""
    source = source[: settings.max_source_length - 2]
    open_ones, ended = [([], 0.0)], []
    for length in range(1, settings.max_new_tokens + 1):
        candidates = []
        for tokens, total in open_ones:
            for token, log_p in enumerate(next_log_p(model, source, tokens).tolist()):
                if allowed(token, tokens, settings, repeatable):
                    candidates.append(([*tokens, token], total + log_p))
        candidates.sort(key=lambda candidate: -candidate[1])
        best = candidates[: settings.num_beams]
        penalty = ((5 + length) / 6) ** settings.length_penalty
        last = length == settings.max_new_tokens
        ended += [(tokens, total / penalty) for tokens, total in best if last or tokens[-1] == IDS.separator]
        open_ones = [(tokens, total) for tokens, total in best if tokens[-1] != IDS.separator]
    tokens, score = max(ended, key=lambda hypothesis: hypothesis[1])
    return [token for token in tokens if token != IDS.separator], score


def allowed(token, tokens, settings, repeatable):
    if token in (IDS.begin, IDS.mask, IDS.pad):
        return False
    if token == IDS.separator and len(tokens) < settings.min_new_tokens:
        return False
    size = settings.no_repeat_ngram_size
    grams = [tuple([*tokens, token][i : i + size]) for i in range(len(tokens) + 2 - size)] if size else []
    return not grams or set(grams[-1]) & set(repeatable) or grams[-1] not in grams[:-1]
