"""report: what a bench leaves: NAME.json and NAME.md in a folder, and its targets, reached or not."""

import json
import os
import platform
import subprocess
import time

import harness


def target(what, relation, wanted, now, unit=""):
    """One line of what must be reached; relation is "<=" or ">="."""
    reached = now <= wanted if relation == "<=" else now >= wanted
    return {"what": what, "relation": relation, "wanted": wanted, "now": now, "unit": unit,
            "reached": bool(reached)}


def table(head, rows):
    """Markdown, aligned so that it reads as plain text, too."""
    cells = [[str(cell) for cell in row] for row in [head] + rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
             for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def target_lines(targets):
    return table(["target", "wanted", "now", "reached"],
                 [[t["what"], f"{t['relation']} {t['wanted']}{t['unit']}",
                   f"{t['now']:.3f}{t['unit']}", "yes" if t["reached"] else "NO"]
                  for t in targets])


def machine():
    """Where and when: figures of two machines, or two days, are not to be compared."""
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if "model name" in line), "?")
    done = subprocess.run(["git", "-C", harness.SOURCE, "rev-parse", "--short", "HEAD"],
                          capture_output=True, text=True)
    return (f"{time.strftime('%F %R')}, {os.cpu_count()} CPUs ({model}), "
            f"Linux {platform.release()}, commit {done.stdout.strip() or 'unknown'}")


def folder(out, name):
    """The folder to write to; a new one under bench/out when none is named."""
    out = out or os.path.join(harness.SOURCE, "bench/out", time.strftime(f"{name}-%Y%m%d-%H%M%S"))
    os.makedirs(out, exist_ok=True)
    return out


def write(out, name, values, lines, targets):
    """Prints and writes everything. Not reaching a target is a result, not a failure."""
    out = folder(out, name)
    lines = lines + ["", "## targets", ""] + target_lines(targets)
    with open(os.path.join(out, f"{name}.json"), "w") as file:
        json.dump({"machine": machine(), "targets": targets, **values}, file, indent=1)
    with open(os.path.join(out, f"{name}.md"), "w") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"\nwritten to {out}/{name}.md and {name}.json", flush=True)
