#!/usr/bin/env python3
"""A KVM guest's two virtual CPUs read a whole region that the daemon serves, and every word of it is the right one: also when no more than 1 MiB of
its 32 may be there.

Usage: kvm-guest-reads-every-word.py BUILD READER     (READER: tests/e2e/kvm-reader.c)
"""
import os
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/guest"))
import rig

PAGE, PAGES = 4096, 8192


def page(source, number):
    """Pages of every class and of every kind of content that a codec treats on its own."""
    kind = source.randrange(5)
    if kind == 0:
        return bytes(PAGE)
    if kind == 1:
        return source.randbytes(8) * (PAGE // 8)
    if kind == 2:
        return source.randbytes(PAGE)
    if kind == 3:
        return b"".join((number << 20 | i).to_bytes(8, "little") for i in range(PAGE // 8))
    return (b"page %d of a guest, " % number * 400)[:PAGE]


def make_memory(path):
    source = random.Random(20)
    with open(path, "wb") as file:
        for number in range(PAGES):
            content = page(source, number)
            file.seek(PAGE, os.SEEK_CUR) if content == bytes(PAGE) else file.write(content)
        file.truncate(PAGES * PAGE)


def check(daemon, reader, memory, image, kind, fill, **keys):
    guest = "-".join([kind, fill, *keys])
    socket = daemon.put(guest, image, kind="client", fill=fill, **keys)
    done = subprocess.run([reader, kind, socket, memory], stdout=subprocess.PIPE, text=True, timeout=60)
    if done.returncode == 77:
        print(done.stdout.strip())
        sys.exit(77)
    if done.returncode:
        sys.exit("%s, fill %s: status %d: %s\n%s" % (kind, fill, done.returncode, done.stdout.strip(), daemon.said()))
    daemon.run("guest", "wait", guest, "--state", "gone", "--timeout", "20")
    print("%s: %s" % (guest, done.stdout.strip()))
    return daemon.guest(guest)


def main():
    build, reader = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="cistern-kvm.") as folder:
        memory, image = folder + "/memory", folder + "/image.cis"
        make_memory(memory)
        with rig.Daemon(build, folder) as daemon:
            daemon.run("image", "create", memory, image)
            for kind in ("anonymous", "shared"):
                for fill in ("none", "all"):
                    check(daemon, reader, memory, image, kind, fill)
            for reclaim in ("sync", "async"):
                shown = check(daemon, reader, memory, image, "shared", "none", budget={"parked": True, "reclaim": reclaim})
                assert shown["faults"]["stashed"] + shown["prefetch"]["pages"] > PAGES // 2, shown # one CPU or the other comes too late for each page


if __name__ == "__main__":
    main()
