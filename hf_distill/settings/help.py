"""The help page of a verb, read from the source of the argument classes.

Importing them takes seconds, because those of trainings are `TrainingArguments` and load torch; reading them takes
milliseconds. Only the flags of this package are shown: those of transformers come with `--help_all`, which imports.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PLUGINS_HELP = "Modules of yours to import first, which register objectives, tasks, engines or architectures."
ARGUMENTS = Path(__file__).parent
TRAINING_ARGUMENTS = "TrainingArguments"
# The functions that make a field of a default and a help text, their last two arguments.
WITH_DEFAULT = ("setting", "_ours")
# The inherited flags that most trainings set; the page names them and leaves the others to `--help_all`.
OFTEN_SET = (
    *("output_dir", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("bf16", "use_cpu", "seed", "save_strategy", "resume_from_checkpoint", "eval_strategy", "report_to"),
    "push_to_hub",
)
WIDEST = 100
INDENT = 6


@dataclass(frozen=True)
class Flag:
    """One field of an argument class.

    Attributes:
        name: The flag without its dashes.
        help: What its help text says.
        default: Its default as a user would write it; `None` where there is none to show.
        choices: The values that are allowed, if they are listed.
        required: Whether it must be given.
        negatable: Whether it is on by default, so that `--no_...` turns it off.
        many: Whether it takes several values.
    """

    name: str
    help: str
    default: str | None = None
    choices: tuple[str, ...] = ()
    required: bool = False
    negatable: bool = False
    many: bool = False


@dataclass(frozen=True)
class ArgumentClass:
    """One argument class.

    Attributes:
        name: Its name.
        about: The first paragraph of its docstring.
        bases: Names of its base classes.
        flags: Its own fields by name, in order.
        keywords_only: Whether these are parameters that keywords alone name, which follow on all others.
    """

    name: str
    about: str
    bases: tuple[str, ...]
    flags: dict[str, Flag] = field(default_factory=dict)
    keywords_only: bool = False


# Flags of `TrainingArguments` that are on the short page.
INHERITED = {
    "output_dir": Flag("output_dir", "Output folder.", "trainer_output"),
    "num_train_epochs": Flag("num_train_epochs", "Number of epochs."),
    "max_steps": Flag("max_steps", "Number of updates; it replaces the number of epochs."),
    "per_device_train_batch_size": Flag("per_device_train_batch_size", "Rows in a batch."),
    "learning_rate": Flag("learning_rate", "Peak learning rate."),
    "bf16": Flag("bf16", "Train in bfloat16 autocast."),
    "resume_from_checkpoint": Flag("resume_from_checkpoint", "Folder of a checkpoint, or last."),
}


def short_page(
    prog: str, about: str, class_names: Sequence[str], *, examples: Sequence[str], flags: Sequence[str]
) -> str:
    """Return the text that `--help` prints for a verb with many flags: two examples, and the common flags.

    Args:
        prog: The command, such as `hf-distill distill`.
        about: What it does.
        class_names: Its argument classes.
        examples: Whole commands.
        flags: Names of the flags to show.
    """
    classes = read_argument_classes()
    known = {name: flag for cls in class_names for one in lineage(cls, classes) for name, flag in one.flags.items()}
    known = INHERITED | known | {"preset": Flag("preset", "Settings of a paper (hf-distill info presets).")}
    lines = [f"usage: {prog} [CONFIG.yaml] [--flag value ...]", "", about, ""]
    lines += [f"  {example}" for example in examples]
    lines += ["", "Common flags:", *(line for name in flags for line in _describe(known[name]))]
    return "\n".join([*lines, "", "Every flag, those of transformers too:", f"  {prog} --help_all"])


def help_page(prog: str, about: str, class_names: Sequence[str], *, examples: Sequence[str] = ()) -> str:
    """Return the text that `--help` prints for a verb with few flags: all that are this package's.

    Args:
        prog: The command, such as `hf-distill push`.
        about: What it does.
        class_names: Its argument classes.
        examples: Whole commands.
    """
    classes = read_argument_classes()
    lines = [f"usage: {prog} [CONFIG.yaml] [--flag value ...]", "", about]
    lines += ["", *(f"  {example}" for example in examples)] if examples else []
    for name in class_names:
        overridden: set[str] = set()
        groups = []
        for cls in lineage(name, classes):
            groups.append((cls, [flag for flag in cls.flags.values() if flag.name not in overridden]))
            overridden |= set(cls.flags)
        for cls, flags in sorted(reversed(groups), key=lambda group: group[0].keywords_only):
            lines += ["", *_wrap(cls.about, 0), *(line for flag in flags for line in _describe(flag))]
    lines += ["", *_describe(Flag("plugins", PLUGINS_HELP, many=True))]
    if any(TRAINING_ARGUMENTS in cls.bases for name in class_names for cls in lineage(name, classes)):
        often = ", ".join(f"--{name}" for name in OFTEN_SET)
        lines += ["", *_wrap(f"Every argument of transformers.TrainingArguments, such as {often}:", 0)]
        lines.append(f"  {prog} --help_all")
    return "\n".join(lines)


def read_argument_classes() -> dict[str, ArgumentClass]:
    """Every class of `hf_distill.settings` by name, from its source."""
    bodies = [ast.parse(path.read_text(encoding="utf-8")).body for path in sorted(ARGUMENTS.glob("*.py"))]
    choices = {name: value for body in bodies for name, value in _aliases(body)}
    found = [_read_class(node, choices) for body in bodies for node in body if isinstance(node, ast.ClassDef)]
    return {cls.name: cls for cls in found}


def lineage(name: str, classes: dict[str, ArgumentClass]) -> Iterator[ArgumentClass]:
    """A class and those of this package that it inherits from, the class itself first."""
    if name in classes:
        yield classes[name]
        for base in classes[name].bases:
            yield from lineage(base, classes)


def _aliases(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Names of types such as `Mode = Literal["auto", "fast"]`."""
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def _read_class(node: ast.ClassDef, aliases: dict[str, ast.expr]) -> ArgumentClass:
    about = (ast.get_docstring(node) or "").partition("\n\n")[0]
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
    flags = [_read_field(ast.unparse(item.target), item, aliases) for item in fields]
    bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name))
    keywords_only = any("kw_only=True" in ast.unparse(decorator) for decorator in node.decorator_list)
    return ArgumentClass(node.name, " ".join(about.split()), bases, {flag.name: flag for flag in flags}, keywords_only)


