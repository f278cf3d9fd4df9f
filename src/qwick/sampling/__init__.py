"""Logits to one token."""
