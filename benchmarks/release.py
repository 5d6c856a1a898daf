"""Releases the students of `model_cards/`: checks weights against cards, shows what a push would send, and sends it.

    python benchmarks/release.py --weights outputs/release
    python benchmarks/release.py en-6x384 --weights outputs/release --owner me --push

A student NAME has its card in `model_cards/NAME` and its weights in `outputs/release/NAME`, the folder that
`hf-distill distill` or `adapt` wrote. Its card must match its facts, be complete for a visitor of the Hub, and equal
the facts that the run wrote beside the weights; the weights must be finite and have the recorded number of parameters.
Nothing is sent without `--push`, or while any student has a problem.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import yaml

from hf_distill.capture.signals import check_weights
from hf_distill.commands.card import problems_of
from hf_distill.commands.push import run as push, summary as shown
from hf_distill.hub.loading import load_model, load_tokenizer
from hf_distill.hub.model_card import CardFacts, render_card, write_model_card
from hf_distill.hub.selection import FACTS_FILE, select_files
from hf_distill.settings import PushArguments
from hf_distill.storage.files import read_json
from model_cards import CARD, CARDS, FACTS, read_card_facts, scores_of, with_student

RESULTS = "results.json"


def problems_with(card: Path, weights: Path, staged: Path) -> list[str]:
    """The problems that prevent the release of a student, one sentence each.

    Args:
        card: Its folder in `model_cards`.
        weights: Its weights, with the files that the run wrote beside them.
        staged: An empty folder, which is filled with what would be pushed: the weights with the card.
    """
    try:
        facts = read_card_facts(card)
        if (card / CARD).read_text(encoding="utf-8") != render_card(facts):
            return [f"{card / CARD} is not what {FACTS} says: python benchmarks/model_cards.py {card}"]
        if not (weights / "config.json").is_file():
            return [f"there are no weights in {weights}"]
        for file in select_files(weights).files:
            (staged / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(weights / file.path, staged / file.path)
        write_model_card(staged, facts)
        return [*_differences(card, facts, weights), *_of_weights(facts, weights), *problems_of(staged)]
    except (ValueError, OSError) as error:
        return [" ".join(str(error).split())]


def _differences(card: Path, facts: CardFacts, weights: Path) -> list[str]:
    """Facts of the card that differ from those of the run."""
    known = yaml.safe_load((card / FACTS).read_text(encoding="utf-8"))
    results = read_json(weights / RESULTS)
    if results["job"] == "distill":
        run = CardFacts.from_dict(with_student(known, weights))
        names = [field.name for field in dataclasses.fields(facts)]
        different = [name for name in names if getattr(run, name) != getattr(facts, name)]
    else:
        told = {(score.task, score.split, score.seed): score.student for score in facts.scores}
        scores = scores_of([results], "")
        different = [
            f"scores ({score['task']})"
            for score in scores
            if told.get((score["task"], score["split"], score["seed"])) != score.get("student")
        ]
    return [f"its card and its run differ in {', '.join(different)}"] if different else []


def _of_weights(facts: CardFacts, weights: Path) -> list[str]:
    """Problems of the weights themselves."""
    model = load_model(str(weights), flag="--weights")
    load_tokenizer(str(weights), flag="--weights")
    check_weights(model, "Nothing is released: the")
    files = list(weights.glob("*.safetensors"))
    found = {"parameters": sum(map(_parameters_in, files)), "bytes": sum(file.stat().st_size for file in files)}
    found |= {"num_layers": model.config.num_hidden_layers, "hidden_size": model.config.hidden_size}
    return [
        f"its card says {getattr(facts.student, name):,} {name}, its weights have {value:,}"
        for name, value in found.items()
        if getattr(facts.student, name) not in (None, value)
    ]


def _parameters_in(file: Path) -> int:
    """Number of parameters in a file of weights: a loaded model may omit unused ones, such as a pooler."""
    with safetensors.safe_open(file, framework="pt") as stored:
        return sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118


def release(options: argparse.Namespace) -> list[str]:
    """Check every student, show what would be sent, and send it if requested and there are no problems.

    Returns:
        The problems.

    Raises:
        ValueError: If a card does not exist.
    """
    cards = {path.parent.name: path.parent for path in sorted(options.cards.glob(f"*/{FACTS}"))}
    unknown = sorted(set(options.names) - set(cards))
    if unknown:
        raise ValueError(f"There are no cards of {unknown} in {options.cards}; there are {sorted(cards)}.")
    found: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        ready: list[PushArguments] = []
        for name in options.names or list(cards):
            staged = Path(scratch, name)
            staged.mkdir()
            problems = problems_with(cards[name], options.weights / name, staged)
            found += [f"{name}: {problem}" for problem in problems]
            if problems:
                continue
            student: Any = read_json(staged / FACTS_FILE)["student"]
            repo = f"{options.owner}/{name}" if options.owner else student["hub_id"] or name
            ready.append(PushArguments(str(staged), repo, private=options.private))
            print(shown(push(dataclasses.replace(ready[-1], dry_run=True))))
        for arguments in ready if options.push and not found else []:
            print(shown(push(arguments)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, check, show, push; returns 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="students; by default all of model_cards")
    parser.add_argument("--weights", type=Path, required=True, help="folder with a folder of weights for each student")
    parser.add_argument("--cards", type=Path, default=CARDS, help="folder of the cards")
    parser.add_argument("--owner", help="owner of the repositories; by default that of the card's hub_id")
    parser.add_argument("--private", action="store_true", help="make the repositories private")
    parser.add_argument("--push", action="store_true", help="send the files that were shown")
    options = parser.parse_args(argv)
    problems = release(options)
    for problem in problems:
        print(f"not to be released: {problem}", file=sys.stderr)
    if not options.push:
        print("Nothing was sent; --push sends.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
