"""Which student layer learns from which teacher layer.

Layers are 1-based, 0 is the embedding output, negative numbers count from the end. A layer map is a value: a tuple of
(student, teacher) pairs. The named maps are those of MiniLM (supplement, table 8), where the teacher layer of student
layer `m` is `m * L / M` (`L` teacher layers, `M` student layers).
"""

from __future__ import annotations

from collections.abc import Callable

LayerMap = tuple[tuple[int, int], ...]


def resolve_layer(layer: int, num_layers: int, *, flag: str, allow_embeddings: bool = False) -> int:
    """Turn a layer number given by a user into a 1-based one.

    Args:
        layer: 1-based, 0 = embeddings, negative from the end (-1 = last).
        num_layers: Depth of the model.
        flag: The argument that carried the number, for the error.
        allow_embeddings: Whether 0 is legal here.

    Raises:
        ValueError: If the model has no such layer.
    """
    resolved = layer + num_layers + 1 if layer < 0 else layer
    lowest = 0 if allow_embeddings else 1
    if not lowest <= resolved <= num_layers:
        raise ValueError(
            f"`{flag}`: there is no layer {layer} in a model of {num_layers} layers; "
            f"legal are {lowest}..{num_layers}, or -1..-{num_layers} from the end."
        )
    return resolved


def uniform_teacher_layer(student_layer: int, num_student_layers: int, num_teacher_layers: int) -> int:
    """The teacher layer `m * L / M` that stands for student layer `m`, rounded where `M` does not divide `L`."""
    return max(1, round(student_layer * num_teacher_layers / num_student_layers)) if student_layer else 0


def _uniform(student_layers: list[int], depth: int, teacher_depth: int) -> LayerMap:
    return tuple((m, uniform_teacher_layer(m, depth, teacher_depth)) for m in student_layers)


NAMED_MAPS: dict[str, Callable[[int], list[int]]] = {
    "last": lambda depth: [depth],
    "last2": lambda depth: list(range(max(1, depth - 1), depth + 1)),
    "first_last": lambda depth: sorted({1, depth}),
    "uniform": lambda depth: list(range(1, depth + 1)),
    "all": lambda depth: list(range(1, depth + 1)),
    "skip": lambda depth: list(range(1, depth + 1)),
}


def resolve_layer_map(
    layer_map: str, num_student_layers: int, num_teacher_layers: int, *, flag: str = "--layer_map"
) -> LayerMap:
    """Resolve a named or explicit layer map to 1-based pairs (student, teacher).

    Args:
        layer_map: `last`, `last2`, `first_last`, `uniform` (= `all`, `skip`), or pairs such as `"1:4,2:8,-1:-1"`.
        num_student_layers: Depth of the student.
        num_teacher_layers: Depth of the teacher.
        flag: The argument that carried the map, for the error.

    Raises:
        ValueError: If the name is unknown, a pair cannot be read, or a layer does not exist.
    """
    if layer_map in NAMED_MAPS:
        return _uniform(NAMED_MAPS[layer_map](num_student_layers), num_student_layers, num_teacher_layers)
    pairs = []
    for item in layer_map.split(","):
        try:
            student, teacher = (int(part) for part in item.split(":"))
        except ValueError:
            raise ValueError(
                f"`{flag}`: cannot read {layer_map!r}; allowed are {', '.join(NAMED_MAPS)}, "
                "or pairs student:teacher such as '1:4,2:8,-1:-1'."
            ) from None
        pairs.append(
            (
                resolve_layer(student, num_student_layers, flag=f"{flag} (student side)", allow_embeddings=True),
                resolve_layer(teacher, num_teacher_layers, flag=f"{flag} (teacher side)", allow_embeddings=True),
            )
        )
    return tuple(pairs)


def format_layer_map(pairs: LayerMap) -> str:
    """One line a reader understands: `student 1 <- teacher 4, student 3 <- teacher 12`."""
    return ", ".join(f"student {student} <- teacher {teacher}" for student, teacher in pairs)
