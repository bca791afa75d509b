/*
 * device.c: the verbs over ranges of a device. What happens to one page is page.c's.
 */
#include <errno.h>
#include <string.h>

#include "core/engine.h"

/* ---- ranges ---- */

/* The part of a request that lies in one page. */
struct part {
    uint64_t number;
    unsigned offset, length;
};

static struct part part_at(uint64_t offset, uint64_t length)
{
    struct part part = {.number = offset / FSW_PAGE_SIZE,
                        .offset = (unsigned)(offset % FSW_PAGE_SIZE)};
    uint64_t room = FSW_PAGE_SIZE - part.offset;

    part.length = (unsigned)(length < room ? length : room);
    return part;
}

static int check_range(const struct fsw_device *device, uint64_t offset, uint64_t length)
{
    return length <= device->size && offset <= device->size - length ? 0 : -EINVAL;
}

/* Counts a request that ended, and its bytes. */
static int ended(struct fsw_device *device, int r, enum fsw_stat requests, enum fsw_stat bytes,
                 enum fsw_stat failed, uint64_t length)
{
    fsw_stat_add(&device->image, requests, 1);
    if (r < 0)
        fsw_stat_add(&device->image, failed, 1);
    else
        fsw_stat_add(&device->image, bytes, length);
    return r;
}

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

static int read_part(struct fsw_device *device, const struct part *part, char *bytes)
{
    char page[FSW_PAGE_SIZE];
    int r = fsw_page_read(device, part->number, page);

    if (r == 0)
        memcpy(bytes, page + part->offset, part->length);
    return r;
}

static int read_range(struct fsw_device *device, char *bytes, uint64_t offset, uint64_t length)
{
    struct fsw_fetch fetches[FSW_FETCH_BATCH];
    unsigned waiting = 0;
    int r = 0;

    while (length > 0 && r >= 0) {
        struct part part = part_at(offset, length);
        struct fsw_fetch *fetch = &fetches[waiting];
        if (part.length < FSW_PAGE_SIZE) {
            r = read_part(device, &part, bytes);
        } else {
            *fetch = (struct fsw_fetch){.number = part.number, .page = bytes};
            r = fsw_page_read_local(device, part.number, bytes, &fetch->entry, &fetch->value);
            if (r == 1 && ++waiting == FSW_FETCH_BATCH) {
                r = fetch_rest(device, fetches, waiting);
                waiting = 0;
            }
        }
        bytes += part.length;
        offset += part.length;
        length -= part.length;
    }
    return r < 0 ? r : fetch_rest(device, fetches, waiting);
}

static int write_range(struct fsw_device *device, char *bytes, uint64_t offset, uint64_t length)
{
    int r = 0;

    while (length > 0 && r == 0) {
        struct part part = part_at(offset, length);
        r = part.length == FSW_PAGE_SIZE
                ? fsw_page_write(device, part.number, bytes)
                : fsw_page_write_part(device, part.number, part.offset, part.length, bytes);
        bytes += part.length;
        offset += part.length;
        length -= part.length;
    }
    return r;
}

/* A request that the crew works on. */
struct shared_request {
    struct fsw_device *device;
    char *bytes;
    uint64_t offset, length;
    int (*range)(struct fsw_device *device, char *bytes, uint64_t offset, uint64_t length);
    _Atomic int result; /* the first error */
};

/* Parts end where the device's pages do: no page is in two. */
static void run_part(void *arg, unsigned part)
{
    struct shared_request *request = arg;
    uint64_t base = request->offset / FSW_PAGE_SIZE * FSW_PAGE_SIZE;
    uint64_t from = part == 0 ? request->offset : base + (uint64_t)part * FSW_PART_BYTES;
    uint64_t end = request->offset + request->length,
             to = base + (uint64_t)(part + 1) * FSW_PART_BYTES;
    int none = 0;
    int r = request->range(request->device, request->bytes + (from - request->offset), from,
                           (to < end ? to : end) - from);

    if (r < 0)
        atomic_compare_exchange_strong(&request->result, &none, r);
}

static int spread(struct fsw_device *device, char *bytes, uint64_t offset, uint64_t length,
                  int (*range)(struct fsw_device *, char *, uint64_t, uint64_t))
{
    struct shared_request request = {
        .device = device, .bytes = bytes, .offset = offset, .length = length, .range = range};

    if (length < 2 * FSW_PART_BYTES)
        return range(device, bytes, offset, length);
    uint64_t span = offset % FSW_PAGE_SIZE + length;
    fsw_crew_run(&device->crew, run_part, &request,
                 (unsigned)((span + FSW_PART_BYTES - 1) / FSW_PART_BYTES));
    return atomic_load(&request.result);
}

