"""The Python services of the guests, and the answers that the host checks them against.

In a guest: service.py NAME answers "ask N" lines on standard input.  On the host: expected(NAME, N).
"""
import hashlib
import json
import os
import sys

RECORDS = 60000
ROWS, COLUMNS = 16384, 512
KEYS = 120000


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def record(i):
    return {"id": i, "name": "customer %d" % i, "city": "city %d" % (i % 977), "balance": i * 7919 % 100003,
            "orders": [i * k % 1009 for k in range(1, 6)]}


def records_of(n):
    return [(n * 131 + k * 7907) % RECORDS for k in range(2000)]


class Py:
    """A catalogue of records behind the standard library's heavier modules."""

    def __init__(self):
        import asyncio, concurrent.futures, ctypes, decimal, email.mime.multipart, http.server, logging.config
        import multiprocessing, sqlite3, ssl, tarfile, unittest, urllib.request, xml.etree.ElementTree, zipfile
        self.table = [record(i) for i in range(RECORDS)]
        self.database = sqlite3.connect(":memory:")
        self.database.execute("create table city (name text primary key, total integer)")
        totals = {}
        for entry in self.table:
            totals[entry["city"]] = totals.get(entry["city"], 0) + entry["balance"]
        self.database.executemany("insert into city values (?, ?)", totals.items())

    def answer(self, n):
        chosen = [self.table[i] for i in records_of(n)]
        return digest(json.dumps(sorted(chosen, key=lambda r: (r["balance"], r["id"]))))

    @staticmethod
    def expected(n):
        chosen = [record(i) for i in records_of(n)]
        return digest(json.dumps(sorted(chosen, key=lambda r: (r["balance"], r["id"]))))


class Np:
    """A table of integers in numpy: a request sums products over every eighth row."""

    def __init__(self):
        import numpy, numpy.fft, numpy.linalg, numpy.random, decimal, json, ssl, xml.etree.ElementTree
        self.np = numpy
        i = numpy.arange(ROWS * COLUMNS, dtype=numpy.int64)
        self.table = (i * 40503 % 65521).reshape(ROWS, COLUMNS)

    def answer(self, n):
        weights = self.np.arange(COLUMNS, dtype=self.np.int64) + n
        return str(int((self.table[n % 8::8] @ weights).sum()))

    @staticmethod
    def expected(n):
        total = 0
        for row in range(n % 8, ROWS, 8):
            first = row * COLUMNS
            total += sum((first + c) * 40503 % 65521 * (c + n) for c in range(COLUMNS))
        return str(total)


class Redis:
    """A redis-server of its own, filled with keys over its protocol."""

    def __init__(self):
        import socket, subprocess, time
        path = "/tmp/redis.sock"
        subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", "/tmp"],
                         stdout=subprocess.DEVNULL)
        self.socket = socket.socket(socket.AF_UNIX)
        while self.socket.connect_ex(path):
            time.sleep(0.1)
        self.replies = self.socket.makefile("rb")
        for first in range(0, KEYS, 1000):
            self.send([("SET", self.key(i), self.value(i)) for i in range(first, first + 1000)])
            for _ in range(1000):
                self.replies.readline()

    def send(self, commands):
        out = []
        for command in commands:
            out.append("*%d\r\n" % len(command))
            out += ["$%d\r\n%s\r\n" % (len(word), word) for word in command]
        self.socket.sendall("".join(out).encode())

    def answer(self, n):
        keys = [self.key(i) for i in self.keys_of(n)]
        self.send([("GET", key) for key in keys])
        values = []
        for _ in keys:
            size = int(self.replies.readline()[1:])
            values.append(self.replies.read(size + 2)[:-2].decode())
        return digest(" ".join(values))

    @staticmethod
    def keys_of(n):
        return [(n * 131 + k * 7907) % KEYS for k in range(500)]

    @staticmethod
    def key(i):
        return "user:%d" % i

    @staticmethod
    def value(i):
        return "session %d of user %d, seen %d times" % (i * 2654435761 % 1000003, i, i % 313)

    @classmethod
    def expected(cls, n):
        return digest(" ".join(cls.value(i) for i in cls.keys_of(n)))


SERVICES = {"py": Py, "np": Np, "redis": Redis}


def expected(name, n):
    """The right answer, worked out anew; None for a service that is not written in Python."""
    return SERVICES[name].expected(n) if name in SERVICES else None


def main():
    service = SERVICES[sys.argv[1]]()
    service.answer(0)
    os.write(1, b"READY\n")
    for line in sys.stdin:
        words = line.split()
        if words[:1] == ["ask"]:
            n = int(words[1])
            os.write(1, ("answer %d %s\n" % (n, service.answer(n))).encode())


if __name__ == "__main__":
    main()
