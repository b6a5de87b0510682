#!/usr/bin/env python3
"""image_corpus.py IMAGE DIR: the image in the form that fuzz/image_open.c takes, into DIR."""
import os
import struct
import sys

with open(sys.argv[1], "rb") as f:
    b = f.read()
out = b[:256] + b"\0"
for part in range(4):
    off, length = struct.unpack_from("<QQ", b, 120 + 24 * part)
    out += b[off:off + length]
name = os.path.basename(sys.argv[1]).removesuffix(".img")
with open(os.path.join(sys.argv[2], name), "wb") as f:
    f.write(out)
