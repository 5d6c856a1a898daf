"""Settings of text generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from hf_distill.storage.plain_values import as_fields, as_hint, check_range

Way = Literal["pseudo", "shift"]

WAYS: tuple[str, ...] = get_args(Way)


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of text generation; the defaults are MiniLM's for question generation (supplement, section 5).

    Attributes:
        num_beams: Number of hypotheses of the beam search; 1 is greedy decoding.
        max_new_tokens: Maximum tokens of a text, including the separator that ends it.
        min_new_tokens: Minimum tokens before a text may end.
        length_penalty: Alpha of `log p / ((5 + length) / 6) ** alpha` (GNMT); the length includes the separator. A
            larger value prefers longer texts.
        no_repeat_ngram_size: A text never contains the same n-gram of this many tokens twice; 0 allows repetition.
        ngram_ignore: An n-gram with one of these tokens may repeat, for example ".".
        batch_size: Number of sources that are decoded together.
        max_source_length: Maximum tokens of a source, including the two special ones; the rest is cut off.
    """

    num_beams: int = 5
    max_new_tokens: int = 48
    min_new_tokens: int = 0
    length_penalty: float = 1.3
    no_repeat_ngram_size: int = 0
    ngram_ignore: tuple[str, ...] = ()
    batch_size: int = 32
    max_source_length: int = 464

    @classmethod
    def from_dict(cls, values: Any, where: str) -> GenerationSettings:
        """Make settings from plain data.

        Args:
            values: A mapping of the fields.
            where: Description of the source, for error messages.

        Raises:
            ValueError: If it is not a mapping, a field is unknown, or a value has a wrong type.
        """
        return cls(**as_fields(values, get_type_hints(cls), where))

    def __post_init__(self) -> None:
        # JSON and YAML have no tuples, and may contain values of any type.
        for name, hint in get_type_hints(type(self)).items():
            object.__setattr__(self, name, as_hint(getattr(self, name), hint, f"`{name}`"))
        for name, least in _LEAST.items():
            check_range(getattr(self, name), f"`{name}`", least=least)
        if self.min_new_tokens >= self.max_new_tokens:
            raise ValueError(
                f"`min_new_tokens` is {self.min_new_tokens} and `max_new_tokens` {self.max_new_tokens}: no room is "
                "left for the separator that ends a text."
            )


_LEAST = {
    "num_beams": 1,
    "max_new_tokens": 1,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "batch_size": 1,
    "max_source_length": 3,
}
