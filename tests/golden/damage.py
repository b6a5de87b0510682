#!/usr/bin/env python3
"""Makes the should-fail-* files: damage.py DIR.

Each is a good image of DIR with one thing wrong and everything else right again: checksums and id are those of the
damaged content, unless they are what is wrong.  So a reader has to look at that one thing.
should-fail-reasons.txt says what the C reader must complain of.
"""
import hashlib
import os
import struct
import sys

from decode import crc64, u64



class Model:
    """An image taken apart: header fields stay bytes, parts and records are separate."""

    def __init__(self, path):
        with open(path, "rb") as f:
            b = f.read()
        self.header = bytearray(b[:4096])
        self.parts = []
        for i in range(4):
            off, length = u64(b, 120 + 24 * i), u64(b, 128 + 24 * i)
            self.parts.append(bytearray(b[off:off + length]))
        meta, at = self.parts.pop(), 0
        self.records = []
        while at < len(meta):
            tag, flags, length = struct.unpack_from("<IIQ", meta, at)
            self.records.append([tag, flags, bytearray(meta[at + 16:at + 16 + length])])
            at += 16 + (length + 7) // 8 * 8

    def record(self, tag):
        return next(r for r in self.records if r[0] == tag)

    def put32(self, at, value):
        struct.pack_into("<I", self.header, at, value)

    def put64(self, at, value):
        struct.pack_into("<Q", self.header, at, value)

    def meta(self):
        out = b""
        for tag, flags, payload in self.records:
            out += struct.pack("<IIQ", tag, flags, len(payload)) + payload + bytes(-len(payload) % 8)
        return out

    def build(self, override=None, meta=None, layout=True):
        """The file.  override(header) changes fields after the layout and before the id; meta replaces the metadata."""
        meta = self.meta() if meta is None else meta
        parts, at = [bytes(p) for p in self.parts] + [meta], 4096
        file = bytearray(4096)
        for i, part in enumerate(parts):
            if layout:
                struct.pack_into("<QQQ", self.header, 120 + 24 * i, at, len(part), crc64(part))
            file += part + bytes(-len(part) % 4096)
            at = len(file)
        if override:
            override(self)
        self.seal(meta)
        file[:4096] = self.header
        return file

    def seal(self, meta):
        self.header[32:64] = bytes(32)
        self.header[32:64] = hashlib.sha256(self.header[:4088] + meta).digest()
        self.put64(4088, crc64(self.header[:4088]))


def field(at, size, value):
    def override(m):
        m.header[at:at + size] = value.to_bytes(size, "little")
    return override


HEADER = [
    ("major", 8, 2, 2, "version 2.0"),
    ("header-bytes", 12, 4, 8192, "header_bytes"),
    ("must-know-bit", 16, 8, 4, "must-know"),
    ("must-know-high-bit", 16, 8, 1 << 63, "must-know"),
    ("guest-bytes-zero", 64, 8, 0, "guest_bytes"),
    ("guest-bytes-huge", 64, 8, (1 << 44) + 1, "guest_bytes"),
    ("page-shift", 72, 4, 13, "page_shift"),
    ("page-shift-huge", 72, 4, 200, "page_shift"),
    ("chunk-shift-small", 76, 4, 11, "chunk_shift"),
    ("chunk-shift-large", 76, 4, 22, "chunk_shift"),
    ("nr-pages", 80, 8, 13, "nr_pages"),
    ("nr-hot-huge", 88, 8, 1 << 63, "more pages than there are"),
    ("nr-cold-huge", 96, 8, (1 << 64) - 1, "more pages than there are"),
    ("nr-same-too-many", 104, 8, 12, "more pages than there are"),
    ("nr-inherit-without-parent", 112, 8, 1, "there is no parent"),
    ("hot-off", 120, 8, 8192, "where the one before it ends"),
    ("hot-bytes-huge", 128, 8, 1 << 63, "longer than it may be"),
    ("cold-off", 144, 8, 0, "where the one before it ends"),
    ("cold-bytes-huge", 152, 8, 1 << 40, "longer than it may be"),
    ("state-bytes-huge", 176, 8, (1 << 30) + 1, "longer than it may be"),
    ("meta-bytes-huge", 200, 8, (1 << 32) + 8, "longer than it may be"),
    ("meta-bytes-beyond", 200, 8, 1 << 20, "truncated"),
    ("hot-crc", 136, 8, 1, "hot_crc"),
    ("cold-crc", 160, 8, 1, "cold_crc"),
    ("state-crc", 184, 8, 1, "state_crc"),
    ("meta-crc", 208, 8, 1, "meta_crc"),
    ("parent-id-without-bit", 216, 8, 5, "parent_id"),
    ("parent-bit-without-id", 16, 8, 1, "parent_id"),
    ("depth-without-parent", 248, 4, 1, "depth"),
    ("depth-huge", 248, 4, 9, "depth"),
    ("codec", 252, 4, 8, "no such codec"),
    ("reserved", 256, 8, 1 << 40, "reserved"),
    ("reserved-end", 4080, 8, 1, "reserved"),
    ("dict-bit-without-record", 16, 8, 2, "contradicts the feature bit"),
    ("regions-bit-missing", 24, 8, 2, "contradicts the feature bit"),
    ("traced-bit-missing", 24, 8, 1, "without a trace"),
]


