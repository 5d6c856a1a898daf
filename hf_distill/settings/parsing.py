"""YAML or JSON files under command-line flags, plugins before both, and the resolved arguments beside the result.

Plugins are modules of the user's own that register objectives, tasks, engines or architectures when they are imported.
On the command line they are named with `--plugins`; in Python an `import` does the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..hub.disclosure import is_secret_name, remember_secrets, without_secrets
from ..storage.files import read_mapping, write_yaml
from ..storage.plain_values import as_hint, as_mapping, can_check, check_plain, close_names, did_you_mean, shown
from .flags import SWITCHES, DataclassParser
from .help import PLUGINS_HELP
from .presets import list_presets, preset_values
from .values import check_limits, default_of

# Flags of folders that are written, and of a file.
FOLDERS, FILE = ("output_dir", "corpus_dir", "work_dir", "index_dir"), "output"
CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
# Arguments that may be mappings or lists of them, in YAML as they are, as flags in JSON.
STRUCTURED = frozenset(
    {"objectives", "teach", "distill", "distill_next", "augment", "adapt", "students"}
    | {"task_settings", "student_shape"}
)
# So many names of settings are listed in an error.
MOST_LISTED = 40
_LOADED: list[str] = []
USAGE = "%(prog)s [CONFIG.yaml] [--flag value ...] (--help shows every flag)"


class UnknownArgumentsError(ValueError):
    """Flags or names that no argument class has."""


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a flat mapping from a YAML or JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not hold a mapping.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {str(path)!r}.")
    return read_mapping(path)


def parse(
    argument_classes: type | Sequence[type],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    *,
    prog: str | None = None,
    presets: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> tuple[Any, ...]:
    """Parse `[CONFIG.yaml] [--flag value ...]` into one instance per argument class; flags win over the file.

    The modules of `--plugins` (in the file: `plugins`) are imported before any value is looked at.

    Args:
        argument_classes: Flat dataclasses.
        argv: Words of the command line without the program; the process's own if `None`.
        description: First paragraph of `--help`.
        prog: What to call the program in usage and errors; the script's name if `None`.
        presets: Whether there is a flag `--preset` (in the file: `preset`), over which file and flags win.
        defaults: Values that stand below everything else, of a script for one purpose.

    Raises:
        ValueError: If the file names an argument that none of the classes has, or a value that is not allowed.
        ImportError: If a plugin cannot be imported.
    """
    classes = [argument_classes] if isinstance(argument_classes, type) else list(argument_classes)
    words = list(sys.argv[1:] if argv is None else argv)
    for word in words:
        check_plain(word, "The command line")
    parser = DataclassParser(classes, prog=prog, description=description, usage=USAGE)
    config_file = words.pop(0) if words and words[0].endswith(CONFIG_SUFFIXES) else None
    if words and not words[0].startswith("-"):
        raise ValueError(
            f"{words[0]!r} stands before every flag, but is no configuration file ({', '.join(CONFIG_SUFFIXES)}): "
            "write the flag that it belongs to before it. `--help` shows what there is."
        )
    given = {} if config_file is None else read_config(config_file)
    parser.add_argument("--plugins", nargs="+", default=argparse.SUPPRESS, metavar="MODULE", help=PLUGINS_HELP)
    words, plugins = take_plugins(words, parser.prog)
    in_file = given.pop("plugins", None) or []
    in_file = [in_file] if isinstance(in_file, str) else as_hint(in_file, list[str], f"{config_file!r}: `plugins`")
    load_plugins(plugins or in_file)
    _set_defaults(parser, classes, defaults or {}, "the script")
    if presets:
        words, named = _take_preset(parser, words)
        in_file = as_hint(given.pop("preset", None), str | None, f"{config_file!r}: `preset`")
        if named or in_file:
            _set_defaults(parser, classes, preset_values(named or in_file), f"the preset {named or in_file!r}")
    _set_defaults(parser, classes, given, repr(config_file))
    try:
        parsed, rest = parser.instances(words)
    except TypeError as error:
        # Mappings such as `accelerator_config` become classes of transformers, which say what they do not know.
        raise ValueError(f"A setting has a value that it cannot have: {error}.") from error
    if rest:
        raise UnknownArgumentsError(f"Unknown words {rest}.{_close_flags(parser, rest)} `--help` shows every flag.")
    for arguments in parsed:
        remember_secrets({field.name: getattr(arguments, field.name) for field in dataclasses.fields(arguments)})
        _expand_home(arguments)
        check_limits(arguments)
        _check_folders(arguments)
    return tuple(parsed)


def _close_flags(parser: argparse.ArgumentParser, words: Sequence[str]) -> str:
    """The flags that somebody may have meant."""
    known = [option[2:] for option in parser._option_string_actions if "-" not in option[2:]]
    names = [word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    close = [f"--{name}" for name in close_names(names, known)]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _check_folders(arguments: Any) -> None:
    """A folder to write to must not be a file, nor lie below one; the system's own message would not say whose it is.

    The other way round, a file to write to must not be a folder.
    """
    for name in (*FOLDERS, FILE):
        value = getattr(arguments, name, None)
        path = Path(value).expanduser() if value else Path()
        if name != FILE and path.is_file():
            raise ValueError(f"`--{name}` is {str(value)!r}, which is a file; name a folder.")
        if name == FILE and path.is_dir() and value:
            raise ValueError(f"`--{name}` is {str(value)!r}, which is a folder; name a file.")
        above = next((parent for parent in path.parents if parent.exists()), path)
        if above.is_file():
            raise ValueError(f"`--{name}` is {str(value)!r}, but {str(above)!r} is a file; name another place.")


def name_leading_words(argv: Sequence[str], names: Sequence[str]) -> list[str]:
    """Give the words that stand before every flag (and behind a configuration file) the names of their flags.

    The last name takes all the words that remain.
    """
    words = list(argv)
    config = words[:1] if words and words[0].endswith(CONFIG_SUFFIXES) else []
    rest = words[len(config) :]
    leading = list(itertools.takewhile(lambda word: not word.startswith("-"), rest))
    named = [word for name, value in zip(names, leading, strict=False) for word in (f"--{name}", value)]
    return [*config, *named, *rest[min(len(names), len(leading)) :]]


def _take_preset(parser: DataclassParser, words: list[str]) -> tuple[list[str], str | None]:
    """Declare `--preset` for the help page, and take it out of the words: it belongs to no argument class."""
    text = f"Settings of a paper, below file and flags: {', '.join(list_presets())}."
    parser.add_argument("--preset", default=argparse.SUPPRESS, metavar="NAME", help=text)
    own = DataclassParser([], add_help=False, allow_abbrev=False, prog=parser.prog)
    own.add_argument("--preset")
    found, rest = own.parse_known_args(words)
    return rest, found.preset


def from_mapping(argument_class: type, values: Mapping[str, Any], source: str) -> Any:
    """One instance from `name: value` pairs as YAML or JSON gives them.

    Args:
        argument_class: A flat dataclass.
        values: Its fields; what is missing takes its default.
        source: Where they come from, for errors.

    Raises:
        ValueError: If a name is unknown or a value is none that its argument can have.
    """
    parser = DataclassParser([argument_class], exit_on_error=False)
    _set_defaults(parser, [argument_class], values, source)
    try:
        made = parser.instances([])[0][0]
    except argparse.ArgumentError as error:
        raise ValueError(f"{source}: {error}") from error
    _expand_home(made)
    check_limits(made)
    return made


def _expand_home(arguments: Any) -> None:
    """Put the home folder in the place of `~/`, which no shell does in a YAML file, nor behind `NAME=`."""
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        at_home = [_at_home(item) for item in value] if isinstance(value, list) else _at_home(value)
        if at_home != value:
            setattr(arguments, field.name, at_home)


def _at_home(value: Any) -> Any:
    if not isinstance(value, str) or "~/" not in value:
        return value
    name, sign, place = ("", "", value) if value.startswith("~/") else value.partition("=")
    return f"{name}{sign}{Path(place).expanduser()}" if place.startswith("~/") else value


def _set_defaults(
    parser: argparse.ArgumentParser, classes: Sequence[type], values: Mapping[str, Any], source: str
) -> None:
    """Let values stand for flags that are not given."""
    values = as_mapping(values, source)
    fields = [field for cls in classes for field in dataclasses.fields(cls) if field.init]
    known = {field.name for field in fields}
    # Some fields of transformers take a text or a list, of which argparse knows the text only.
    hints = {name: hint for cls in classes for name, hint in get_type_hints(cls).items()}
    unknown = sorted(set(values) - known)
    if unknown:
        close = close_names(unknown, sorted(known))
        hint = (
            f"known are {sorted(known)}." if len(known) <= MOST_LISTED else "`--help_all` lists those that there are."
        )
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else hint
        raise UnknownArgumentsError(f"{source} has unknown arguments {unknown}; {hint}")
    for action in parser._actions:
        if action.dest in values:
            value = _typed(action, values[action.dest], hints[action.dest], f"{source}: `{action.dest}`")
            action.required = False
            action.default = value


def _typed(action: argparse.Action, value: Any, hint: Any, where: str) -> Any:
    """A value of a file as the type of its argument wants it.

    Raises:
        ValueError: If it does not fit.
    """
    if action.dest in STRUCTURED and isinstance(value, (dict, list)):
        # What is in them is checked by those who read them.
        return value
    if action.nargs in ("+", "*") and not isinstance(value, (list, tuple, dict, type(None))):
        value = [value]
    if isinstance(value, list) and action.nargs is None and "list" not in str(hint).lower():
        raise ValueError(f"{where} is {shown(value)}; it takes one value.")
    # argparse compares what a flag gives with the choices, but no default.
    choices = [] if action.choices is None else list(action.choices)
    if choices and isinstance(value, str) and value not in map(str, choices):
        raise ValueError(f"{where} is {value!r}; allowed are {choices}.{did_you_mean(value, map(str, choices))}")
    if isinstance(value, str) and bool in (hint, *get_args(hint)) and str not in get_args(hint):
        value = SWITCHES.get(value.strip().lower(), value)
    # Kinds of transformers, such as `IntervalStrategy | str`, are made of text.
    return as_hint(value, hint if can_check(hint) else str | list[str] | None, where)


def arguments_to_dict(*arguments: Any) -> dict[str, Any]:
    """The fields of several argument dataclasses as one JSON-able mapping, secrets left out or hidden."""
    values: dict[str, Any] = {}
    for item in arguments:
        fields = item.to_dict() if hasattr(item, "to_dict") else dataclasses.asdict(item)
        values |= {k: v for k, v in fields.items() if not is_secret_name(k) and not k.startswith("_")}
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return dict(without_secrets(plain))


def changed_arguments(*arguments: Any) -> dict[str, Any]:
    """Only the fields that differ from their class's default."""
    changed = {}
    for item in arguments:
        values = arguments_to_dict(item)
        for field in dataclasses.fields(item):
            if field.name in values and getattr(item, field.name) != default_of(field):
                changed[field.name] = values[field.name]
    return changed


