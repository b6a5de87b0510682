#!/usr/bin/env python3
"""Runs the tests of a build folder on Debian 12's own kernel, in a guest.

Usage: tests.py BUILD [SUITE...] FOLDER     (lab/run.sh calls it; FOLDER is for its files)
"""
import glob
import os
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools/guest"))
import qemu

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = ["virtio_pci", "virtio_blk", "ext4", "overlay", "kvm_amd", "kvm_intel"]
MEMORY_MIB = 3072
SILENCE_SECONDS = 1200


def packages():
    """What running the tests takes, of that what building takes as well."""
    names = subprocess.run([HERE + "/../tools/install-deps.sh", "--print", "build", "check"], check=True, text=True,
                           stdout=subprocess.PIPE).stdout.split()
    large = ("build-essential", "pkg-config", "scdoc", "codespell", "shellcheck", "qemu-system-x86")
    # debootstrap does not see that python3-zstandard needs the last one, which only provides what is asked for.
    return [name for name in names if name not in large and "clang" not in name] + ["python3-cffi-backend"]


def project(build, image):
    """An ext4 image with the source tree and its build folder."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(image)) as tree:
        others = [".git"] + [name for name in glob.glob("build*") if name != build]
        pack = subprocess.Popen(["tar", "-c", *("--exclude=./" + name for name in others), "."], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", tree], stdin=pack.stdout, check=True)
        if pack.wait():
            sys.exit("tar failed")
        with open(image, "wb") as file:
            file.truncate(2 << 30)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image], check=True)


def boot(machine, image):
    guest = qemu.Guest(machine, machine.ram_plain(), ["-drive", "if=virtio,format=raw,file=" + image])
    try:
        guest.wait_ready()
    except BaseException:
        guest.close()
        raise
    return guest


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    build, suites, image = sys.argv[1], sys.argv[2:-1], sys.argv[-1] + "/project"
    kernel = qemu.kernel("amd64", HERE + "/services", *MODULES)
    disk, accel = qemu.userland(packages()), qemu.accelerator(kernel)
    append = "cistern.folder=%s cistern.suites=%s" % (os.getcwd(), ",".join(suites))
    machine = qemu.Machine("lab", MEMORY_MIB, kernel, disk, accel, append)
    project(build, image)
    try:
        with qemu.retry(lambda: boot(machine, image)) as guest:
            while not (line := guest.line(SILENCE_SECONDS)).startswith("STATUS "):
                print(line, flush=True)
    except qemu.GuestError as reason:
        sys.exit("lab: %s" % reason)
    sys.exit(int(line.split()[1]))


if __name__ == "__main__":
    main()
