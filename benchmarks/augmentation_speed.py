"""Words per second for which a masked language model finds candidates: one forward pass a word, and in batches.

    python benchmarks/augmentation_speed.py --output benchmarks/results/augmentation_speed.jsonl

Variants, in turns in one process, several rounds; medians over the rounds and their ratios are printed and appended
to a file of JSON lines:

- `per_word`: like TinyBERT's script: one forward pass for each masked word, with gradients, logits for every token,
  the whole vocabulary sorted, and torch's default arithmetic;
- `per_word_lean`: the same without gradients and sorting, in the faster arithmetic that the package chooses;
- `batched`: `hf_distill` in float32, from text to candidates;
- `batched_bf16`: the same in bfloat16.

Without `--masked_lm` and `--task`, weights and text are random, which does not affect the time. The vocabulary then
has 30,522 pieces, 65 % of the words are stop words, and sentences have realistic lengths (`--mean_words`).
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from record import origin, report, script_parser
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast, set_seed
from turns import in_turns, medians, ratio

from hf_distill.corpus.augment.masked_lm import MaskedLMCandidates, load_masked_lm, max_tokens
from hf_distill.corpus.augment.words import SplitText, WordSplitter
from hf_distill.corpus.build.loading import corpus_label
from hf_distill.corpus.text.analysis import stop_words
from hf_distill.kernels.cpu import configure_fp32_matmul
from hf_distill.students.shapes import parse_shape

NUM_CANDIDATES = 15
STOP_WORDS = sorted(word for word in stop_words("english") if word.isalpha())


def random_model(shape: str) -> tuple[Any, Any]:
    """A model of a shape with random weights, and a tokenizer of words that are letters."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *STOP_WORDS]
    letters = "abcdefghijklmnopqrstuvwxyz"
    words += [f"q{a}{b}{c}" for a in letters for b in letters for c in letters][:17_000]
    words += [f"##{a}{b}{c}" for a in letters for b in letters for c in letters][: 30_522 - len(words)]
    backend = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    size = parse_shape(shape)
    config = BertConfig(
        vocab_size=len(words),
        num_hidden_layers=size.num_layers,
        hidden_size=size.hidden_size,
        num_attention_heads=size.num_heads,
        intermediate_size=size.intermediate_size,
    )
    return BertForMaskedLM(config).eval(), BertTokenizerFast(tokenizer_object=backend, model_max_length=512)


def random_texts(count: int, mean_words: float, tokenizer: Any) -> list[str]:
    """Sentences whose lengths are log-normal, as those of real text."""
    draw = random.Random(0)
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and word not in STOP_WORDS]
    texts = []
    for _ in range(count):
        length = max(3, min(60, round(draw.lognormvariate(0, 0.5) * mean_words / 1.13)))
        texts.append(" ".join(draw.choice(STOP_WORDS if draw.random() < 0.65 else words) for _ in range(length)))
    return texts


def per_word(model: Any, tokenizer: Any, splits: Sequence[SplitText], *, lean: bool) -> int:
    """One forward pass for each word; returns the number of words."""
    count = 0
    for split in splits:
        for place in split.places:
            if place < 0:
                continue
            ids = list(split.inputs["input_ids"])
            ids[place] = tokenizer.mask_token_id
            with torch.set_grad_enabled(not lean):
                logits = model(
                    torch.tensor([ids]), token_type_ids=torch.tensor([split.inputs["token_type_ids"]])
                ).logits[0, place]
            best = logits.topk(NUM_CANDIDATES).indices if lean else logits.sort(descending=True).indices
            tokenizer.convert_ids_to_tokens(best[:NUM_CANDIDATES].tolist())
            count += 1
    return count


