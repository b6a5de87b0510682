#!/usr/bin/env python3
"""Draws what benchmarks have written with JSON=file: plot.py FILE... FOLDER

sparsity.svg   how many times as fast as REAP, by length of the runs
replay.svg     restore and replay of each working set, by the warm mapping's time
blackout.svg   longest touch while the engine is replaced, by number of guests
codec.svg      ratio and decoding rate of the codecs
What FILE does not have is not drawn; the last figure of a case counts.
"""
import json
import os
import re
import sys

import matplotlib
matplotlib.use("Agg")
matplotlib.rcParams.update({"svg.hashsalt": "cistern", "svg.fonttype": "none", "font.size": 9, "axes.grid": True,
                            "grid.alpha": 0.3, "legend.fontsize": 7, "axes.axisbelow": True})
import matplotlib.pyplot as plt  # noqa: E402


def figures(paths):
    """{bench: {case: figure}}"""
    out = {}
    for path in paths:
        with open(path) as file:
            for line in file:
                figure = json.loads(line)
                out.setdefault(figure["bench"], {})[figure["case"]] = figure
    return out


def save(fig, folder, name):
    fig.tight_layout()
    fig.savefig(os.path.join(folder, name), metadata={"Date": None})
    plt.close(fig)
    print(os.path.join(folder, name))


def by_run(cases):
    """{way: {run length: figure}}"""
    out = {}
    for case, figure in cases.items():
        m = re.match(r"runs of (\d+): (.*)", case)
        if m and " to " not in m[2] and "history" not in m[2] and "chunks of" not in m[2]:
            out.setdefault(m[2], {})[int(m[1])] = figure
    return out


COLOURS = {"warm, written": "tab:brown", "cold, read": "tab:pink", "cold, written": "tab:olive",
           "raw": "tab:gray", "mask": "tab:orange", "lz4": "tab:green", "zstd": "tab:red", "deflate": "tab:purple"}


def colour(name):
    return next((c for codec, c in COLOURS.items() if codec in name), None)


def draw(ax, ways, names, style):
    for name in names:
        points = sorted(ways.get(name, {}).items())
        if points:
            ax.plot([x for x, _ in points], [f["ratio"] for _, f in points], style, marker="o", markersize=3,
                    color=colour(name) or ("black" if "REAP" in name else None), label=name.replace("disk: ", ""))


def plot_sparsity(cases, folder):
    ways = by_run(cases)
    fig, axes = plt.subplots(1, 2, figsize=(11, 5), sharex=True)
    draw(axes[0], ways, [n for n in ways if n.startswith("ours, ")], "-")
    draw(axes[0], ways, [n for n in ways if n.startswith("one stream")], "--")
    draw(axes[0], ways, [n for n in ways if n.startswith("a stream a run")], ":")
    draw(axes[0], ways, ["REAP"], "-")
    draw(axes[0], ways, ["REAP, pipelined"], "-.")
    axes[0].axhline(1.25, color="red", linewidth=0.8)
    axes[0].set_title("read at 550 MB/s; red line: what was asked for")
    draw(axes[1], ways, [n for n in ways if n.startswith("disk: ours")], "-")
    draw(axes[1], ways, ["disk: REAP"], "-")
    draw(axes[1], ways, [n for n in ways if n.startswith("mapping") and n != "mapping, warm, read"], ":")
    axes[1].set_title("read as fast as the disk gives it")
    for ax in axes:
        ax.set_xscale("log")
        ax.set_ylim(0, 2.4)
        ax.set_xlabel("pages a run")
        ax.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    axes[0].set_ylabel("times as fast as REAP")
    save(fig, folder, "sparsity.svg")


BARE = {"anonymous, 1 worker": "bare loop, anonymous, 1 thread", "allocated, 1 worker": "bare loop, allocated, 1 thread",
        "allocated, 2 workers": "bare loop, allocated, 2 threads"}


def bars(ax, ways, guests, rows):
    width = 0.8 / len(ways)
    for i, way in enumerate(ways):
        left = [x + i * width for x in range(len(guests))]
        ax.bar(left, [rows[way].get(g, {}).get("ratio") or 0 for g in guests], width, label=way)
        bare = [(x, rows[BARE[way]][g]["ratio"]) for x, g in zip(left, guests) if g in rows.get(BARE.get(way), {})]
        ax.hlines([y for _, y in bare], [x - width / 2 for x, _ in bare], [x + width / 2 for x, _ in bare], color="black",
                  linewidth=1.5, label="the bare loop for it" if bare and i == len(ways) - 1 else None)


def plot_replay(cases, folder):
    rows = {}
    for case, figure in cases.items():
        m = re.match(r"(\S+) (half written|only read|all written|cold)(?::| )\s*(.*)", case)
        if m and "geomean" not in case:
            rows.setdefault(m[2], {}).setdefault(m[3], {})[m[1]] = figure
    kinds = [k for k in ("only read", "half written", "all written") if k in rows]
    fig, axes = plt.subplots(1, len(kinds), figsize=(11, 4.2), sharey=True, squeeze=False)
    for ax, kind in zip(axes[0], kinds):
        ways = [w for w in rows[kind] if w == "warm mapping" or w in BARE]
        guests = sorted({g for w in ways for g in rows[kind][w]})
        bars(ax, ways, guests, rows[kind])
        ax.set_xticks([x + 0.3 for x in range(len(guests))], guests)
        ax.set_title("working set " + kind)
        ax.axhline(1, color="black", linewidth=0.8)
    axes[0][0].set_ylabel("restore + replay, by the warm mapping's time")
    axes[0][-1].legend()
    save(fig, folder, "replay.svg")


def plot_codec(cases, folder):
    points = {}
    for case, figure in cases.items():
        m = re.match(r"(whole|working sets) (.*) (ratio|decode / memcpy), geomean", case)
        if m:
            points.setdefault((m[1], m[2]), {})[m[3]] = figure["value"]
    fig, ax = plt.subplots(figsize=(6, 4))
    for (what, codec), p in sorted(points.items()):
        if len(p) == 2:
            ax.plot(p["decode / memcpy"], p["ratio"], "o" if what == "whole" else "s",
                    color="tab:blue" if what == "whole" else "tab:orange")
            ax.annotate(codec, (p["decode / memcpy"], p["ratio"]), textcoords="offset points", xytext=(4, 3), fontsize=7)
    ax.set_xscale("log")
    ax.set_xlabel("decoding rate by memcpy's")
    ax.set_ylabel("ratio (blue: whole guests, orange: working sets)")
    save(fig, folder, "codec.svg")


def plot_blackout(cases, folder):
    fig, ax = plt.subplots(figsize=(6, 4))
    for what, style in (("upgrade", "o"), ("kill -9", "s")):
        for which, line in (("median", "solid"), ("worst", "dotted")):
            points = sorted((int(m[1]), figure["value"]) for case, figure in cases.items()
                            if (m := re.match(re.escape(what) + r", (\d+) guests: " + which, case)))
            ax.plot(*zip(*points), marker=style, linestyle=line, label=what + ", " + which)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("guests of 64 MiB")
    ax.set_ylabel("longest touch less the usual, ms")
    ax.legend()
    save(fig, folder, "blackout.svg")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    all_figures, folder = figures(sys.argv[1:-1]), sys.argv[-1]
    os.makedirs(folder, exist_ok=True)
    for bench, plot in (("sparsity", plot_sparsity), ("replay", plot_replay), ("codec", plot_codec), ("blackout", plot_blackout)):
        if bench in all_figures:
            plot(all_figures[bench], folder)


if __name__ == "__main__":
    main()
