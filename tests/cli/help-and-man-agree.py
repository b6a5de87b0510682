#!/usr/bin/env python3
"""Every command and option of --help is in the man page, with the same words for what it takes, and the other way round.

    help-and-man-agree.py CISTERN PAGE.scd
"""
import re
import subprocess
import sys

COMMON = "COMMON OPTIONS"


def help_of(cistern, *words):
    done = subprocess.run([cistern, *words, "--help"], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def options_of_help(text):
    """{name: what it takes} of the lines that start with two blanks and two dashes."""
    found = {}
    for name, rest in re.findall(r"^  --([a-z-]+)(.*)$", text, re.M):
        takes = re.match(r" (\S+)", rest)
        found[name] = takes.group(1) if takes else ""
    return found


def commands_of_help(cistern):
    text = help_of(cistern).split("Commands:\n")[1].split("\n\n")[0]
    found = {}
    for line in text.splitlines():
        words = re.match(r"  (.*?)  +\S", line + "  x").group(1)
        command = " ".join(re.findall(r"(?<!\S)[a-z]+(?!\S)", words))
        found[command] = words[len(command):].strip()
    return found


def sections_of_page(path):
    """{heading: {option: what it takes}} of the page's headings."""
    found, heading = {}, None
    for line in open(path):
        if re.match(r"##? ", line):
            heading = line.lstrip("#").strip()
            found[heading] = {}
        option = re.match(r"\*--([a-z-]+)\*(?: _(.*)_)?$", line.rstrip())
        if option and heading:
            found[heading][option.group(1)] = option.group(2) or ""
    return found


def main():
    cistern, page = sys.argv[1:]
    problems = []
    sections = sections_of_page(page)
    common = sections.get(COMMON, {})
    used = options_of_help(help_of(cistern))
    wanted = set()
    for command, args in commands_of_help(cistern).items():
        heading = " ".join(("cistern %s [OPTION]... %s" % (command, args)).split())
        wanted.add(heading)
        if heading not in sections:
            problems.append("the page lacks the heading '%s'" % heading)
            continue
        options = options_of_help(help_of(cistern, *command.split()))
        shown = dict(sections[heading])
        for name, takes in options.items():
            if name in common and name not in shown:
                used[name] = takes
                shown[name] = common[name]
            if shown.get(name) != takes:
                problems.append("%s --%s: help has '%s', the page '%s'" % (command, name, takes, shown.get(name)))
        problems += ["%s --%s: only in the page" % (command, name) for name in shown if name not in options]
    problems += ["the page has '%s', help has not" % h for h in sections if h.startswith("cistern ") and h not in wanted]
    problems += ["--%s: common in the page, but in no help" % name for name in common if name not in used]
    print("\n".join(problems) or "%d commands agree" % len(wanted))
    return 1 if problems or not wanted else 0


sys.exit(main())
