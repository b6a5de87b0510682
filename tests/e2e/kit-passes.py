#!/usr/bin/env python3
"""The conformance kit against the daemon: every version is served byte for byte, every wrong way is refused, and nothing
is left of any of them.

Usage: kit-passes.py BUILD PART     (PART: good, bad, crowd, huge, damage, late, engine)
"""
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/guest"))
import cistern

PAGE, PAGES = 4096, 1024


def make_memory(path):
    source = random.Random(21)
    kinds = (lambda: bytes(PAGE), lambda: source.randbytes(8) * (PAGE // 8), lambda: source.randbytes(PAGE),
             lambda: (b"text %d " % source.randrange(9) * 600)[:PAGE])
    with open(path, "wb") as file:
        for _ in range(PAGES):
            file.write(source.choice(kinds)())


class Kit:
    def __init__(self, build, folder, daemon):
        self.program = build + "/cistern-fakevmm"
        self.folder, self.daemon, self.guests = folder, daemon, 0
        self.memory, self.image = folder + "/memory", folder + "/image.cis"

    def expect(self, *options):
        """A new guest: its name and its socket."""
        self.guests += 1
        name = "g%d" % self.guests
        self.daemon.run("guest", "add", name, self.image, *options)
        return name, self.daemon.show_guest(name)["socket"]

    def play(self, path, *options):
        done = subprocess.run([self.program, "--json", "--timeout", "60", *options, path], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        result = json.loads(done.stdout) if done.stdout.strip() else {}
        return done.returncode, result, done.stderr.strip()

    def gone(self, name):
        self.daemon.run("guest", "wait", name, "--state", "gone", "--timeout", "30")

    def fail(self, *what):
        sys.exit("%s\n%s" % (" ".join(map(str, what)), self.daemon.said()))

    def serve(self, *options, fill="none", wrong=0):
        name, path = self.expect("--fill", fill)
        status, result, said = self.play(path, "--expect", self.memory, *options)
        if status or result["wrong_pages"] != wrong:
            self.fail(options, "fill", fill, status, result, said)
        self.gone(name)
        return result


def processes(daemon):
    keeper = daemon.process.pid
    with open("/proc/%d/task/%d/children" % (keeper, keeper)) as file:
        return keeper, int(file.read().split()[0])


def descriptors(daemon):
    """Of keeper and engine, now."""
    return [len(os.listdir("/proc/%d/fd" % pid)) for pid in processes(daemon)]


def least(daemon, turns, enough=(0, 0)):
    """The fewest of some turns, as what is to be closed may not be yet: each request is a turn of the engine."""
    found = descriptors(daemon)
    for _ in range(turns):
        if all(now <= goal for now, goal in zip(found, enough)):
            break
        daemon.run("guest", "ls")
        found = [min(pair) for pair in zip(found, descriptors(daemon))]
    return found


def part_good(kit):
    for minor in range(1, 18):
        kit.serve("--handshake", "v1.%d" % minor, "--fragment", str(1 + 19 * (minor % 5)), "--regions",
                  str(1 + minor % 12), fill=("none", "hot", "all")[minor % 3])
    for memory in ("anonymous", "memfd", "private"):
        for fill in ("none", "all"):
            kit.serve("--client", "--memory", memory, "--order", "random", "--threads", "4", fill=fill)
    kit.serve("--client", "--memory", "memfd", "--minor", "--populate", "--regions", "1M,3M")
    kit.serve("--memory", "memfd", "--order", "reverse")
    for fill in ("none", "all"):
        result = kit.serve("--threads", "2", "--order", "random", "--do",
                           "&storm:200,read,verify,&write:100-400,verify,join,storm:100,verify", fill=fill)
        assert result["removes"] == 300, result
        kit.serve("--memory", "memfd", "--do", "&storm:200,read,join,verify,write,verify", fill=fill)
    kit.serve("--handshake", "v1.5", "--do", "read:0-99,remove:50-149,verify")


def part_bad(kit):
    listed = subprocess.run([kit.program, "--list-bad"], stdout=subprocess.PIPE, check=True, text=True).stdout
    ways = [line.split()[0] for line in listed.splitlines()]
    name, path = kit.expect()
    for way in ways:
        more = ["--size", "64K"] if way == "nothing" else ["--size", str(PAGE * PAGES)]
        status, result, said = kit.play(path, "--bad", way, "--regions", "2", *more)
        if status or "refused" not in result or kit.daemon.show_guest(name)["state"] != "expected":
            kit.fail(way, status, result, said)
    for point in ("memory", "connect", "half"):
        kit.play(path, "--exit-after", point)
    status, result, said = kit.play(path, "--client", "--size", "64K")
    if status != 1 or "not an image of this guest" not in said:
        kit.fail("another guest's image", status, result, said)
    status, result, said = kit.play(path, "--expect", kit.memory)
    if status or result["verified"] != PAGES:
        kit.fail("after all that was bad", status, result, said)
    kit.gone(name)
    for point in ("handshake", "1", "100", "actions"):
        name, path = kit.expect("--fill", "all")
        status, _, said = kit.play(path, "--expect", kit.memory, "--exit-after", point, "--threads", "3")
        if status:
            kit.fail("exit after", point, status, said)
        kit.gone(name)


def part_crowd(kit):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        print("fewer than 4096 descriptors are permitted")
        sys.exit(77)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    _, path = kit.expect()
    crowd = []
    for _ in range(1000):
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(path)
        crowd.append(silent)
    kit.serve(fill="all")
    status, result, said = kit.play(path, "--expect", kit.memory)
    if status:
        kit.fail("beside a thousand silent ones", status, result, said)
    for silent in crowd:
        silent.close()


def free_huge_pages():
    with open("/proc/meminfo") as file:
        return int([line.split()[1] for line in file if line.startswith("HugePages_Free")][0])


def set_huge_pages(number):
    try:
        with open("/proc/sys/vm/nr_hugepages", "w") as file:
            file.write("%d\n" % number)
    except OSError:
        pass


def part_huge(kit):
    """Pages of 2 MiB, where there are some or may be some for a while."""
    with open("/proc/sys/vm/nr_hugepages") as file:
        before = int(file.read())
    if free_huge_pages() < 16:
        set_huge_pages(before + 16)
    try:
        if free_huge_pages() < 16:
            print("no 16 huge pages of 2 MiB")
            sys.exit(77)
        serve_huge(kit)
    finally:
        set_huge_pages(before)


def serve_huge(kit):
    size = str(PAGE * PAGES)
    name, path = kit.expect()
    status, _, said = kit.play(path, "--client", "--memory", "hugetlb", "--size", size)
    if status != 1 or "cistern image optimize %s OUT --page 2M" % kit.image not in said:
        kit.fail("pages of 2 MiB, image of 4 KiB", status, said)
    kit.daemon.run("guest", "rm", name)
    small, kit.image = kit.image, kit.folder + "/huge.cis"
    kit.daemon.run("image", "create", "--page", "2M", kit.memory, kit.image)
    for memory in ("hugetlb", "hugetlb-memfd"):
        for fill in ("none", "all"):
            kit.serve("--memory", memory, "--regions", "2", "--do", "&storm:20,read,verify,join,verify", fill=fill)
    kit.image = small


def part_damage(kit):
    """A flipped bit in a stored chunk never reaches a guest; what happens instead is the guest's policy."""
    good, kit.image = kit.image, kit.folder + "/damaged.cis"
    shown = json.loads(kit.daemon.run("image", "show", good, "--json"))
    shutil.copyfile(good, kit.image)
    with open(kit.image, "r+b") as file:
        file.seek(4096 + (shown["sections"]["cold"]["stored_bytes"] // 2))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    for fill in ("none", "all"):
        name, path = kit.expect("--fill", fill, "--policy", "poison")
        status, result, said = kit.play(path, "--expect", kit.memory)
        if status not in (1, -9) or (result and (result["wrong_pages"] or not result["poisoned"])):
            kit.fail("poison, fill", fill, status, result, said)
        kit.gone(name)
        name, path = kit.expect("--fill", fill, "--policy", "kill")
        status, result, said = kit.play(path, "--expect", kit.memory)
        if status != -9:
            kit.fail("kill, fill", fill, status, result, said)
        kit.gone(name)
    kit.image = good
    name, path = kit.expect("--fill", "none")
    os.rename(good, good + ".away")
    status, result, said = kit.play(path, "--expect", kit.memory)
    if status:
        kit.fail("image removed under its guest", status, result, said)
    kit.gone(name)
    os.rename(good + ".away", good)


def part_late(kit):
    """A client that stops half way through its handshake keeps the guest's own monitor out only for so long."""
    name, path = kit.expect()
    events = socket.socket(socket.AF_UNIX)
    events.connect(kit.daemon.control)
    events.sendall(b"GET /v1/events?guest=%s HTTP/1.1\r\nHost: cistern\r\n\r\n" % name.encode())
    stream = events.makefile()
    while stream.readline().strip():  # the head: from here on the events are listened to
        pass
    half = subprocess.Popen([kit.program, "--hang-after", "half", path], stdout=subprocess.DEVNULL)
    while "guest.failed" not in (line := stream.readline()):
        assert line, "the event stream ended"
    if "not complete" not in line:
        kit.fail("half a handshake", line)
    stream.close()
    events.close()
    status, result, said = kit.play(path, "--expect", kit.memory)
    half.kill()
    half.wait()
    if status or result["verified"] != PAGES:
        kit.fail("after half a handshake", status, result, said)
    kit.gone(name)


def part_engine(kit):
    """The engine is killed: the keeper holds what is the guest's, and starts another."""
    _, path = kit.expect("--fill", "none")
    guest = subprocess.Popen([kit.program, "--expect", kit.memory, "--timeout", "60", "--do", "-", path],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    guest.stdin.write("read:0-99\n")
    assert guest.stdout.readline() == "done read:0-99\n"
    keeper, engine = processes(kit.daemon)
    os.kill(engine, signal.SIGKILL)
    while "the engine was ended by signal 9; 1 guest(s) wait; another is started" not in kit.daemon.said():
        os.sched_yield()
    held = [os.readlink("/proc/%d/fd/%s" % (keeper, fd)) for fd in os.listdir("/proc/%d/fd" % keeper)]
    if "anon_inode:[userfaultfd]" not in held or not any("cistern-state" in link or link.endswith(".m") for link in held):
        kit.fail("the keeper holds", held)
    guest.kill()
    guest.wait()
    print("the keeper held its memory")
    sys.exit(0)


def main():
    build, part = sys.argv[1:]
    if not os.access("/dev/userfaultfd", os.R_OK | os.W_OK) and os.geteuid():
        print("no userfaultfd for this user")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="cistern-kit.") as folder:
        make_memory(folder + "/memory")
        with cistern.Daemon(build, folder, handshake_ms=10000 if part != "late" else 100) as daemon:
            daemon.run("image", "create", folder + "/memory", folder + "/image.cis")
            kit = Kit(build, folder, daemon)
            kit.serve()
            before = least(daemon, 20)
            {"good": part_good, "bad": part_bad, "crowd": part_crowd, "huge": part_huge, "damage": part_damage,
             "late": part_late, "engine": part_engine}[part](kit)
            kit.serve()
            after = least(daemon, 200, before)
            if any(now > then for now, then in zip(after, before)):
                kit.fail("descriptors of keeper and engine:", before, "then", after)
            print("%d guests, and no more descriptors than before: %s" % (kit.guests, after))


if __name__ == "__main__":
    main()
