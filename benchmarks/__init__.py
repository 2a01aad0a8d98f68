"""Programs that measure outrider beside other software: ``python -m benchmarks.NAME`` from the repository."""
