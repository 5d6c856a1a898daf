"""Compare TextBrewer's own output with ours, loss by loss, on the same tensors and the same configuration.

    pip install textbrewer==0.2.1.post1 tensorboardX
    python benchmarks/textbrewer_parity.py --output benchmarks/results/textbrewer_parity.jsonl

TextBrewer is not a dependency of this package: install it into a separate environment, together with this package (if
its requirements are unwanted, `pip install --no-deps --target FOLDER` and FOLDER in `PYTHONPATH` work too).

Every case is a `DistillationConfig` as a user of TextBrewer writes it. One side gives it to `GeneralDistiller`, which
computes its total loss; the other side gives it to `hf_distill.settings.convert.convert_config` and computes the
resulting objectives. If the two values differ by more than 1e-5, the case states why, and the correct value is again
computed by TextBrewer's own code, in a way that avoids the defect: row by row, with every row cut to its real tokens,
and the mean over rows (or tokens) taken afterwards. Ours must equal that value. The script fails on an unexplained
difference.
"""

from __future__ import annotations

import copy
import math
import platform
import sys
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from record import append_line, origin, script_parser
from textbrewer_sides import Case, Side, bind, make_distiller, one_row, our_total, ours, row_by_row, theirs
from transformers import BertConfig, BertForSequenceClassification

from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture
from hf_distill.objectives import build_objectives
from hf_distill.settings.convert import convert_config

TOLERANCE = 1e-5
VERSION = "0.2.1.post1"
ROWS, LENGTH, HEADS, CLASSES, LAYERS = 3, 7, 4, 3, 2
STUDENT_WIDTH, TEACHER_WIDTH = 8, 12
MASKS = {
    "no mask": None,
    "rows of 5": torch.tensor([[1, 1, 1, 1, 1, 0, 0]] * ROWS),
    "rows of 7, 3, 5": torch.tensor([[1] * 7, [1] * 3 + [0] * 4, [1] * 5 + [0] * 2]),
}
# Reasons why a value of TextBrewer is wrong, or differs by choice.
THRESHOLD = "TextBrewer drops every score below -0.001 where it has no mask"
LATE_MASK = "TextBrewer masks keys after the softmax: padding takes part of the probability"
WRONG_DIVISOR = "TextBrewer divides both Gram matrices by the length of the rows instead of their widths"
LONG_ROWS = "by choice: rows weigh the same here, by their length (or its square) in TextBrewer"
TWICE = "TextBrewer applies a softmax to the probabilities that transformers returns as attentions"
PADDING_FIRST = "TextBrewer takes position 0, which is padding where rows are padded on the left"
ZERO_VECTOR = "TextBrewer divides a zero vector by its length 0"
HIDDEN_LABEL = "TextBrewer indexes classes with the label -100 of a row without label"
FLAT_LOGITS = "TextBrewer flattens masked token logits but not their labels"
NEGATIVE = "TextBrewer's temperatures fall below 0, which turns the teacher's order around"
NOTHING_LEFT = "TextBrewer takes the mean over no tokens"
SUM_OF_HEADS = "by choice: start and end are averaged here and added in TextBrewer"
SPAN_PADDING = "TextBrewer lets padding be an answer; besides, start and end are averaged here and added there"


# --- cases -----------------------------------------------------------------------------------------------------------


def random_side(width: int, generator: torch.Generator) -> Side:
    """Features of random models."""
    return Side(
        hidden=[torch.randn(ROWS, LENGTH, width, generator=generator) for _ in range(LAYERS + 1)],
        attention=[torch.randn(ROWS, HEADS, LENGTH, LENGTH, generator=generator) for _ in range(LAYERS)],
    )


def random_logits(shape: tuple[int, ...], generator: torch.Generator, *names: str) -> tuple[Side, Side]:
    """Predictions of both sides."""
    names = names or ("logits",)
    student, teacher = ({n: 2 * torch.randn(*shape, generator=generator) for n in names} for _ in range(2))
    return Side(logits=student), Side(logits=teacher)


