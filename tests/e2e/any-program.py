#!/usr/bin/env python3
"""cistern run: ordinary programs whose memory comes from the daemon never see a wrong byte, and keep to their budget.

Usage: any-program.py BUILD [TEST]...
"""
import os
import shutil
import socket
import subprocess
import sys
import threading

import rig
from rig import PAGE, until

BUDGET = 8 << 20
SLACK = 256 * PAGE # on their way at one moment
LOOK_S = 0.01      # between two looks
KILLS = 6


class Program:
    """cistern run --id NAME ... -- WORDS"""

    def __init__(self, daemon, name, *words, options=(), budget=BUDGET, **keys):
        self.daemon, self.name = daemon, name
        line = [daemon.build + "/cistern", "run", "--budget", str(budget), "--memory", "512M", "--id", name, *options, "--", *words]
        env = {**os.environ, "CISTERN_CONTROL": daemon.control, **keys.pop("env", {})}
        self.process = daemon.process_of_test = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **keys)

    def end(self, status=0):
        out, err = self.process.communicate(timeout=4 * rig.SECONDS)
        assert self.process.returncode == status, (self.process.returncode, out, err)
        return out if not status else err

    def shown(self):
        return self.daemon.insist("GET", "/v1/guests/" + self.name)[1]

    def follow(self, look):
        """While it runs: its words at its end."""
        ended = []
        reader = threading.Thread(target=lambda: ended.append(self.process.communicate()))
        reader.start()
        while reader.is_alive():
            look()
            reader.join(LOOK_S)
        assert not self.process.returncode, (self.process.returncode, ended)
        return ended[0][0]


def churn(daemon, name, *words, **keys):
    return Program(daemon, name, daemon.build + "/tests/e2e/run-churn", *map(str, words), **keys)


def faults(shown):
    return sum(shown["faults"][kind] for kind in ("zero", "removed", "stashed")) if "faults" in shown else 0


def every_byte_is_right(daemon):
    def look():
        status, shown = daemon.ask("GET", "/v1/guests/churn")
        if status == 200 and "memory" in shown:
            assert shown["memory"]["resident_bytes"] <= BUDGET + SLACK, shown
            looks.append(shown["memory"]["resident_bytes"])

    looks = []
    assert churn(daemon, "churn", 1500, 1, 2).follow(look) == "churned\n"
    shown = daemon.wait("churn", "gone")
    assert looks and shown["faults"]["stashed"] > 1000 and shown["faults"]["removed"] > 1000, (len(looks), shown)


def a_fork_is_a_copy_while_others_allocate(daemon):
    assert churn(daemon, "churn", 300, 3, 3, 2).end() == "churned\n"
    assert daemon.wait("churn", "gone")["faults"]["stashed"], daemon.guest("churn")


def engines_die_meanwhile(daemon):
    """Each time when some pages went or came."""
    def look():
        nonlocal killed, before
        now = faults(program.shown())
        if killed < KILLS and now > before + 500:
            before = now
            killed += daemon.kill_engine() is not None

    killed, before = 0, 0
    program = churn(daemon, "churn", 2000, 5, 3, 1)
    assert program.follow(look) == "churned\n"
    assert killed == KILLS, killed


engines_die_meanwhile.said = ("engine was ended",)

PYTHON = """
import hashlib, os, random
source, numbers = random.Random(1), {}
for i in range(150000):
    numbers[source.randrange(1 << 40)] = "%d" % i
blob = bytearray(source.randbytes(1 << 20) * 24)
for at in range(0, len(blob), 4096):
    blob[at] ^= at >> 12 & 255
if os.fork() == 0:
    blob[0] ^= 1
    os._exit(len(numbers) % 7)
status = os.waitstatus_to_exitcode(os.wait()[1])
print(status == len(numbers) % 7, hashlib.sha256(blob).hexdigest(), sum(map(int, numbers.values())))
"""


def python_computes_the_same(daemon):
    script = daemon.folder + "/script"
    with open(script, "w") as file:
        file.write("#!%s\n%s" % (sys.executable, PYTHON))
    os.chmod(script, 0o755)
    alone = subprocess.run([sys.executable, "-c", PYTHON], stdout=subprocess.PIPE, text=True, check=True).stdout
    for number, words in enumerate(((sys.executable, "-c", PYTHON), (script,))):
        assert Program(daemon, "p%d" % number, *words).end() == alone
        assert daemon.wait("p%d" % number, "gone")["faults"]["stashed"], daemon.guest("p%d" % number)


