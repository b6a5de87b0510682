#!/usr/bin/env python3
"""A second decoder of Cistern images and traces, written from doc/format.md alone.

decode.py [--dir DIR]... [--out FILE] IMAGE   the memory goes to FILE, what the image says to stdout as JSON
decode.py --trace TRACE                       the trace as JSON

It is slow and plain; everything that the document lets a reader refuse, it refuses.  Exit 1 and the reason on
stderr for a file that is not right.
"""
import argparse
import hashlib
import json
import os
import struct
import sys

import lz4.block
import zstandard

RAW, SAME, MASK, LZ4, ZSTD, ZSTD_DICT, DEFLATE, DEFLATE_CANNED = range(8)
PART = 4096


class Bad(Exception):
    pass


def need(condition, reason):
    if not condition:
        raise Bad(reason)


def ceil(a, b):
    return (a + b - 1) // b


# CRC-64/XZ, one byte at a time.
POLY = 0xC96C5795D7870F42
TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (POLY if byte & 1 else 0)
    TABLE.append(byte)


def crc64(data):
    crc = 0xFFFFFFFFFFFFFFFF
    table = TABLE
    for b in data:
        crc = table[(crc ^ b) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFFFFFFFFFF


assert crc64(b"123456789") == 0x995DC9BBDF1939FA


def u32(b, at):
    return struct.unpack_from("<I", b, at)[0]


def u64(b, at):
    return struct.unpack_from("<Q", b, at)[0]


def text(b, also=b""):
    need(not any((c < 32 or c == 127) and c not in also for c in b), "control characters in a text")
    try:
        return b.decode("utf-8")
    except UnicodeDecodeError:
        raise Bad("a text is not UTF-8")


# --- codecs, section 5 ---

def decode_mask(stored, length):
    need(length % 4096 == 0, "mask: not a multiple of 4096")
    n = length // 64
    need(len(stored) >= n // 8 + n * 8, "mask: no room for kinds and masks")
    out = bytearray(length)
    rest = n // 8 + n * 8
    before = bytes(64)
    for i in range(n):
        mask = u64(stored, n // 8 + 8 * i)
        count = bin(mask).count("1")
        data = stored[rest:rest + count]
        need(len(data) == count, "mask: too few bytes")
        need(0 not in data, "mask: a zero among the non-zero bytes")
        rest += count
        line = bytearray(64)
        k = 0
        while mask:
            low = mask & -mask
            line[low.bit_length() - 1] = data[k]
            k += 1
            mask ^= low
        if stored[i // 8] >> i % 8 & 1:
            line = bytearray(a ^ b for a, b in zip(line, before))
        out[64 * i:64 * i + 64] = line
        before = line
    need(rest == len(stored), "mask: bytes left over")
    return bytes(out)


def decode_zstd(stored, length, dictionary):
    params = zstandard.get_frame_parameters(stored)
    need(dictionary is not None or params.dict_id == 0, "zstd: needs a dictionary")
    d = zstandard.ZstdDecompressor(dict_data=dictionary).decompressobj()
    try:
        out = d.decompress(stored)
    except zstandard.ZstdError as e:
        raise Bad("zstd: %s" % e)
    need(len(out) == length, "zstd: wrong length")
    need(not d.unused_data, "zstd: bytes after the frame")
    return out


class Bits:
    """The bits of RFC 1951: within a byte from the lowest."""

    def __init__(self, data):
        self.data = data
        self.at = 0
        self.acc = 0
        self.have = 0

    def fill(self, n):
        while self.have < n:
            need(self.at < len(self.data), "deflate: cut off")
            self.acc |= self.data[self.at] << self.have
            self.at += 1
            self.have += 8

    def take(self, n):
        self.fill(n)
        value = self.acc & (1 << n) - 1
        self.acc >>= n
        self.have -= n
        return value

    def symbol(self, table):
        """Codes are packed from their highest bit on, so one bit at a time."""
        code, length = 0, 0
        while True:
            code = code << 1 | self.take(1)
            length += 1
            found = table.get((length, code))
            if found is not None:
                return found
            need(length < 15, "deflate: no such code")


def huffman(lengths):
    table, code = {}, 0
    for length in range(1, 16):
        for symbol, its in enumerate(lengths):
            if its == length:
                table[length, code] = symbol
                code += 1
        need(code <= 1 << length, "deflate: too many codes")
        code <<= 1
    return table


LENGTH_BASE = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
               227, 258]
LENGTH_EXTRA = [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4 + [0]
DIST_BASE = [1, 2, 3, 4] + [(2 + k % 2) * 2 ** (k // 2) + 1 for k in range(2, 28)]
DIST_EXTRA = [0, 0, 0, 0] + [k // 2 for k in range(2, 28)]
ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
FIXED = huffman([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8), huffman([5] * 30)


def dynamic_tables(bits):
    nr_literals, nr_dists, nr_codes = bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4
    lengths = [0] * 19
    for i in range(nr_codes):
        lengths[ORDER[i]] = bits.take(3)
    table = huffman(lengths)
    lengths = []
    while len(lengths) < nr_literals + nr_dists:
        symbol = bits.symbol(table)
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            need(lengths, "deflate: nothing to repeat")
            lengths += [lengths[-1]] * (3 + bits.take(2))
        else:
            lengths += [0] * (3 + bits.take(3) if symbol == 17 else 11 + bits.take(7))
    need(len(lengths) == nr_literals + nr_dists, "deflate: too many lengths")
    return huffman(lengths[:nr_literals]), huffman(lengths[nr_literals:])


def inflate_block(bits, out, literals, dists, length):
    while True:
        symbol = bits.symbol(literals)
        if symbol == 256:
            return
        if symbol < 256:
            out.append(symbol)
        else:
            need(symbol < 286, "deflate: no such length")
            count = LENGTH_BASE[symbol - 257] + bits.take(LENGTH_EXTRA[symbol - 257])
            symbol = bits.symbol(dists)
            need(symbol < 30, "deflate: no such distance")
            back = DIST_BASE[symbol] + bits.take(DIST_EXTRA[symbol])
            need(back <= len(out), "deflate: a match before the start")
            need(back <= 4096, "deflate: a match further back than 4096")
            for _ in range(count):
                out.append(out[-back])
        need(len(out) <= length, "deflate: too long")


def decode_deflate(stored, length):
    bits, out, last = Bits(stored), bytearray(), 0
    while not last:
        last, kind = bits.take(1), bits.take(2)
        if kind == 0:
            bits.take(bits.have % 8)
            n, inverse = bits.take(16), bits.take(16)
            need(n ^ inverse == 0xFFFF, "deflate: damaged stored block")
            need(len(out) + n <= length, "deflate: too long")
            out += bytes(bits.take(8) for _ in range(n))
        elif kind == 1:
            inflate_block(bits, out, *FIXED, length)
        else:
            need(kind == 2, "deflate: no such block")
            inflate_block(bits, out, *dynamic_tables(bits), length)
    need(bits.at == len(stored) and bits.have < 8, "deflate: bytes after the stream")
    need(bits.acc == 0, "deflate: fill bits are not zero")
    need(len(out) == length, "deflate: wrong length")
    return bytes(out)


def decode_chunk(codec, stored, length, params):
    if codec == RAW:
        out = stored
    elif codec == SAME:
        need(len(stored) == 8, "same: not 8 bytes")
        out = stored * (length // 8)
    elif codec == MASK:
        out = decode_mask(stored, length)
    elif codec == LZ4:
        try:
            out = lz4.block.decompress(stored, uncompressed_size=length)
        except lz4.block.LZ4BlockError as e:
            raise Bad("lz4: %s" % e)
    elif codec == ZSTD:
        out = decode_zstd(stored, length, None)
    elif codec == ZSTD_DICT:
        out = decode_zstd(stored, length, zstandard.ZstdCompressionDict(params[ZSTD_DICT]))
    elif codec == DEFLATE:
        out = decode_deflate(stored, length)
    else:
        out = decode_deflate(params[DEFLATE_CANNED] + stored, length)
    need(len(out) == length, "a chunk has the wrong length")
    return out


# --- the file, sections 2, 3 and 6 ---

class Image:
    def __init__(self, path, dirs, depth=None):
        self.path = path
        with open(path, "rb") as f:
            self.file = f.read()
        self.read_header()
        need(depth is None or self.depth == depth, "depth does not fit the child")
        self.read_metadata()
        self.read_sections()
        self.parent = None
        if self.must_know & 1:
            self.open_parent(dirs)

    def read_header(self):
        b = self.file
        need(b[:8] == b"CISTERN\x1a", "no magic")
        need(len(b) >= 4096, "shorter than a header")
        need(crc64(b[:4088]) == u64(b, 4088), "header_crc")
        need(b[8:10] == b"\x01\x00", "major version")
        minor = b[10] | b[11] << 8
        self.must_know, self.ignorable = u64(b, 16), u64(b, 24)
        need(self.must_know < 4, "must-know feature bits")
        need(u32(b, 12) == 4096, "header_bytes")
        self.id, self.guest_bytes = b[32:64], u64(b, 64)
        self.page_shift, self.chunk_shift = u32(b, 72), u32(b, 76)
        self.nr_pages, self.nr_hot, self.nr_cold, self.nr_same, self.nr_inherit = struct.unpack_from("<5Q", b, 80)
        need(1 <= self.guest_bytes <= 2 ** 44, "guest_bytes")
        need(self.page_shift in (12, 21), "page_shift")
        need(12 <= self.chunk_shift <= 21, "chunk_shift")
        self.page, self.chunk = 1 << self.page_shift, 1 << self.chunk_shift
        need(self.nr_pages == ceil(self.guest_bytes, self.page), "nr_pages")
        need(self.nr_hot + self.nr_cold + self.nr_same + self.nr_inherit <= self.nr_pages, "counts of pages")
        self.parent_id, self.depth, self.codec = b[216:248], u32(b, 248), u32(b, 252)
        has_parent = bool(self.must_know & 1)
        need(has_parent == (self.parent_id != bytes(32)), "parent_id")
        need(has_parent == (self.depth > 0) and self.depth <= 8, "depth")
        need(has_parent or self.nr_inherit == 0, "nr_inherit without a parent")
        need(self.nr_hot == 0 or self.ignorable & 2, "nr_hot without a trace")
        need(self.codec <= 7, "codec")
        need(minor or not any(b[256:4088]), "reserved bytes")
        self.read_layout()

    def read_layout(self):
        b, end = self.file, 4096
        limits = self.nr_hot * self.page, self.nr_cold * self.page, 2 ** 30, 2 ** 32
        self.parts = []
        for i, limit in enumerate(limits):
            off, length, crc = struct.unpack_from("<3Q", b, 120 + 24 * i)
            need(off == end, "offset of part %d" % i)
            need(length <= limit, "length of part %d" % i)
            end = ceil(off + length, PART) * PART
            self.parts.append((off, length, crc))
        need(len(b) == end, "length of the file")
        for i, (off, length, crc) in enumerate(self.parts):
            need(crc64(b[off:off + length]) == crc, "checksum of part %d" % i)
            need(not any(b[off + length:ceil(off + length, PART) * PART]), "fill bytes after part %d" % i)

    def part(self, i):
        off, length, _ = self.parts[i]
        return self.file[off:off + length]

    def read_metadata(self):
        meta = self.part(3)
        digest = hashlib.sha256(self.file[:32] + bytes(32) + self.file[64:4088] + meta).digest()
        need(digest == self.id, "image_id")
        records, at, last = {}, 0, 0
        while at < len(meta):
            need(len(meta) - at >= 16, "head of a record")
            tag, flags, length = struct.unpack_from("<IIQ", meta, at)
            padded = ceil(length, 8) * 8
            need(tag > last, "order of tags")
            need(flags in (0, 1), "flags of a record")
            need(length <= 2 ** 32 and padded <= len(meta) - at - 16, "length of a record")
            need(not any(meta[at + 16 + length:at + 16 + padded]), "fill bytes of a record")
            need(tag <= 8 or not flags, "unknown must-know record")
            need(tag > 8 or flags == (tag in (1, 2, 3, 4, 6)), "flags of a known record")
            records[tag] = meta[at + 16:at + 16 + length]
            last, at = tag, at + 16 + padded
        for tag in (1, 2, 3, 4):
            need(tag in records, "record %d is missing" % tag)
        self.read_classes(records[1])
        self.read_hot_order(records[2])
        need(len(records[3]) == 8 * self.nr_same, "length of same words")
        self.same_words = struct.unpack("<%dQ" % self.nr_same, records[3])
        need(0 not in self.same_words, "a same word is zero")
        self.read_chunks(records[4])
        self.read_regions(records.get(5))
        self.read_params(records.get(6))
        provenance = records.get(7, b"")
        need(len(provenance) <= 65536, "length of provenance")
        self.provenance = text(provenance, also=b"\n")
        self.read_touched(records.get(8, b""))

    def read_classes(self, b):
        words = ceil(self.nr_pages, 64)
        need(len(b) == 4 * 8 * words, "length of classes")
        maps = [int.from_bytes(b[8 * words * i:8 * words * (i + 1)], "little") for i in range(4)]
        for i, bits in enumerate(maps):
            need(bits >> self.nr_pages == 0, "class bits beyond the last page")
            need(not any(bits & other for other in maps[:i]), "a page with two classes")
        lists = []
        for bits, count in zip(maps, (self.nr_hot, self.nr_cold, self.nr_same, self.nr_inherit)):
            digits = bin(bits)[:1:-1]
            lists.append([i for i, c in enumerate(digits) if c == "1"])
            need(len(lists[-1]) == count, "count of class bits")
        self.hot, self.cold, self.same, self.inherit = lists

    def read_hot_order(self, b):
        need(len(b) == 4 * self.nr_hot, "length of the hot order")
        self.hot_order = list(struct.unpack("<%dI" % self.nr_hot, b))
        need(sorted(self.hot_order) == self.hot, "the hot order is not the hot pages")

    def read_touched(self, b):
        need(len(b) % 4 == 0, "length of touched pages")
        self.touched = list(struct.unpack("<%dI" % (len(b) // 4), b))
        need(sorted(set(self.touched)) == self.touched, "touched pages do not ascend")
        need(all(p < self.nr_pages for p in self.touched), "a touched page beyond the last one")
        need(not set(self.touched) & (set(self.hot) | set(self.cold)), "a touched page has a chunk")

    def read_chunks(self, b):
        self.chunks = []
        sections = []
        for nr_pages, part in ((self.nr_hot, self.parts[0]), (self.nr_cold, self.parts[1])):
            sections.append((ceil(nr_pages * self.page, self.chunk), nr_pages * self.page, part))
        need(len(b) == 16 * sum(s[0] for s in sections), "length of the chunk table")
        at = 0
        for nr, raw_bytes, (off, length, _) in sections:
            need(nr or length == 0, "a section without chunks has bytes")
            table = [struct.unpack_from("<QQ", b, at + 16 * i) for i in range(nr)]
            at += 16 * nr
            starts = [word & 2 ** 56 - 1 for _, word in table] + [length]
            need(nr == 0 or starts[0] == 0, "the first chunk is not at 0")
            for i, (checksum, word) in enumerate(table):
                raw = min(self.chunk, raw_bytes - i * self.chunk)
                need(starts[i] < starts[i + 1], "offsets of chunks do not ascend")
                need(starts[i + 1] - starts[i] <= raw, "a chunk longer than its raw bytes")
                need(word >> 56 <= 7, "codec of a chunk")
                stored = self.file[off + starts[i]:off + starts[i + 1]]
                self.chunks.append((checksum, word >> 56, stored, raw))
        self.nr_hot_chunks = sections[0][0]

    def read_regions(self, b):
        need((b is not None) == bool(self.ignorable & 1), "regions and their feature bit")
        self.regions, at, end = [], 0, 0
        while b is not None and at < len(b):
            need(len(b) - at >= 32, "a region is cut off")
            offset, gpa, size, length = struct.unpack_from("<4Q", b, at)
            padded = ceil(length, 8) * 8
            need(length <= 255 and padded <= len(b) - at - 32, "name of a region")
            name = text(b[at + 32:at + 32 + length])
            need(not any(b[at + 32 + length:at + 32 + padded]), "fill bytes of a region")
            need(size > 0 and offset >= end and offset + size <= self.guest_bytes, "place of a region")
            need(gpa + size < 2 ** 64, "guest physical address of a region")
            end = offset + size
            self.regions.append([offset, gpa, size, name])
            at += 32 + padded

    def read_params(self, b):
        need((b is not None) == bool(self.must_know & 2), "codec parameters and their feature bit")
        self.params, at, last = {}, 0, 0
        while b is not None and at < len(b):
            need(len(b) - at >= 16, "codec parameters are cut off")
            codec, length = struct.unpack_from("<QQ", b, at)
            padded = ceil(length, 8) * 8
            need(codec in (ZSTD_DICT, DEFLATE_CANNED) and codec > last, "codec of parameters")
            need(1 <= length <= 2 ** 20 and padded <= len(b) - at - 16, "length of parameters")
            need(not any(b[at + 16 + length:at + 16 + padded]), "fill bytes of parameters")
            self.params[codec] = b[at + 16:at + 16 + length]
            last, at = codec, at + 16 + padded
        for _, codec, _, _ in self.chunks:
            need(codec not in (ZSTD_DICT, DEFLATE_CANNED) or codec in self.params, "missing parameters")

    def read_sections(self):
        raw = []
        for i, (checksum, codec, stored, length) in enumerate(self.chunks):
            out = decode_chunk(codec, stored, length, self.params)
            need(crc64(struct.pack("<Q", i) + out) == checksum, "checksum of chunk %d" % i)
            raw.append(out)
        hot = b"".join(raw[:self.nr_hot_chunks])
        cold = b"".join(raw[self.nr_hot_chunks:])
        self.pages = {}
        for pages, content in ((self.hot_order, hot), (self.cold, cold)):
            for i, pgno in enumerate(pages):
                self.pages[pgno] = content[i * self.page:(i + 1) * self.page]
        for pgno, word in zip(self.same, self.same_words):
            self.pages[pgno] = struct.pack("<Q", word) * (self.page // 8)
        self.inherits = set(self.inherit)

    def open_parent(self, dirs):
        reasons = []
        for folder in [os.path.dirname(self.path) or "."] + dirs:
            for name in sorted(os.listdir(folder)):
                path = os.path.join(folder, name)
                if not os.path.isfile(path):
                    continue
                with open(path, "rb") as f:
                    head = f.read(64)
                if head[:8] != b"CISTERN\x1a" or head[32:64] != self.parent_id:
                    continue
                try:
                    self.parent = Image(path, dirs, self.depth - 1)
                    break
                except Bad as e:
                    reasons.append(str(e))
            if self.parent:
                break
        need(self.parent, "no parent%s" % (": " + reasons[0] if reasons else ""))
        need(self.parent.page_shift == self.page_shift, "page size of the parent")
        need(self.parent.guest_bytes <= self.guest_bytes, "the parent is larger")
        need(not self.inherit or self.inherit[-1] < self.parent.nr_pages, "inherits beyond the end of the parent")

    def read(self, pgno):
        if pgno in self.inherits:
            return self.parent.read(pgno)
        return self.pages.get(pgno, bytes(self.page))

    def memory(self):
        return b"".join(self.read(i) for i in range(self.nr_pages))[:self.guest_bytes]

    def facts(self):
        return {
            "id": self.id.hex(), "parent": self.parent_id.hex() if self.parent else None, "depth": self.depth,
            "guest_bytes": self.guest_bytes, "page_shift": self.page_shift, "chunk_shift": self.chunk_shift,
            "codec": self.codec, "touched": self.touched, "hot_order": self.hot_order, "cold": len(self.cold), "same": len(self.same),
            "inherit": len(self.inherit), "regions": self.regions, "provenance": self.provenance,
            "state": self.part(2).decode("latin-1"),
        }


def read_trace(path):
    with open(path, "rb") as f:
        b = f.read()
    need(b[:8] == b"CISTRACE", "no magic")
    need(len(b) >= 72, "cut off")
    need(crc64(b[:-8]) == u64(b, len(b) - 8), "checksum")
    need(u32(b, 8) == 1, "version")
    page_shift, guest_bytes, count = u32(b, 12), u64(b, 16), u64(b, 56)
    need(page_shift in (12, 21), "page_shift")
    need(1 <= guest_bytes <= 2 ** 44, "guest_bytes")
    need(count <= 2 ** 32 and len(b) == 72 + 4 * count, "count")
    pages = struct.unpack_from("<%dI" % count, b, 64)
    need(len(set(pages)) == count, "a page is in it twice")
    need(all(p < ceil(guest_bytes, 1 << page_shift) for p in pages), "a page beyond the end")
    return {"page_shift": page_shift, "guest_bytes": guest_bytes, "image": b[24:56].hex(), "pages": pages}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", action="append", default=[])
    parser.add_argument("--out")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("file")
    args = parser.parse_args()
    try:
        if args.trace:
            facts = read_trace(args.file)
        else:
            image = Image(args.file, args.dir)
            facts = image.facts()
            if args.out:
                with open(args.out, "wb") as f:
                    f.write(image.memory())
    except Bad as e:
        print("%s: %s" % (args.file, e), file=sys.stderr)
        return 1
    json.dump(facts, sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