def match(loss: str, student: Any = 1, teacher: Any = 1) -> dict[str, Any]:
    """A configuration of one match of hidden states or attentions, and nothing else."""
    feature = "attention" if loss.startswith("attention") else "hidden"
    pair = {"layer_S": student, "layer_T": teacher, "feature": feature, "loss": loss, "weight": 1}
    return {"kd_loss_weight": 0, "intermediate_matches": [pair]}


def match_cases(generator: torch.Generator) -> Iterator[Case]:
    """Every loss between layers, with every mask."""
    student, narrow = (random_side(width, generator) for width in (TEACHER_WIDTH, STUDENT_WIDTH))
    teacher = random_side(TEACHER_WIDTH, generator)
    for mask_name, mask in MASKS.items():
        uneven = mask_name.startswith("rows of 7")
        for loss in ("hidden_mse", "cos", "pkd"):
            yield Case(f"{loss}, {mask_name}", match(loss), student, teacher, mask)
        pair = match("fsp", [0, 1], [0, 2])
        yield Case(f"fsp (gram), {mask_name}", pair, student, teacher, mask)
        pair = match("nst", [0, 1], [0, 2])
        why = "; ".join([WRONG_DIVISOR] * (mask is not None) + [LONG_ROWS] * uneven)
        yield Case(f"nst (mmd), {mask_name}", pair, narrow, teacher, mask, reason=why)
        for loss in ("attention_mse", "attention_mse_sum", "attention_ce", "attention_ce_mean"):
            whys = [LATE_MASK] * ("ce" in loss) + [LONG_ROWS] * uneven
            why = THRESHOLD if mask is None else "; ".join(whys)
            yield Case(f"{loss}, {mask_name}", match(loss), student, teacher, mask, reason=why)
            if mask is None:
                # The threshold gone, nothing is left to differ.
                every = torch.ones(ROWS, LENGTH, dtype=torch.long)
                yield Case(f"{loss}, mask of ones", match(loss), student, teacher, every)
    probabilities = tuple(Side(attention=[x.softmax(-1) for x in side.attention]) for side in (student, teacher))
    for loss in ("attention_ce", "attention_ce_mean"):
        name = f"{loss}, attentions of transformers"
        yield Case(name, match(loss), student, teacher, reason=TWICE, shown_to_textbrewer=probabilities)
    left = MASKS["rows of 7, 3, 5"].flip(1)
    yield Case("pkd, padding on the left", match("pkd"), student, teacher, left, reason=PADDING_FIRST)
    zero = copy.deepcopy(student)
    zero.hidden[1][0, 0] = 0.0
    yield Case("pkd, a zero vector", match("pkd"), zero, teacher, reason=ZERO_VECTOR, right=_other_rows_and_one)


def _other_rows_and_one(case: Case) -> float:
    """A zero vector is at distance 1 from a direction."""
    rows = [one_row(case, index, real) for index, real in enumerate(case.real) if index]
    return (1.0 + sum(rows)) / ROWS


