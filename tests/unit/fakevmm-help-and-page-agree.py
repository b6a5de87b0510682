#!/usr/bin/env python3
"""Each option of cistern-fakevmm --help is in its page with the same word for its value, and the other way round.

    fakevmm-help-and-page-agree.py CISTERN-FAKEVMM PAGE.scd
"""
import os
import re
import subprocess
import sys

program, page = sys.argv[1:]
wrapper = os.environ.get("MESON_EXE_WRAPPER", "").split()  # of a cross build
text = subprocess.run([*wrapper, program, "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()
in_help = dict(re.findall(r"^  --([a-z-]+)(?: ([A-Z]+))?", text, re.M))
in_page = dict(re.findall(r"^\*--([a-z-]+)\*(?: _([A-Z]+)_)?$", open(page).read(), re.M))
bad = ["--%s %s is only in --help" % o for o in in_help.items() - in_page.items()]
bad += ["--%s %s is only in the page" % o for o in in_page.items() - in_help.items()]
if not in_help:
    bad.append("no options found in --help")
if any(len(line) > 100 for line in text.splitlines()):
    bad.append("--help has lines that are too long")
print("\n".join(bad) or "%d options agree" % len(in_help))
sys.exit(1 if bad else 0)