def whole_file(good):
    """Damage that no checksum hides."""
    yield "magic", b"CISTERN\x1b" + good[8:], "no magic"
    yield "empty", b"", "no magic"
    yield "text", b"hello\n", "no magic"
    yield "header-crc", good[:100] + b"\x55" + good[101:], "header_crc"
    yield "extra-byte", good + b"\0", "after its end"
    yield "extra-page", good + bytes(4096), "after its end"
    yield "truncated-header", good[:4095], "truncated"
    for name, at in (("hot", 120), ("cold", 144), ("state", 168), ("meta", 192)):
        yield "truncated-" + name, good[:u64(good, at)], "truncated"
    yield "truncated-last-byte", good[:-1], "truncated"
    end = u64(good, 120) + u64(good, 128)
    yield "fill-after-hot", good[:end] + b"\1" + good[end + 1:], "fills up a part"
    yield "fill-at-the-end", good[:-1] + b"\1", "fills up a part"
    yield "chunk-byte", good[:4120] + bytes([good[4120] ^ 1]) + good[4121:], "chunk 0"


def records(path):
    """Damage in the metadata: a function a file, given a fresh model."""
    def swap(m):
        m.records[0], m.records[1] = m.records[1], m.records[0]

    def twice(m):
        m.records.insert(1, m.records[0])

    def drop(tag):
        def change(m):
            m.records = [r for r in m.records if r[0] != tag]
        return change

    def flags(tag, value):
        def change(m):
            m.record(tag)[1] = value
        return change

    def cut(tag, n):
        def change(m):
            del m.record(tag)[2][-n:]
        return change

    def add(tag, flags, payload):
        def change(m):
            m.records.append([tag, flags, bytearray(payload)])
        return change

    def add_first(m):
        m.records.insert(0, [0, 0, bytearray()])

    def put(tag, at, fmt, value):
        def change(m):
            struct.pack_into(fmt, m.record(tag)[2], at, value)
        return change

    def two_classes(m):
        b = m.record(1)[2]
        b[8:16] = struct.pack("<Q", u64(b, 8) | u64(b, 0))

    def beyond(m):
        b = m.record(1)[2]
        b[8:16] = struct.pack("<Q", u64(b, 8) | 1 << 12)

    def miscount(m):
        b = m.record(1)[2]
        b[0:8] = struct.pack("<Q", u64(b, 0) & u64(b, 0) - 1)

    def hot_twice(m):
        b = m.record(2)[2]
        b[4:8] = b[0:4]

    def hot_not_hot(m):
        struct.pack_into("<I", m.record(2)[2], 0, next(i for i in range(12) if not u64(m.record(1)[2], 0) >> i & 1))

    def descending(m):
        b = m.record(4)[2]
        first = u64(b, 24)
        struct.pack_into("<Q", b, 24, first & ~((1 << 56) - 1) | u64(b, 40) & (1 << 56) - 1)
        struct.pack_into("<Q", b, 40, u64(b, 40) & ~((1 << 56) - 1) | first & (1 << 56) - 1)

    def codec(value):
        def change(m):
            m.record(4)[2][15] = value
        return change

    def checksum(m):
        m.record(4)[2][0] ^= 1

    def swap_checksums(m):
        b = m.record(4)[2]
        b[0:8], b[16:24] = b[16:24], b[0:8]

    def touched_hot(m):
        m.record(8)[2][:] = m.record(2)[2][0:4]

    def touched_twice(m):
        m.record(8)[2][:] = m.record(8)[2][0:4] * 2

    def region(at, value):
        return put(5, at, "<Q", value)

    def name(byte):
        def change(m):
            m.record(5)[2][32] = byte
        return change

    def long_name(m):
        m.record(5)[2][24:32] = struct.pack("<Q", 256)
        m.record(5)[2][:] = m.record(5)[2][:32] + b"a" * 256

    yield "records-out-of-order", swap, "ascend"
    yield "record-twice", twice, "ascend"
    yield "record-tag-zero", add_first, "ascend"
    for tag in (1, 2, 3, 4):
        yield "record-%d-missing" % tag, drop(tag), "missing"
        yield "record-%d-short" % tag, cut(tag, 8 if tag != 2 else 4), "length"
        yield "record-%d-flags" % tag, flags(tag, 0), "flags"
    yield "record-unknown-flags", flags(1, 3), "flags"
    yield "record-unknown-must-know", add(99, 1, b"12345678"), "newer writer"
    yield "regions-must-know", flags(5, 1), "flags"
    yield "two-classes", two_classes, "two classes"
    yield "class-beyond-the-end", beyond, "beyond the last page"
    yield "class-count", miscount, "counts"
    yield "hot-order-twice", hot_twice, "twice"
    yield "hot-order-not-hot", hot_not_hot, "not hot"
    yield "hot-order-beyond", put(2, 0, "<I", 0xFFFFFFFF), "not hot"
    yield "same-word-zero", put(3, 0, "<Q", 0), "zero"
    yield "chunks-descending", descending, "ascend"
    yield "chunk-offset-huge", put(4, 24, "<Q", 1 << 55), "longer than its raw"
    yield "chunk-first-not-at-zero", put(4, 8, "<Q", 1), "start"
    yield "chunk-codec-unknown", codec(8), "codec"
    yield "chunk-codec-without-params", codec(5), "parameters are missing"
    yield "chunk-codec-wrong", codec(3), "chunk 0"
    yield "chunk-checksum", checksum, "chunk 0"
    yield "chunk-checksums-swapped", swap_checksums, "chunk 0"
    yield "region-empty", region(16, 0), "region"
    yield "region-beyond", region(16, 13 * 4096), "region"
    yield "region-offset-huge", region(0, (1 << 64) - 4096), "region"
    yield "region-gpa-wraps", region(8, (1 << 64) - 4096), "region"
    yield "region-name-control", name(27), "UTF-8"
    yield "region-name-not-utf8", name(0xFF), "UTF-8"
    yield "region-name-long", long_name, "name"
    yield "region-name-huge", region(24, 1 << 63), "cut off"
    yield "region-cut-off", cut(5, 8), "cut off"
    yield "touched-odd", cut(8, 1), "length"
    yield "touched-beyond", put(8, 0, "<I", 1 << 31), "beyond"
    yield "touched-has-a-chunk", touched_hot, "has a chunk"
    yield "touched-twice", touched_twice, "ascend"
    yield "provenance-control", put(7, 0, "<B", 7), "UTF-8"


