"""Compressed bodies: gzip, deflate and zstd, one layer, inflated within a bound.

The journal keeps such a body as it was on the wire; whoever decodes it inflates it first, with
the function here. Output is produced in pieces and counted, so a bomb costs no more than the
bound; a stream that ends early is an error, never a shorter body.
"""

from __future__ import annotations

import zlib

import zstandard

#: RFC 9659: content-coded zstd must not need a window above 8 MB.
_ZSTD_WINDOW_BYTES_MAX = 8 * 1024 * 1024
_PIECE_BYTES = 65_536


class EncodingError(ValueError):
    """A body that cannot be inflated; the text says why."""


class Unsupported(EncodingError):
    """An encoding other than gzip, deflate, zstd or identity, or more than one layer."""


class TooLarge(EncodingError):
    """The body would be larger than the bound."""


class Corrupt(EncodingError):
    """The bytes are not what the encoding says, or end too early."""


def inflate(body: bytes, content_encoding: str, bytes_max: int) -> bytes:
    """The body behind one layer of `content_encoding` (``gzip``, ``x-gzip``, ``deflate`` with or
    without its zlib header, ``zstd``, ``identity`` or nothing; case and space do not matter).

    An empty body stays empty. Raises Unsupported, TooLarge (beyond `bytes_max`) or Corrupt.
    """
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity") or not body:
        if encoding not in _KNOWN:
            raise Unsupported(f"content-encoding {encoding[:64]!r} is not supported")
        if len(body) > bytes_max:
            raise TooLarge(f"more than {bytes_max} bytes")
        return body
    if encoding in ("gzip", "x-gzip"):
        return _inflate_members(body, bytes_max)
    if encoding == "deflate":
        # RFC 9110 means zlib; old clients send raw deflate under the same name
        looks_zlib = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
        if looks_zlib:
            try:
                return _inflate_stream(body, zlib.MAX_WBITS, bytes_max)[0]
            except Corrupt:
                pass
        return _inflate_stream(body, -zlib.MAX_WBITS, bytes_max)[0]
    if encoding == "zstd":
        return _inflate_zstd(body, bytes_max)
    raise Unsupported(f"content-encoding {encoding[:64]!r} is not supported")


_KNOWN = ("", "identity", "gzip", "x-gzip", "deflate", "zstd")


def _inflate_stream(body: bytes, window_bits: int, bytes_max: int) -> tuple[bytes, bytes]:
    """One deflate stream's content, and what follows it."""
    stream = zlib.decompressobj(window_bits)
    try:
        content = stream.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise Corrupt(f"not deflate: {error}") from None
    if len(content) > bytes_max:
        raise TooLarge(f"more than {bytes_max} bytes after inflation")
    if not stream.eof:
        raise Corrupt("the compressed body ends too early")
    return content, stream.unused_data


def _inflate_members(body: bytes, bytes_max: int) -> bytes:
    """All members of a gzip file; zero bytes after the last one are padding (gzip(1))."""
    members: list[bytes] = []
    left = bytes_max
    while body:
        content, body = _inflate_stream(body, zlib.MAX_WBITS | 16, left)
        members.append(content)
        left -= len(content)
        if not body.strip(b"\0"):
            break
    return b"".join(members)


def _inflate_zstd(body: bytes, bytes_max: int) -> bytes:
    """All frames. The streaming reader bounds its output but does not tell a torn frame from a
    whole one; the one-shot object does, and is safe once the size is known."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
    size = 0
    try:
        reader = decompressor.stream_reader(body, read_across_frames=True)
        while piece := reader.read(_PIECE_BYTES):
            size += len(piece)
            if size > bytes_max:
                raise TooLarge(f"more than {bytes_max} bytes after inflation")
        frames: list[bytes] = []
        while body:
            frame = decompressor.decompressobj()
            frames.append(frame.decompress(body))
            if not frame.eof:
                raise Corrupt("the compressed body ends too early")
            body = frame.unused_data
    except zstandard.ZstdError as error:
        raise Corrupt(f"not zstd: {error}") from None
    return b"".join(frames)
