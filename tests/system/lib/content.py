"""content: pages that can't be mistaken for one another, and a model to compare a device with.

Every page that a Source makes is new: a serial number stands in it, so a write that was dropped, a
page that came back from an older time, and a page of another place all show. About half of a page
is random and the rest repeats, so that lz4 gets it to some 55 %.

A Model is a plain bytearray that takes the same writes as the device. It also counts the pages it
compared: a content test must see enough of them to catch one lost page in 100,000.
"""

from array import array

import nbd

from harness import PAGE, STOCK, Failed, expect

_WORDS = PAGE // 8
_CORPUS_PAGES = 2039  # a prime, so that no rhythm of a test falls on equal pages
_SERIAL_WORD = 3  # not at a page's edge, so that partial overwrites leave it alone more often


class Source:
    """Fresh pages from a random source. A page is told by its serial alone (a page of the corpus,
    with the serial stamped on it), so whoever reads one can tell whether it is whole. Sources made
    from one Corpus with serials of their own (`first`) may write to the same place."""

    def __init__(self, corpus, first=1):
        self.corpus = corpus
        self.serial = first

    def bytes(self, length):
        """length bytes; whole pages are distinct from everything this source made before."""
        pages = -(-length // PAGE)
        out = self.corpus.pages(self.serial, pages)
        self.serial += pages
        del out[length:]
        return out


class Corpus:
    """The pages of a run, by serial."""

    def __init__(self, rng):
        half = PAGE // 2
        self.text = b"".join(rng.randbytes(half) + rng.randbytes(64) * (half // 64)
                             for _ in range(_CORPUS_PAGES)) * 2

    def pages(self, serial, count):
        out = bytearray()
        while len(out) < count * PAGE:
            start = (serial + len(out) // PAGE) % _CORPUS_PAGES * PAGE
            out += self.text[start:start + min(count * PAGE - len(out), _CORPUS_PAGES * PAGE)]
        serials = array("Q", range(serial, serial + count))
        with memoryview(out).cast("Q") as words:
            words[_SERIAL_WORD::_WORDS] = memoryview(serials).cast("B").cast("Q")
        return out

    def serial_of(self, page, where):
        """The serial of a page that must be zero (0) or whole."""
        if not any(page):
            return 0
        serial = int.from_bytes(page[8 * _SERIAL_WORD:8 * _SERIAL_WORD + 8], "little")
        if serial >= 1 << 63 or self.pages(serial, 1) != page:
            raise Failed(f"page {where} is none that was ever written, or torn "
                         f"(serial {serial:#x}, begins {bytes(page[:16]).hex()})")
        return serial


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
        """farswap's promise, stricter than NBD's: whole pages read as zeroes, parts stay."""
        handle.trim(length, self.base + offset, flags)
        first = -(-(self.base + offset) // PAGE) * PAGE - self.base
        last = (self.base + offset + length) // PAGE * PAGE - self.base
        if STOCK:
            first, last = offset, offset + length
        if last > first:
            self.bytes[first:last] = bytes(last - first)

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
