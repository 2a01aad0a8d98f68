"""`outrider serve`: an OpenAI-compatible server with continuous batching. Needs the extra `serve`."""