def defaults_in_source() -> set[tuple[str, str]]:
    """Name and default (its `repr`) of every setting, from the source; those that code makes are left out.

    Of `transformers.TrainingArguments` there are the settings that have no default of ours.
    """
    found = {pair for path in ARGUMENTS.glob("*.py") for pair in _defaults_of(path)}
    theirs = importlib.util.find_spec("transformers.training_args")
    ours = {name for name, _ in found}
    inherited = _defaults_of(Path(theirs.origin)) if theirs is not None and theirs.origin else ()
    return found | {(name, default) for name, default in inherited if name not in ours}


def _defaults_of(path: Path) -> Iterator[tuple[str, str]]:
    """Name and default of every field of a module; for a default with a name, each value that is assigned to it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assigned.setdefault(node.targets[0].id, []).append(node.value)
    for item in (item for node in tree.body if isinstance(node, ast.ClassDef) for item in node.body):
        if isinstance(item, ast.AnnAssign):
            default = _parts(item)[0]
            for value in assigned.get(default.id, []) if isinstance(default, ast.Name) else [default]:
                if value is not None:
                    with contextlib.suppress(ValueError):
                        yield ast.unparse(item.target), repr(ast.literal_eval(value))


def _parts(node: ast.AnnAssign) -> tuple[ast.expr | None, ast.expr | None]:
    """The default of a field and its help text; `None` where there is none."""
    call = node.value
    if not isinstance(call, ast.Call):
        return call, None
    if isinstance(call.func, ast.Name) and call.func.id in WITH_DEFAULT:
        return call.args[-2], call.args[-1]
    given = {word.arg: word.value for word in call.keywords}
    factory, metadata = given.get("default_factory"), given.get("metadata")
    # A factory is a lambda, or `list`.
    default = given.get("default", getattr(factory, "body", factory and ast.List([], ast.Load())))
    return default, metadata.values[0] if isinstance(metadata, ast.Dict) else None


def _read_field(name: str, node: ast.AnnAssign, aliases: dict[str, ast.expr]) -> Flag:
    default, text = _parts(node)
    value = None if default is None else ast.literal_eval(default)
    return Flag(
        name=name,
        help="" if text is None else ast.literal_eval(text),
        default=_shown(value),
        choices=_choices(node.annotation, aliases),
        required=default is None,
        negatable=value is True,
        many="list[" in ast.unparse(node.annotation),
    )


def _choices(annotation: ast.expr, aliases: dict[str, ast.expr]) -> tuple[str, ...]:
    """The values of a `Literal`, also inside a union or behind a name."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name) and node.id in aliases:
            return _choices(aliases[node.id], {})
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
            return tuple(str(value) for value in ast.literal_eval(node.slice))
    return ()


def _shown(value: object) -> str | None:
    """A default on the page; `None` and off are left out."""
    if value is None or value is False or value == []:
        return None
    if value is True:
        return "on"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _describe(flag: Flag) -> list[str]:
    head = f"--{flag.name}" + (f", --no_{flag.name}" if flag.negatable else "")
    head += f" {{{','.join(flag.choices)}}}" if flag.choices else ""
    head += " ..." if flag.many else ""
    text = flag.help + (" Required." if flag.required else "")
    # Where the default is a rule, the text says it.
    if flag.default is not None:
        text += f" Default: {flag.default}."
    return [f"  {head}", *_wrap(text, INDENT)]


def _wrap(text: str, indent: int) -> list[str]:
    width = min(WIDEST, shutil.get_terminal_size().columns)
    # Never within a flag or a value.
    return textwrap.wrap(
        text, width, initial_indent=" " * indent, subsequent_indent=" " * indent, break_on_hyphens=False
    )
