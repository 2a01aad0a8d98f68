"""Measuring any server of the OpenAI API as its clients see it: over HTTP, streamed."""
