"""Turning a model into a GGUF file in another format."""
