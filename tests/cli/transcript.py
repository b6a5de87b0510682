#!/usr/bin/env python3
"""Replays a transcript of shell commands and compares stdout, stderr and exit status exactly.

    transcript.py FILE BUILD_FOLDER

    # a comment
    $ command            run by sh in a fresh folder, with the build folder and tests/cli in PATH
    line                 of stdout, exactly
    ~ pattern            of stdout: a regular expression for the whole line
    ! line               of stderr, exactly
    !~ pattern           of stderr
    ? 2                  exit status, when it is not 0

    % daemon             first line: a stand-in for the daemon listens at CISTERN_CONTROL
    % skip-unless CMD    first lines: skipped, with the rest of the line after " -- " as the reason, unless CMD succeeds
"""
import os
import re
import subprocess
import sys
import tempfile

import fakedaemon


def parse(path):
    directives, steps = [], []
    for number, line in enumerate(open(path), 1):
        line = line.rstrip("\n")
        if line.startswith("% "):
            directives.append(line[2:])
        elif line.startswith("$ "):
            steps.append({"line": number, "command": line[2:], "out": [], "err": [], "status": 0})
        elif line.startswith("#") and (not steps or not steps[-1]["out"] or steps[-1]["out"][-1][1] == ""):
            continue
        elif line.startswith("? "):
            steps[-1]["status"] = int(line[2:])
        elif line.startswith("!~ "):
            steps[-1]["err"].append((True, line[3:]))
        elif line.startswith("! "):
            steps[-1]["err"].append((False, line[2:]))
        elif line.startswith("~ "):
            steps[-1]["out"].append((True, line[2:]))
        elif steps:
            steps[-1]["out"].append((False, line))
    for step in steps:
        while step["out"] and step["out"][-1] == (False, ""):
            step["out"].pop()
    return directives, steps


def same(wanted, text):
    lines = text.rstrip("\n").split("\n") if text.strip("\n") else []
    if len(lines) != len(wanted):
        return False
    return all(re.fullmatch(w, l) if pattern else w == l for (pattern, w), l in zip(wanted, lines))


def run_step(step, folder, env):
    done = subprocess.run(["sh", "-c", step["command"]], cwd=folder, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode == step["status"] and same(step["out"], out) and same(step["err"], err):
        return True
    print("line %d: $ %s" % (step["line"], step["command"]))
    print("wanted status %d, stdout and stderr:" % step["status"])
    print("\n".join(w for _, w in step["out"] + step["err"]))
    print("got status %d, stdout:\n%sand stderr:\n%s" % (done.returncode, out, err))
    return False


def skip_reason(directives):
    for directive in directives:
        if directive.startswith("skip-unless "):
            command, reason = directive[len("skip-unless "):].split(" -- ")
            if subprocess.run(["sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
                return reason
    return None


def main():
    path, build = sys.argv[1], os.path.abspath(sys.argv[2])
    directives, steps = parse(path)
    reason = skip_reason(directives)
    if reason:
        print(reason)
        return 77
    with tempfile.TemporaryDirectory(prefix="cistern-cli-") as folder:
        here = os.path.dirname(os.path.abspath(__file__))
        env = dict(os.environ, PATH=build + ":" + here + ":" + os.environ["PATH"], LC_ALL="C", TMP=folder,
                   CISTERN_IMAGES=folder + "/images", CISTERN_CONTROL=folder + "/control.sock")
        os.mkdir(folder + "/images")
        if "daemon" in directives:
            fakedaemon.start(folder)
        return 0 if all([run_step(step, folder, env) for step in steps]) and steps else 1


sys.exit(main())
