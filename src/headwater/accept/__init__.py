"""Reads bytes within bounds, finds the account, journals, replies."""
