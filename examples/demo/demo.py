#!/usr/bin/env python3
"""The demo: a real Debian guest under QEMU, snapshotted, packed, and restored three ways.

Usage: demo.py BUILD FOLDER     (examples/demo/run.sh calls it; FOLDER is for its files)
"""
import os
import signal
import statistics
import subprocess
import sys
import time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [REPOSITORY + "/tools/guest", REPOSITORY + "/tools/guest/services"]
import cistern
import qemu
import service

SERVICE, MEMORY_MIB = "np", 512
ROUNDS = 5
WARM_UP, RECORDED, ASKED = 1, 2, 10
MB = 1e6


def say(text):
    print(text, flush=True)


def ask(guest, n):
    answer, right = guest.ask(n), service.expected(SERVICE, n)
    if answer != right:
        guest.fail("answered %s to request %d, but %s is right" % (answer, n, right))


def forget(*paths):
    """Drop files from the page cache, so that every restore reads them from the disk."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


class Demo:
    def __init__(self, build, folder):
        self.build = build
        self.memory, self.state, self.full, self.image, self.hot, self.trace = (
            folder + "/" + name for name in ("memory.raw", "devices.state", "whole.state", "guest.cis", "hot.cis", "trace"))
        say("Kernel and userland from Debian 12 (kept in %s) ..." % os.environ.get("CISTERN_CACHE", "/var/cache/cistern"))
        kernel, disk = qemu.kernel(), qemu.userland()
        accel = qemu.accelerator(kernel)
        say("Accelerator: %s" % {"kvm": "KVM", "tcg": "TCG, as KVM cannot run an ordinary kernel fast here"}[accel])
        self.machine = qemu.Machine(SERVICE, MEMORY_MIB, kernel, disk, accel)

    def snapshot(self):
        if os.path.exists(self.memory):
            os.unlink(self.memory)
        with qemu.Guest(self.machine, self.machine.ram_file(self.memory)) as guest:
            guest.wait_ready()
            booted = time.monotonic() - guest.started
            ask(guest, WARM_UP)
            guest.save(self.full, with_memory=True)
            guest.save(self.state)
        subprocess.run(["fallocate", "--dig-holes", self.memory], check=True)
        say("Guest of %d MiB booted and warm after %.1f s; snapshot taken: %.0f MB of memory, %.0f KB of devices"
            % (MEMORY_MIB, booted, os.stat(self.memory).st_blocks * 512 / MB, os.path.getsize(self.state) / 1e3))

    def pack(self, daemon):
        started = time.monotonic()
        daemon.run("image", "create", self.memory, self.image, "--state", self.state)
        say("Image made in %.1f s: %.0f MB; from here on it is all there is" % (
            time.monotonic() - started, os.path.getsize(self.image) / MB))
        os.unlink(self.memory)
        os.unlink(self.state)
        daemon.run("image", "export", self.image, "--state", self.state)

    def record(self, daemon):
        socket = daemon.add_guest("recorded", self.image, "--fill", "none")
        daemon.run("record", "start", "recorded")
        with qemu.Guest(self.machine, self.machine.ram_memfd(), ["-incoming", "defer"],
                        daemon.preload_env(socket)) as guest:
            guest.load(self.state)
            guest.resume()
            ask(guest, RECORDED)
            daemon.run("record", "stop", "recorded", "--out", self.trace)
        daemon.run("image", "optimize", self.image, self.hot, "--trace", self.trace)
        say("One request recorded: %d pages touched; they are the image's hot section now"
            % ((os.path.getsize(self.trace) - 72) // 4))

    def restore(self, ram, state, with_memory=False, env=None):
        """Seconds to the resumed guest and to its first answer, from the start of QEMU on; and what to call when done."""
        with qemu.Guest(self.machine, ram, ["-incoming", "defer"], env) as guest:
            guest.load(state, with_memory)
            guest.resume()
            resumed = time.monotonic() - guest.started
            ask(guest, ASKED)
            return resumed, time.monotonic() - guest.started, self.after and self.after()

    def restore_whole(self):
        forget(self.full)
        self.after = None
        resumed, answered, _ = self.restore(self.machine.ram_plain(), self.full, with_memory=True)
        return os.path.getsize(self.full), 0, resumed, answered

    def restore_from(self, daemon, image, fill):
        forget(image, self.state)
        self.guests = getattr(self, "guests", 0) + 1
        name = "restored-%d" % self.guests
        socket = daemon.add_guest(name, image, "--fill", fill)
        self.after = lambda: daemon.show_guest(name)
        resumed, answered, guest = self.restore(self.machine.ram_memfd(), self.state, env=daemon.preload_env(socket))
        return guest["bytes"]["read"] + os.path.getsize(self.state), guest["faults"]["count"], resumed, answered

    def compare(self, daemon):
        ways = [("QEMU, all of memory", self.restore_whole),
                ("Cistern, on demand", lambda: self.restore_from(daemon, self.image, "none")),
                ("Cistern, hot section", lambda: self.restore_from(daemon, self.hot, "hot"))]
        figures = {name: [] for name, _ in ways}
        for _ in range(ROUNDS):
            for name, way in ways:
                figures[name].append(qemu.retry(way, say=say))
        say("\n%-22s %14s %10s %12s %16s" % ("restore", "bytes read", "faults", "resumed", "first answer"))
        for name, rows in figures.items():
            read, faults, resumed, answered = (statistics.median(column) for column in zip(*rows))
            say("%-22s %11.1f MB %10s %9.0f ms %13.0f ms"
                % (name, read / MB, "%d" % faults if faults else "-", resumed * 1e3, answered * 1e3))
        say("\nMedians of %d, files read from the disk each time, times from the start of QEMU; every answer was checked." % ROUNDS)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    started = time.monotonic()
    try:
        demo = Demo(*sys.argv[1:])
        qemu.retry(demo.snapshot, say=say)
        with cistern.Daemon(sys.argv[1], sys.argv[2]) as daemon:
            demo.pack(daemon)
            demo.record(daemon)
            demo.compare(daemon)
    except (qemu.GuestError, cistern.CisternError) as reason:
        sys.exit("demo: %s" % reason)
    say("Took %.0f s." % (time.monotonic() - started))


if __name__ == "__main__":
    main()
