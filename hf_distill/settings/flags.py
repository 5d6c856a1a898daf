"""A command-line parser of argument dataclasses, as `HfArgumentParser` of transformers is one.

The fields are the same, and so are the flags. But that class loads transformers, for which a verb that opens no model
has no use: it would be a third of the time until such a verb starts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from ..storage.plain_values import did_you_mean, merged

SWITCHES = {
    **dict.fromkeys(("true", "yes", "on", "t", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "f", "n", "0"), False),
}


class DataclassParser(argparse.ArgumentParser):
    """Turns flags into instances of dataclasses: a flag for each field, `--no_...` too where a switch is on.

    Args:
        classes: Flat dataclasses. A field's metadata may have what `add_argument` takes, `help` above all.
        options: What `argparse.ArgumentParser` takes.
    """

    def __init__(self, classes: Sequence[type], **options: Any) -> None:
        super().__init__(formatter_class=argparse.ArgumentDefaultsHelpFormatter, **options)
        self.classes = list(classes)
        for cls in self.classes:
            hints = get_type_hints(cls)
            # In the order of the parameters of the class: those of keywords alone are the last.
            for field in sorted(dataclasses.fields(cls), key=lambda field: field.kw_only is True):
                if field.init:
                    self._add_field(field, hints[field.name])

    def instances(self, words: Sequence[str]) -> tuple[list[Any], list[str]]:
        """Make an instance of each class; returns the words that no flag takes, too.

        A mapping that is a default, such as that of a file, is changed in the keys that a flag names in JSON.
        """
        found, rest = self.parse_known_args(words)
        values = vars(found)
        for action in self._actions:
            if isinstance(action.default, dict) and isinstance(values[action.dest], str):
                values[action.dest] = _changed(action.default, values[action.dest])
        made = [
            cls(**{field.name: values[field.name] for field in dataclasses.fields(cls) if field.init})
            for cls in self.classes
        ]
        return made, rest

    def error(self, message: str) -> NoReturn:
        """End with one line that names the flag; the page of flags before it would say nothing."""
        self.exit(2, f"{self.prog}: {self._in_words(message)}\n")

    def _in_words(self, message: str) -> str:
        """What argparse says of words that it cannot take, as every other error of this package says it."""
        missing = re.fullmatch(r"the following arguments are required: (.+)", message)
        if missing:
            flags = [names.partition("/")[0] for names in missing[1].split(", ")]
            return " ".join(f"`{flag}` is missing. {self._option_string_actions[flag].help}" for flag in flags)
        found = re.fullmatch(r"argument (--\w+)[^:]*: (.+)", message, flags=re.DOTALL)
        if not found:
            return message
        flag, reason = found.groups()
        choice = re.match(r"invalid choice: (.+?) \(choose from", reason)
        if choice:
            allowed = list(map(str, self._option_string_actions[flag].choices or ()))
            hint = did_you_mean(choice[1].strip("'"), allowed)
            return f"`{flag}` is {choice[1]}; allowed are {', '.join(allowed)}.{hint}"
        value = re.fullmatch(r"invalid (int|float) value: (.+)", reason)
        if value:
            return f"`{flag}` is {value[2]}; it must be a {'whole ' if value[1] == 'int' else ''}number."
        return f"`{flag}` has no value." if reason.startswith("expected") else f"`{flag}`: {reason}."

    def _add_field(self, field: dataclasses.Field[Any], hint: Any) -> None:
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        options = {**field.metadata, **_kind_of_flag(hint)}
        if default is not dataclasses.MISSING:
            options["default"] = default
        elif hint is bool:
            options["default"] = False
        else:
            options["required"] = True
        self.add_argument(*_spellings(field.name), **options)
        if default is True:
            self.add_argument(
                *_spellings(f"no_{field.name}"),
                action="store_false",
                dest=field.name,
                default=True,
                help=field.metadata.get("help"),
            )


def _changed(mapping: Mapping[str, Any], text: str) -> Any:
    """A mapping with the changes that a JSON text says; a text that says none is itself the value."""
    try:
        changes = json.loads(text)
    except ValueError:
        return text
    return merged(mapping, changes) if isinstance(changes, dict) else text


def _spellings(name: str) -> list[str]:
    """A flag with underscores, and with hyphens."""
    return list(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))


def _kind_of_flag(hint: Any) -> dict[str, Any]:
    """What `add_argument` has to know of a type.

    A union with text in it takes text, unless its other member lists what may be said. Mappings are given as text too,
    which their class reads.
    """
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    members = tuple(member for member in members if member is not type(None))
    enums = [member for member in members if isinstance(member, type) and issubclass(member, Enum)]
    if enums:
        return _listed([item.value for item in enums[0]])
    if bool in members:
        return {"nargs": "?", "const": True, "type": _switch_or_text if str in members else _switch}
    if str in members:
        return {"type": str}
    first = members[0]
    if get_origin(first) is Literal:
        return _listed(get_args(first))
    if get_origin(first) is list:
        return {"nargs": "+", "type": get_args(first)[0]}
    return {"type": first if first in (int, float) else str}


def _listed(values: Sequence[Any]) -> dict[str, Any]:
    by_text = {str(value): value for value in values}
    return {"choices": list(values), "type": lambda word: by_text.get(word, word)}


def _switch(word: str) -> bool:
    if word.lower() not in SWITCHES:
        raise argparse.ArgumentTypeError(f"{word!r} is neither true nor false")
    return SWITCHES[word.lower()]


def _switch_or_text(word: str) -> bool | str:
    return SWITCHES.get(word.lower(), word)
