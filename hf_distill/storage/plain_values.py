"""Plain values from YAML, JSON and Python, checked against type hints before they are used.

Whatever the input, the only error is a `ValueError` of one line that says where the value stands, what it is and what
is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Larger data is not a configuration: YAML's aliases can expand a few lines to billions of values.
DEEPEST, MOST_VALUES = 40, 1_000_000
LARGEST_INTEGER = 2**63 - 1
_SHOWN = 80
MOST_CLOSE = 3
MAX_NAMED = 3


class NotFiniteError(ValueError):
    """A loss, weight, label or signal is NaN or infinite."""


def load_json(text: str, where: str) -> Any:
    """Parse JSON into plain data.

    Raises:
        ValueError: If the text is not JSON, or is nested too deeply.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {' '.join(str(error).split()) or type(error).__name__}.") from error
    check_plain(value, where)
    return value


def merged(mapping: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Apply changes to a mapping by the rules of JSON Merge Patch (RFC 7396): nested mappings are merged too.

    Args:
        mapping: The original; it is not modified.
        changes: Name -> its new value; `None` removes the name.
    """
    result = dict(mapping)
    for name, value in changes.items():
        if isinstance(value, Mapping):
            below = result.get(name)
            result[name] = merged(below if isinstance(below, Mapping) else {}, value)
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def as_mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a mapping whose keys are strings.

    Raises:
        ValueError: If the value is not one.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be `name: value` pairs, but is {shown(value)}.")
    wrong = next((key for key in value if not isinstance(key, str)), None)
    if wrong is not None or None in value:
        raise ValueError(f"{where} has the name {shown(wrong)}; names are texts (put it between quotes).")
    return dict(value)


def as_fields(values: Any, hints: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a mapping that has known names only, each value converted to its type hint.

    Args:
        values: Plain data.
        hints: Name -> type hint.
        where: Description of the mapping for error messages.

    Raises:
        ValueError: If it is not a mapping, a name is unknown, or a value does not fit its type hint.
    """
    mapping = as_mapping(values, where)
    unknown = sorted(set(mapping) - set(hints))
    if unknown:
        raise ValueError(f"{where} has no fields {shown(unknown)}; known are {sorted(hints)}.")
    return {name: as_hint(value, hints[name], f"{where}: `{name}`") for name, value in mapping.items()}


def as_hint(value: Any, hint: Any, where: str) -> Any:
    """Convert a plain value to its type hint.

    An integer may be written as text or with a decimal point, a float as text (YAML reads `1e-5` as text), and a text
    as a number. No other conversion is made.

    Args:
        value: Plain data.
        hint: `str`, `int`, `float`, `bool`, `None`, `Any`, `Literal`, unions, lists, tuples, mappings, dataclasses.
        where: Where the value stands, for errors.

    Raises:
        ValueError: If the value does not fit.
    """
    if hint is Any or hint is object:
        return value
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return _as_union(value, get_args(hint), where)
    if origin is Literal:
        return _as_choice(value, get_args(hint), where)
    if dataclasses.is_dataclass(origin) and isinstance(origin, type):
        return value if isinstance(value, origin) else _as_dataclass(value, origin, where)
    convert = _CONVERTERS.get(origin)
    if convert is None:
        raise TypeError(f"{where}: values of the type {hint} cannot be checked.")
    return convert(value, get_args(hint), where)


def can_check(hint: Any) -> bool:
    """Whether `as_hint` supports a type hint and all its parts."""
    if hint is Any or hint is ... or hint is None:
        return hint is not None
    origin = get_origin(hint) or hint
    if origin is Literal or (dataclasses.is_dataclass(origin) and isinstance(origin, type)):
        return True
    known = origin in (Union, types.UnionType) or origin in _CONVERTERS
    return known and all(can_check(part) for part in get_args(hint))


def check_range(
    value: float | None,
    where: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
) -> None:
    """Refuse a number outside its range; `None` stands for "not given" and passes.

    Raises:
        ValueError: If it is outside, or not finite.
    """
    if value is None:
        return
    if not math.isfinite(value):
        raise ValueError(f"{where} is {value}, which is not finite.")
    if least is not None and value < least:
        raise ValueError(f"{where} is {value}; it must be at least {least}.")
    if above is not None and value <= above:
        raise ValueError(f"{where} is {value}; it must be above {above}.")
    if most is not None and value > most:
        raise ValueError(f"{where} is {value}; it must be at most {most}.")


def did_you_mean(given: str | Iterable[str], known: Iterable[str]) -> str:
    """The end of an error message: ` Did you mean 'text'?` if a known name is close to the given one, else empty.

    Args:
        given: An unknown name, or several.
        known: The known names; case is ignored.
    """
    close = close_names(given, known)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def close_names(given: str | Iterable[str], known: Iterable[str]) -> list[str]:
    """Find the known names that a user may have meant.

    For each given name these are the one with the most similar spelling, and up to three of the shortest that contain
    all its words: `epochs` is in `num_train_epochs`.

    Args:
        given: An unknown name, or several.
        known: The known names; case is ignored.
    """
    names = {name.lower(): name for name in known}
    found: list[str] = []
    for name in [given] if isinstance(given, str) else given:
        low = str(name).lower()
        words = set(low.split("_")) - {""}
        longer = sorted(
            (one for one in names if words and words <= set(one.split("_"))), key=lambda one: (len(one), one)
        )
        close = dict.fromkeys([*difflib.get_close_matches(low, names, n=1), *longer])
        found += list(close)[:MOST_CLOSE]
    return [names[name] for name in dict.fromkeys(found)]


def shown(value: Any) -> str:
    """Format a value for an error message, at most one line long."""
    try:
        text = repr(value)
    except Exception:
        # For objects that are not plain data.
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def check_plain(value: Any, where: str) -> None:
    """Refuse a value that is not plain data, contains itself, or is too large.

    Raises:
        ValueError: If a part is not a string, number, boolean, list or mapping, or a string cannot be encoded.
    """
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            raise ValueError(f"{where} is nested too deeply, refers to itself, or is too large.")
        if isinstance(item, Mapping):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            waiting += [(part, depth + 1) for part in item]
        elif isinstance(item, str):
            _check_text(item, where)
        elif not (item is None or isinstance(item, (bool, int, float))):
            raise ValueError(
                f"{where} has {shown(item)}, a {type(item).__name__}; it must be a text: put it between quotes."
            )


def _check_text(text: str, where: str) -> None:
    if "\x00" in text or (not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)):
        raise ValueError(f"{where} has {shown(text)}, which is not valid text.")


