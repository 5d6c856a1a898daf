"""Settings of generation."""

import subprocess
import sys

import pytest

from hf_distill.generation.settings import GenerationSettings


def test_the_defaults_are_those_of_question_generation():
    settings = GenerationSettings()
    assert (settings.num_beams, settings.max_new_tokens, settings.length_penalty) == (5, 48, 1.3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_beams": 0}, "`num_beams` is 0; it must be at least 1"),
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0; it must be at least 1"),
        ({"batch_size": 0}, "`batch_size` is 0; it must be at least 1"),
        ({"max_source_length": 2}, "`max_source_length` is 2; it must be at least 3"),
        ({"min_new_tokens": 48}, "`min_new_tokens` is 48 and `max_new_tokens` 48"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        GenerationSettings(**given)


def test_a_list_from_a_file_becomes_a_tuple():
    assert GenerationSettings(ngram_ignore=["."]).ngram_ignore == (".",)


def test_settings_need_no_torch():
    code = "import sys, hf_distill.generation.settings; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
