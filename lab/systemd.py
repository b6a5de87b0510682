#!/usr/bin/env python3
"""The daemon as a service of a real systemd, on Debian 12's own kernel, in a guest.

Usage: systemd.py BUILD FOLDER     (lab/run.sh calls it; FOLDER is for its files)
"""
import os
import signal
import sys

import tests
from tests import qemu

SILENCE_SECONDS = 600


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    build, image = sys.argv[1], sys.argv[2] + "/project"
    kernel = qemu.kernel("amd64", tests.HERE + "/systemd", *tests.MODULES)
    disk, accel = qemu.userland(tests.packages() + ["systemd", "systemd-sysv"]), qemu.accelerator(kernel)
    machine = qemu.Machine("systemd", tests.MEMORY_MIB, kernel, disk, accel, "cistern.folder=%s" % os.getcwd())
    tests.project(build, image)
    try:
        with qemu.retry(lambda: tests.boot(machine, image)) as guest:
            while not (line := guest.line(SILENCE_SECONDS)).startswith("STATUS "):
                print(line, flush=True)
    except qemu.GuestError as reason:
        sys.exit("lab: %s" % reason)
    sys.exit(int(line.split()[1]))


if __name__ == "__main__":
    main()
