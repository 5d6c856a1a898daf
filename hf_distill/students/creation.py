"""Students built from their teachers.

Nothing is added to a student: it is a plain model of the teacher's class, vocabulary, label names and positions, with
fewer or narrower layers. Layers are 1-based.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import NoneType
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from hf_distill.capture.architectures import is_known
from hf_distill.hub.loading import load_tokenizer
from hf_distill.objectives.base import resolve_layer
from hf_distill.objectives.layer_map import uniform_teacher_layer

from .class_change import hindrance, translated_config
from .configuration import student_config
from .embedding_init import compress_embeddings
from .first_weights import CALIBRATION_TOKENS, CalibrationRow, give_first_weights
from .sentence import as_encoder
from .shapes import StudentShape, parse_shape, shape_of
from .slicing import take_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)
INITIALISATIONS = ("teacher", "teacher_layers", "svd_embeddings", "random")


def create_student(
    teacher: PreTrainedModel | PreTrainedConfig | str,
    shape: str | StudentShape,
    *,
    init: str | None = None,
    layers: Sequence[int] | None = None,
    calibration_text: Iterable[CalibrationRow] | None = None,
    calibration_tokens: int = CALIBRATION_TOKENS,
    tokenizer: Any = None,
    model_class: type | str | None = None,
    embedding_size: int | None = None,
    dtype: torch.dtype | str = torch.float32,
    seed: int = 42,
    **config_overrides: Any,
) -> PreTrainedModel:
    """Build a student of the teacher's vocabulary, labels and positions, by default with weights from the teacher.

    Random weights are drawn in float32 on the CPU from `seed`; the global random state is not changed. The teacher is
    not changed either. The student is returned in training mode, with SDPA if its architecture has it.
    `hf_distill.students.first_weights.first_weights_of(student)` reports what it took from its teacher.

    Args:
        teacher: A model, its configuration, a Hub id or a local folder; of a `SentenceTransformer` the encoder is
            used.
        shape: A name or text for `parse_shape`, such as `"4x312"`, or a `StudentShape`.
        init: The first weights. `"teacher"`: cut out of the teacher's, and refitted if there is text (see
            `give_first_weights`); `"teacher_layers"`: embeddings, head and chosen layers of a teacher of equal widths;
            `"svd_embeddings"`: the teacher's word embeddings, compressed to the student's width, the rest random;
            `"random"`. Default: `"teacher"` if the teacher has weights and the student is not larger, else `"random"`.
        layers: Teacher layers (1-based, negative from the end) with which student layers 1, 2, … begin. Default:
            spread evenly.
        calibration_text: Text on which the first weights are refitted, of the kind that the student will read: a few
            thousand sentences, pairs of texts for a student that reads pairs, or rows with `input_ids`. Default: none;
            then the weights are cut and not refitted.
        calibration_tokens: Largest number of tokens of `calibration_text` that are read; with 0 nothing is refitted.
        tokenizer: Tokenizer of `calibration_text`, or its Hub id or folder. Default: the teacher's, if the teacher is
            a Hub id or a folder.
        model_class: A model class, an `AutoModelFor…` class, or the name of either in `transformers`. Default: the
            class of the teacher, so that a sequence-classification teacher gives such a student with its labels.
        embedding_size: Width of the word embeddings, if it is not the student's (factorised embeddings); a matrix
            leads from them to the first layer. Such a student is an ELECTRA unless the teacher's class (ALBERT,
            ELECTRA) or `model_class` has such embeddings.
        dtype: dtype of the returned weights.
        seed: Seed of the initialisation.
        config_overrides: Fields of the configuration to set last, such as `num_labels=3`.

    Raises:
        ValueError: If shape, first weights, layers or architecture do not fit each other; the message says what to do.
        TypeError: If `teacher` is nothing of this.
    """
    teacher, _ = as_encoder(teacher)
    shape = parse_shape(shape) if isinstance(shape, str) else shape
    teacher_config = _teacher_config(teacher)
    cls = _resolve_class(model_class, teacher, teacher_config)
    if embedding_size is not None:
        config_overrides["embedding_size"] = embedding_size
        cls = _with_factorised_embeddings(cls, embedding_size, shape)
    if calibration_tokens < 0:
        raise ValueError(f"calibration_tokens={calibration_tokens} (--calibration_tokens): it must be 0 or more.")
    config_class: Any = cls.config_class
    has_text = calibration_text is not None and calibration_tokens > 0
    if layers is not None and init is None and has_weights(teacher):
        # They may be more than the teacher has: some of them begin alike then.
        init = "teacher"
    wanted = _chosen_init(init, teacher, shape, config_class, has_text=has_text)
    if layers is not None and wanted not in ("teacher", "teacher_layers"):
        raise ValueError(f"layers= chooses teacher layers, but init={wanted!r} takes none (--student_init).")
    chosen = None if wanted in ("svd_embeddings", "random") else _resolve_layers(layers, shape, teacher_config, wanted)
    if config_class is not type(teacher_config):
        teacher_config = translated_config(teacher_config, config_class)
    config = student_config(teacher_config, shape, layers=chosen, **config_overrides)
    with _private_cpu_rng(seed):
        student = cls(config)
    if wanted == "teacher":
        tokenizer = _tokenizer_of(teacher, tokenizer, calibration_text)
        source = _teacher_weights(teacher, cls, wanted)
        give_first_weights(
            source,
            student,
            chosen or [],
            texts=calibration_text,
            tokenizer=tokenizer,
            max_tokens=calibration_tokens,
        )
    elif wanted == "teacher_layers":
        take_weights(_teacher_weights(teacher, cls, wanted), student, chosen or [], lambda _, tensor, __: tensor)
    elif wanted == "svd_embeddings":
        compress_embeddings(_teacher_weights(teacher, cls, wanted), student)
    student.train()
    nn.Module.to(student, getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return student


def _chosen_init(
    init: str | None,
    teacher: PreTrainedModel | PreTrainedConfig | str,
    shape: StudentShape,
    config_class: type[PreTrainedConfig],
    *,
    has_text: bool,
) -> str:
    """The first weights that were asked for, or by default those that such a student can have.

    Raises:
        ValueError: If it cannot have them, or there is text for weights that read none.
    """
    if init is not None and init not in INITIALISATIONS:
        raise ValueError(f"Unknown initialisation {init!r} (--student_init): use one of {', '.join(INITIALISATIONS)}.")
    if has_text and (init not in (None, "teacher") or not has_weights(teacher)):
        because = f"init={init!r} takes none (--student_init): leave it out"
        if init in (None, "teacher"):
            because = "this teacher has none: give a model that has (--student_init_model), or leave it out"
        raise ValueError(f"calibration_text= (--calibration_text) is for weights cut out of a teacher; {because}.")
    theirs = _teacher_config(teacher)
    other_class = config_class is not type(theirs)
    hindered = hindrance(theirs, config_class, has_text=has_text) if other_class else None
    if init is None:
        return _default_init(teacher, theirs, shape, hindered)
    if other_class and init == "teacher_layers":
        hindered = "layers are copied within one architecture only"
    if hindered is not None and init in ("teacher", "teacher_layers"):
        raise ValueError(
            f"A student of the architecture {config_class.model_type!r} cannot have init={init!r} (--student_init) "
            f"from a {theirs.model_type!r}: {hindered}."
        )
    return init


def _default_init(
    teacher: PreTrainedModel | PreTrainedConfig | str, config: PreTrainedConfig, shape: StudentShape, why: str | None
) -> str:
    """`teacher` where such a student can be cut out of its teacher's weights, else `random`, saying why.

    `why` is what hinders a student of its class.
    """
    if not has_weights(teacher):
        return "random"
    theirs = shape_of(config)
    hindered = [
        f"its {name} is larger"
        for name in ("num_layers", "hidden_size", "intermediate_size")
        if getattr(shape, name) > getattr(theirs, name)
    ]
    if shape.hidden_size // shape.num_heads > theirs.hidden_size // theirs.num_heads:
        hindered.append("its heads are larger")
    if hasattr(config, "intra_bottleneck_size"):
        hindered.append("there are bottlenecks inside the layers")
    if isinstance(teacher, PreTrainedModel) and not is_known(teacher):
        hindered.append(f"{config.model_type!r} is no registered architecture")
    hindered += [why] if why else []
    if not hindered:
        return "teacher"
    logger.warning(
        f"The student ({shape}) begins with random weights and is not cut out of its teacher ({theirs}): "
        f"{', '.join(hindered)}."
    )
    return "random"


def has_weights(teacher: PreTrainedModel | PreTrainedConfig | str) -> bool:
    """Whether a teacher is more than a configuration, or the skeleton of one."""
    if isinstance(teacher, PreTrainedModel):
        return not all(parameter.is_meta for parameter in teacher.parameters())
    return not isinstance(teacher, PreTrainedConfig)


# --- teacher, class, random state -----------------------------------------------------------------------------------


def _teacher_config(teacher: PreTrainedModel | PreTrainedConfig | str) -> PreTrainedConfig:
    if isinstance(teacher, PreTrainedConfig):
        return teacher
    if isinstance(teacher, PreTrainedModel):
        return teacher.config
    if isinstance(teacher, str):
        return AutoConfig.from_pretrained(teacher)
    hint = " Merge an adapter first: teacher.merge_and_unload()." if hasattr(teacher, "get_base_model") else ""
    raise TypeError(
        f"A teacher is a model, a configuration, a Hub id or a folder, not {type(teacher).__name__}.{hint}"
    )


def _resolve_class(
    model_class: type | str | None, teacher: PreTrainedModel | PreTrainedConfig | str, config: PreTrainedConfig
) -> type[PreTrainedModel]:
    """The concrete model class of the student."""
    if model_class is None:
        if isinstance(teacher, PreTrainedModel):
            return type(teacher)
        names = _teacher_config(teacher).architectures or []
        model_class = getattr(transformers, names[0], AutoModel) if names else AutoModel
    if isinstance(model_class, str):
        found = getattr(transformers, model_class, None)
        if found is None:
            raise ValueError(f"model_class={model_class!r} is no class of transformers, such as BertForMaskedLM.")
        model_class = found
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is not None:
        if type(config) not in mapping:
            raise ValueError(
                f"{getattr(model_class, '__name__', model_class)} has no model for the architecture "
                f"{config.model_type!r}."
            )
        model_class = mapping[type(config)]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    if not (isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)):
        raise ValueError(f"model_class={model_class!r} is not a model class of transformers.")
    return model_class


def _with_factorised_embeddings(cls: type[PreTrainedModel], size: int, shape: StudentShape) -> type[PreTrainedModel]:
    """The class itself where its embeddings may have a width of their own, else the ELECTRA class with its head.

    Raises:
        ValueError: If there is none, or the width is not one for this shape.
    """
    if not 2 <= size <= shape.hidden_size:
        raise ValueError(
            f"embedding_size={size} (--student_embedding_size): it must be from 2 to the student's width, "
            f"{shape.hidden_size}."
        )
    if "embedding_size" in vars(cast(Any, cls.config_class)()):
        return cls
    head = re.sub(r"^.*?(?=Model$|For[A-Z])", "", cls.__name__)
    found = getattr(transformers, f"Electra{head}", None)
    if found is None:
        raise ValueError(
            f"embedding_size= (--student_embedding_size) makes an ELECTRA, and that has no head like {cls.__name__}'s."
        )
    return found


@contextmanager
def _private_cpu_rng(seed: int) -> Iterator[None]:
    """Seed the CPU generator for a block, build there in float32, and put everything back."""
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed: that would reseed every accelerator too, which fork_rng does not restore here.
        torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


# --- weights from the teacher ---------------------------------------------------------------------------------------


def _resolve_layers(
    layers: Sequence[int] | None, shape: StudentShape, config: PreTrainedConfig, init: str
) -> list[int] | None:
    """1-based teacher layers for the student's layers; `None` where a deeper student is no matter of choice."""
    teacher = shape_of(config)
    if init == "teacher_layers" and replace(shape, num_layers=teacher.num_layers) != teacher:
        raise ValueError(
            f"init='teacher_layers' needs the teacher's widths: teacher {teacher}, student {shape} "
            "(LAYERSxHIDDEN:HEADSh:INTERMEDIATE). Give a student of the teacher's width "
            f"({replace(teacher, num_layers=min(shape.num_layers, teacher.num_layers))}), or use init='teacher' "
            "(--student_init teacher)."
        )
    total = teacher.num_layers
    if layers is None:
        if shape.num_layers > total:
            raise ValueError(
                f"A student of {shape.num_layers} layers cannot take its layers from a teacher of {total} without "
                "repeating some: name them in layers=, or use init='random' (--student_init random)."
            )
        return [uniform_teacher_layer(layer, shape.num_layers, total) for layer in range(1, shape.num_layers + 1)]
    if len(layers) != shape.num_layers:
        raise ValueError(
            f"layers={list(layers)} (--student_layers) names {len(layers)} teacher layers for a student of "
            f"{shape.num_layers}: give one each."
        )
    return [resolve_layer(layer, total, flag="--student_layers") for layer in layers]


