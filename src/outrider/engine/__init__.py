"""Requests, the step loop, and what surrounds one target pass."""
