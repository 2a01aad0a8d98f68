"""The architectures, each a short file that records its forward pass."""
