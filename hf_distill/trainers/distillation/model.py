"""The model that is trained: a module with the student and its losses; nothing is added to the student itself.

The losses are computed inside `forward`, so that DDP, FSDP, autocast and compile include them. It returns the loss,
the detached terms and, if they are needed, the student's logits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_distill.tasks.labels import LABEL_COLUMNS

from ...capture.architectures import forward_columns, label_head, unwrap
from ...capture.batch import units_of
from ...capture.signals import SignalRequest, Signals, check_rows, checked_signals
from ...capture.transformer import attention_given_back, capture_of
from ...hub.loading import load_model
from ...objectives import Objective, WeightedObjective, build_objectives
from ...objectives.logits import IGNORED
from ...objectives.schedules import Schedule
from ...settings import DistillationArguments
from ...students.sentence import SentenceHead, as_encoder, head_of, keep_activation
from ...teachers.alignment import PIECE_MASK, STUDENT_PIECES, by_pieces
from ...teachers.base import LiveTeacher, TeacherSource, TokenColumns
from ...teachers.routing import only_requested
from .agreement import agreement_sums, can_agree

logger = logging.get_logger(__name__)

# What `teacher_signals` is where somebody calls the model who wants no losses.
NOT_A_STEP: Any = object()
# The arguments of `forward` that are no columns of a batch.
OWN_ARGUMENTS = frozenset({"teacher_signals", "num_items", "loss_scale", "return_logits", "return_agreement", "only"})


def count_items(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Count what a mean can be over: rows, real tokens and labels of a batch, as float tensors on the batch's device.

    `texts` are the rows, or of rows with candidates these. Where teachers read other tokens, the pieces of each
    tokenizer count too, by the name of their mask.
    """
    ids = inputs.get("input_ids", inputs.get("inputs_embeds"))
    if ids is None:
        raise ValueError(f"A batch needs `input_ids` or `inputs_embeds`; it has {sorted(inputs)}.")
    rows = torch.full((), float(ids.shape[0]), device=ids.device)
    mask: Tensor | None = inputs.get("attention_mask")
    tokens = mask.sum(dtype=torch.float32) if mask is not None else rows * ids.shape[1]
    labels: Any = inputs.get("labels")
    no_classes = labels is None or labels.is_floating_point()
    has_candidates = mask is not None and mask.dim() == 3
    texts = units_of(cast(Tensor, mask)).sum(dtype=torch.float32) if has_candidates else rows
    counts = {"rows": rows, "texts": texts, "tokens": tokens}
    counts["labels"] = rows if no_classes else labels.ge(0).sum(dtype=torch.float32)
    pieces = {name: mask for name, mask in inputs.items() if name.endswith(f"_{PIECE_MASK}")}
    return counts | {name: mask.sum(dtype=torch.float32) for name, mask in pieces.items()}


