"""Conversations: templates, and Gemma's calls and thoughts, their grammar and their reader."""
