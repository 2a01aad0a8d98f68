"""Measuring: pass costs, the speed-up of drafting, other software on the same file, and servers."""
