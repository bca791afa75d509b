"""content: pages that can't be mistaken for one another, and a model to compare a device with.

Every page that a Source makes is new: a serial number stands in it, so a write that was dropped, a
page that came back from an older time, and a page of another place all show. About half of a page
is random and the rest repeats, so that lz4 gets it to some 55 %.

A Model is a plain bytearray that takes the same writes as the device. It also counts the pages it
compared: a content test must see enough of them to catch one lost page in 100,000.
"""

from array import array

import nbd

from harness import PAGE, Failed, expect

_WORDS = PAGE // 8
_CORPUS_PAGES = 2048
_SERIAL_WORD = 3  # not at a page's edge, so that partial overwrites leave it alone more often


class Source:
    """Fresh pages from a random source. Cheap: slices of a corpus with a serial stamped on each."""

    def __init__(self, rng, first=1):
        self.rng = rng
        self.serial = first
        half = PAGE // 2
        self.corpus = b"".join(rng.randbytes(half) + rng.randbytes(64) * (half // 64)
                               for _ in range(_CORPUS_PAGES)) * 2

    def bytes(self, length, serial=None):
        """length bytes; whole pages are distinct from everything this source made before."""
        pages = -(-length // PAGE)
        if serial is None:
            serial = self.serial
            self.serial += pages
        out = bytearray()
        while len(out) < pages * PAGE:
            start = self.rng.randrange(_CORPUS_PAGES) * PAGE
            want = min(pages * PAGE - len(out), _CORPUS_PAGES * PAGE)
            out += self.corpus[start:start + want]
        words = memoryview(out).cast("Q")
        words[_SERIAL_WORD::_WORDS] = memoryview(array("Q", range(serial, serial + pages))).cast(
            "B").cast("Q")
        words.release()
        del out[length:]
        return out


class Model:
    """What a device of `size` bytes, zeros at first, must hold. `base` shifts it within the device
    for a test that owns a range only."""

    def __init__(self, size, base=0):
        self.bytes = bytearray(size)
        self.base = base
        self.compared = 0

    def write(self, handle, offset, data, flags=0):
        handle.pwrite(data, self.base + offset, flags)
        self.bytes[offset:offset + len(data)] = data

    def trim(self, handle, offset, length, flags=0):
        handle.trim(length, self.base + offset, flags)
        self.bytes[offset:offset + length] = bytes(length)

    def zero(self, handle, offset, length, flags=0):
        handle.zero(length, self.base + offset, flags)
        self.bytes[offset:offset + length] = bytes(length)

    def check(self, handle, offset, length):
        """Reads a range and compares it."""
        self.compare(handle.pread(length, self.base + offset), offset)

    def compare(self, got, offset):
        want = memoryview(self.bytes)[offset:offset + len(got)]
        self.compared += len(got) // PAGE
        if got != want:
            raise Failed(self.describe(got, want, offset))

    def check_all(self, handle, step=32 << 20):
        for offset in range(0, len(self.bytes), step):
            self.check(handle, offset, min(step, len(self.bytes) - offset))

    def describe(self, got, want, offset):
        """Where a difference begins, how many bytes of its page differ, and what stands there."""
        first = next(i for i in range(len(got)) if got[i] != want[i])
        page = (self.base + offset + first) // PAGE
        last = min(len(got), first + PAGE - (offset + first) % PAGE)
        wrong = sum(got[i] != want[i] for i in range(first, last))
        kind = "zeros" if not any(got[first:last]) else bytes(got[first:first + 16]).hex()
        return (f"page {page} of the device is wrong: {wrong} bytes from device offset "
                f"{self.base + offset + first} differ; read {kind}, "
                f"expected {bytes(want[first:first + 16]).hex()} "
                f"(a read of {len(got)} bytes at {self.base + offset})")


def enough(compared, pages):
    """A content test that compared fewer pages than this would miss one lost page in 100,000."""
    print(f"{compared} pages compared")
    expect(compared >= pages, f"only {compared} pages were compared, {pages} are needed")


def fails(errno_name, call, *args):
    """The NBD call must fail with this errno."""
    try:
        call(*args)
    except nbd.Error as error:
        expect(error.errno == errno_name, f"failed with {error.errno}, expected {errno_name}")
        return
    raise Failed(f"{call.__name__} succeeded, expected {errno_name}")
