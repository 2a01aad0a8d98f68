"""Training of MTP drafters for a given target: capture its outputs, train on them, export.

Needs the extra `train` (torch).
"""
