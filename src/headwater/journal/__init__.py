"""Keeps every accepted request byte for byte, and says when it is durable."""
