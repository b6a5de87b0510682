#!/usr/bin/env python3
"""A core that QEMU itself writes becomes an image with its regions, and comes back byte for byte.

    qemu-core-becomes-an-image.py CISTERN
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile

RAM = 64 << 20
QEMU = "qemu-system-x86_64"


def prefill(path):
    """RAM whose every eighth page has content that says where it is."""
    with open(path, "wb") as f:
        f.truncate(RAM)
        for page in range(0, RAM // 4096, 8):
            f.seek(page * 4096)
            f.write((b"%08d" % page) * 512)


class Monitor:
    def __init__(self, sock):
        self.stream = sock.makefile("rw")
        json.loads(self.stream.readline())
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.stream.flush()
        while True:
            answer = json.loads(self.stream.readline())
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]


def dump(folder):
    """Has QEMU write the cores full and kdump; the guest never runs."""
    ours, theirs = socket.socketpair()
    qemu = subprocess.Popen([QEMU, "-S", "-nodefaults", "-display", "none", "-machine", "pc,accel=tcg,memory-backend=ram",
                             "-m", "%dM" % (RAM >> 20), "-object",
                             "memory-backend-file,id=ram,size=%d,mem-path=%s/ram,share=on" % (RAM, folder),
                             "-chardev", "socket,id=qmp,fd=%d" % theirs.fileno(), "-mon", "chardev=qmp,mode=control"],
                            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    try:
        ours.settimeout(25)
        monitor = Monitor(ours)
        monitor.call("dump-guest-memory", paging=False, protocol="file:%s/full" % folder)
        monitor.call("dump-guest-memory", paging=False, protocol="file:%s/kdump" % folder, format="kdump-zlib")
        monitor.call("quit")
    finally:
        qemu.kill()
        qemu.wait()


def cistern(program, *args):
    return subprocess.run([program, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def compare(folder, image):
    """RAM below 640 KiB and from 1 MiB is the file's; between lie ROMs."""
    ram, back = open(folder + "/ram", "rb").read(), open(folder + "/back", "rb").read()
    seen = 0
    for region in image["regions"]:
        gpa, off, length = region["gpa"], region["offset"], region["bytes"]
        if gpa + length <= RAM and not 0xA0000 <= gpa < 0x100000:
            length = min(length, 0xA0000 - gpa) if gpa < 0xA0000 else length
            assert back[off:off + length] == ram[gpa:gpa + length], "region at %#x differs" % gpa
            seen += length
    assert seen >= RAM - (1 << 20), "only %d bytes of RAM in the core's regions" % seen
    return seen


def main():
    if not shutil.which(QEMU):
        print("%s is not installed" % QEMU)
        return 77
    with tempfile.TemporaryDirectory(prefix="cistern-core-", dir="/var/tmp") as folder:
        prefill(folder + "/ram")
        dump(folder)
        made = cistern(sys.argv[1], "image", "create", "--json", "--codec", "lz4", folder + "/full", folder + "/a.cis")
        assert not made.returncode, made.stderr
        back = cistern(sys.argv[1], "image", "export", folder + "/a.cis", folder + "/back")
        assert not back.returncode, back.stderr
        image = json.loads(made.stdout)
        print("%d bytes compared in %d regions" % (compare(folder, image), len(image["regions"])))
        kdump = cistern(sys.argv[1], "image", "create", "--codec", "lz4", folder + "/kdump", folder + "/b.cis")
        assert kdump.returncode == 1 and "kdump" in kdump.stderr, kdump.stderr
        assert not os.path.exists(folder + "/b.cis")
    return 0


sys.exit(main())
