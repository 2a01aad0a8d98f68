"""Fixtures of the command line."""

from command_line import call, fake

__all__ = ["call", "fake"]
