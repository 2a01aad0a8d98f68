"""Checkpoints in folders of safetensors, as the Hugging Face hub has them."""
