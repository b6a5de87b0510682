#!/usr/bin/env python3
"""Options, configuration keys and metrics of cisternd are those of its man page, in both directions.

    daemon-and-man-agree.py CISTERND PAGE.scd CONFIG.C
"""
import http.client
import re
import select
import socket
import subprocess
import sys
import tempfile


def section(page, heading):
    return page.split("\n# %s\n" % heading)[1].split("\n# ")[0]


def options(text, pattern):
    return {name: (takes or "").strip("_") for name, takes in re.findall(pattern, text, re.M)}


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.host)


def metrics(cisternd):
    """Names of a running daemon's metrics.  It says on stderr when it listens."""
    with tempfile.TemporaryDirectory(prefix="cistern-man-") as folder:
        control = folder + "/control.sock"
        daemon = subprocess.Popen([cisternd, "--control", control], stderr=subprocess.PIPE)
        try:
            said = b""
            while control.encode() not in said:
                if not select.select([daemon.stderr], [], [], 20)[0]:
                    raise RuntimeError("cisternd says nothing")
                line = daemon.stderr.readline()
                if not line:
                    raise RuntimeError("cisternd ended: %s" % said.decode())
                said += line
            connection = Unix(control)
            connection.request("GET", "/v1/metrics")
            return set(re.findall(r"^# TYPE (\w+)", connection.getresponse().read().decode(), re.M))
        finally:
            daemon.terminate()
            daemon.communicate()


def main():
    cisternd, page, config = sys.argv[1], open(sys.argv[2]).read(), open(sys.argv[3]).read()
    shown = subprocess.run([cisternd, "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()
    pairs = {
        "options": (options(shown, r"^(?:  -\w,|     ) --([a-z]+)((?: [A-Z=]+)?)(?=  |$)"),
                    options(section(page, "OPTIONS"), r"^\*--([a-z]+)\*((?: _[A-Z=]+_)?)$")),
        "keys": (set(re.findall(r'^\t\{ "(\w+)", [A-Z_]+, offsetof', config, re.M)),
                 set(re.findall(r"^\*(\w+)\* = ", section(page, "CONFIGURATION"), re.M))),
    }
    pairs["options"] = tuple({(name, takes.strip(" _")) for name, takes in side.items()} for side in pairs["options"])
    pairs["metrics"] = (metrics(cisternd), set(re.findall(r"^\*(cistern_\w+)\*$", section(page, "METRICS"), re.M)))
    wrong = 0
    for what, (code, man) in pairs.items():
        for thing in sorted(code ^ man):
            print("%s: only in %s: %s" % (what, "the code" if thing in code else "the page", thing))
            wrong = 1
        if not code:
            print("%s: none found in the code" % what)
            wrong = 1
    return wrong


sys.exit(main())
