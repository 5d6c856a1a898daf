"""Rows per CPU-second that an encoder generates: with the key-value cache, and computing every row again.

    python benchmarks/generation_speed.py --output benchmarks/results/generation_speed.jsonl

Variants, in turns in one process; medians over the rounds are printed and appended to a file of JSON lines:

- `cached`: `hf_distill`'s beam search;
- `uncached`: the same search, in which each step packs source and text of every hypothesis and runs the whole row (on
  fewer rows, because the rate does not depend on their number);
- `greedy`: `cached` with one beam.

Weights and text are random, which does not affect the time of a step. Sources have the lengths of SQuAD's passages
with their answers, and every text has `--target_tokens` tokens.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from record import origin, report, script_parser
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, set_seed
from turns import medians

from hf_distill.capture.forward import evaluating
from hf_distill.generation.decoding import Search, beam_search
from hf_distill.generation.model import EncoderForGeneration
from hf_distill.generation.packing import IGNORED, SpecialIds, pack
from hf_distill.generation.settings import GenerationSettings
from hf_distill.kernels.cpu import configure_fp32_matmul
from hf_distill.students.shapes import parse_shape

VOCABULARY = 30_522
IDS = SpecialIds(begin=101, separator=102, mask=103, pad=0, vocabulary_size=VOCABULARY)


def random_model(shape: str, way: str) -> EncoderForGeneration:
    """An encoder of a shape with random weights."""
    size = parse_shape(shape)
    config = BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=size.num_layers,
        hidden_size=size.hidden_size,
        num_attention_heads=size.num_heads,
        intermediate_size=size.intermediate_size,
    )
    return EncoderForGeneration(BertForMaskedLM(config).eval(), IDS, way=way)


def random_sources(count: int, mean_tokens: float) -> list[list[int]]:
    """Token ids whose number is log-normal, as that of SQuAD's passages."""
    draw = random.Random(0)
    lengths = [max(20, min(460, round(draw.lognormvariate(-0.08, 0.4) * mean_tokens))) for _ in range(count)]
    return [[draw.randrange(1000, VOCABULARY) for _ in range(length)] for length in lengths]


class UncachedSteps:
    """The steps of a batch of sources without anything stored."""

    def __init__(self, model: EncoderForGeneration, sources: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.sources = list(sources)

    def start(self) -> Tensor:
        """(B, V) logits of the first token."""
        return self._logits([[]] * len(self.sources))

    def advance(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """(N, V) logits of the next token; the tokens say all."""
        del rows
        return self._logits(tokens.tolist())

    def select_sources(self, sources: Tensor) -> None:
        """Go on with some."""
        self.sources = [self.sources[index] for index in sources.tolist()]

    def _logits(self, written: list[list[int]]) -> Tensor:
        beams = len(written) // len(self.sources)
        sources = [source for source in self.sources for _ in range(beams)]
        batch = pack(self.model.way, sources, written, IDS, max_source_length=464, max_target_length=48)
        rows, columns = (batch.pop("labels") != IGNORED).nonzero(as_tuple=True)
        last = torch.cat([rows[1:] != rows[:-1], torch.ones(1, dtype=torch.bool)])
        return self.model.predict(**batch, rows=rows[last], columns=columns[last])


def uncached_search(
    model: EncoderForGeneration, sources: Sequence[list[int]], settings: GenerationSettings
) -> list[list[int]]:
    """`beam_search` with `UncachedSteps`."""
    order = sorted(range(len(sources)), key=lambda index: -len(sources[index]))
    found: dict[int, list[int]] = {}
    with evaluating(model):
        for start in range(0, len(order), settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            steps = UncachedSteps(model, [sources[index] for index in chosen])
            results = Search(steps, len(chosen), settings, IDS).run()
            found.update((index, result.tokens) for index, result in zip(chosen, results, strict=True))
    return [found[index] for index in range(len(sources))]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every variant in turns. Time is that of the process, which a busy machine changes least."""
    torch.set_num_threads(options.threads)
    set_seed(0)
    model = random_model(options.shape, options.way)
    configure_fp32_matmul("auto")
    sources = random_sources(options.rows, options.source_tokens)
    # Every text has the same length, so that the weights do not matter.
    settings = GenerationSettings(
        num_beams=options.num_beams,
        max_new_tokens=options.target_tokens,
        min_new_tokens=options.target_tokens - 1,
        batch_size=options.batch_size,
    )
    few = sources[: max(1, len(sources) // options.fewer)]
    variants: dict[str, tuple[list[list[int]], Callable[[list[list[int]]], Any]]] = {
        "cached": (sources, lambda rows: beam_search(model, rows, settings)),
        "uncached": (few, lambda rows: uncached_search(model, rows, settings)),
        "greedy": (sources, lambda rows: beam_search(model, rows, replace(settings, num_beams=1))),
    }
    same = beam_search(model, few, settings) == uncached_search(model, few, settings)  # this warms up, too
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name, (rows, write) in variants.items():
            start = time.process_time()
            write(rows)
            rates[name].append(len(rows) / (time.process_time() - start))
    per_second = medians(rates)
    return {
        **origin("generation_speed"),
        "model": options.shape,
        "way": options.way,
        "rows": options.rows,
        "mean_source_tokens": round(statistics.mean(map(len, sources)), 1),
        "target_tokens": options.target_tokens,
        "num_beams": options.num_beams,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "rows_per_cpu_second": {name: round(value, 2) for name, value in per_second.items()},
        "cached_to_uncached": round(per_second["cached"] / per_second["uncached"], 2),
        "cpu_minutes_for_1000_rows": round(1000 / per_second["cached"] / 60, 2),
        "same_texts": same,
    }


def main() -> None:
    """Parse, measure, print, append."""
    parser = script_parser(__doc__)
    parser.add_argument("--shape", default="6x384", help="shape of a model with random weights")
    parser.add_argument("--way", default="pseudo", choices=["pseudo", "shift"])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--fewer", type=int, default=16, help="`uncached` runs on one row of so many")
    parser.add_argument("--source_tokens", type=float, default=170.0, help="mean of a source")
    parser.add_argument("--target_tokens", type=int, default=16, help="of every text, the separator included")
    parser.add_argument("--num_beams", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1, help="counted rounds, after one that warms up")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    report(run(options), options.output)


if __name__ == "__main__":
    main()
