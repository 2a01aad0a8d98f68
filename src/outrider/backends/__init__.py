"""Executors of recorded programs, one folder each."""
