"""Text generation with an encoder: UniLM's fine-tuning of a masked language model, and beam search for it.

`settings` needs neither torch nor transformers; `packing` makes batches, `model` is trained on them, `cache` and
`decoding` generate. Models that were trained as decoders do not belong here: transformers generates with them.
"""
