#!/usr/bin/env python3
"""Real programs with half and a quarter of their memory: cistern run against the kernel's swap with the same limit in a memory cgroup (v1).

Usage: swap.py BUILD [PROGRAM]...   (as root; it makes swap space on zram and in a file, and takes it away again)

Each program's own seconds for its work, without its start.  All have jemalloc, and the same data.  What is over the limit is compressed in the daemon or on zram,
or goes to a file.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/e2e"))
import rig

LIMIT_S = 30 # a program that takes longer is not waited for
GROUP = "/sys/fs/cgroup/memory/cistern-bench-swap"
JEMALLOC = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
PYTHON = """
import random, time
source = random.Random(1)
table = {i: ("%d" % i, [i, i + 1]) for i in range(250000)}
start, total = time.monotonic(), 0
for i in range(60000):
    word, pair = table[source.randrange(250000)]
    pair[0] += 1
    total += len(word) + pair[1]
print("%.3f s, %d" % (time.monotonic() - start, total))
"""
SQL = """PRAGMA temp_store=MEMORY; CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<400000) INSERT INTO t SELECT i, (i*7919)%400000, printf('%064d', i*31) FROM n;
CREATE INDEX ta ON t(a);
.timer on
SELECT count(*), sum(length(b)) FROM (SELECT b FROM t ORDER BY a LIMIT 200000);
"""


def seconds_of(said):
    found = re.search(r"real ([0-9.]+)|^([0-9.]+) s", said, re.M)
    return float(found.group(1) or found.group(2))


def run_redis(start, folder):
    """50,000 GETs at random over 60,000 values of 1 KiB."""
    sock = tempfile.mktemp(prefix="redis.", dir=folder)
    with start(["redis-server", "--port", "0", "--unixsocket", sock, "--save", "", "--dir", folder, "--enable-debug-command", "yes"], subprocess.DEVNULL) as server:
        try:
            rig.until(lambda: os.path.exists(sock))
            subprocess.run(["redis-benchmark", "-s", sock, "-q", "-n", "150000", "-r", "60000", "-d", "1024", "-P", "16", "-t", "set"], check=True,
                           stdout=subprocess.DEVNULL, timeout=LIMIT_S)
            begin = time.monotonic()
            subprocess.run(["redis-benchmark", "-s", sock, "-q", "-n", "50000", "-r", "60000", "-c", "8", "GET", "key:__rand_int__"], check=True,
                           stdout=subprocess.DEVNULL, timeout=LIMIT_S)
            return time.monotonic() - begin
        finally:
            server.kill()


def run_plain(words, text=None):
    def run(start, folder):
        with start(words, subprocess.PIPE, subprocess.PIPE) as program:
            try:
                return seconds_of(program.communicate(text, timeout=2 * LIMIT_S)[0])
            finally:
                program.kill()
    return run


def programs(build):
    return {"redis": run_redis, "bfs": run_plain([build + "/bench/swap-bfs", "18", "16"]), "sqlite3": run_plain(["sqlite3", ":memory:"], SQL),
            "python": run_plain([sys.executable, "-c", PYTHON])}


def write(path, text):
    with open(path, "w") as file:
        file.write(str(text))


def read(name):
    with open(GROUP + "/" + name) as file:
        return file.read()


class Group:
    """A memory cgroup with a limit; figures of what was run in it."""

    def __init__(self, limit=None):
        self.limit = limit

    def __enter__(self):
        os.mkdir(GROUP)
        if self.limit:
            write(GROUP + "/memory.limit_in_bytes", self.limit)
        return self

    def start(self, words, out, stdin=subprocess.DEVNULL):
        return subprocess.Popen(["sh", "-c", 'echo $$ >%s/cgroup.procs; LD_PRELOAD=%s exec "$@"' % (GROUP, JEMALLOC), "sh", *words], stdin=stdin, stdout=out,
                                stderr=subprocess.DEVNULL, text=True)

    def figures(self):
        faults = re.search(r"^pgmajfault (\d+)", read("memory.stat"), re.M)
        return int(read("memory.max_usage_in_bytes")), int(faults.group(1))

    def __exit__(self, *_):
        def is_empty():
            return not read("cgroup.procs").strip()
        rig.until(is_empty)
        os.rmdir(GROUP)


class Zram:
    def __enter__(self):
        with open("/sys/class/zram-control/hot_add") as file:
            self.number = file.read().strip()
        self.path = "/dev/zram" + self.number
        write("/sys/block/zram%s/disksize" % self.number, 1 << 30)
        if not os.path.exists(self.path):
            with open("/sys/block/zram%s/dev" % self.number) as file:
                os.mknod(self.path, 0o600 | 0o060000, os.makedev(*map(int, file.read().split(":"))))
        swap_on(self.path)

    def __exit__(self, *_):
        subprocess.run(["swapoff", self.path], check=True)
        write("/sys/block/zram%s/reset" % self.number, 1)
        write("/sys/class/zram-control/hot_remove", self.number)


class File:
    def __init__(self, folder):
        self.path = folder + "/swap"

    def __enter__(self):
        with open(self.path, "wb") as file:
            os.chmod(self.path, 0o600)
            for _ in range(512):
                file.write(bytes(1 << 20))
            os.fsync(file.fileno())
        swap_on(self.path)

    def __exit__(self, *_):
        subprocess.run(["swapoff", self.path], check=True)
        os.unlink(self.path)


def swap_on(path):
    subprocess.run(["mkswap", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(["swapon", path], check=True)


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def say(cell):
    """Beside the table: what takes long is seen while it does."""
    sys.stderr.write(cell + "\n")
    return cell


def safely(work):
    try:
        return "%.2f s" % work()
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError, AttributeError) as error:
        return "over %d s" % LIMIT_S if isinstance(error, subprocess.TimeoutExpired) else "ended"


def by_kernel(run, limit, folder):
    with Group(limit) as group:
        said = safely(lambda: run(group.start, folder))
        return "%s (%d)" % (said, group.figures()[1])


def by_cistern(run, limit, folder, build, store):
    with tempfile.TemporaryDirectory(prefix="daemon.", dir=folder) as place, rig.Daemon(build, place) as daemon:
        options = []
        if store:
            os.mkdir(place + "/pages")
            options = ["--pages", "file:%s/pages" % place, "--keep", "1M"]

        def start(words, out, stdin=subprocess.DEVNULL):
            line = [build + "/cistern", "run", "--id", "p", "--budget", str(limit), "--memory", "1G", *options, "--", *words]
            return subprocess.Popen(line, stdin=stdin, stdout=out, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "CISTERN_CONTROL": daemon.control})

        said = safely(lambda: run(start, folder))
        faults = daemon.wait("p", "gone")["faults"]
        return "%s (%d)" % (said, faults["stashed"] + faults["far"])


def main():
    build, only = os.path.abspath(sys.argv[1]), sys.argv[2:]
    row("program", "memory", "share", "cistern run", "zram", "cistern run, file:", "swap file")
    row(*["---"] * 7)
    for name, run in programs(build).items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory(prefix="cistern-swap.", dir="/var/tmp") as folder:
            with Group() as group:
                alone = safely(lambda: run(group.start, folder))
                used = group.figures()[0]
            row(name, "%d MiB" % (used >> 20), "all", "", alone, "", "")
            for share in (2, 4):
                limit = used // share // 4096 * 4096
                cells = [say(by_cistern(run, limit, folder, build, False))]
                with Zram():
                    cells.append(say(by_kernel(run, limit, folder)))
                cells.append(say(by_cistern(run, limit, folder, build, True)))
                with File(folder):
                    cells.append(say(by_kernel(run, limit, folder)))
                row(name, "%d MiB" % (limit >> 20), "1/%d" % share, *cells)


if __name__ == "__main__":
    if os.geteuid() or not os.path.isdir(os.path.dirname(GROUP)) or not shutil.which("redis-server"):
        print("swap.py: wants root, a memory cgroup (v1), zram and redis-server")
        sys.exit(77)
    main()
