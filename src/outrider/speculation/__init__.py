"""Drafting and verification: pure functions of plain data, and the sources of drafts."""
