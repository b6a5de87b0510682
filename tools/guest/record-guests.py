#!/usr/bin/env python3
"""Records the working set of guests that make-guests.py made: OUT/NAME.trace, from restore to the answer to one request.

Usage: record-guests.py BUILD OUT [NAME...]     all that OUT holds without a name.  Run as root.
"""
import glob
import json
import os
import sys
import tempfile

import cistern
import qemu


def record(daemon, folder, out, name):
    with open("%s/%s.json" % (out, name)) as file:
        facts = json.load(file)
    machine = qemu.Machine(facts["service"], facts["memory_mib"], facts["kernel_folder"], facts["disk"], facts["accel"])
    image, number = "%s/%s.cis" % (folder, name), min(facts["answers"], key=int)
    daemon.run("image", "create", "%s/%s.raw" % (out, name), image, "--codec", "raw")
    socket = daemon.add_guest(name, image, "--fill", "none")
    daemon.run("record", "start", name)
    with qemu.Guest(machine, machine.ram_memfd(), ["-incoming", "defer"], daemon.preload_env(socket)) as guest:
        guest.load("%s/%s.state" % (out, name))
        guest.resume()
        answer = guest.ask(int(number))
        print(daemon.run("record", "stop", name, "--out", "%s/%s.trace" % (out, name)), flush=True)
    os.unlink(image)
    if answer != facts["answers"][number]:
        sys.exit("%s: answered %s after its restore, but %s before" % (name, answer, facts["answers"][number]))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    build, out = sys.argv[1], os.path.abspath(sys.argv[2])
    names = sys.argv[3:] or sorted(os.path.basename(path)[:-5] for path in glob.glob(out + "/*.json"))
    with tempfile.TemporaryDirectory(prefix="cistern-record.") as folder:
        with cistern.Daemon(build, folder) as daemon:
            for name in names:
                qemu.retry(lambda: record(daemon, folder, out, name))


if __name__ == "__main__":
    main()
