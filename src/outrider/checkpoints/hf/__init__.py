"""Checkpoints in folders of safetensors, as on the Hugging Face hub."""
