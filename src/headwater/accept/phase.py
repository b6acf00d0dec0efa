"""The phases of a connection, in an order that is compared: from DEAF on no request is read."""

IDLE = 0  # between requests
HEAD = 1  # within a head
BODY = 2  # within a body
DEAF = 3  # what is owed is still answered, nothing more is read
LINGER = 4  # everything is answered and the end sent; what still comes is swallowed
WEBSOCKET = 5
