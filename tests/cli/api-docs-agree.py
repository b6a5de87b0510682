#!/usr/bin/env python3
"""doc/api.md, for people, and doc/api-v1.json, for machines, say the same: api-docs-agree.py MD JSON"""
import json
import re
import sys


def table(text, heading):
    """First column of the table that follows a heading row; 'a, b' gives both."""
    rows = text.split(heading)[1].split("\n\n")[0].splitlines()[2:]
    return [word for row in rows for word in row.split("|")[1].strip().split(", ")]


def quoted(text):
    return set(re.findall(r'`"([a-z0-9]+)"`', text))


def operations(spec):
    return {(method.upper(), path) for path, item in spec["paths"].items() for method in item if method != "parameters"}


def statuses_of(text):
    return {row.split("|")[1].strip(): row.split("|")[2].strip()
            for row in text.split("| code | status | meaning |")[1].split("\n\n")[0].splitlines()[2:]}


def check(text, spec):
    schemas = spec["components"]["schemas"]
    yield "operations", {(m, p) for m, p in re.findall(r"^### (\w+) (/v1[^?\[\n ]*)", text, re.M)}, operations(spec)
    yield "error codes", set(statuses_of(text)), set(schemas["Error"]["properties"]["error"]["properties"]["code"]["enum"])
    yield "keys of a guest to be", set(table(text, "| key | type | default | meaning |")), set(schemas["GuestSpec"]["properties"])
    budget = schemas["Budget"]["properties"]
    yield "keys of a budget", set(table(text, "| key of budget | type | default | meaning |")), set(budget)
    for key in ("codec", "reclaim"):
        row = [line for line in text.splitlines() if line.startswith("| %s | string" % key)][0]
        yield "values of " + key, quoted(row), set(budget[key]["enum"])
    yield "states", set(table(text, "| state | meaning |")), set(schemas["State"]["enum"])
    yield "events", set(table(text, "| event | when | more keys |")), set(schemas["Event"]["properties"]["event"]["enum"])
    spec_text = text.split("### PUT /v1/guests/{id}\n")[1].split("###")[0]
    for key in ("kind", "policy", "fill"):
        row = [line for line in spec_text.splitlines() if line.startswith("| %s |" % key)][0]
        yield "values of " + key, quoted(row), set(schemas["GuestSpec"]["properties"][key]["enum"])
    example = json.loads(re.search(r'\n    (\{"id": "web-1".*?\}\})\n\n', text, re.S).group(1).replace("…", ""))
    yield "keys of a guest", set(example) | {"error"}, set(schemas["Guest"]["properties"])
    yield "keys of the budget shown", set(example["budget"]), set(budget)
    for key in ("pages", "memory", "faults", "prefetch", "bytes", "fill_progress", "record"):
        yield "keys of " + key, set(example[key]), set(schemas["Guest"]["properties"][key]["properties"])
    statuses = statuses_of(text)
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            for status, answer in operation.get("responses", {}).items() if method != "parameters" else ():
                codes = [code for code in answer["description"].split(", ") if code in statuses]
                yield "%s %s %s" % (method, path, status), {statuses[code] for code in codes}, {status} if codes else set()


def main():
    text, spec = open(sys.argv[1]).read(), json.load(open(sys.argv[2]))
    wrong = [(what, sorted(map(str, a ^ b))) for what, a, b in check(text, spec) if a != b]
    for what, difference in wrong:
        print("%s: only in one of the two: %s" % (what, " ".join(difference)))
    return 1 if wrong else 0


sys.exit(main())