def prediction_cases(generator: torch.Generator) -> Iterator[Case]:
    """Losses on logits, temperatures of rows, probability shift."""
    student, teacher = random_logits((ROWS, CLASSES), generator)
    tokens = random_logits((ROWS, LENGTH, CLASSES), generator)
    spans = random_logits((ROWS, LENGTH), generator, "start_logits", "end_logits")
    padded = MASKS["rows of 7, 3, 5"]
    for loss in ("ce", "mse"):
        for temperature in (1, 4, 8):
            config = {"kd_loss_type": loss, "temperature": temperature}
            yield Case(f"kd {loss}, rows, temperature {temperature}", config, student, teacher)
        config = {"kd_loss_type": loss, "temperature": 4}
        for mask_name, mask in MASKS.items():
            yield Case(f"kd {loss}, tokens, {mask_name}", config, *tokens, mask)
        yield Case(f"kd {loss}, spans, no mask", config, *spans, reason=SUM_OF_HEADS)
        yield Case(f"kd {loss}, spans, rows of 7, 3, 5", config, *spans, padded, reason=SPAN_PADDING)
    nothing = torch.zeros_like(padded)
    config = {"temperature": 4}
    yield Case("kd ce, tokens, all masked", config, *tokens, nothing, reason=NOTHING_LEFT, right=lambda case: 0.0)
    for scheduler in (["flsw", 1, 1], ["flsw", 1, 2], ["cwsm", 1]):
        config = {"temperature": 4, "temperature_scheduler": scheduler}
        title = f"kd ce, {scheduler[0]}({', '.join(map(str, scheduler[1:]))})"
        yield Case(f"{title}, rows", config, student, teacher)
        yield Case(f"{title}, tokens, rows of 7, 3, 5", config, *tokens, padded)
    config = {"temperature": 4, "temperature_scheduler": ["cwsm", 30]}
    yield Case("kd ce, cwsm(30), rows", config, student, teacher, reason=NEGATIVE, right=_with_clamped_temperature)
    config = {"temperature": 4, "probability_shift": True}
    gold = torch.tensor([0, 2, 1])
    of_tokens = torch.randint(0, CLASSES, (ROWS, LENGTH), generator=generator)
    of_tokens[:, 0] = -100
    hidden = torch.tensor([0, -100, 1])
    yield Case("probability shift, rows", config, student, teacher, labels=gold)
    yield Case("probability shift, tokens, no mask", config, *tokens, labels=of_tokens)
    yield Case("probability shift, rows, label -100", config, student, teacher, None, hidden, HIDDEN_LABEL)
    yield Case("probability shift, tokens, rows of 7, 3, 5", config, *tokens, padded, of_tokens, FLAT_LOGITS)


def _with_clamped_temperature(case: Case) -> float:
    """TextBrewer's temperatures, none below 0.1, in its own loss."""
    from textbrewer.losses import kd_ce_loss

    student, teacher = case.student.logits["logits"], case.teacher.logits["logits"]
    schedule = make_distiller(case.config).d_config.temperature_scheduler
    return float(kd_ce_loss(student, teacher, schedule(student, teacher, case.config["temperature"]).clamp(min=0.1)))


# --- whole models ----------------------------------------------------------------------------------------------------


def whole_models(loss: str, projection: str) -> dict[str, Any]:
    """A step of two BERTs: T4-tiny's recipe in small, labels included, projections with the same weights."""

    def bert(depth: int, width: int, seed: int) -> Any:
        torch.manual_seed(seed)
        shape = {"num_hidden_layers": depth, "hidden_size": width, "intermediate_size": 2 * width}
        config = BertConfig(vocab_size=50, num_attention_heads=4, num_labels=CLASSES, **shape)
        return BertForSequenceClassification(config).eval()

    student, teacher = bert(LAYERS, STUDENT_WIDTH, 1), bert(2 * LAYERS, TEACHER_WIDTH, 2)
    layers = range(LAYERS + 1)
    project = {"feature": "hidden", "weight": 1, "proj": [projection, STUDENT_WIDTH, TEACHER_WIDTH]}
    relate = {"feature": "hidden", "weight": 1, "loss": "nst"}
    matches = [{"layer_S": i, "layer_T": 2 * i, "loss": loss, **project} for i in layers]
    matches += [{"layer_S": [i, i], "layer_T": [2 * i, 2 * i], **relate} for i in layers]
    config = {"temperature": 8, "hard_label_weight": 0.5, "intermediate_matches": matches}
    batch = {"input_ids": torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % 50, "labels": torch.tensor([0, 2, 1])}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])

    def adaptor(_: Any, output: Any) -> dict[str, Any]:
        return {"logits": output.logits, "hidden": output.hidden_states, "losses": output.loss}

    distiller = make_distiller(config, student, teacher, adaptor)
    total, _ = distiller.train_on_batch(dict(batch), {"output_hidden_states": True})

    items = build_objectives(convert_config(config).arguments["objectives"])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    student_request, teacher_request = (
        SignalRequest(logits=True, hidden_states=frozenset(range(depth + 1))) for depth in (LAYERS, 2 * LAYERS)
    )
    with torch.no_grad():
        seen = SignalCapture(student, student_request)(**inputs), SignalCapture(teacher, teacher_request)(**inputs)
    bind(items, *seen, LAYERS, 2 * LAYERS)
    made = [p for item in items for p in getattr(getattr(item.objective, "projections", None), "layers", [])]
    for own, other in zip((p for p in made if list(p.parameters())), filter(None, distiller.projs), strict=True):
        own.load_state_dict(other.state_dict())
    name = f"two BERTs: kd + labels + {loss} ({projection} projections) + nst"
    return judge(name, float(total), our_total(items, *seen, {"labels": batch["labels"]}), None, "")