class DistillationModel(PreTrainedModel):
    """A student and its objectives.

    To everybody but its trainer it is the student: a call without `teacher_signals`, in a pipeline or a callback,
    gives the student's outputs, and names that it does not have are the student's (`generate`, `bert`, ...).

    Attributes:
        student: The plain model (or `PeftModel`) that users get.
        objectives: Modules by name; their parameters, if any, train beside the student and are never saved in it.
        teacher_of: Number of the one teacher that an objective learns from, by its name; `None` for all.
        ends_inside_a_layer: Whether the last signal of a step is queries, keys, values or scores of a layer, so that
            the backward pass begins there.
        sentence_head: Makes one vector of a text, where the student is a sentence encoder; saved with it as modules of
            sentence-transformers.
    """

    accepts_loss_kwargs = True
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(
        self,
        student: Any,
        objectives: list[WeightedObjective],
        own_tokens: Mapping[str, TokenColumns | None] | None = None,
        head: SentenceHead | None = None,
    ) -> None:
        """Wrap `student`.

        Args:
            student: The plain model.
            objectives: Bound to its depth already.
            own_tokens: The columns that the teacher of each objective reads, where they are not the student's.
            head: Makes one vector of a text of the student's hidden states.
        """
        super().__init__(student.config)
        self.student = student
        self.sentence_head = head
        self.objectives = nn.ModuleDict({item.name: item.objective for item in objectives})
        self.weights = {item.name: item.weight for item in objectives}
        self.teacher_of = {item.name: item.teacher for item in objectives}
        self.schedules = {item.name: item.schedule for item in objectives if item.schedule is not None}
        # Tensors, because a compiled `forward` would be compiled anew for every other number.
        self._factors = {name: torch.tensor(schedule(0.0)) for name, schedule in self.schedules.items()}
        # Those of `schedules` with shares in place of epochs, once a training says how many it has.
        self._in_shares: dict[str, Schedule | None] = dict(self.schedules)
        self._prefixes = {name: columns.prefix for name, columns in (own_tokens or {}).items() if columns is not None}
        request = SignalRequest.union(item.objective.student_request for item in objectives)
        self._capture = capture_of(student, request, head)
        # A base model has no head whose outputs metrics could read.
        with_logits = request | SignalRequest(logits=True) if self._capture.has_head else request
        self._capture_with_logits = capture_of(student, with_logits, head)
        self._columns = set(forward_columns(student)) - set(LABEL_COLUMNS)
        self._is_causal = label_head(student).is_causal
        self.deepest_layer = deepest_hidden_state(request, self._capture.num_layers)
        self._features_capture: Any = None
        architecture = getattr(self._capture, "architecture", None)
        # FSDP shards by them, one layer at a time, where accelerate's configuration names no classes.
        self._no_split_modules = {type(one).__name__ for one in architecture.layer_list()} if architecture else None
        inside = request.projections | request.attention_scores
        deepest_states = max(request.hidden_states, default=0)
        self.ends_inside_a_layer = not request.logits and max(inside, default=0) > deepest_states

    @torch.no_grad()
    def check(self, teacher: TeacherSource | None, args: DistillationArguments) -> None:
        """Let every objective look at one tiny batch of both sides, and create what depends on their widths.

        Args:
            teacher: The teacher, if there is one.
            args: Of the training. Projections begin with the weights that its seed gives, whatever was drawn before.

        Raises:
            ValueError: If the two sides do not fit, or a setting would have no effect on these objectives.
        """
        self._check_settings(args)
        ids = torch.arange(4, device=args.device)[None]
        if any(cast(Objective, objective).reads_candidates for objective in self.objectives.values()):
            ids = ids.expand(1, 2, -1)
        if label_head(self.student).has_choices:
            # Two choices a row; the rows of everything but the logits are the choices.
            ids = ids.expand(1, 2, -1)
            deep = [n for n, o in self.objectives.items() if o.student_request != SignalRequest(logits=True)]
            if deep:
                raise ValueError(
                    f"The objectives {deep} compare layers, but a head of multiple choice reads several texts a row: "
                    "only `logits` and `labels` can be used with it."
                )
        probe = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        taught = None if teacher is None else checked_signals(teacher.probe(probe), teacher.describe())
        was_training = self.student.training
        self.student.eval()
        student = self._capture(**probe)
        self.student.train(was_training)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(args.seed)
            for name, objective in self.objectives.items():
                self._check_labels_of_pieces(name, student)
                cast(Objective, objective).check(student, signals_for(name, taught))
        self.objectives.to(args.device)

    def _check_settings(self, args: DistillationArguments) -> None:
        """Refuse settings that would have no effect on these objectives."""
        factor = args.label_smoothing_factor
        if factor and not any(getattr(objective, "label_smoothing", 0) for objective in self.objectives.values()):
            raise ValueError(
                f"`--label_smoothing_factor` {factor} would have no effect: it is for the objective `labels`, and the "
                f"objectives are {sorted(self.objectives)}."
            )
        if args.mlm_probability is not None and self._is_causal:
            raise ValueError(
                f"`--mlm_probability` {args.mlm_probability} masks tokens for a masked-LM head, but a "
                f"{type(self.student).__name__} predicts the next token: leave it out."
            )
        rows = args.per_device_train_batch_size
        needed = {name: cast(Objective, objective).least_rows for name, objective in self.objectives.items()}
        silent = {name: least for name, least in needed.items() if least > rows}
        if silent and args.max_tokens_per_batch is None:
            raise ValueError(
                f"The objectives {sorted(silent)} compare the texts of a batch with each other, so that they need "
                f"{max(silent.values())} of them, but `--per_device_train_batch_size` is {rows}; accumulated batches "
                "stay apart."
            )
        if args.pack_rows and not self._capture.packs_rows:
            raise ValueError(
                f"`--pack_rows` has no effect on a {type(self.student).__name__} and the objectives "
                f"{sorted(self.objectives)}: it is for BERT, ELECTRA, ERNIE, RoBERTa, XLM-R, CamemBERT, ModernBERT "
                "and NomicBERT with SDPA, and for objectives that need no logits. Leave it out."
            )
        if args.eval_agreement and not self.agreeing:
            raise ValueError(
                "`--eval_agreement` compares student and teacher where an objective sees outputs, hidden states, or "
                f"queries, keys and values of both; {sorted(self.objectives)} see none of these."
            )

    def _check_labels_of_pieces(self, name: str, student: Signals) -> None:
        """Refuse an objective that needs a label for every token of the student, but compares pieces of text."""
        about_tokens = any(values.dim() == 3 or output != "logits" for output, values in student.logits.items())
        if name in self._prefixes and about_tokens and cast(Objective, self.objectives[name]).needs_labels:
            raise ValueError(
                f"The objective {name!r} compares with a teacher of another tokenizer (`--align_tokenizers`), and "
                "needs a label for every token (`positions=labels`, `probability_shift`): leave these out."
            )

    def warn_of_untrained_head(self) -> None:
        """Say once if the student has a head, and no objective reads what it says."""
        reads_head = any(cast(Objective, one).student_request.logits for one in self.objectives.values())
        if self._capture.has_head and not reads_head:
            logger.warning_once(
                f"The head of {type(self.student).__name__} stays untrained, because its outputs are not used by "
                f"{', '.join(self.objectives)}. Add an objective that uses them (`logits`, `labels`), or fine-tune "
                "the student on the task afterwards (`hf-distill adapt`)."
            )

    def describe(self) -> dict[str, dict[str, Any]]:
        """Weight, schedule and settings of every objective."""
        schedules = {name: {"schedule": schedule.describe()} for name, schedule in self.schedules.items()}
        return {
            name: {"weight": self.weights[name], **schedules.get(name, {}), **cast(Objective, objective).describe()}
            for name, objective in self.objectives.items()
        }

    def count_epochs(self, epochs: float | None) -> None:
        """Tell schedules how many passes over the rows the training makes; `None` if the rows have no length.

        Raises:
            ValueError: If a stage ends before it begins (see `Schedule.in_run_of`), or no objective has a step.
        """
        for name, schedule in self.schedules.items():
            try:
                self._in_shares[name] = schedule.in_run_of(epochs)
            except ValueError as error:
                raise ValueError(f"Objective {name!r}: {error}") from None
        never = {name: self.schedules[name].describe() for name, found in self._in_shares.items() if found is None}
        if len(never) == len(self.weights):
            raise ValueError(f"No objective is active in a training of {epochs:g} epochs: {never}.")
        for name, stage in never.items():
            logger.warning(f"Objective {name!r} ({stage}) is never active in a training of {epochs:g} epochs.")

    def set_progress(self, progress: float) -> None:
        """Tell schedules and objectives which share of the optimizer steps is done."""
        for name, schedule in self._in_shares.items():
            self._factors[name].fill_(0.0 if schedule is None else schedule(progress))
        for objective in self.objectives.values():
            cast(Objective, objective).set_progress(progress)

    def current_weights(self) -> dict[str, float]:
        """The weight of every objective at the progress that was set last."""
        return {
            name: weight * (float(self._factors[name]) if name in self._factors else 1.0)
            for name, weight in self.weights.items()
        }

    def show_features(self) -> None:
        """Be ready to be asked for `only="features"`; before the model is compiled or sharded."""
        layers = SignalRequest(hidden_states=frozenset({self.deepest_layer}))
        self._features_capture = capture_of(self.student, layers)

    def use_attention(self) -> None:
        """Switch the student to the attention of its captures, before passes that `torch.compile` reads."""
        self._capture.use_attention()

    def current_settings(self) -> dict[str, float]:
        """Weights and settings of objectives that move, by `<setting>/<objective>`, at that progress."""
        weights = self.current_weights()
        moving = {f"weight/{name}": weights[name] for name in self.schedules}
        for name, objective in self.objectives.items():
            moving |= {f"{key}/{name}": value for key, value in cast(Objective, objective).scheduled.items()}
        return moving

    @property
    def learns_vectors(self) -> bool:
        """Whether an objective compares the vectors of texts."""
        return self._capture.request.pooled

    @property
    def agreeing(self) -> list[str]:
        """Names of the objectives on which student and teacher can be compared."""
        return [name for name, objective in self.objectives.items() if can_agree(cast(Objective, objective))]

    def forward(
        self,
        *args: Any,
        teacher_signals: Signals | Mapping[str, Signals] | None = NOT_A_STEP,
        num_items: Mapping[str, Tensor] | None = None,
        loss_scale: float = 1.0,
        return_logits: bool = False,
        return_agreement: bool = False,
        only: Literal["logits", "features", "vectors"] | None = None,
        **inputs: Any,
    ) -> Any:
        """One forward pass of the student and every loss; without `teacher_signals`, what the student gives.

        Args:
            args: Inputs of the student by place, where it is called as the student.
            teacher_signals: Signals of the teacher for the same batch; where objectives have different teachers, those
                of each objective by its name.
            num_items: Items of the whole optimizer step, over all micro-batches and processes; those of this batch
                if `None`. A term's mean over this batch is weighed by the batch's share of them.
            loss_scale: Number of processes that average their gradients.
            return_logits: Whether to run the head even if no objective reads it.
            return_agreement: Whether to compare both sides (see `agreement_sums`).
            only: No loss at all, but the student's `logits` by name; its `features`: the mean over the real tokens of
                the deepest hidden state that the objectives train, (B, H); or its `vectors` of texts, (B, D).
            inputs: A batch; label columns go to the objectives, the rest to the student.

        Returns:
            `loss`, `terms` (name -> detached contribution to the step's mean), the student's logits by name, and
            `agreement`; what is not asked for is left out. In evaluation so are the terms of objectives that find no
            labels, or no teacher, in these rows.
        """
        if only is not None:
            return self._without_losses(only, inputs)
        if teacher_signals is NOT_A_STEP:
            return self.student(*args, **inputs)
        capture = self._capture_with_logits if return_logits else self._capture
        student = self.student_signals(inputs, capture)
        prefixes = {prefix for prefix in self._prefixes.values() if prefix + STUDENT_PIECES in inputs}
        in_pieces = {prefix: self._by_pieces(student, prefix, inputs) for prefix in prefixes}
        labels = {name: inputs[name] for name in LABEL_COLUMNS if inputs.get(name) is not None}
        here = count_items(inputs)
        terms: dict[str, Tensor] = {}
        agreement: dict[str, Tensor] = {}
        loss: Any = 0.0
        for name, objective in self.objectives.items():
            teacher = signals_for(name, teacher_signals)
            needs = cast(Objective, objective)
            lacks = (needs.needs_labels and not labels) or (needs.needs_teacher and teacher is None)
            if lacks and not self.training:
                continue
            share = _share(here, num_items, self.counted_in(name))
            seen = in_pieces[self._prefixes[name]] if name in self._prefixes else student
            check_rows(name, seen, teacher)
            weight: Any = self.weights[name] * self._factors[name] if name in self._factors else self.weights[name]
            for term, value in objective(seen, teacher, labels).items():
                value = value * share * loss_scale
                terms[f"{name}/{term}"] = value.detach()
                loss = loss + weight * value
            if return_agreement and teacher is not None:
                agreement |= agreement_sums(name, cast(Objective, objective), seen, teacher, labels)
        found: dict[str, Any] = {"loss": loss, "terms": terms, **(student.logits if return_logits else {})}
        return found | ({"agreement": agreement} if return_agreement else {})

    def as_read(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """A batch without columns named as arguments of `forward`, its labels where the head speaks about them.

        A causal language model says at every token what the next one is; the labels come as the models of transformers
        take them, each at its own token.
        """
        if not OWN_ARGUMENTS.isdisjoint(inputs):
            inputs = {name: value for name, value in inputs.items() if name not in OWN_ARGUMENTS}
        labels = inputs.get("labels")
        if not self._is_causal or labels is None:
            return inputs
        return {**inputs, "labels": nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)}

    def student_signals(self, inputs: Mapping[str, Any], capture: Any = None) -> Signals:
        """Return the student's signals for a batch that the objectives read, or those that another capture records."""
        known = {name: value for name, value in inputs.items() if name in self._columns}
        return (self._capture if capture is None else capture)(**known)

    def _without_losses(self, only: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the student's logits, features or vectors for a batch, without a loss."""
        if only == "vectors":
            return {"vectors": self.student_signals(inputs).pooled}
        if only == "logits":
            return dict(self.student_signals(inputs, self._capture_with_logits).logits)
        signals = self.student_signals(inputs, self._features_capture)
        mask = signals.attention_mask[..., None]
        states = signals.hidden_states[self.deepest_layer].float() * mask
        return {"features": states.sum(1) / mask.sum(1).clamp(min=1)}

    def counted_in(self, name: str) -> str:
        """Return the unit that the terms of an objective are means over, as `count_items` names it."""
        objective = cast(Objective, self.objectives[name])
        unit = objective.unit
        if unit == "rows" and objective.student_request != SignalRequest(logits=True):
            # Layers and vectors have a row for every candidate.
            return "texts"
        # Where the two sides have other tokens, pieces of text stand for them.
        return self._prefixes[name] + PIECE_MASK if unit == "tokens" and name in self._prefixes else unit

    def compared(self, name: str, student: Signals, inputs: Mapping[str, Tensor]) -> Signals:
        """Return the student's signals as an objective compares them: over tokens, or over pieces of text."""
        return self._by_pieces(student, self._prefixes[name], inputs) if name in self._prefixes else student

    def _by_pieces(self, student: Signals, prefix: str, inputs: Mapping[str, Tensor]) -> Signals:
        """Return the student's signals over pieces of text, for the objectives whose teacher has another tokenizer."""
        names = [name for name, used in self._prefixes.items() if used == prefix]
        request = SignalRequest.union(cast(Objective, self.objectives[name]).student_request for name in names)
        pieces, mask = inputs[prefix + STUDENT_PIECES], inputs[prefix + PIECE_MASK]
        return by_pieces(only_requested(student, request), pieces, mask)

    # The names below are those through which `Trainer` reaches the model it trains; all of them mean the student.

    def save_pretrained(  # type: ignore[override]
        self, save_directory: Any, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Write the plain student, and its modules where it is a sentence encoder.

        `state_dict`, if given, is one of the wrapper.
        """
        if state_dict is not None:
            state_dict = {k.removeprefix("student."): v for k, v in state_dict.items() if k.startswith("student.")}
        with attention_given_back(self.student):
            self.student.save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        if self.sentence_head is not None:
            width = getattr(self._capture, "hidden_size", None) or self.student.config.hidden_size
            self.sentence_head.save(save_directory, width)

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Switch activation checkpointing on in the student."""
        self.student.activation_checkpointing_enable(*args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """The student's embeddings."""
        return self.student.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Give the student other embeddings."""
        self.student.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The matrix of the student's language-model head, if it has one."""
        return self.student.get_output_embeddings()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the student's embeddings."""
        return self.student.resize_token_embeddings(*args, **kwargs)

    def can_generate(self) -> bool:  # type: ignore[override]
        """Whether the student writes text."""
        # The base class asks before there is a student.
        return "student" in self._modules and bool(self.student.can_generate())

    def __getattr__(self, name: str) -> Any:
        """Return the student's attribute where the wrapper has none of this name."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "student" not in self._modules:
                raise
            return getattr(self._modules["student"], name)


def plain_student(given: Any) -> tuple[Any, SentenceHead | None]:
    """The student that was given, and what makes one vector of a text where that came with it.

    Args:
        given: A model, an id, a folder, a `SentenceTransformer`, or the model of another distillation.

    Raises:
        OSError: If there is no such model.
    """
    if isinstance(given, DistillationModel):
        return given.student, given.sentence_head
    if isinstance(given, (str, os.PathLike)):
        given = load_model(os.fspath(given), flag="model")
    return as_encoder(given) if isinstance(given, nn.Sequential) else (given, None)


def plain_teacher(given: Any) -> Any:
    """What was given as a teacher, or several; of models of other distillations their students."""
    if isinstance(given, (list, tuple)):
        return [plain_teacher(one) for one in given]
    if not isinstance(given, DistillationModel):
        return given
    return given.student if given.sentence_head is None else LiveTeacher(given.student, head=given.sentence_head)


def refuse_wrapped(student: Any) -> None:
    """Refuse a student that is no model of transformers, or that somebody wrapped.

    Raises:
        ValueError: If it is; the message says what to give instead.
    """
    if hasattr(student, "_orig_mod"):
        raise ValueError(
            "The student is compiled (`torch.compile`), which hides its inputs and renames its weights: give the "
            "plain model, and `--torch_compile`."
        )
    if isinstance(student, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise ValueError(f"The student is a {type(student).__name__}: give the model inside it (`model.module`).")
    unwrap(student)


def with_objectives(
    student: Any,
    items: Sequence[Any],
    teacher: TeacherSource | None,
    args: DistillationArguments,
    own_head: SentenceHead | None = None,
) -> DistillationModel:
    """Build the objectives, bind them to both depths, and put them around a student.

    Args:
        student: The plain model.
        items: The objectives (see `build_objectives`).
        teacher: What they learn from, if there is a teacher; it is asked for their signals.
        args: Settings of the objectives.
        own_head: Makes one vector of a text, where the student came with it.

    Raises:
        ValueError: If an objective cannot be built, has no teacher, or does not fit the models.
    """
    options = {**args.objective_options(), "problem_type": getattr(student.config, "problem_type", None)}
    objectives = build_objectives(list(items), options | _options_of(teacher))
    needing = [item.name for item in objectives if item.objective.needs_teacher]
    if needing and teacher is None:
        raise ValueError(f"The objectives {needing} compare with a teacher: give `--teacher_model`.")
    depth, own_tokens = capture_of(student, SignalRequest()).num_layers, {}
    for index, item in enumerate(objectives):
        its_teacher = None if teacher is None else teacher.of(item)
        if its_teacher is not None and its_teacher is not teacher:
            # Some settings follow from the one teacher of several that the objective learns from.
            [item] = build_objectives([items[index]], options | _options_of(its_teacher))
            objectives[index] = item
        _bind(item, depth, its_teacher)
        if its_teacher is not None and item.objective.teacher_request:
            own_tokens[item.name] = its_teacher.own_tokens
    if teacher is not None:
        teacher.connect(objectives, student.config)
        if any(item.objective.reads_candidates for item in objectives):
            keep_activation(student, teacher.members)
    return DistillationModel(student, objectives, own_tokens, _head_for(student, objectives, teacher, args, own_head))


def _bind(item: WeightedObjective, depth: int, teacher: TeacherSource | None) -> None:
    """Tell an objective how deep both sides are.

    Raises:
        ValueError: If a layer does not exist, or the teacher has none that it could name.
    """
    try:
        item.objective.bind(depth, None if teacher is None else teacher.num_layers)
    except ValueError as error:
        if teacher is None or teacher.num_layers is not None:
            raise
        raise ValueError(
            f"The objective {item.name!r} compares layers, but the teacher ({teacher.describe()}) does not say how "
            "many it has: give it `num_layers`, or take an objective on logits."
        ) from error


def _head_for(
    student: Any,
    objectives: Sequence[WeightedObjective],
    teacher: TeacherSource | None,
    args: DistillationArguments,
    own: SentenceHead | None,
) -> SentenceHead | None:
    """Return what makes one vector of a text: the student's own, else like that of its teacher."""
    was_loaded = bool(getattr(student.config, "name_or_path", None))
    own = own or (head_of(student) if was_loaded else None)
    if not any(item.objective.student_request.pooled for item in objectives):
        return own
    if own is not None and args.student_pooling is None and args.student_dense_width is None:
        return own
    teachers = [] if teacher is None else teacher.members
    like: SentenceHead = own or next((one.head for one in teachers if one.head is not None), SentenceHead())
    width = getattr(capture_of(student, SignalRequest()), "hidden_size", None) or student.config.hidden_size
    if own is None and like.default_prompt is not None and args.teacher_prompt is None:
        logger.warning_once(
            f"sentence-transformers puts the teacher's prompt {like.prompts.get(like.default_prompt)!r} before every "
            "text, but this training does not: give it as `--teacher_prompt`."
        )
    head = like.for_student(width, pooling=args.student_pooling, dense_width=args.student_dense_width)
    if own is None and (args.teacher_prompt is not None or args.teacher_text_column is not None):
        # The student learns to do without.
        head.prompts, head.default_prompt = {}, None
    return head


def _options_of(teacher: TeacherSource | None) -> dict[str, Any]:
    """Settings of objectives that follow from the teacher that they learn from."""
    return {} if teacher is None else {"teacher_model_type": teacher.model_type, "shared_ids": teacher.shared_ids}


def deepest_hidden_state(request: SignalRequest, num_layers: int) -> int:
    """The deepest layer whose output signals depend on: queries, keys, values and scores on that below their own."""
    inside = request.projections | request.attention_scores
    at_the_end = [num_layers] if request.logits or request.pooled else []
    layers = {*request.hidden_states, *(layer - 1 for layer in inside), *at_the_end}
    return max(layers, default=num_layers)


def signals_for(objective: str, signals: Signals | Mapping[str, Signals] | None) -> Signals | None:
    """The teacher's signals for one objective: those under its name, or those of all."""
    return signals.get(objective) if isinstance(signals, Mapping) else signals


def _share(here: Mapping[str, Tensor], whole: Mapping[str, Tensor] | None, unit: str) -> Tensor | float:
    """This batch's share of the items of the optimizer step."""
    return 1.0 if whole is None else here[unit] / whole[unit].clamp(min=1)
