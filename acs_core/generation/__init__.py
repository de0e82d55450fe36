"""Sampling of N responses: prefill, shared key-value cache, decoding, schedule, parsing."""
