/*
 * range.c: what a verb does to each page of its range. Whole pages and parts of pages go to page.c;
 * pages that a read finds in the store are gathered and fetched together.
 */
#include <errno.h>
#include <string.h>

#include "core/engine.h"

static struct fsw_part part_at(uint64_t offset, uint64_t length)
{
    struct fsw_part part = {.number = offset / FSW_PAGE_SIZE,
                            .offset = (unsigned)(offset % FSW_PAGE_SIZE)};
    uint64_t room = FSW_PAGE_SIZE - part.offset;

    part.length = (unsigned)(length < room ? length : room);
    return part;
}

/* ---- reading ---- */

/* Fetches what a read found to be in the store, in one batch; what changed meanwhile is read again.
 */
static int fetch_rest(struct fsw_device *device, struct fsw_fetch *fetches, unsigned count)
{
    int r = 0;

    if (count > 0)
        fsw_fetch(device, fetches, count);
    for (unsigned i = 0; i < count; i++) {
        int one = fetches[i].result;
        if (one == -EAGAIN)
            one = fsw_page_read(device, fetches[i].number, fetches[i].page);
        if (one < 0 && r == 0)
            r = one;
    }
    return r;
}

/* For who may not wait, or no longer than a moment: what is local, was prefetched, or comes. -EAGAIN:
 * it is none of these. */
static int read_here(struct fsw_device *device, struct fsw_io *io, uint64_t number, void *page)
{
    struct fsw_fetch fetch = {.number = number, .page = page};
    int r = fsw_page_read_local(device, number, page, &fetch.entry, &fetch.value);

    if (r != 1)
        return r;
    if (fsw_fetch_here(device, &fetch))
        return 0;
    if (!(io->flags & FSW_IO_BRIEFLY))
        return -EAGAIN;
    io->flags |= FSW_IO_WAITED;
    fetch.patience = fsw_now_ns() + FSW_BRIEFLY_NS;
    fsw_fetch(device, &fetch, 1);
    return fetch.result;
}

static int read_part(struct fsw_device *device, struct fsw_io *io, const struct fsw_part *part,
                     char *bytes)
{
    char page[FSW_PAGE_SIZE];
    int r = io->flags & FSW_IO_NOWAIT ? read_here(device, io, part->number, page)
                                      : fsw_page_read(device, part->number, page);

    if (r == 0)
        memcpy(bytes, page + part->offset, part->length);
    return r;
}

static int read_range(struct fsw_device *device, struct fsw_io *io)
{
    struct fsw_fetch fetches[FSW_FETCH_BATCH];
    int r = 0, may_wait = !(io->flags & FSW_IO_NOWAIT);
    unsigned waiting = 0;

    for (uint64_t done = 0; done < io->length && r >= 0;) {
        struct fsw_part part = part_at(io->offset + done, io->length - done);
        struct fsw_fetch *fetch = &fetches[waiting];
        char *bytes = (char *)io->bytes + done;
        done += part.length;
        if (done < io->length) /* what it misses in the cache comes meanwhile */
            fsw_page_expect(device, FSW_READ, part.number + 1);
        if (part.length < FSW_PAGE_SIZE) {
            r = read_part(device, io, &part, bytes);
            continue;
        }
        if (!may_wait) {
            r = read_here(device, io, part.number, bytes);
            continue;
        }
        *fetch = (struct fsw_fetch){.number = part.number, .page = bytes};
        r = fsw_page_read_local(device, part.number, bytes, &fetch->entry, &fetch->value);
        if (r == 1 && ++waiting == FSW_FETCH_BATCH) {
            r = fetch_rest(device, fetches, waiting);
            waiting = 0;
        }
    }
    return r < 0 ? r : fetch_rest(device, fetches, waiting);
}

/* ---- writing ---- */

static int write_range(struct fsw_device *device, const struct fsw_io *io,
                       const struct fsw_how *how)
{
    int r = 0;

    for (uint64_t done = 0; done < io->length && r == 0;) {
        struct fsw_part part = part_at(io->offset + done, io->length - done);
        const char *bytes = (const char *)io->bytes + done;
        if (done + part.length < io->length)
            fsw_page_expect(device, FSW_WRITE, part.number + 1);
        r = part.length == FSW_PAGE_SIZE ? fsw_page_write(device, how, part.number, bytes)
                                         : fsw_page_write_part(device, how, &part, bytes);
        done += part.length;
    }
    return r;
}

/* Empties whole pages; where there is no leaf, 512 at a time. -EIO: some have a damaged leaf. */
static int empty_pages(struct fsw_device *device, const struct fsw_how *how, uint64_t first,
                       uint64_t end)
{
    int r = 0;

    while (first < end) {
        if (fsw_table_find(&device->image, first) != NULL) {
            int late = fsw_page_empty(device, how, first++);
            if (late < 0)
                return late;
            continue;
        }
        if (fsw_table_is_damaged(&device->image, first))
            r = -EIO;
        first = (first / FSW_LEAF_ENTRIES + 1) * FSW_LEAF_ENTRIES;
    }
    return r;
}

