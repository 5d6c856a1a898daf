"""Layer maps: the teacher layer that each student layer learns from.

Layers are 1-based, 0 is the embedding output, negative numbers count from the end. A layer map is a value: a tuple of
(student, teacher) pairs. The named maps are those of MiniLM (supplement, table 8), where the teacher layer of student
layer `m` is `m * L / M` (`L` teacher layers, `M` student layers), and those of BERT-PKD, which leave the last layer of
both sides to the predictions.

For losses on two layers of one model (`fsp`, `nst`) each element of a pair is one number (the layer with itself) or
two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..storage.plain_values import as_hint, shown
from .base import resolve_layer

LayerMap = tuple[tuple[int, int], ...]
Side = int | tuple[int, int]
LayerMatches = tuple[tuple[Side, Side], ...]

WITH_EMBEDDINGS = "_with_embeddings"
EXAMPLE = "'1:4,2:8,-1:-1'"


def uniform_teacher_layer(student_layer: int, num_student_layers: int, num_teacher_layers: int) -> int:
    """The teacher layer `m * L / M` that stands for student layer `m`, rounded where `M` does not divide `L`."""
    return max(1, round(student_layer * num_teacher_layers / num_student_layers)) if student_layer else 0


def _uniform_over(student_layers: Callable[[int], Sequence[int]]) -> Callable[[int, int], LayerMap]:
    """The uniform map on some student layers, which depend on the student's depth."""

    def build(depth: int, teacher_depth: int) -> LayerMap:
        return tuple((m, uniform_teacher_layer(m, depth, teacher_depth)) for m in student_layers(depth))

    return build


def _pkd_last(depth: int, teacher_depth: int) -> LayerMap:
    """Student layers 1..M-1 <- the M-1 teacher layers before the last (BERT-PKD, "last")."""
    return tuple((m, max(1, teacher_depth - depth + m)) for m in range(1, depth))


NAMED_MAPS: dict[str, Callable[[int, int], LayerMap]] = {
    "last": _uniform_over(lambda depth: [depth]),
    "last2": _uniform_over(lambda depth: range(max(1, depth - 1), depth + 1)),
    "first_last": _uniform_over(lambda depth: sorted({1, depth})),
    "uniform": _uniform_over(lambda depth: range(1, depth + 1)),
    "all": _uniform_over(lambda depth: range(1, depth + 1)),
    "skip": _uniform_over(lambda depth: range(1, depth + 1)),
    "pkd_skip": _uniform_over(lambda depth: range(1, depth)),
    "pkd_last": _pkd_last,
}


def resolve_layer_map(
    layer_map: str | Sequence[Any],
    num_student_layers: int,
    num_teacher_layers: int,
    *,
    flag: str = "layer_map",
    allow_embeddings: bool = True,
) -> LayerMap:
    """Resolve a named or explicit layer map to 1-based pairs (student, teacher).

    Args:
        layer_map: `last`, `last2`, `first_last`, `uniform` (= `all`, `skip`), `pkd_skip` or `pkd_last`; each also with
            the embeddings, as in `uniform_with_embeddings`; or pairs such as `"1:4,2:8,-1:-1"` or `[(1, 4), (2, 8)]`.
        num_student_layers: Depth of the student.
        num_teacher_layers: Depth of the teacher.
        flag: The argument that carried the map, for the error.
        allow_embeddings: Whether layer 0 is legal.

    Raises:
        ValueError: If the name is unknown, a pair cannot be read, a layer does not exist, or the map is empty.
    """
    depths = num_student_layers, num_teacher_layers
    matches = _resolve(layer_map, *depths, flag=flag, allow_embeddings=allow_embeddings)
    pairs = tuple((s, t) for s, t in matches if isinstance(s, int) and isinstance(t, int))
    if len(pairs) < len(matches):
        raise ValueError(
            f"`{flag}`: {layer_map!r} matches pairs of layers, but this objective compares single layers."
        )
    return pairs