class Redis:
    """What it answers, by its protocol."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        until(lambda: not self.socket.connect_ex(path))
        self.socket.settimeout(rig.SECONDS)
        self.file = self.socket.makefile("rb")

    def ask(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        line = self.file.readline().strip()
        assert line[:1] != b"-", line
        if line[:1] != b"$":
            return line[1:].decode()
        return self.file.read(int(line[1:]) + 2)[:-2] if line != b"$-1" else None


def redis_words(daemon, name):
    return ["redis-server", "--port", "0", "--unixsocket", "%s/%s.sock" % (daemon.folder, name), "--dir", daemon.folder, "--dbfilename", "dump.rdb",
            "--save", "", "--enable-debug-command", "yes", "--daemonize", "no"]


def redis_serves_and_saves(daemon):
    """What it saves in the background is what it has, by the digest of another that loads it."""
    if not shutil.which("redis-server"):
        return print("not here: redis-server", flush=True)
    program = Program(daemon, "redis", *redis_words(daemon, "a"))
    redis, source = Redis(daemon.folder + "/a.sock"), rig.random.Random(1)
    values = {}
    redis.ask("DEBUG", "POPULATE", 8000, "many", 2000)
    for number in range(4000):
        key = "key %d" % source.randrange(2000)
        values[key] = source.randbytes(source.randrange(1, 8000))
        redis.ask("SET", key, values[key])
        if number % 1000 == 999:
            daemon.kill_engine()
    redis.ask("BGSAVE")
    digest = redis.ask("DEBUG", "DIGEST")
    until(lambda: b"rdb_bgsave_in_progress:0" in redis.ask("INFO", "persistence"))
    assert b"rdb_last_bgsave_status:ok" in redis.ask("INFO", "persistence")
    for key, value in values.items():
        assert redis.ask("GET", key) == value, key
    shown = program.shown()
    assert shown["memory"]["resident_bytes"] <= BUDGET + SLACK and shown["memory"]["stashed_bytes"] > BUDGET, shown
    program.process.terminate()
    program.end()
    other = subprocess.Popen(redis_words(daemon, "b"), stdout=subprocess.DEVNULL)
    try:
        loaded = Redis(daemon.folder + "/b.sock")
        until(lambda: b"\nloading:0" in loaded.ask("INFO", "persistence"))
        assert loaded.ask("DEBUG", "DIGEST") == digest
    finally:
        other.terminate()
        other.wait()


redis_serves_and_saves.said = ("engine was ended",)


def its_descriptors_are_its_own(daemon):
    """It may close all that it finds open, sees none of ours, and what it starts is an ordinary program."""
    script = """
import os, subprocess
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
os.closerange(3, 4096)
memory = bytearray(os.urandom(1 << 20)) * 24
copy = bytes(memory)
names = [name for name in os.environ if "CISTERN_RUN" in name or name == "LD_PRELOAD"]
mapped = subprocess.run(["cat", "/proc/self/maps"], stdout=subprocess.PIPE, text=True).stdout
print(fds[:3], len(fds) <= 4, names, "cistern" in mapped, copy == memory)
"""
    said = Program(daemon, "p", sys.executable, "-c", script).end()
    assert said == "[0, 1, 2] True [] False True\n", said
    assert daemon.wait("p", "gone")["faults"]["stashed"]
    said = Program(daemon, "q", sys.executable, "-c", "import os; print(os.environ['LD_PRELOAD'])", env={"LD_PRELOAD": "libm.so.6"}).end()
    assert said == "libm.so.6\n", said


def its_end_is_its_own(daemon):
    Program(daemon, "p", "sh", "-c", "exit 7").end(7)
    daemon.wait("p", "gone")
    program = Program(daemon, "p", "sh", "-c", "echo; read word < %s" % daemon.fifo())
    assert program.process.stdout.readline() == "\n"
    program.process.kill()
    program.end(-9)
    daemon.wait("p", "gone")


def what_cannot_be_is_said(daemon):
    def refused(*words, **keys):
        return Program(daemon, "p", *words, **keys).end(1)

    assert "statically linked" in refused(daemon.build + "/tests/e2e/run-still")
    assert "no such program" in refused("no-such-program-anywhere")
    assert "not a program" in refused("/etc/passwd")
    assert "No such file" in refused("true", options=("--malloc", "/no/such/library"))
    said = refused("true", options=("--pages", "no-such-kind:a"))
    assert "not the name of a store" in said, said
    assert "no such socket" in refused("true", env={"CISTERN_CONTROL": daemon.folder + "/nowhere"})
    broken = daemon.folder + "/broken"
    with open(broken, "w") as file:
        file.write("#!/no/such/interpreter\n")
    os.chmod(broken, 0o755)
    assert "/no/such/interpreter" in refused(broken)
    assert daemon.ask("GET", "/v1/guests/p")[0] == 404
    for image in ("blank:", "blank:1", "blank:4097", "blank:2T"):
        status, answer = daemon.ask("PUT", "/v1/guests/p", {"image": image})
        assert status == 400 and image in answer["error"]["message"], answer


class Daemon(rig.Daemon):
    process_of_test = None

    def close(self, *words):
        """A program of a test that failed would wait for its memory for ever."""
        if self.process_of_test and self.process_of_test.poll() is None:
            self.process_of_test.kill()
        super().close(*words)

    def fifo(self):
        path = self.folder + "/fifo"
        os.mkfifo(path)
        return path


if __name__ == "__main__":
    rig.run([every_byte_is_right, a_fork_is_a_copy_while_others_allocate, engines_die_meanwhile, python_computes_the_same, redis_serves_and_saves,
             its_descriptors_are_its_own, its_end_is_its_own, what_cannot_be_is_said], sys.argv[1], make=Daemon, shards=2)
