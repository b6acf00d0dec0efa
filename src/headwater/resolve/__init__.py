"""Decoded events become stored ones: duplicate or not, and who."""