# --- verdicts --------------------------------------------------------------------------------------------------------


def judge(name: str, their_value: float | str, our_value: float, right: float | None, reason: str) -> dict[str, Any]:
    """A line of the table; `verdict` begins with UNEXPLAINED if the difference has no valid explanation."""
    difference = None if isinstance(their_value, str) else abs(their_value - our_value)
    if difference is not None and difference <= TOLERANCE:
        verdict = "agree"
    elif reason and right is not None and abs(right - our_value) <= TOLERANCE:
        verdict = reason
    else:
        verdict = f"UNEXPLAINED {reason}"
    shown = {"theirs": their_value, "theirs_without_defect": right, "ours": our_value, "difference": difference}
    return {"name": name, **{key: _number(value) for key, value in shown.items()}, "verdict": verdict}


def _number(value: float | str | None) -> float | str | None:
    """Replace NaN, which JSON cannot hold."""
    if isinstance(value, float):
        return round(value, 7) if math.isfinite(value) else str(value)
    return value


def compare(case: Case) -> dict[str, Any]:
    """One case on both sides."""
    right = (case.right or row_by_row)(case) if case.reason else None
    return judge(case.name, theirs(case), ours(case), right, case.reason)


def run(seed: int) -> list[dict[str, Any]]:
    """All cases."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        lines = [compare(case) for cases in (prediction_cases, match_cases) for case in cases(generator)]
        whole = [("hidden_mse", "linear"), ("hidden_mse", "relu"), ("cos", "tanh")]
        return lines + [whole_models(loss, projection) for loss, projection in whole]


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown."""

    def cell(value: float | str | None) -> str:
        return f"{value:.6f}" if isinstance(value, float) else value or ""

    columns = ("theirs", "theirs_without_defect", "ours", "difference")
    head = [
        "| case | TextBrewer | TextBrewer without defect | ours | difference | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    rows = [f"| {line['name']} | {' | '.join(cell(line[c]) for c in columns)} | {line['verdict']} |" for line in lines]
    return "\n".join(head + rows)


def main() -> None:
    """Compare, print, append."""
    parser = script_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        make_distiller({})
    except ModuleNotFoundError as error:
        parser.exit(2, f"{error}. In an environment of its own: pip install textbrewer=={VERSION} tensorboardX\n")
    lines = run(options.seed)
    print(table(lines))
    agreeing = sum(line["verdict"] == "agree" for line in lines)
    unexplained = [line["name"] for line in lines if line["verdict"].startswith("UNEXPLAINED")]
    print(f"\n{agreeing} of {len(lines)} agree to {TOLERANCE}; unexplained: {', '.join(unexplained) or 'none'}")
    if options.output:
        append_line(options.output, record(options.seed, lines))
    sys.exit(bool(unexplained))


def record(seed: int, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The result with what is needed to repeat it."""
    import textbrewer

    return {
        **origin("textbrewer_parity"),
        "seed": seed,
        "tolerance": TOLERANCE,
        "agree": sum(line["verdict"] == "agree" for line in lines),
        "losses": lines,
        "python": platform.python_version(),
        "transformers": transformers.__version__,
        "textbrewer": textbrewer.__version__,
    }


if __name__ == "__main__":
    main()
