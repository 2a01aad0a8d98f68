"""The `outrider` command."""

from outrider.cli.app import main

__all__ = ["main"]
