"""On Ray Serve: `outrider serve MODEL --replicas 2`, or `serve run outrider.ray:app model=MODEL replicas=2`."""

from outrider.ray.deployment import app

__all__ = ["app"]
