"""An encoder with a masked-LM head that learns to generate text (UniLM; MiniLM supplement, section 5).

    model = EncoderForGeneration.from_pretrained("outputs/qg")
    model.generate_texts([("Marie Curie was born in Warsaw.", "Warsaw")])

Shape legend: B rows, S padded length, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM
from transformers.modeling_outputs import MaskedLMOutput
from transformers.utils import cached_file, logging

from hf_distill.capture.architectures import forward_columns
from hf_distill.capture.batch import shown_cells
from hf_distill.capture.forward import logits_at
from hf_distill.generation.decoding import beam_search
from hf_distill.generation.packing import SpecialIds
from hf_distill.generation.settings import WAYS, GenerationSettings
from hf_distill.hub.loading import UNREADABLE, load_error, load_tokenizer
from hf_distill.storage.files import model_files, read_json, write_json

logger = logging.get_logger(__name__)

SETTINGS_FILE = "encoder_generation.json"


class EncoderForGeneration(nn.Module):
    """A masked language model that generates text.

    Args:
        masked_lm: A model of `AutoModelForMaskedLM` that takes `position_ids` and uses transformers' attention
            interface (BERT, RoBERTa, DistilBERT, ELECTRA, ERNIE, ALBERT, EuroBERT, ...).
        ids: The special ids.
        way: Training objective, which also determines decoding: `pseudo` or `shift`, see `packing`.
        pair_types: Whether source and target have different token types; None: if the encoder has two types.
        settings: Default settings of the generation.
        tokenizer: Saved with the model, and used by default for generation.

    Attributes:
        label_smoothing: Probability mass of the target that is spread over all other tokens in the loss.
        max_length: Maximum tokens of source and target together.

    Raises:
        ValueError: If the way is unknown, or the encoder cannot be used.
    """

    # The trainer passes the number of target tokens of an optimizer step to the loss.
    accepts_loss_kwargs = True

    def __init__(
        self,
        masked_lm: Any,
        ids: SpecialIds,
        *,
        way: str = "pseudo",
        pair_types: bool | None = None,
        settings: GenerationSettings | None = None,
        tokenizer: Any = None,
    ) -> None:
        super().__init__()
        if way not in WAYS:
            raise ValueError(f"`way` is {way!r}, but must be one of {', '.join(WAYS)}.")
        check_encoder(masked_lm)
        rows = masked_lm.get_input_embeddings().num_embeddings
        if ids.vocabulary_size > rows:
            raise ValueError(
                f"The tokenizer has {ids.vocabulary_size} tokens, but {type(masked_lm).__name__} embeds {rows}: they "
                "do not belong together."
            )
        self.masked_lm = masked_lm
        self.ids = ids
        self.way = way
        self.settings = settings or GenerationSettings()
        self.tokenizer = tokenizer
        self.label_smoothing = 0.0
        self._knows_types = "token_type_ids" in forward_columns(masked_lm)
        types = getattr(masked_lm.config, "type_vocab_size", 0) or 0
        self.pair_types = types >= 2 if pair_types is None else pair_types
        if self.pair_types and types < 2:
            raise ValueError(f"`pair_types` is True, but {type(masked_lm).__name__} knows {types} token types.")

    @property
    def config(self) -> Any:
        """The configuration of the masked language model."""
        return self.masked_lm.config

    @property
    def max_length(self) -> int:
        """Maximum tokens of source and target together."""
        return num_positions(self.masked_lm)

    def lengthen(self, length: int) -> None:
        """Make room for longer rows: the table of positions is repeated, as UniLM does for 768 tokens."""
        lengthen_positions(self.masked_lm, length)

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings of the masked language model."""
        return self.masked_lm.get_input_embeddings()

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Enable it in the masked language model."""
        self.masked_lm.activation_checkpointing_enable(*args, **kwargs)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        token_type_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
    ) -> MaskedLMOutput:
        """Return loss and logits of a packed batch.

        Args:
            input_ids: (B, S), made by `packing` like the other inputs.
            position_ids: (B, S), from 0.
            token_type_ids: (B, S).
            attention_mask: (B, 1, S, S), added to attention scores.
            labels: (B, S), -100 where nothing is predicted.
            num_items_in_batch: Number of target tokens of the whole optimizer step, if the loss is a mean over them.

        Returns:
            `loss`, a mean over the target tokens, and (N, V) `logits` at the positions with a label, in order.
        """
        rows, columns = shown_cells(labels)
        logits = self.predict(input_ids, position_ids, token_type_ids, attention_mask, rows, columns)
        total = smoothed_loss(logits, labels[rows, columns], self.ids.pad, self.label_smoothing).sum()
        count = max(1, len(rows)) if num_items_in_batch is None else num_items_in_batch
        return MaskedLMOutput(loss=total / count, logits=logits)

    def predict(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        token_type_ids: Tensor,
        attention_mask: Tensor,
        rows: Tensor,
        columns: Tensor,
    ) -> Tensor:
        """Return (N, V) logits at N positions of a batch; the head is applied only there."""
        table = position_table(self.masked_lm)
        # RoBERTa's first position is the one after the padding index.
        first = 0 if table is None or table.padding_idx is None else table.padding_idx + 1
        inputs = {
            "input_ids": input_ids,
            "position_ids": position_ids + first,
            "attention_mask": attention_mask.to(self.masked_lm.dtype).clamp_min(torch.finfo(self.masked_lm.dtype).min),
        }
        if self._knows_types:
            inputs["token_type_ids"] = token_type_ids if self.pair_types else torch.zeros_like(token_type_ids)
        return logits_at(self.masked_lm, inputs, rows, columns)

    def generate_texts(
        self,
        texts: Sequence[str | Sequence[str]],
        tokenizer: Any = None,
        settings: GenerationSettings | None = None,
    ) -> list[str]:
        """Generate a text for each source.

        Args:
            texts: Sources. If a source has several texts (passage and answer), the separator joins them; if it is too
                long, its longest text is truncated.
            tokenizer: By default the one that was loaded with the model.
            settings: Settings of the generation; by default the model's own.

        Returns:
            The texts, in the order of the sources.

        Raises:
            ValueError: If there is no tokenizer, or a source and its text exceed the model's positions.
        """
        tokenizer = self.tokenizer if tokenizer is None else tokenizer
        if tokenizer is None:
            raise ValueError("`tokenizer` is missing: the model was loaded without one.")
        settings = self.settings if settings is None else settings
        room = settings.max_source_length - 2
        sources = [source_ids([text] if isinstance(text, str) else text, tokenizer, room) for text in texts]
        written = beam_search(self, sources, settings, tokenizer=tokenizer)
        return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the masked language model, the tokenizer if there is one, and the settings of the generation."""
        facts = {
            "way": self.way,
            "pair_types": self.pair_types,
            "special_ids": asdict(self.ids),
            "settings": asdict(self.settings),
        }
        with model_files(folder) as part:
            self.masked_lm.save_pretrained(part)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(part)
            write_json(part / SETTINGS_FILE, facts)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        tokenizer: Any = None,
        *,
        way: str | None = None,
        settings: GenerationSettings | None = None,
        max_length: int | None = None,
        flag: str = "--encoder",
        **kwargs: Any,
    ) -> EncoderForGeneration:
        """Load what `save_pretrained` wrote, or start from any encoder.

        An encoder without a masked-LM head gets a new head, tied to its word embeddings.

        Args:
            name: Folder or Hub id.
            tokenizer: By default the stored one.
            way: By default the stored one, or else `pseudo`.
            settings: By default the stored ones, or else those of `GenerationSettings`.
            max_length: Tokens of source and target together that the model must have positions for.
            flag: The argument that gave the name, for error messages.
            kwargs: Arguments of the model's `from_pretrained`, for example `revision`; weights are loaded in float32
                unless `dtype` says otherwise.

        Raises:
            OSError: If the model or tokenizer does not exist; the message names the flag.
            ValueError: If the encoder or the tokenizer cannot be used.
        """
        name = str(name)
        revision = kwargs.get("revision")
        masked_lm = _load_masked_lm(name, flag, **{"dtype": torch.float32, **kwargs})
        tokenizer = load_tokenizer(name, flag=flag, revision=revision) if tokenizer is None else tokenizer
        facts = _stored_facts(name, revision)
        ids = SpecialIds.from_tokenizer(tokenizer)
        if facts.get("special_ids", asdict(ids)) != asdict(ids):
            raise ValueError(
                f"{name} was trained with the special ids {facts['special_ids']}, the tokenizer has {ids}."
            )
        if settings is None and "settings" in facts:
            settings = GenerationSettings(**facts["settings"])
        model = cls(
            masked_lm,
            ids,
            way=way or facts.get("way", "pseudo"),
            pair_types=facts.get("pair_types"),
            settings=settings,
            tokenizer=tokenizer,
        )
        if max_length is not None:
            model.lengthen(max_length)
        return model


