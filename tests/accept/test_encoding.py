"""Inflation within a bound (row S5)."""

from __future__ import annotations

import gzip
import zlib

import pytest
import zstandard

from headwater.accept.encoding import Corrupt, TooLarge, Unsupported, inflate

PLAIN = b'{"a":1}' * 1_000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": gzip.compress(PLAIN),
    "x-gzip": gzip.compress(PLAIN),
    " GZIP ": gzip.compress(PLAIN),
    "deflate": zlib.compress(PLAIN),
    "Deflate": raw_deflate(PLAIN),
    "zstd": zstandard.compress(PLAIN),
    "identity": PLAIN,
    "": PLAIN,
}


@pytest.mark.parametrize("encoding", PACKED)
def test_each_encoding_is_inflated_within_its_bound(encoding: str) -> None:
    assert inflate(PACKED[encoding], encoding, len(PLAIN)) == PLAIN
    with pytest.raises(TooLarge):
        inflate(PACKED[encoding], encoding, len(PLAIN) - 1)


@pytest.mark.parametrize("encoding", [name for name in PACKED if name not in ("", "identity")])
def test_a_torn_or_damaged_stream_is_corrupt_and_never_a_shorter_body(encoding: str) -> None:
    packed = PACKED[encoding]
    for cut in range(1, len(packed)):
        with pytest.raises(Corrupt):
            inflate(packed[:cut], encoding, 1_000_000)
    for bad in (b"\xff" * 50, b"plain text, not compressed at all", packed + b"garbage!"):
        if bad.startswith(packed) and encoding.strip().lower() == "deflate":
            continue  # deflate has no end mark of its own to tell padding by
        with pytest.raises(Corrupt):
            inflate(bad, encoding, 1_000_000)


def test_members_and_frames_follow_each_other() -> None:
    assert inflate(gzip.compress(b"a") + gzip.compress(b"b") + bytes(8), "gzip", 2) == b"ab"
    assert inflate(zstandard.compress(b"a") + zstandard.compress(b"b"), "zstd", 2) == b"ab"
    with pytest.raises(TooLarge):
        inflate(gzip.compress(b"ab") + gzip.compress(b"c"), "gzip", 2)
    with pytest.raises(TooLarge):
        inflate(zstandard.compress(b"ab") + zstandard.compress(b"c"), "zstd", 2)


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, gzip", "gzip,deflate", "x", "*"])
def test_other_encodings_and_layers_are_unsupported(encoding: str) -> None:
    for body in (b"", gzip.compress(b"a")):
        with pytest.raises(Unsupported):
            inflate(body, encoding, 100)


def test_an_empty_body_stays_empty() -> None:
    assert inflate(b"", "gzip", 100) == b""


def test_bombs_cost_no_more_than_the_bound() -> None:
    zeros = bytes(50_000_000)
    for encoding, packed in (
        ("gzip", gzip.compress(zeros)),
        ("deflate", zlib.compress(zeros)),
        ("zstd", zstandard.compress(zeros)),
        ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress(zeros)),
    ):
        with pytest.raises(TooLarge):
            inflate(packed, encoding, 1_000_000)


def test_a_zstd_window_above_the_webs_bound_is_refused() -> None:
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27)
    )
    frame = wide.compressobj()
    packed = frame.compress(bytes(100)) + frame.flush()
    with pytest.raises(Corrupt):
        inflate(packed, "zstd", 1_000_000)
