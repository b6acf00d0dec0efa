"""A client in a process of its own: `measure.py PORT COUNT` sends the request that it reads from
standard input, one time after the other, and prints how long each took, in microseconds.

It imports nothing of the project: what it measures with must cost nothing to start.
"""

from __future__ import annotations

import socket
import sys
import time


def main(port: int, count: int) -> None:
    data = sys.stdin.buffer.read()
    with socket.create_connection(("127.0.0.1", port), 10) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = time.perf_counter()
            wire.sendall(data)
            said = b""
            while not said.endswith(b"\r\n\r\n"):
                piece = wire.recv(4_096)
                assert piece, "the connection ended"
                said += piece
            assert said.startswith(b"HTTP/1.1 204"), said
            print(round((time.perf_counter() - began) * 1e6))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