def write_arguments(folder: str | Path, *arguments: Any, name: str = "arguments.yaml") -> Path:
    """Write the resolved arguments as YAML into `folder`; the file can be given back to `parse`."""
    path = Path(folder) / name
    values = arguments_to_dict(*arguments) | ({"plugins": loaded_plugins()} if loaded_plugins() else {})
    return write_yaml(path, values, sort_keys=True)


def load_plugins(modules: Sequence[str]) -> None:
    """Import modules that register something of their own; one that is loaded already is left as it is.

    Raises:
        ImportError: If a module, or something that it imports, cannot be found.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            # A module of the user's own may raise anything.
            reason = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise ImportError(
                f"`--plugins` has {name!r}, which cannot be imported ({reason}). It must be a module that "
                "Python finds: install its package, or put its folder into PYTHONPATH."
            ) from error
        if name not in _LOADED:
            _LOADED.append(name)


def loaded_plugins() -> list[str]:
    """The plugins of this process, in the order in which they were named; they belong to its arguments."""
    return list(_LOADED)


def take_plugins(words: Sequence[str], prog: str | None = None) -> tuple[list[str], list[str]]:
    """Split the words of a command line into those without `--plugins`, and the modules that it names."""
    parser = DataclassParser([], add_help=False, allow_abbrev=False, prog=prog)
    parser.add_argument("--plugins", nargs="+", action="extend", default=[])
    found, rest = parser.parse_known_args(list(words))
    return rest, found.plugins