def _as_text(value: Any, _: Any, where: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        quotes = "; put it between quotes" if isinstance(value, bool) else ""
        raise ValueError(f"{where} is {shown(value)}; it must be a text{quotes}.")
    _check_text(value, where)
    return value


def _as_number(value: Any, where: str) -> float | int:
    """Return a finite number; a text that holds a number is converted."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value) if not value.strip().lstrip("+-").isdecimal() else int(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ValueError(f"{where} is {shown(value)}; it must be a number.")
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{where} is {shown(value)}, which is not finite.")
    if abs(number) > LARGEST_INTEGER and isinstance(number, int):
        raise ValueError(f"{where} is {shown(value)}; it is too large.")
    return number


def _as_float(value: Any, _: Any, where: str) -> float:
    return float(_as_number(value, where))


def _as_int(value: Any, _: Any, where: str) -> int:
    number = _as_number(value, where)
    if (isinstance(number, float) and not number.is_integer()) or abs(number) > LARGEST_INTEGER:
        raise ValueError(f"{where} is {shown(value)}; it must be a whole number.")
    return int(number)


def _as_bool(value: Any, _: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{where} is {shown(value)}; it must be true or false.")
    return value


def _as_none(value: Any, _: Any, where: str) -> None:
    if value is not None:
        raise ValueError(f"{where} is {shown(value)}; it must be null.")


def _as_list(value: Any, hints: tuple[Any, ...], where: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where} is {shown(value)}; it must be a list.")
    hint = hints[0] if hints else Any
    return [as_hint(item, hint, f"{where}[{number}]") for number, item in enumerate(value)]


def _as_tuple(value: Any, hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not hints or (len(hints) == 2 and hints[1] is ...):
        return tuple(_as_list(value, hints[:1], where))
    if not isinstance(value, (list, tuple)) or len(value) != len(hints):
        raise ValueError(f"{where} is {shown(value)}; it must be a list of {len(hints)} values.")
    parts = zip(value, hints, strict=True)
    return tuple(as_hint(item, hint, f"{where}[{number}]") for number, (item, hint) in enumerate(parts))


def _as_dict(value: Any, hints: tuple[Any, ...], where: str) -> dict[str, Any]:
    hint = hints[1] if len(hints) == 2 else Any
    return {key: as_hint(item, hint, f"{where}.{key}") for key, item in as_mapping(value, where).items()}


def _as_union(value: Any, hints: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in hints:
        return None
    others = [hint for hint in hints if hint is not type(None)]
    # A value that already has one of the types is not converted to another.
    exact = [hint for hint in others if isinstance(hint, type) and type(value) is hint]
    first: ValueError | None = None
    for hint in [*exact, *others]:
        try:
            return as_hint(value, hint, where)
        except ValueError as error:
            first = first or error
    raise first or ValueError(f"{where} is {shown(value)}; it must be null.")


def _as_choice(value: Any, allowed: tuple[Any, ...], where: str) -> Any:
    if not any(type(value) is type(item) and value == item for item in allowed):
        raise ValueError(f"{where} is {shown(value)}; allowed are {', '.join(map(repr, allowed))}.")
    return value


def _as_dataclass(value: Any, cls: type, where: str) -> Any:
    """Return an instance of a dataclass from a mapping of its fields."""
    given = as_fields(value, get_type_hints(cls), where)
    without_default = inspect.signature(cls).parameters.values()
    missing = [one.name for one in without_default if one.default is one.empty and one.name not in given]
    if missing:
        raise ValueError(f"{where} lacks {missing}.")
    return cls(**given)


_CONVERTERS: dict[Any, Callable[[Any, tuple[Any, ...], str], Any]] = {
    str: _as_text,
    int: _as_int,
    float: _as_float,
    bool: _as_bool,
    type(None): _as_none,
    None: _as_none,
    list: _as_list,
    Sequence: _as_list,
    tuple: _as_tuple,
    dict: _as_dict,
    Mapping: _as_dict,
}


def listed(names: Sequence[str]) -> str:
    """Name the first of many names, and the number of the others."""
    more = len(names) - MAX_NAMED
    shown = ", ".join(f"`{name}`" for name in names[:MAX_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown
