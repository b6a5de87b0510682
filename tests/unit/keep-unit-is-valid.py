#!/usr/bin/env python3
"""The systemd unit is one that systemd understands, and agrees with the daemon.

Usage: keep-unit-is-valid.py UNIT CISTERND SOURCE
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

unit, cisternd, source = sys.argv[1:]
text = open(unit).read()
header = open(source + "/src/daemon/keep.h").read()
limit = re.search(r"KEEP_STORE_MAX (\d+)", header).group(1)
assert "FileDescriptorStoreMax=%s\n" % limit in text, "the unit's FileDescriptorStoreMax is not KEEP_STORE_MAX, %s" % limit
if not shutil.which("systemd-analyze"):
    print("there is no systemd-analyze")
    sys.exit(77)
with tempfile.TemporaryDirectory() as folder:
    path = folder + "/cisternd.service"
    with open(path, "w") as file: # the program is not installed where it says
        file.write(re.sub(r"ExecStart=\S+", "ExecStart=" + os.path.abspath(cisternd), re.sub(r"(ExecReload)=\S+", r"\1=" + os.path.abspath(cisternd), text)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
said = [line for line in done.stdout.splitlines() if "cisternd.service" in line]
assert not done.returncode and not said, "systemd-analyze verify: status %d\n%s" % (done.returncode, done.stdout)