def smoothed_loss(logits: Tensor, labels: Tensor, pad: int, smoothing: float) -> Tensor:
    """Return (N,) KL divergence between smoothed targets and predictions.

    The gold token has probability 1 - e, every other token except the padding e / (V - 2); without smoothing this is
    the cross-entropy.

    Args:
        logits: (N, V).
        labels: (N,) gold tokens.
        pad: Id of the padding.
        smoothing: e, from 0 to below 1.
    """
    log_p = logits.float().log_softmax(dim=-1)
    gold = log_p.gather(1, labels[:, None])[:, 0]
    if smoothing == 0:
        return -gold
    each = smoothing / (logits.shape[-1] - 2)
    others = log_p.sum(dim=-1) - gold - log_p[:, pad]
    entropy = -((1 - smoothing) * math.log(1 - smoothing) + smoothing * math.log(each))
    return -(1 - smoothing) * gold - each * others - entropy


def source_ids(texts: Sequence[str], tokenizer: Any, room: int) -> list[int]:
    """Token ids of a source's texts, joined by the separator, without special tokens at the ends.

    Args:
        texts: Parts of one source.
        tokenizer: Their tokenizer.
        room: Maximum number of ids; the longest text loses its end.
    """
    parts = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    longest = max(parts, key=len)
    excess = sum(map(len, parts)) + len(parts) - 1 - room
    if excess > 0:
        del longest[max(0, len(longest) - excess) :]
    joined = list(parts[0])
    for part in parts[1:]:
        joined += [tokenizer.sep_token_id, *part]
    return joined[:room]


