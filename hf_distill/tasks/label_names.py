"""Compares label names: whether two lists contain the same labels, and in which order.

This module needs only Python, so a program that compares names imports neither torch nor datasets.
"""

from __future__ import annotations

import logging
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

# A number with leading zeros is a name, for example of a place or a disease.
_GENERIC = re.compile(r"(label_)?(0|[1-9]\d*)", flags=re.IGNORECASE)


@cache
def _warn_once(message: str) -> None:
    """Warn once of something that would otherwise be repeated for every model or batch."""
    logger.warning(message)


def is_generic(names: Sequence[str]) -> bool:
    """Whether the names are placeholders: numbers, or `LABEL_0`, `LABEL_1`, ... as transformers writes them."""
    return all(_GENERIC.fullmatch(name) for name in names)


class LabelNames:
    """Matches labels as they are written with label names: exactly, by a declared alias, or ignoring case.

    Surrounding spaces and the Unicode encoding of accents are ignored too. If two names differ only in case, they stay
    two labels, and a text that equals neither exactly matches none.
    """

    def __init__(self, names: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None) -> None:
        """Map every name and every alias to its index.

        Args:
            names: Label names in order.
            aliases: Name -> other spellings of it.

        Raises:
            ValueError: If an alias belongs to no label, or to two.
        """
        self._exact = {name: index for index, name in enumerate(names)}
        for name, others in (aliases or {}).items():
            if name not in names:
                raise ValueError(f"`label_aliases` has {name!r}; the labels are {list(names)}.")
            for other in others:
                if self._exact.setdefault(other, self._exact[name]) != self._exact[name]:
                    raise ValueError(f"`label_aliases`: {other!r} would mean {name!r} and another label too.")
        places: dict[str, set[int]] = {}
        for text, index in self._exact.items():
            places.setdefault(_folded(text), set()).add(index)
        self._folded = {text: min(found) for text, found in places.items() if len(found) == 1}

    def find(self, text: str) -> int | None:
        """Index of the label that a text means; `None` if it matches no label, or more than one."""
        exact = self._exact.get(text)
        return self._folded.get(_folded(text)) if exact is None else exact


def _folded(text: str) -> str:
    """Normalise what does not matter in a name: case, surrounding spaces, the encoding of accents."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def order_by_name(
    found: Sequence[str], wanted: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None
) -> list[int] | None:
    """Positions in `found` of the labels in `wanted`, matched as in `LabelNames`; `None` if the labels differ.

    Args:
        found: The label names of a source.
        wanted: The label names in the desired order.
        aliases: Name in `wanted` -> other spellings of it.
    """
    if list(found) == list(wanted):
        return list(range(len(wanted)))
    names = LabelNames(wanted, aliases)
    places = [names.find(name) for name in found]
    if sorted(-1 if place is None else place for place in places) != list(range(len(wanted))):
        return None
    return [places.index(index) for index in range(len(wanted))]


def order_by_number(found: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Positions in `found` of the labels in `wanted`, where one side has only numbers, read as indices into the other.

    `None` if neither side is generic, their lengths differ, or a number occurs twice.
    """
    sides = [_places(found), _places(wanted)]
    if len(found) != len(wanted) or None in sides or not (is_generic(found) or is_generic(wanted)):
        return None
    theirs, ours = sides
    return None if theirs is None or ours is None else [theirs.index(place) for place in ours]


def _places(names: Sequence[str]) -> list[int] | None:
    """The index that each name has by its number, or by its position; `None` if two have the same number."""
    if not is_generic(names):
        return list(range(len(names)))
    numbers = [int(name.rpartition("_")[2]) for name in names]
    ranks = {number: rank for rank, number in enumerate(sorted(numbers))}
    return [ranks[number] for number in numbers] if len(ranks) == len(numbers) else None


def match_label_order(
    found: Sequence[str],
    wanted: Sequence[str],
    *,
    where: str,
    aliases: Mapping[str, Sequence[str]] | None = None,
) -> list[int]:
    """Positions in `found` of the labels in `wanted`, matched by name (see `LabelNames`).

    `logits[..., order]` reorders outputs from the order of `found` to the order of `wanted`. Placeholder names
    (`LABEL_0`, `0`) are read as indices into the wanted names.

    Args:
        found: The label names of a source.
        wanted: The label names in the desired order.
        where: What `found` belongs to, for the error message.
        aliases: Name in `wanted` -> other spellings of it.

    Raises:
        ValueError: If the two lists do not contain the same labels.
    """
    order = order_by_name(found, wanted, aliases)
    if order is None:
        order = order_by_number(found, wanted)
    if order is not None:
        return order
    # If the labels were inferred from rows, a label may be missing by chance.
    absent = [name for name in found if name not in wanted] if set(wanted) < set(found) else []
    hint = f" If rows of {absent} only happen to be missing: `--class_names {shlex.join(found)}`." if absent else ""
    raise ValueError(
        f"{where} has the labels {list(found)}, the task has {list(wanted)}: they cannot be matched by name. "
        "Rename them in the source, or give the task its own names (`label_names` in a task.yaml, `--class_names`)."
        + hint
    )


def label_permutation(teacher: Any, student: Any) -> list[int] | None:
    """For every label of the student its index in the teacher; `None` if both have the same order.

    Names are compared as in `LabelNames`. If one side has only default names (`LABEL_0` …), they are read as indices
    into the other side's names, and a warning is logged once.

    Args:
        teacher: Configuration of the teacher.
        student: Configuration of the student.

    Raises:
        ValueError: If the names or their numbers differ.
    """
    theirs, ours = names_of_head(teacher), names_of_head(student)
    if len(theirs) == len(ours) == 1:
        # A single value may have any name.
        return None
    order = order_by_name(theirs, ours)
    if order is None:
        order = order_by_number(theirs, ours)
        if order is not None:
            _warn_once(
                f"Label names cannot be compared: the teacher's are {theirs}, the student's {ours}. Their orders are "
                "taken to be the same; set `id2label` in both configurations to have them checked."
            )
    if order is not None:
        return None if order == list(range(len(order))) else order
    raise ValueError(
        f"Teacher and student have different labels: {theirs} against {ours}. Create the student from this teacher, "
        "set `id2label` on either side, or leave `logits` out of `--objectives`."
    )


def names_of_head(config: Any) -> list[str]:
    """Names of a model's outputs in the order of `id2label`; warns if `label2id` contradicts it.

    Args:
        config: Configuration of the model.
    """
    by_index = {int(index): str(name) for index, name in (getattr(config, "id2label", None) or {}).items()}
    names = [by_index[index] for index in sorted(by_index)]
    label2id = {str(name): int(index) for name, index in (getattr(config, "label2id", None) or {}).items()}
    # A configuration that was made with `id2label` alone has generic names in `label2id`.
    if not is_generic(list(label2id)) and any(by_index.get(index) != name for name, index in label2id.items()):
        _warn_once(
            f"The configuration of {getattr(config, 'name_or_path', '') or type(config).__name__!r} contradicts "
            f"itself: `id2label` is {by_index}, `label2id` is {label2id}. `id2label` counts; mend the other one."
        )
    return names
