#!/usr/bin/env python3
"""image_corpus.py IMAGE... DIR: images, good and bad, in the form that fuzz/image_open.c takes, into DIR.

Three inputs each: layout and checksums made right, checksums alone, and the checksum of the header alone.
"""
import os
import struct
import sys

for path in sys.argv[1:-1]:
    with open(path, "rb") as f:
        b = f.read()
    if len(b) < 256:
        continue
    parts = b""
    for part in range(4):
        off, length = struct.unpack_from("<QQ", b, 120 + 24 * part)
        parts += b[off:off + length]
    name = os.path.join(sys.argv[-1], os.path.basename(path).removesuffix(".img"))
    for flags, suffix in ((b"\0", ""), (b"\1", "-laid-out"), (b"\x11", "-as-it-is")):
        with open(name + suffix, "wb") as f:
            f.write(b[:256] + flags + parts)