def _load_masked_lm(name: str, flag: str, **kwargs: Any) -> Any:
    try:
        model, report = AutoModelForMaskedLM.from_pretrained(name, output_loading_info=True, **kwargs)
    except UNREADABLE as error:
        raise load_error(name, error, flag=flag) from error
    prefix = f"{model.base_model_prefix}."
    if any(not key.startswith(prefix) for key in report["missing_keys"]):
        logger.warning(
            f"{name} has no masked-LM head: it gets a new one, tied to its word embeddings, which fine-tuning must "
            "train."
        )
    return model


def _stored_facts(name: str, revision: str | None) -> dict[str, Any]:
    """Read the facts that `save_pretrained` wrote beside the model; empty for other models."""
    path = cached_file(
        name,
        SETTINGS_FILE,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return {} if path is None else read_json(path)


def check_encoder(masked_lm: Any) -> None:
    """Refuse an encoder that cannot be used in UniLM's way.

    Raises:
        ValueError: If it takes no position ids, does not use the attention interface, or does not follow the mask.
    """
    name = type(masked_lm).__name__
    if masked_lm.get_output_embeddings() is None or masked_lm.base_model is masked_lm:
        raise ValueError(f"{name} has no masked-LM head: load it with `AutoModelForMaskedLM`.")
    if "position_ids" not in forward_columns(masked_lm):
        raise ValueError(f"{name} takes no `position_ids`, which generation must set.")
    if not masked_lm.base_model._can_set_attn_implementation():
        raise ValueError(f"{name} does not use transformers' attention interface, which generation needs.")
    if "sliding_attention" in (getattr(masked_lm.config, "layer_types", None) or ()):
        raise ValueError(f"{name} has layers with windowed attention, but generation must see the whole source.")
    if getattr(masked_lm.config, "trigram_input", False):
        raise ValueError(
            f"{name} mixes the embeddings of neighbours (`trigram_input`), which would leak the next token."
        )


def position_table(masked_lm: Any) -> nn.Embedding | None:
    """The learnt position embeddings of an encoder; None if it has none (rotary positions)."""
    table = getattr(getattr(masked_lm.base_model, "embeddings", None), "position_embeddings", None)
    return table if isinstance(table, nn.Embedding) else None


def num_positions(masked_lm: Any) -> int:
    """Maximum tokens of a row."""
    table = position_table(masked_lm)
    if table is None:
        return masked_lm.config.max_position_embeddings
    # RoBERTa's positions begin after the padding index.
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


@torch.no_grad()
def lengthen_positions(masked_lm: Any, length: int) -> None:
    """Let an encoder read longer rows by repeating its table of positions; a table that is long enough is unchanged.

    Args:
        masked_lm: The model; its configuration is changed too.
        length: Tokens of a row.
    """
    table, known = position_table(masked_lm), num_positions(masked_lm)
    if length <= known:
        return
    if table is None:
        raise ValueError(f"{type(masked_lm).__name__} has no table of positions to lengthen from {known} to {length}.")
    first = table.num_embeddings - known
    repeated = table.weight[first:].repeat(-(-length // known), 1)[:length]
    table.weight = nn.Parameter(torch.cat([table.weight[:first], repeated]))
    table.num_embeddings = masked_lm.config.max_position_embeddings = first + length
    embeddings = masked_lm.base_model.embeddings
    for name, rows in (("position_ids", torch.arange(first + length)), ("token_type_ids", None)):
        old = getattr(embeddings, name, None)
        if isinstance(old, torch.Tensor):
            new = torch.zeros(first + length, dtype=torch.long) if rows is None else rows
            setattr(embeddings, name, nn.Buffer(new[None].to(old.device), persistent=False))
