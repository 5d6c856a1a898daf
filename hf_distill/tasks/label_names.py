"""Compare label names: whether two lists mean the same labels, and in which order.

Only Python is needed here, so that a program that compares names loads neither torch nor datasets.
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

# A number with leading zeros is a name: of a place, of a disease.
_GENERIC = re.compile(r"(label_)?(0|[1-9]\d*)", flags=re.IGNORECASE)


@cache
def _warn_once(message: str) -> None:
    """Warn about something that would be said again for every model or batch."""
    logger.warning(message)


def is_generic(names: Sequence[str]) -> bool:
    """Whether names are placeholders: numbers, or the `LABEL_0` of an unnamed head."""
    return all(_GENERIC.fullmatch(name) for name in names)


class LabelNames:
    """Matches written labels with names, by one rule: exactly, by a declared alias, or regardless of case.

    Spaces around a name, and the way in which its accents are written, count as little as its case. Names that differ
    by case only stay two: a text that is neither of them exactly is then none of them.
    """

    def __init__(self, names: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None) -> None:
        """Map every name and every alias to its label.

        Args:
            names: Label names in their order.
            aliases: Name -> other texts that mean it.

        Raises:
            ValueError: If there is an alias of no label, or one of two.
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
        """Index of the label that a text means; `None` if it means none, or could mean several."""
        exact = self._exact.get(text)
        return self._folded.get(_folded(text)) if exact is None else exact


def _folded(text: str) -> str:
    """Return a text without differences that do not matter: case, spaces around it, the encoding of accents."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def order_by_name(
    found: Sequence[str], wanted: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None
) -> list[int] | None:
    """Positions in `found` of the labels of `wanted` by the rule of `LabelNames`; `None` if they are not the same.

    Args:
        found: Label names as they are.
        wanted: Label names as they should be.
        aliases: Name in `wanted` -> other texts that mean it.
    """
    if list(found) == list(wanted):
        return list(range(len(wanted)))
    names = LabelNames(wanted, aliases)
    places = [names.find(name) for name in found]
    if sorted(-1 if place is None else place for place in places) != list(range(len(wanted))):
        return None
    return [places.index(index) for index in range(len(wanted))]


def order_by_number(found: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Positions in `found` of the labels of `wanted` where one side has numbers only, which count the other's names.

    `None` if neither side is generic, their sizes differ, or a number is there twice.
    """
    sides = [_places(found), _places(wanted)]
    if len(found) != len(wanted) or None in sides or not (is_generic(found) or is_generic(wanted)):
        return None
    theirs, ours = sides
    return None if theirs is None or ours is None else [theirs.index(place) for place in ours]


def _places(names: Sequence[str]) -> list[int] | None:
    """The place that every name has by its number, or by its position; `None` if two have one number."""
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
    """Positions in `found` of the labels of `wanted`, compared by name (see `LabelNames`).

    `logits[..., order]` puts outputs in the order of `found` into the order of `wanted`. Names that say nothing
    (`LABEL_0`, `0`) are taken to count the wanted ones.

    Args:
        found: Label names as they are.
        wanted: Label names as they should be.
        where: What `found` belongs to, for the error.
        aliases: Name in `wanted` -> other texts that mean it.

    Raises:
        ValueError: If the two are not the same names.
    """
    order = order_by_name(found, wanted, aliases)
    if order is None:
        order = order_by_number(found, wanted)
    if order is not None:
        return order
    # Rows from which labels were read may lack one.
    absent = [name for name in found if name not in wanted] if set(wanted) < set(found) else []
    hint = f" If rows of {absent} only happen to be missing: `--class_names {shlex.join(found)}`." if absent else ""
    raise ValueError(
        f"{where} has the labels {list(found)}, the task has {list(wanted)}: they cannot be matched by name. "
        "Rename them in the source, or give the task its own names (`label_names` in a task.yaml, `--class_names`)."
        + hint
    )


def label_permutation(teacher: Any, student: Any) -> list[int] | None:
    """For every label of the student its index in the teacher; `None` if the orders agree.

    Names are compared by the rule of `LabelNames`. Where one side has only default names
    (`LABEL_0` …), their numbers count the names of the other: one warning says so.

    Args:
        teacher: Configuration of the teacher's model.
        student: That of the student's.

    Raises:
        ValueError: If the names or their number differ.
    """
    theirs, ours = names_of_head(teacher), names_of_head(student)
    if len(theirs) == len(ours) == 1:
        # One value, whatever it is called.
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
    """Names of a model's outputs in the order of `id2label`; a warning says where `label2id` contradicts it.

    Args:
        config: Configuration of a model.
    """
    by_index = {int(index): str(name) for index, name in (getattr(config, "id2label", None) or {}).items()}
    names = [by_index[index] for index in sorted(by_index)]
    label2id = {str(name): int(index) for name, index in (getattr(config, "label2id", None) or {}).items()}
    # A configuration that was given `id2label` alone has generic names in `label2id`.
    if not is_generic(list(label2id)) and any(by_index.get(index) != name for name, index in label2id.items()):
        _warn_once(
            f"The configuration of {getattr(config, 'name_or_path', '') or type(config).__name__!r} contradicts "
            f"itself: `id2label` is {by_index}, `label2id` is {label2id}. `id2label` counts; mend the other one."
        )
    return names
