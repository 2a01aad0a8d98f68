"""Measuring any server that speaks the OpenAI API, as its clients see it: over HTTP, streamed."""
