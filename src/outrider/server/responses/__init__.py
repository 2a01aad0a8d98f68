"""OpenAI's Responses API: a turn of the model as a response of items, which may be stored and continued."""
