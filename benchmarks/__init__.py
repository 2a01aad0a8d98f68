"""Programs that measure outrider, some against other software: ``python -m benchmarks.NAME`` from the repository."""
