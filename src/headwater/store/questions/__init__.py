"""Questions that the pages ask: each a function from parameters to SQL on the public views.

The text runs as it stands, on the SQL page too, and through the same guard as a user's.
"""