int fsw_device_read(struct fsw_device *device, void *bytes, uint64_t offset, uint64_t length)
{
    int r = check_range(device, offset, length);

    if (r == 0)
        r = spread(device, bytes, offset, length, read_range);
    return ended(device, r, FSW_STAT_READS, FSW_STAT_READ_BYTES, FSW_STAT_FAILED_READS, length);
}

int fsw_device_write(struct fsw_device *device, const void *bytes, uint64_t offset, uint64_t length)
{
    int r = check_range(device, offset, length);

    if (r == 0)
        r = spread(device, (char *)(uintptr_t)bytes, offset, length, write_range);
    return ended(device, r, FSW_STAT_WRITES, FSW_STAT_WRITE_BYTES, FSW_STAT_FAILED_WRITES, length);
}

/* Empties whole pages; where there is no leaf, 512 at a time. -EIO: some have a damaged leaf. */
static int empty_pages(struct fsw_device *device, uint64_t first, uint64_t end)
{
    int r = 0;

    while (first < end) {
        if (fsw_table_find(&device->image, first) != NULL) {
            fsw_page_empty(device, first++);
            continue;
        }
        if (fsw_table_is_damaged(&device->image, first))
            r = -EIO;
        first = (first / FSW_LEAF_ENTRIES + 1) * FSW_LEAF_ENTRIES;
    }
    return r;
}

static int zero_range(struct fsw_device *device, uint64_t offset, uint64_t length)
{
    uint64_t end = offset + length;
    uint64_t first = (offset + FSW_PAGE_SIZE - 1) / FSW_PAGE_SIZE, last = end / FSW_PAGE_SIZE;
    struct part head = part_at(offset, length);
    int r = 0;

    if (head.length < FSW_PAGE_SIZE && length > 0)
        r = fsw_page_write_part(device, head.number, head.offset, head.length, NULL);
    if (first < last) {
        int emptied = empty_pages(device, first, last);
        r = r == 0 ? emptied : r;
    }
    if (r == 0 && last >= first && end % FSW_PAGE_SIZE != 0 && last != head.number)
        r = fsw_page_write_part(device, last, 0, (unsigned)(end % FSW_PAGE_SIZE), NULL);
    return r;
}

int fsw_device_zero(struct fsw_device *device, uint64_t offset, uint64_t length)
{
    int r = check_range(device, offset, length);

    if (r == 0)
        r = zero_range(device, offset, length);
    return ended(device, r, FSW_STAT_ZEROES, FSW_STAT_DISCARD_BYTES, FSW_STAT_FAILED_WRITES,
                 length);
}

int fsw_device_discard(struct fsw_device *device, uint64_t offset, uint64_t length)
{
    int r = check_range(device, offset, length);

    if (r == 0)
        r = empty_pages(device, (offset + FSW_PAGE_SIZE - 1) / FSW_PAGE_SIZE,
                        (offset + length) / FSW_PAGE_SIZE);
    return ended(device, r, FSW_STAT_DISCARDS, FSW_STAT_DISCARD_BYTES, FSW_STAT_FAILED_WRITES,
                 length);
}

int fsw_device_flush(struct fsw_device *device)
{
    fsw_stat_add(&device->image, FSW_STAT_FLUSHES, 1);
    return 0;
}

/* ---- batches ---- */

struct batch {
    struct fsw_device *device;
    struct fsw_io *ios;
};

static void run_io(void *arg, unsigned part)
{
    struct batch *batch = arg;
    struct fsw_io *io = &batch->ios[part];

    switch (io->verb) {
    case FSW_READ:
        io->result = fsw_device_read(batch->device, io->bytes, io->offset, io->length);
        break;
    case FSW_WRITE:
        io->result = fsw_device_write(batch->device, io->bytes, io->offset, io->length);
        break;
    case FSW_ZERO:
        io->result = fsw_device_zero(batch->device, io->offset, io->length);
        break;
    case FSW_DISCARD:
        io->result = fsw_device_discard(batch->device, io->offset, io->length);
        break;
    case FSW_FLUSH:
        io->result = fsw_device_flush(batch->device);
        break;
    default:
        io->result = -EINVAL;
    }
}

void fsw_device_batch(struct fsw_device *device, struct fsw_io *ios, unsigned count)
{
    struct batch batch = {.device = device, .ios = ios};

    fsw_crew_run(&device->crew, run_io, &batch, count);
}
