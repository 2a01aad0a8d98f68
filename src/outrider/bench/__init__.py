"""Measuring: what a pass costs, what drafting brings, and both beside other software."""
