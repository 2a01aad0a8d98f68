"""Choosing a token from logits: parameters, filters, and noise that is a function of (seed, position, token)."""

from outrider.sampling.params import SamplingParams

__all__ = ["SamplingParams"]
