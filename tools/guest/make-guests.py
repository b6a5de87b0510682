#!/usr/bin/env python3
"""Makes snapshots of real Debian guests: OUT/NAME.raw (memory, with holes), OUT/NAME.state (QEMU's device state) and
OUT/NAME.json (what a restore must know).

Usage: make-guests.py OUT [NAME...]     names: idle, py, np, redis, node; all of them without one.  Run as root.
"""
import json
import os
import subprocess
import sys

import qemu
sys.path.insert(0, os.path.join(qemu.HERE, "services"))
import service

PACKAGES = ["python3", "python3-numpy", "redis-server", "nodejs"]
MEMORY_MIB = {"idle": 128, "py": 256, "np": 512, "redis": 256, "node": 256}


def check(name, n, answer):
    right = service.expected(name, n)
    if right is not None and answer != right:
        raise qemu.GuestError("guest %s answered %s to %d, but %s is right" % (name, answer, n, right))


def make(machine, out):
    name = machine.service
    raw, state = "%s/%s.raw" % (out, name), "%s/%s.state" % (out, name)
    if os.path.exists(raw):
        os.unlink(raw)
    with qemu.Guest(machine, machine.ram_file(raw)) as guest:
        guest.wait_ready()
        answers = {n: guest.ask(n) for n in (1, 2)}
        for n, answer in answers.items():
            check(name, n, answer)
        guest.save(state)
    subprocess.run(["fallocate", "--dig-holes", raw], check=True)
    with open("%s/%s.json" % (out, name), "w") as file:
        json.dump({"service": name, "memory_mib": machine.memory_mib, "kernel_folder": machine.kernel_folder,
                   "disk": machine.disk, "accel": machine.accel, "answers": answers}, file, indent=1)
    print("%s: %d MiB, %d MiB of it not zero" % (raw, machine.memory_mib, os.stat(raw).st_blocks >> 11), flush=True)


def main():
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(MEMORY_MIB):
        sys.exit(__doc__)
    out, names = sys.argv[1], sys.argv[2:] or list(MEMORY_MIB)
    os.makedirs(out, exist_ok=True)
    kernel, disk = qemu.kernel(), qemu.userland(PACKAGES)
    accel = qemu.accelerator(kernel)
    for name in names:
        machine = qemu.Machine(name, MEMORY_MIB[name], kernel, disk, accel)
        qemu.retry(lambda: make(machine, out))


if __name__ == "__main__":
    main()
