"""`outrider serve`: an OpenAI-compatible server whose requests share every pass.

Needs the extra `serve`.
"""
