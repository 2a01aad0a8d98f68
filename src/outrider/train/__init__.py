"""Training of MTP drafters for a given target: capture what it says, learn to foresee it, export.

Needs the extra `train` (torch).
"""
