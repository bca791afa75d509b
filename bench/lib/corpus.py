"""corpus: real text of this machine, for the programs that are captured to fill their memory with.

A JSON file {"lines": [...], "records": [{...}]}: lines of licences, of python's own library and of
package documentation; records from dpkg's status file. Programs of every language read it.
"""

import glob
import gzip
import json
import os

_LINES = ["/usr/share/common-licenses/*", "/usr/lib/python3*/*.py", "/usr/lib/python3*/*/*.py",
          "/usr/share/doc/*/README*", "/usr/share/doc/*/copyright", "/usr/share/doc/*/NEWS*"]
_LINES_BYTES = 12 << 20


def _text(path):
    opened = gzip.open if path.endswith(".gz") else open
    try:
        with opened(path, "rt", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def lines():
    found, size = [], 0
    for pattern in _LINES:
        for path in sorted(glob.glob(pattern))[:600]:
            for line in _text(path).splitlines():
                if line.strip():
                    found.append(line)
                    size += len(line)
            if size > _LINES_BYTES:
                return found
    return found


def records():
    found = []
    for paragraph in _text("/var/lib/dpkg/status").split("\n\n"):
        record, key = {}, None
        for line in paragraph.splitlines():
            if line[:1] == " " and key:
                record[key] += "\n" + line.strip()
            elif ":" in line:
                key, value = line.split(":", 1)
                record[key] = value.strip()
        if record:
            found.append(record)
    return found


def write(path):
    """Makes the file if there is none."""
    if os.path.exists(path):
        return path
    with open(path + ".new", "w") as file:
        json.dump({"lines": lines(), "records": records()}, file)
    os.rename(path + ".new", path)
    return path
