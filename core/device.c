/*
 * device.c: the verbs: checked, counted, and done on this thread or on several. What a verb does to
 * the pages of its range is range.c's.
 */
#include "core/engine.h"

#include <errno.h>

/* ---- one request ---- */

void fsw_device_count_invalid(struct fsw_device *device)
{
    fsw_stat_add(&device->image, FSW_STAT_INVALID_IO, 1);
}

/* What no device could do is refused before it is a read or a write that can fail. */
static int refused(struct fsw_device *device, struct fsw_io *io)
{
    int fits = io->length <= device->size && io->offset <= device->size - io->length;

    if (fits && io->verb <= FSW_FLUSH)
        return 0;
    fsw_device_count_invalid(device);
    io->result = -EINVAL;
    return 1;
}

void fsw_device_count(struct fsw_device *device, const struct fsw_io *io)
{
    static const struct {
        enum fsw_stat requests, bytes, failed;
        enum fsw_latency latency;
    } stats[] = {
        [FSW_READ] = {FSW_STAT_READS, FSW_STAT_READ_BYTES, FSW_STAT_FAILED_READS, FSW_LATENCY_READ},
        [FSW_WRITE] = {FSW_STAT_WRITES, FSW_STAT_WRITE_BYTES, FSW_STAT_FAILED_WRITES,
                       FSW_LATENCY_WRITE},
        [FSW_ZERO] = {FSW_STAT_ZEROES, FSW_STAT_DISCARD_BYTES, FSW_STAT_FAILED_WRITES,
                      FSW_LATENCY_DISCARD},
        [FSW_DISCARD] = {FSW_STAT_DISCARDS, FSW_STAT_DISCARD_BYTES, FSW_STAT_FAILED_WRITES,
                         FSW_LATENCY_DISCARD},
    };

    if (!FSW_COUNTED)
        return;
    if (io->verb == FSW_FLUSH)
        fsw_stat_add(&device->image, FSW_STAT_FLUSHES, 1);
    if (io->verb >= FSW_FLUSH)
        return;
    fsw_stat_add(&device->image, stats[io->verb].requests, 1);
    if (io->result < 0)
        fsw_stat_add(&device->image, stats[io->verb].failed, 1);
    else
        fsw_stat_add(&device->image, stats[io->verb].bytes, io->length);
    fsw_latency_add(&device->image, stats[io->verb].latency, io->started);
}

static void arrived(struct fsw_io *io)
{
    if (FSW_COUNTED && io->started == 0)
        io->started = fsw_now_ns();
}

static void ended(struct fsw_device *device, struct fsw_io *io, int r)
{
    io->result = r;
    if (r != -EAGAIN)
        fsw_device_count(device, io);
}

/* ---- large requests, cut into parts ---- */

/* Emptying a page costs a hundredth of compressing one: a part of that is a leaf. */
static uint64_t part_bytes(const struct fsw_io *io)
{
    return io->verb == FSW_ZERO || io->verb == FSW_DISCARD ? FSW_LEAF_ENTRIES * FSW_PAGE_SIZE
                                                           : FSW_PART_BYTES;
}

int fsw_device_is_large(const struct fsw_io *io)
{
    return io->length >= 2 * part_bytes(io);
}

static unsigned parts_of(const struct fsw_io *io)
{
    uint64_t span = io->offset % FSW_PAGE_SIZE + io->length, bytes = part_bytes(io);

    return (unsigned)((span + bytes - 1) / bytes);
}

struct cut_request {
    struct fsw_device *device;
    const struct fsw_io *io;
    _Atomic int result; /* the first error */
};

/* Parts end where the device's pages do: no page is in two. */
static void run_part(void *arg, unsigned part)
{
    struct cut_request *request = arg;
    const struct fsw_io *whole = request->io;
    uint64_t bytes = part_bytes(whole), base = whole->offset / FSW_PAGE_SIZE * FSW_PAGE_SIZE;
    uint64_t from = part == 0 ? whole->offset : base + part * bytes;
    uint64_t to = base + (part + 1) * bytes, end = whole->offset + whole->length;
    int none = 0;

    if (atomic_load_explicit(&request->result, memory_order_relaxed) != 0)
        return;
    struct fsw_io io = {
        .verb = whole->verb,
        .flags = whole->flags,
        .bytes = whole->bytes == NULL ? NULL : (char *)whole->bytes + (from - whole->offset),
        .offset = from,
        .length = (to < end ? to : end) - from,
        .deadline = whole->deadline,
        .peer = whole->peer,
    };
    int r = fsw_range_do(request->device, &io);
    if (r < 0)
        atomic_compare_exchange_strong(&request->result, &none, r);
}

