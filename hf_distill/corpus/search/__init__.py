"""Retrieval: one small protocol, and engines that give the same hits."""