def variants(model: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, Callable[[list[str]], int]]:
    """By name: what finds the candidates of some texts and returns the number of masked words."""
    splitter = WordSplitter(tokenizer, max_tokens=max_tokens(model, tokenizer), tinybert_words=False)
    settings: dict[str, Any] = {"num_candidates": NUM_CANDIDATES, "exclude_original": False, "exclude_special": True}
    settings["batch_tokens"] = options.batch_tokens
    plain = copy.deepcopy(model)
    finders = {
        "batched": MaskedLMCandidates(copy.deepcopy(model), tokenizer, **settings),
        "batched_bf16": MaskedLMCandidates(copy.deepcopy(model).bfloat16(), tokenizer, **settings),
    }

    def one_by_one(lean: bool) -> Callable[[list[str]], int]:
        def run(texts: list[str]) -> int:
            configure_fp32_matmul("auto" if lean else "strict")
            return per_word(plain, tokenizer, splitter.split(texts), lean=lean)

        return run

    def together(finder: MaskedLMCandidates) -> Callable[[list[str]], int]:
        def run(texts: list[str]) -> int:
            configure_fp32_matmul("auto")
            return sum(map(len, finder(splitter.split(texts))))

        return run

    alone = {"per_word": one_by_one(lean=False), "per_word_lean": one_by_one(lean=True)}
    return alone | {name: together(finder) for name, finder in finders.items()}


def read_texts(options: argparse.Namespace, tokenizer: Any) -> list[str]:
    """Texts of a task's training split, or random ones."""
    if options.task is None:
        return random_texts(options.texts, options.mean_words, tokenizer)
    from hf_distill.tasks.loading import load_task

    loaded = load_task(options.task, options.data_dir, splits=["train"])
    texts = loaded.train[loaded.spec.text_columns[0]][:]
    return random.Random(0).sample(sorted(set(texts)), options.texts)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the variants in turns. CPU time is measured, because a busy machine affects it least."""
    torch.set_num_threads(options.threads)
    set_seed(0)
    model, tokenizer = random_model(options.shape) if options.masked_lm is None else load_masked_lm(options.masked_lm)
    texts = read_texts(options, tokenizer)
    # One forward pass a word is slow, and its rate does not depend on the number of words.
    few = texts[: max(1, len(texts) // options.fewer)]
    words = {}

    def rate(name: str, find: Callable[[list[str]], int]) -> float:
        start = time.process_time()
        words[name] = find(few if name.startswith("per_word") else texts)
        return words[name] / (time.process_time() - start)

    found = variants(model, tokenizer, options)
    rates = in_turns({name: partial(rate, name, find) for name, find in found.items()}, options.rounds)
    return {
        **origin("augmentation_speed"),
        "model": options.shape if options.masked_lm is None else corpus_label(options.masked_lm),
        "parameters": model.num_parameters(),
        "text": "random" if options.task is None else options.task,
        "texts": options.texts,
        "masked_words": words,
        "batch_tokens": options.batch_tokens,
        "rounds": options.rounds,
        "words_per_cpu_second": medians(rates, 1),
        "batched_to_per_word": ratio(rates, "batched", "per_word"),
        "batched_to_per_word_lean": ratio(rates, "batched", "per_word_lean"),
        "batched_bf16_to_per_word": ratio(rates, "batched_bf16", "per_word"),
    }


def main() -> None:
    """Parse, measure, print, append."""
    parser = script_parser(__doc__)
    parser.add_argument("--shape", default="6x384", help="shape of a model with random weights")
    parser.add_argument("--masked_lm", help="a model instead, as Hub id or folder")
    parser.add_argument("--task", help="texts of a task's training split instead of random ones")
    parser.add_argument("--data_dir", help="local files of the task")
    parser.add_argument("--texts", type=int, default=120)
    parser.add_argument("--fewer", type=int, default=4, help="`per_word` runs on one text of this many")
    parser.add_argument("--mean_words", type=float, default=18.0, help="of a random text")
    parser.add_argument("--batch_tokens", type=int, help="of one forward pass; default: the package's")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds, after one that warms up")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    report(run(options), options.output)


if __name__ == "__main__":
    main()
