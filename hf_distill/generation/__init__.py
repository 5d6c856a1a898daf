"""Text from an encoder: UniLM's way of fine-tuning a masked language model to write, and beam search for it.

`settings` needs neither torch nor transformers; `packing` makes batches, `model` learns from them, `cache` and
`decoding` write. Models that were trained as decoders do not belong here: transformers generates with those.
"""