def resolve_layer_matches(
    layers: str | Sequence[Any], num_student_layers: int, num_teacher_layers: int, *, flag: str
) -> LayerMatches:
    """As `resolve_layer_map`, where a side may be two layers: `"0+1:0+3"` or `[((0, 1), (0, 3))]`.

    Raises:
        ValueError: As `resolve_layer_map`, and if one side of a match has two layers and the other one.
    """
    matches = _resolve(layers, num_student_layers, num_teacher_layers, flag=flag, allow_embeddings=True)
    for match in matches:
        if len({isinstance(side, int) for side in match}) > 1:
            raise ValueError(
                f"`{flag}`: {layers!r} matches two layers of one side with one of the other; write 0+1:0+3 for two "
                "layers on both sides, or 2:4 for a layer with itself."
            )
    return matches


def _resolve(
    layers: Any, student_depth: int, teacher_depth: int, *, flag: str, allow_embeddings: bool
) -> LayerMatches:
    named = _resolve_name(layers, student_depth, teacher_depth, flag) if isinstance(layers, str) else None
    if named is not None:
        if not allow_embeddings and any(0 in match for match in named):
            raise ValueError(f"`{flag}`: {layers!r} has the embeddings (layer 0), which cannot be used here.")
        return named

    def resolve_side(numbers: list[int], depth: int, name: str) -> Side:
        place = f"{flag} ({name} side)"
        found = [resolve_layer(n, depth, flag=place, allow_embeddings=allow_embeddings) for n in numbers]
        return found[0] if len(found) == 1 else (found[0], found[1])

    return tuple(
        (resolve_side(student, student_depth, "student"), resolve_side(teacher, teacher_depth, "teacher"))
        for student, teacher in _read_matches(layers, flag)
    )


def _resolve_name(layers: str, student_depth: int, teacher_depth: int, flag: str) -> LayerMatches | None:
    """The pairs of a named map, or `None` if it is no name."""
    name = layers.removesuffix(WITH_EMBEDDINGS)
    if name not in NAMED_MAPS:
        return None
    pairs = NAMED_MAPS[name](student_depth, teacher_depth)
    if not pairs:
        raise ValueError(f"`{flag}`: {layers!r} selects no layer of a student of {student_depth}; give pairs.")
    return pairs if name == layers else ((0, 0), *pairs)


def _read_matches(layers: Any, flag: str) -> list[tuple[list[int], list[int]]]:
    """The numbers of both sides of every match, as they were given."""
    try:
        items = [item.split(":") for item in layers.split(",")] if isinstance(layers, str) else layers
        if not isinstance(items, (list, tuple)):
            raise ValueError(layers)
        matches = [(_read_side(student), _read_side(teacher)) for student, teacher in items]
    except (TypeError, ValueError):
        matches = []
    if not matches:
        raise ValueError(
            f"`{flag}`: cannot read {shown(layers)}; allowed are {', '.join(NAMED_MAPS)}, each also with "
            f"{WITH_EMBEDDINGS!r} after it, or pairs student:teacher such as {EXAMPLE} (in quotes in YAML)."
        )
    return matches


def _read_side(side: Any) -> list[int]:
    """One or two layer numbers from `"0+1"`, `"0"`, 0 or `(0, 1)`.

    Raises:
        ValueError: If it is something else.
    """
    parts = side.split("+") if isinstance(side, str) else side if isinstance(side, (list, tuple)) else [side]
    if len(parts) not in (1, 2):
        raise ValueError(side)
    return [as_hint(part, int, "a layer") for part in parts]


def format_layer_map(pairs: Sequence[tuple[Any, Any]]) -> str:
    """One line a reader understands: `student 1 <- teacher 4, student 3 <- teacher 12`; two layers as `0+1`."""
    return ", ".join(f"student {format_side(student)} <- teacher {format_side(teacher)}" for student, teacher in pairs)


def format_side(side: Side | Sequence[int], joint: str = "+") -> str:
    """`1`, or `0+1` for two layers."""
    return str(side) if isinstance(side, int) else joint.join(map(str, side))
