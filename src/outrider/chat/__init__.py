"""Conversations: from messages to a prompt, and from an answer to content, thoughts and tool calls."""
