"""Requests become events and the vendor's own answer: pure functions, one file a dialect."""