static int zero_range(struct fsw_device *device, const struct fsw_io *io, const struct fsw_how *how)
{
    uint64_t end = io->offset + io->length;
    uint64_t first = (io->offset + FSW_PAGE_SIZE - 1) / FSW_PAGE_SIZE, last = end / FSW_PAGE_SIZE;
    struct fsw_part head = part_at(io->offset, io->length);
    int r = 0;

    if (head.length < FSW_PAGE_SIZE && io->length > 0)
        r = fsw_page_write_part(device, how, &head, NULL);
    if (first < last) {
        int emptied = empty_pages(device, how, first, last);
        r = r == 0 ? emptied : r;
    }
    if (r == 0 && last >= first && end % FSW_PAGE_SIZE != 0 && last != head.number) {
        struct fsw_part tail = {.number = last, .length = (unsigned)(end % FSW_PAGE_SIZE)};
        r = fsw_page_write_part(device, how, &tail, NULL);
    }
    return r;
}

int fsw_range_do(struct fsw_device *device, struct fsw_io *io)
{
    struct fsw_how how = {.flags = io->flags, .deadline = io->deadline, .peer = io->peer};

    switch (io->verb) {
    case FSW_READ:
        return read_range(device, io);
    case FSW_WRITE:
        return write_range(device, io, &how);
    case FSW_ZERO:
        return zero_range(device, io, &how);
    case FSW_DISCARD:
        return empty_pages(device, &how, (io->offset + FSW_PAGE_SIZE - 1) / FSW_PAGE_SIZE,
                           (io->offset + io->length) / FSW_PAGE_SIZE);
    case FSW_FLUSH:
        return 0;
    default:
        return -EINVAL;
    }
}

/* ---- reads that wait ---- */

/* One page of a request among those that wait together. */
struct wanted {
    struct fsw_io *io;
    uint64_t number;
    char *page;
    int fetched; /* by this batch, and still the page */
};

static void fail(struct fsw_io *io, int r)
{
    if (r < 0 && io->result == 0)
        io->result = r;
}

/* Those that are in the store, in one batch. Returns how many were asked for. */
static unsigned fetch_wanted(struct fsw_device *device, struct wanted *wanted, unsigned count)
{
    struct fsw_fetch fetches[FSW_FETCH_BATCH];
    struct wanted *whose[FSW_FETCH_BATCH];
    unsigned n = 0;

    for (unsigned i = 0; i < count; i++) {
        struct fsw_fetch *fetch = &fetches[n];
        *fetch = (struct fsw_fetch){.number = wanted[i].number, .page = wanted[i].page, .fresh = 1};
        int r = fsw_page_read_local(device, wanted[i].number, wanted[i].page, &fetch->entry,
                                    &fetch->value);
        if (r == 1)
            whose[n++] = &wanted[i];
        fail(wanted[i].io, r == 1 ? 0 : r);
    }
    if (n > 0)
        fsw_fetch(device, fetches, n);
    for (unsigned i = 0; i < n; i++) {
        whose[i]->fetched = fetches[i].result != -EAGAIN;
        fail(whose[i]->io, whose[i]->fetched ? fetches[i].result : 0);
    }
    return n;
}

/* What was local before the wait may have been rewritten during it. */
static void read_again(struct fsw_device *device, struct wanted *wanted)
{
    fsw_entry *entry;
    uint64_t value;
    int r = fsw_page_read_local(device, wanted->number, wanted->page, &entry, &value);

    if (r == 1) { /* went to the store meanwhile: another wait */
        wanted->io->flags &= ~FSW_IO_FRESH;
        r = fsw_page_read(device, wanted->number, wanted->page);
    }
    fail(wanted->io, r);
}

void fsw_device_read_pages(struct fsw_device *device, struct fsw_io *ios, unsigned count)
{
    struct wanted wanted[FSW_FETCH_BATCH];
    unsigned pages = 0;

    for (unsigned i = 0; i < count; i++) {
        ios[i].result = 0;
        ios[i].flags |= FSW_IO_FRESH;
        for (uint64_t at = 0; at < ios[i].length; at += FSW_PAGE_SIZE)
            wanted[pages++] = (struct wanted){.io = &ios[i],
                                              .number = (ios[i].offset + at) / FSW_PAGE_SIZE,
                                              .page = (char *)ios[i].bytes + at};
    }
    if (fetch_wanted(device, wanted, pages) == 0)
        return;
    for (unsigned i = 0; i < pages; i++)
        if (!wanted[i].fetched)
            read_again(device, &wanted[i]);
}
