"""Text from an encoder: UniLM's way of fine-tuning a masked language model to write, and beam search for it.

`settings` needs neither torch nor transformers; `packing` makes batches, `model` learns from them, `cache` and
`decoding` write. MiniLM's supplement fine-tunes its students so for question generation and summaries.
"""
