"""Sampling: parameters, filters, grammars, and noise that is a function of (seed, position, token)."""

from outrider.sampling.params import SamplingParams

__all__ = ["SamplingParams"]