void fsw_device_do(struct fsw_device *device, struct fsw_io *io)
{
    struct cut_request request = {.device = device, .io = io};
    int r;

    if (refused(device, io))
        return;
    arrived(io);
    if (io->flags & FSW_IO_ALONE || !fsw_device_is_large(io)) {
        r = fsw_range_do(device, io);
    } else {
        fsw_crew_run(&device->crew, run_part, &request, parts_of(io));
        r = atomic_load(&request.result);
    }
    ended(device, io, r);
}

void fsw_device_expect(struct fsw_device *device, const struct fsw_io *io)
{
    if (io->verb <= FSW_WRITE && io->offset < device->size)
        fsw_page_expect(device, io->verb, io->offset / FSW_PAGE_SIZE);
}

void fsw_device_expect_later(struct fsw_device *device, const struct fsw_io *io)
{
    if (io->offset < device->size)
        fsw_table_prefetch(&device->image, io->offset / FSW_PAGE_SIZE);
}

/* ---- the verbs as calls ---- */

static int do_verb(struct fsw_device *device, enum fsw_verb verb, void *bytes, uint64_t offset,
                   uint64_t length)
{
    struct fsw_io io = {.verb = verb, .bytes = bytes, .offset = offset, .length = length};

    fsw_device_do(device, &io);
    return io.result;
}

int fsw_device_read(struct fsw_device *device, void *bytes, uint64_t offset, uint64_t length)
{
    return do_verb(device, FSW_READ, bytes, offset, length);
}

int fsw_device_write(struct fsw_device *device, const void *bytes, uint64_t offset, uint64_t length)
{
    return do_verb(device, FSW_WRITE, (void *)(uintptr_t)bytes, offset, length);
}

int fsw_device_zero(struct fsw_device *device, uint64_t offset, uint64_t length)
{
    return do_verb(device, FSW_ZERO, NULL, offset, length);
}

int fsw_device_discard(struct fsw_device *device, uint64_t offset, uint64_t length)
{
    return do_verb(device, FSW_DISCARD, NULL, offset, length);
}

int fsw_device_flush(struct fsw_device *device)
{
    return do_verb(device, FSW_FLUSH, NULL, 0, 0);
}

/* ---- many requests ---- */

struct batch {
    struct fsw_device *device;
    struct fsw_io *ios;
};

static void run_io(void *arg, unsigned part)
{
    struct batch *batch = arg;

    fsw_device_do(batch->device, &batch->ios[part]);
}

void fsw_device_batch(struct fsw_device *device, struct fsw_io *ios, unsigned count)
{
    struct batch batch = {.device = device, .ios = ios};

    fsw_crew_run(&device->crew, run_io, &batch, count);
}

/* ---- requests that are begun, and end by themselves ---- */

/* What io->work holds. */
struct begun {
    struct fsw_crew_job job;
    struct cut_request request;
};
_Static_assert(sizeof(struct begun) <= sizeof((struct fsw_io *)NULL)->work, "work[] is too small");

static struct begun *begun_of(struct fsw_io *io)
{
    return (struct begun *)io->work;
}

static void run_begun(void *arg, unsigned part)
{
    run_part(&begun_of(arg)->request, part);
}

static void begun_ended(void *arg)
{
    struct fsw_io *io = arg;
    struct begun *begun = begun_of(io);

    ended(begun->request.device, io, atomic_load(&begun->request.result));
    io->done(io);
}

void fsw_device_begin(struct fsw_device *device, struct fsw_io *io)
{
    struct begun *begun = begun_of(io);

    *begun = (struct begun){.request = {.device = device, .io = io}};
    if (refused(device, io)) {
        io->done(io);
        return;
    }
    arrived(io);
    if (parts_of(io) > 0) {
        begun->job = (struct fsw_crew_job){
            .run = run_begun, .done = begun_ended, .arg = io, .parts = parts_of(io)};
        fsw_crew_begin(&device->crew, &begun->job);
        return;
    }
    begun_ended(io);
}

int fsw_device_help(struct fsw_device *device, struct fsw_io *io)
{
    return fsw_crew_help(&device->crew, &begun_of(io)->job);
}
