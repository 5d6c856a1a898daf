"""Trim a vocabulary from the command line, and give a student a smaller one than its teacher has."""

import json

import pytest
import torch
from tiny_data import save_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from hf_distill.cli import main
from hf_distill.hub.model_card import CardFacts, ModelFacts, ScoreFacts, read_facts, write_model_card
from hf_distill.students.sentence import SentenceHead, read_head


@pytest.fixture
def text(tmp_path, sentences):
    """A file with few of the words that the tokenizer knows."""
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(sentences[:6] * 4), encoding="utf-8")
    return str(path)


def loaded(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def results_of(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


class TestVerb:
    def test_the_smaller_model_says_what_the_full_one_says(self, teacher, text, sentences, tmp_path, capsys):
        assert main(["vocabulary", teacher, "--textbook", text, "--output_dir", str(tmp_path / "small")]) == 0
        (model, tokenizer), (full, its_tokenizer) = loaded(tmp_path / "small"), loaded(teacher)
        assert model.config.vocab_size == len(tokenizer) < len(its_tokenizer)
        with torch.no_grad():
            found = model(**tokenizer(sentences[:6], padding=True, return_tensors="pt")).logits
            expected = full(**its_tokenizer(sentences[:6], padding=True, return_tensors="pt")).logits
        torch.testing.assert_close(found, expected)
        results = results_of(tmp_path / "small")
        assert results["pieces"] == len(tokenizer)
        assert results["parameters"] < results["parameters_before"]
        told = f"{len(tokenizer):,} of {len(its_tokenizer):,} pieces"
        assert told in capsys.readouterr().out
        facts, card = read_facts(tmp_path / "small"), (tmp_path / "small" / "README.md").read_text(encoding="utf-8")
        assert facts.adaptation.startswith(f"vocabulary cut to {told}")
        assert facts.initialisation == "the weights of my-teacher"
        assert facts.labels == list(full.config.id2label.values())
        assert f"Vocabulary cut to {told}" in card
        assert f"```text\n{facts.example.printed}\n```" in card
        assert str(tmp_path) not in card

    def test_what_was_known_of_a_student_stays_on_its_card_but_for_the_scores(self, teacher, text, tmp_path):
        score = ScoreFacts("mood", "accuracy", "validation", student=0.9)
        known = CardFacts("mine", [ModelFacts("big")], ModelFacts("mine"), adaptation="fine-tuned", scores=[score])
        write_model_card(teacher, known)
        assert main(["vocabulary", teacher, "--textbook", text, "--output_dir", str(tmp_path / "small")]) == 0
        facts = read_facts(tmp_path / "small")
        assert [one.name for one in facts.teacher] == ["big"]
        assert facts.adaptation.startswith("fine-tuned; then vocabulary cut to")
        assert facts.scores == []

    def test_a_sentence_encoder_stays_one(self, encoder, text, tmp_path):
        SentenceHead().save(encoder, 24)
        assert main(["vocabulary", encoder, "--textbook", text, "--output_dir", str(tmp_path / "small")]) == 0
        assert read_head(str(tmp_path / "small")).describe() == "mean"
        assert read_facts(tmp_path / "small").pipeline_tag == "sentence-similarity"

    def test_a_reranker_scores_as_before(self, tiny_bert_config, tiny_tokenizer, text, tmp_path):
        """What stands behind its scores lies in a file beside the configuration."""
        reranker = BertForSequenceClassification(tiny_bert_config(num_labels=1))
        folder = save_model(tmp_path / "reranker", reranker, tiny_tokenizer)
        activation = "torch.nn.modules.linear.Identity"
        (tmp_path / "reranker" / "config_sentence_transformers.json").write_text(
            json.dumps({"model_type": "CrossEncoder", "activation_fn": activation})
        )
        (tmp_path / "reranker" / "modules.json").write_text(
            json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.Transformer"}])
        )
        assert main(["vocabulary", folder, "--textbook", text, "--output_dir", str(tmp_path / "small")]) == 0
        config = loaded(tmp_path / "small")[0].config
        assert config.sentence_transformers == {"activation_fn": activation}
        assert read_facts(tmp_path / "small").pipeline_tag == "text-ranking"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--size", "3"], "size=3 (--size) is too small"),
            (["--size", "0"], "`--size` is 0; it must be at least 1."),
        ],
    )
    def test_what_cannot_be_done_is_a_line(self, teacher, text, tmp_path, capsys, words, message):
        line = ["vocabulary", teacher, "--textbook", text, "--output_dir", str(tmp_path / "small"), *words]
        assert main(line) == 2
        assert message in capsys.readouterr().err

    def test_model_and_text_are_needed(self, teacher, tmp_path, capsys):
        assert main(["vocabulary", "--textbook", "x", "--output_dir", str(tmp_path / "small")]) == 2
        assert main(["vocabulary", teacher, "--output_dir", str(tmp_path / "small")]) == 2
        err = capsys.readouterr().err
        assert "`--model` is missing" in err
        assert "`--textbook` is missing" in err


class TestDistill:
    @pytest.fixture
    def distil(self, teacher, text, tmp_path):
        def make(*words):
            line = ["distill", "--teacher_model", teacher, "--textbook", text, "--student_shape", "1x12:2h:20"]
            line += ["--output_dir", str(tmp_path / "student"), "--max_steps", "2", "--use_cpu", "--report_to", "none"]
            return main([*line, "--objectives", "relation", "logits", "--disable_tqdm", "true", *words])

        return make

    def test_a_student_has_the_pieces_of_its_textbook(self, distil, teacher, tmp_path):
        assert distil("--student_vocabulary", "0") == 0
        model, tokenizer = loaded(tmp_path / "student")
        full = AutoTokenizer.from_pretrained(teacher)
        assert model.config.vocab_size == len(tokenizer) < len(full)
        told = f"vocabulary: {len(tokenizer):,} of {len(full):,} pieces"
        assert told in results_of(tmp_path / "student")["first_weights"]
        assert told in (tmp_path / "student" / "README.md").read_text(encoding="utf-8")

    def test_a_student_with_a_trimmed_vocabulary_goes_on_under_the_full_teacher(self, distil, tmp_path):
        assert distil("--student_vocabulary", "0") == 0
        begun = tmp_path / "begun"
        (tmp_path / "student").rename(begun)
        assert distil("--student_model", str(begun)) == 0
        assert len(loaded(tmp_path / "student")[1]) == len(loaded(begun)[1])

    def test_what_cannot_be_trimmed_is_a_line(self, distil, teacher, capsys):
        assert distil("--student_vocabulary", "-1") == 2
        assert distil("--student_vocabulary", "9", "--student_model", teacher) == 2
        assert distil("--student_vocabulary", "9", "--align_tokenizers") == 2
        err = capsys.readouterr().err
        assert "`--student_vocabulary` is -1; it must be at least 0." in err
        assert "trim `--student_model` with `hf-distill vocabulary`" in err
        assert "`--student_vocabulary 9` goes with live teachers of one tokenizer" in err