def metadata_bytes(model):
    """Damage that is between the records."""
    meta = model.meta()
    last = len(meta) - 8
    yield "meta-rest", meta + bytes(8), "no room"
    yield "record-longer-than-metadata", meta[:8] + struct.pack("<Q", 1 << 63) + meta[16:], "longer than the metadata"
    yield "record-length-wraps", meta[:8] + struct.pack("<Q", (1 << 64) - 1) + meta[16:], "longer than the metadata"
    fill = last + 7
    yield "record-fill", meta[:fill] + b"\1" + meta[fill + 1:], "fill bytes"


def main():
    folder = sys.argv[1]
    path = os.path.join(folder, "small.img")
    files = {}
    with open(path, "rb") as f:
        good = f.read()
    assert bytes(Model(path).build()) == good, "taking apart and putting together is not the identity"
    for name, data, reason in whole_file(good):
        files[name] = data, reason
    for name, at, size, value, reason in HEADER:
        files[name] = Model(path).build(override=field(at, size, value)), reason
    for name, change, reason in records(path):
        model = Model(path)
        change(model)
        files[name] = model.build(), reason
    for name, meta, reason in metadata_bytes(Model(path)):
        files[name] = Model(path).build(meta=meta), reason

    model = Model(path)
    data = model.build()
    data[40] ^= 1
    data[4088:4096] = struct.pack("<Q", crc64(data[:4088]))
    files["image-id"] = data, "image_id"

    dictionary = os.path.join(folder, "deflate-canned.img")
    for name, change, reason in (
            ("params-missing", lambda m: m.records.remove(m.record(6)), "contradicts the feature bit"),
            ("params-codec", lambda m: struct.pack_into("<Q", m.record(6)[2], 0, 4), "no parameters"),
            ("params-of-another", lambda m: struct.pack_into("<Q", m.record(6)[2], 0, 5), ""),
            ("params-length", lambda m: struct.pack_into("<Q", m.record(6)[2], 8, 1 << 62), "cut off"),
            ("params-empty", lambda m: m.record(6)[2].clear(), "parameters are missing"),
            ("params-bytes", lambda m: m.record(6)[2].__setitem__(20, m.record(6)[2][20] ^ 0x40), "")):
        model = Model(dictionary)
        change(model)
        files[name] = model.build(), reason

    def other_parent(name):
        return field(216, 32, int.from_bytes(Model(os.path.join(folder, name)).header[32:64], "little"))

    for name, override, reason in (
            ("child-without-parent", field(216, 8, 1), "is not in its folder"),
            ("child-depth", field(248, 4, 2), "its child says"),
            ("child-smaller-than-parent", other_parent("zstd-dict.img"), "smaller than its parent"),
            ("child-of-other-pages", other_parent("huge-pages.img"), "page size"),
            ("child-inherits-beyond-the-end", other_parent("small.img"), "beyond the end")):
        files[name] = Model(os.path.join(folder, "child.img")).build(override=override), reason

    with open(os.path.join(folder, "order.trace"), "rb") as f:
        trace = f.read()
    bad = bytearray(trace)
    bad[64:68] = bad[68:72]
    traces = {
        "trace-magic": (b"C" + trace[:7] + trace[8:], "no magic"),
        "trace-truncated": (trace[:-1], "length"),
        "trace-longer": (trace + bytes(4), "length"),
        "trace-version": (trace[:8] + b"\2" + trace[9:], "version"),
        "trace-flip": (trace[:65] + b"\1" + trace[66:], "checksum"),
        "trace-twice": (bad[:-8] + struct.pack("<Q", crc64(bad[:-8])), "twice"),
        "trace-count-huge": (trace[:56] + b"\xff" * 8 + trace[64:], "entries"),
    }
    for old in os.listdir(folder):
        if old.startswith("should-fail-"):
            os.unlink(os.path.join(folder, old))
    with open(os.path.join(folder, "should-fail-reasons.txt"), "w") as reasons:
        for suffix, group in ((".img", files), (".trace", traces)):
            for name, (data, reason) in sorted(group.items()):
                file = "should-fail-" + name + suffix
                with open(os.path.join(folder, file), "wb") as f:
                    f.write(data)
                reasons.write("%s: %s\n" % (file, reason))


if __name__ == "__main__":
    sys.exit(main())
