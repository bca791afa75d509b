"""zram: a zram device of our own, for a comparison.

    disk = Zram(size, "lz4").start()       /dev/zramN, empty
    disk.used                              mem_used_total: what the kernel says it costs

It is made by hot_add and removed when the program ends, however it ends. What a program that was
killed with -9 left, the next one removes: it is noted in NOTES with its disk sequence number, which
the kernel never gives twice, so a zram of somebody else's is never touched.
"""

import glob
import os

import harness

NOTES = "/run/farswap-bench"
_CONTROL = "/sys/class/zram-control"
# mm_stat's columns, in order
COLUMNS = ["orig_data_size", "compr_data_size", "mem_used_total", "mem_limit", "mem_used_max",
           "same_pages", "pages_compacted", "huge_pages", "huge_pages_since"]


def _read(path):
    with open(path) as file:
        return file.read().strip()


def _write(path, text):
    with open(path, "w") as file:
        file.write(str(text))


def missing():
    """Why there can be none here; None: there can."""
    if not os.path.exists(f"{_CONTROL}/hot_add"):
        return "this kernel has no zram (modprobe zram)"
    return None if os.geteuid() == 0 else "zram needs root"


def _remove(number):
    _write(f"/sys/block/zram{number}/reset", 1)
    _write(f"{_CONTROL}/hot_remove", number)


def swap_off(device):
    """Harmless where it is not on."""
    with open("/proc/swaps") as swaps:
        if f"{device} " in swaps.read():
            done = harness.run(["/usr/sbin/swapoff", device], seconds=300)
            harness.expect(done.returncode == 0, f"swapoff {device}: {done.stderr}")


def sweep():
    """Removes what runs before this one, that were killed, have left."""
    for note in glob.glob(f"{NOTES}/zram*"):
        owner, sequence = _read(note).split()
        number = os.path.basename(note)[4:]
        if os.path.exists(f"/proc/{owner}"):
            continue
        block = f"/sys/block/zram{number}"
        if os.path.exists(block) and _read(f"{block}/diskseq") == sequence:
            swap_off(f"/dev/zram{number}")
            _remove(number)
        os.unlink(note)


class Zram:
    def __init__(self, size, codec="lz4"):
        self.size, self.codec, self.number = size, codec, None

    def start(self):
        reason = missing()
        if reason:
            raise harness.Skip(reason)
        os.makedirs(NOTES, exist_ok=True)
        sweep()
        self.number = int(_read(f"{_CONTROL}/hot_add"))
        harness.at_exit(self.stop)
        _write(self._note, f"{os.getpid()} {_read(self.block + '/diskseq')}")
        _write(f"{self.block}/comp_algorithm", self.codec)
        _write(f"{self.block}/disksize", self.size)
        harness.wait_for(lambda: os.path.exists(self.uri), 10, self.uri)
        return self

    @property
    def _note(self):
        return f"{NOTES}/zram{self.number}"

    @property
    def block(self):
        return f"/sys/block/zram{self.number}"

    @property
    def uri(self):
        return f"/dev/zram{self.number}"

    def stat(self):
        return dict(zip(COLUMNS, map(int, _read(f"{self.block}/mm_stat").split())))

    @property
    def used(self):
        return self.stat()["mem_used_total"]

    def compact(self):
        _write(f"{self.block}/compact", 1)

    def stop(self):
        if self.number is None:
            return
        number, note = self.number, self._note
        self.number = None
        harness.wait_for(lambda: self._try_remove(number), 10, f"zram{number} to be free")
        os.unlink(note)

    @staticmethod
    def _try_remove(number):
        try:
            _remove(number)
        except OSError:  # somebody (udev, say) has it open
            return False
        return True
