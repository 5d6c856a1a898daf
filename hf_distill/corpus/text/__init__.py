"""Text of a general corpus: units, words, terms, and which rows can be used."""
