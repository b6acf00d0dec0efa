"""Headwater: one self-hosted event collector that speaks five tracking APIs.

The package reads left to right: accept, decode, journal, resolve, store, view. A stage never
imports a stage to its right; :mod:`headwater.app` is the only module that knows every part.
"""

__version__ = "0.1.0"
