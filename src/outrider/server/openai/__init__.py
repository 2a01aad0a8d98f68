"""OpenAI's API: each route's request and response, and the translation of both."""
