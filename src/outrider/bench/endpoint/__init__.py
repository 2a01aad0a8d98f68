"""Measuring any server that speaks the OpenAI API, over the network as its clients see it."""
