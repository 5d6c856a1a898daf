"""Writes the card of a student's folder, and lists what visitors of the Hub would miss on it.

Checking an existing card loads no model, and therefore imports neither torch nor transformers.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from hf_distill.commands.push import check_repo
from hf_distill.hub.disclosure import public
from hf_distill.hub.model_card import read_facts
from hf_distill.hub.selection import CARD_FILE, FACTS_FILE
from hf_distill.hub.usage import PIPELINES
from hf_distill.settings import CardArguments
from hf_distill.storage.files import read_text
from hf_distill.storage.steps import writing_to
from hf_distill.tasks.label_names import is_generic


def run(arguments: CardArguments) -> dict[str, Any]:
    """Write the card of a student's folder from the facts in the folder and from the student itself, and check it.

    The student is loaded, and its output for an example is put on the card. Facts in the folder are kept; if there are
    none, they are derived from the weights and the results.

    Args:
        arguments: The folder, and further facts.

    Returns:
        `card` (the file), `problems` (what visitors of the Hub would miss, one sentence each), `checked_only`.

    Raises:
        ValueError: If the folder holds no student, or the repository name is invalid; with `arguments.check`, if the
            card has problems.
    """
    folder = Path(arguments.folder).expanduser()
    if arguments.repo is not None:
        check_repo(arguments.repo)
    if not (folder / "config.json").is_file():
        raise ValueError(f"`--folder` {str(folder)!r} holds no student: there is no config.json.")
    if not arguments.check:
        with writing_to(folder, "--folder"):
            _write_anew(folder, arguments)
    problems = problems_of(folder)
    if arguments.check and problems:
        raise ValueError(f"{str(folder / CARD_FILE)!r}: {'; '.join(problems)}.")
    return {
        "job": "card",
        "card": str(folder / CARD_FILE),
        "problems": problems,
        "checked_only": arguments.check,
    }


def summary(results: dict[str, Any]) -> str:
    """Report where the card is, and what visitors would miss."""
    missing = [f"  - {problem}" for problem in results["problems"]]
    found = "a visitor of the Hub would miss:" if missing else "complete"
    then = f"go on with: hf-distill push {shlex.quote(str(Path(results['card']).parent))} USER/NAME --dry_run"
    return "\n".join([f"{results['card']}: {found}", *missing, *([] if missing else [then])])


def problems_of(folder: Path) -> list[str]:
    """List what visitors of the Hub would miss on the card of a folder, one sentence each."""
    card = folder / CARD_FILE
    if not card.is_file() or not (folder / FACTS_FILE).is_file():
        return [f"there is no {CARD_FILE} with its {FACTS_FILE}; `hf-distill card {folder}` writes both"]
    text, facts = read_text(card), read_facts(folder)
    try:
        header: Any = ModelCard(text, ignore_metadata_errors=False).data
    except (ValueError, yaml.YAMLError) as error:
        return [f"its header cannot be read ({' '.join(str(error).split())})"]
    scores = [score for score in facts.scores if score.student is not None]
    found = {
        "its header names no licence (`--licence`)": header.license is None,
        "its header names no language (`--language`)": not header.language,
        "its header does not say what the model does (`pipeline_tag`)": header.pipeline_tag is None,
        f"the labels have no names ({', '.join(facts.labels[:2])}, ...): name them in the task, and adapt again": (
            bool(facts.labels) and is_generic(facts.labels)
        ),
        "there is no example with its output": facts.example is None and facts.pipeline_tag in PIPELINES,
        "it names no teacher": not facts.teacher and bool(facts.objectives),
        "it has no scores": not scores,
        "its scores do not say the seed": any(score.seed is None for score in scores),
        "it does not state the score of the majority label": bool(facts.labels)
        and any(score.majority is None for score in scores),
        "its scores are not above those of the most frequent label": any(score.is_no_better for score in scores),
        "it names no limits": not facts.limits,
        "it names a folder of this machine, or a secret": public(text) != text,
    }
    return [problem for problem, is_one in found.items() if is_one]


def _write_anew(folder: Path, arguments: CardArguments) -> None:
    """Render the card of a folder from its facts, and from the student if its weights are there."""
    from hf_distill.commands.student_facts import example_of, facts_of_folder, write_card
    from hf_distill.hub.loading import load_model, load_tokenizer

    given: dict[str, Any] = {
        name: value
        for name, value in (("language", arguments.language), ("licence", arguments.licence))
        if value is not None
    }
    if not any(folder.glob("*.safetensors")):
        facts = read_facts(folder)
        facts.student.hub_id = arguments.repo or facts.student.hub_id
        write_card(folder, dataclasses.replace(facts, **given))
        return
    model = load_model(str(folder), flag="--folder")
    tokenizer = load_tokenizer(str(folder), flag="--folder")
    facts = dataclasses.replace(facts_of_folder(model, str(folder), folder.absolute().name), **given)
    facts.student.hub_id = arguments.repo or facts.student.hub_id
    facts.model_name = (arguments.repo or facts.model_name).rpartition("/")[2]
    facts.example = example_of(model, tokenizer, facts, arguments.example or ())
    write_card(folder, facts)
