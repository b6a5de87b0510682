#!/usr/bin/env python3
"""check.py GOLDEN-PROGRAM DIR: the C reader and decode.py agree on every golden file of DIR, and refuse every bad one.

Also: the writer still makes the raw and mask files byte for byte, and files of the same content with the codecs that
belong to libraries, whose output may change with their version.
"""
import json
import os
import subprocess
import sys
import tempfile

try:
    import lz4.block  # noqa: F401
    import zstandard  # noqa: F401
except ImportError as e:
    print("skipped: decode.py needs python3-lz4 and python3-zstandard: %s" % e)
    sys.exit(77)

sys.dont_write_bytecode = True  # the folder may be read-only
import decode  # noqa: E402

# Writers before this one may have made these otherwise.
OURS = ("raw", "mask", "small", "tiny", "zeros")


def run(*args):
    return subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def slurp(path):
    with open(path, "rb") as f:
        return f.read()


class Check:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.decoder = sys.executable, os.path.join(folder, "decode.py")
        self.failed = 0

    def fail(self, file, why):
        self.failed += 1
        print("FAIL %s: %s" % (file, why))

    def good_image(self, path, scratch):
        outs = os.path.join(scratch, "c"), os.path.join(scratch, "python")
        ours = run(self.program, "read", path, outs[0])
        theirs = run(*self.decoder, "--out", outs[1], path)
        if ours.returncode or theirs.returncode:
            return self.fail(path, (ours.stderr + theirs.stderr).strip())
        if json.loads(ours.stdout) != json.loads(theirs.stdout):
            self.fail(path, "they read different things:\n%s%s" % (ours.stdout, theirs.stdout))
        if slurp(outs[0]) != slurp(outs[1]):
            self.fail(path, "they read different memory")
        return slurp(outs[0])

    def good_trace(self, path):
        ours, theirs = run(self.program, "trace", path), run(*self.decoder, "--trace", path)
        if ours.returncode or theirs.returncode or json.loads(ours.stdout) != json.loads(theirs.stdout):
            self.fail(path, "%s%s" % (ours.stderr, theirs.stderr))

    def bad_file(self, name, reason):
        path = os.path.join(self.folder, name)
        trace = name.endswith(".trace")
        ours = run(self.program, "trace" if trace else "read", path)
        if ours.returncode != 1 or reason not in ours.stderr or path not in ours.stderr:
            self.fail(name, "C: status %d, wanted '%s', got: %s" % (ours.returncode, reason, ours.stderr.strip()))
        try:
            decode.read_trace(path) if trace else decode.Image(path, [])
            self.fail(name, "decode.py takes it")
        except decode.Bad:
            pass

    def written_again(self, names, memory, scratch):
        made = run(self.program, "make", scratch)
        if made.returncode:
            return self.fail("writer", made.stderr.strip())
        for name in names:
            new, old = os.path.join(scratch, name), os.path.join(self.folder, name)
            if name.endswith(".trace") or name[:-4] in OURS:
                if slurp(new) != slurp(old):
                    self.fail(name, "the writer makes another file of the same memory")
                continue
            if run(self.program, "read", new, os.path.join(scratch, "out")).returncode:
                self.fail(name, "the new file does not read")
            elif slurp(os.path.join(scratch, "out")) != memory[name]:
                self.fail(name, "the new file has other memory")


def main():
    check = Check(sys.argv[1], os.path.abspath(sys.argv[2]))
    names = sorted(n for n in os.listdir(check.folder) if n.endswith((".img", ".trace")))
    good = [n for n in names if not n.startswith("should-fail-")]
    memory = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in good:
            path = os.path.join(check.folder, name)
            if name.endswith(".img"):
                memory[name] = check.good_image(path, scratch)
            else:
                check.good_trace(path)
    with tempfile.TemporaryDirectory() as scratch:
        check.written_again(good, memory, scratch)
    with open(os.path.join(check.folder, "should-fail-reasons.txt")) as f:
        reasons = dict(line.rstrip("\n").split(": ", 1) for line in f)
    for name in sorted(set(reasons) ^ set(n for n in names if n.startswith("should-fail-"))):
        check.fail(name, "without a file or without a reason")
    for name, reason in reasons.items():
        check.bad_file(name, reason)
    print("%d good, %d bad files, %d failures" % (len(good), len(reasons), check.failed))
    return 1 if check.failed or not good or not reasons else 0


if __name__ == "__main__":
    sys.exit(main())
