#!/usr/bin/env python3
"""Starts a guest with Debian 12's own kernel, gives it the source tree with its build folder, and passes on what its tests say.

Usage: lab.py BUILD FOLDER     (lab/run.sh calls it; FOLDER is for its files)
"""
import os
import shutil
import signal
import subprocess
import sys

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TREE + "/tools/guest")
import qemu

# What the build needs at run time.
PACKAGES = ["python3", "libcmocka0", "libcurl4", "libisal2", "libjansson4",
            "liblz4-1", "libmicrohttpd12", "libssl3", "liburing2", "libzstd1"]
MEMORY_MIB = 2048
SILENCE_SECONDS = 600  # the longest that one test may take under TCG


def stage(build, folder):
    """The tree on a disk of its own, without what only a compiler needs."""
    if os.path.commonpath([TREE, build]) != TREE:
        sys.exit("lab: the build folder must lie in %s: its tests know where they were built" % TREE)
    left_out = shutil.ignore_patterns(".git", "*.o", "*.p", "*.a", "build", "build-*")
    shutil.copytree(TREE, folder + "/tree", ignore=left_out, symlinks=True)
    shutil.copytree(build, folder + "/tree/" + os.path.relpath(build, TREE), symlinks=True,
                    ignore=shutil.ignore_patterns("*.o", "*.p", "*.a"))
    image = folder + "/tree.ext4"
    with open(image, "wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", folder + "/tree", image], check=True)
    return image


def follow(guest):
    """Print lines until the guest's last one; its verdict."""
    while True:
        line = guest.line(SILENCE_SECONDS)
        if line.startswith("lab: end "):
            return int(line.split()[2])
        print(line, flush=True)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    kernel, disk = qemu.kernel("overlay", "kvm_amd"), qemu.userland(PACKAGES)
    with open(kernel + "/version") as file:
        print("kernel %s" % file.read().strip(), flush=True)
    tree = stage(os.path.abspath(sys.argv[1]), sys.argv[2])
    machine = qemu.Machine("lab", MEMORY_MIB, kernel, disk, devices=["-drive", "if=virtio,format=raw,file=" + tree],
                           append="cistern.tree=%s cistern.build=%s" % (TREE, os.path.abspath(sys.argv[1])))

    def once():
        with qemu.Guest(machine, machine.ram_plain()) as guest:
            guest.wait_ready()
            return follow(guest)

    try:
        sys.exit(qemu.retry(once, tries=2))
    except qemu.GuestError as reason:
        sys.exit("lab: %s" % reason)


if __name__ == "__main__":
    main()