def _teacher_weights(
    teacher: PreTrainedModel | PreTrainedConfig | str, cls: type[PreTrainedModel], init: str
) -> PreTrainedModel:
    if isinstance(teacher, PreTrainedModel) and has_weights(teacher):
        if getattr(teacher, "_hf_peft_config_loaded", False):
            raise ValueError(
                "The teacher has adapters beside its weights (add_adapter), which a student cannot take: merge them "
                "first (peft's merge_and_unload), or use init='random' (--student_init random)."
            )
        if any(parameter.is_meta for parameter in teacher.parameters()):
            raise ValueError(
                "Weights of the teacher are not in memory (offloaded by a device map), and a student cannot take "
                "them: load it without one, or use init='random' (--student_init random)."
            )
        return teacher
    if isinstance(teacher, str):
        own = _resolve_class(None, teacher, AutoConfig.from_pretrained(teacher))
        loaded = cls if cls.config_class is own.config_class else own
        return loaded.from_pretrained(teacher, dtype=torch.float32)
    raise ValueError(f"init={init!r} copies weights: give the teacher as a model, an id or a folder.")


def _tokenizer_of(teacher: Any, tokenizer: Any, calibration_text: Iterable[CalibrationRow] | None) -> Any:
    """The tokenizer of the calibration text."""
    if isinstance(calibration_text, str):
        raise TypeError(f"calibration_text= takes several texts, but it is one: {calibration_text[:40]!r}.")
    if isinstance(calibration_text, Mapping) or not isinstance(calibration_text, (Iterable, NoneType)):
        raise TypeError(f"calibration_text= takes texts, or rows; it is of type {type(calibration_text).__name__}.")
    if isinstance(tokenizer, str):
        return load_tokenizer(tokenizer, flag="tokenizer")
    if calibration_text is None or tokenizer is not None:
        return tokenizer
    if isinstance(teacher, str):
        return load_tokenizer(teacher, flag="--teacher_model")
    raise ValueError("calibration_text= needs tokenizer=, the teacher's tokenizer, to be read.")
