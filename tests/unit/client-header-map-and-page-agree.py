#!/usr/bin/env python3
"""The public header compiles alone, as C and as C++; its functions are those that the library shows and libcistern(3) explains.

Usage: client-header-map-and-page-agree.py SOURCE
"""
import re
import shutil
import subprocess
import sys


def read(path):
    with open(path) as file:
        return file.read()


def compiles(source, header):
    for compiler, language in (("cc", "c"), ("c++", "c++")):
        if not shutil.which(compiler):
            print("no %s here: not tried" % compiler)
            continue
        done = subprocess.run([compiler, "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-x", language, header])
        if done.returncode:
            sys.exit("%s does not compile as %s" % (header, language))


def main():
    source = sys.argv[1]
    header = source + "/include/cistern/cistern.h"
    compiles(source, header)
    declared = set(re.findall(r"^CIS_API .*?\b(cis_\w+)\(", read(header), re.M))
    shown = set(re.findall(r"^\t(cis_\w+);", read(source + "/src/client/libcistern.map"), re.M))
    explained = set(re.findall(r"\*(cis_\w+)\*\(", read(source + "/man/libcistern.3.scd")))
    if not declared or declared != shown or declared != explained:
        sys.exit("header: %s\nmap: %s\npage: %s" % (sorted(declared), sorted(shown), sorted(explained)))
    constants = set(re.findall(r"^#define (CIS_[A-Z]+_\w+)|^\t(CIS_\w+) =", read(header), re.M))
    for name in {a or b for a, b in constants}:
        if "*%s*" % name not in read(source + "/man/libcistern.3.scd"):
            sys.exit("libcistern(3) does not explain %s" % name)


if __name__ == "__main__":
    main()
