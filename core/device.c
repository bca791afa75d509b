/*
 * device.c: a device from creation to close, and the verbs over ranges of it. What happens to one
 * page is page.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "core/engine.h"
#include "core/registry.h"

/* ---- life ---- */

/* An image that is still there must not be forgotten; a file whose memory is gone may be. */
static int refuse_existing(const struct fsw_record *record, struct fsw_error *err)
{
    struct fsw_image image;

    int r = fsw_registry_attach(record, 0, &image, NULL);
    if (r == -ENOENT)
        return 0;
    if (r == 0)
        fsw_image_detach(&image);
    return fsw_error(
        err, -EEXIST,
        "device %s has an image already, with pages that somebody may need: `farswap destroy %s` "
        "destroys it, or choose another name=",
        record->name, record->name);
}

static int register_image(struct fsw_device *device, const struct fsw_params *params,
                          struct fsw_error *err)
{
    struct fsw_record record = {.shmid = device->image.shmid,
                                .device = device->image.super->device,
                                .overflow_plaintext = params->overflow_plaintext};

    memcpy(record.name, params->name, sizeof record.name);
    memcpy(record.overflow, params->overflow, sizeof record.overflow);
    memcpy(record.overflow_password_file, params->overflow_password_file,
           sizeof record.overflow_password_file);
    return fsw_registry_write(device->image.lock_fd, &record, err);
}

static int init_engine(struct fsw_device *device, const struct fsw_params *params)
{
    struct fsw_image *image = &device->image;

    memcpy(device->name, params->name, sizeof device->name);
    device->size = params->size;
    device->pages = params->size / FSW_PAGE_SIZE;
    device->seed = fsw_object_seed(&image->super->device);
    int r = fsw_pool_init(&device->pool, image, params->memory, &device->clock);
    if (r == 0)
        r = fsw_contexts_init(&device->contexts, params->codec, params->codec_level);
    if (r == 0)
        r = fsw_overflow_init(device);
    if (r < 0)
        return r;
    fsw_table_init(&device->table, image, &device->pool.frames);
    fsw_rows_init(&device->rows, image, &device->pool.frames);
    fsw_reclaim_set_limit(device);
    return 0;
}

/* The image exists and belongs to us: from here on a failure destroys it again. */
static int finish_create(struct fsw_device *device, const struct fsw_params *params,
                         struct fsw_error *err)
{
    int r = register_image(device, params, err);

    if (r == 0) {
        r = init_engine(device, params);
        if (r < 0)
            fsw_error(err, r, "no memory for the engine: %s", strerror(-r));
    }
    return r;
}

static int take_name(const char *name, int *ret_fd, struct fsw_error *err)
{
    struct fsw_record record;

    int r = fsw_registry_check_host(err);
    if (r == 0)
        r = fsw_registry_lock(name, ret_fd, err);
    if (r < 0)
        return r;
    if (fsw_registry_read(name, *ret_fd, &record, NULL) == 0)
        r = refuse_existing(&record, err);
    if (r < 0)
        close(*ret_fd);
    return r;
}

int fsw_device_create(const struct fsw_params *params, struct fsw_store *store,
                      struct fsw_device **ret_device, struct fsw_error *err)
{
    int fd, unlocked = 0;
    int r = take_name(params->name, &fd, err);
    if (r < 0)
        return r;

    struct fsw_device *device = aligned_alloc(64, (sizeof *device + 63) / 64 * 64);
    if (device == NULL) {
        close(fd);
        return fsw_error(err, -ENOMEM, "no memory");
    }
    memset(device, 0, sizeof *device);
    device->store = store;
    r = fsw_image_create(&device->image, params, &unlocked, err);
    if (r < 0) {
        fsw_registry_remove(params->name);
        close(fd);
        free(device);
        return r;
    }
    device->image.lock_fd = fd;
    r = finish_create(device, params, err);
    if (r < 0) {
        device->store = NULL; /* stays the caller's */
        fsw_device_discard_image(device);
        return r;
    }
    device->unlocked = unlocked;
    *ret_device = device;
    return 0;
}

int fsw_device_start(struct fsw_device *device, struct fsw_error *err)
{
    int r = 0;

    atomic_store(&device->image.super->holder, (int32_t)getpid());
    if (device->store != NULL)
        r = device->store->ops->start(device->store, &device->image.super->device, err);
    if (r < 0)
        return r;
    r = fsw_frames_start(&device->pool.frames);
    if (r == 0)
        r = fsw_overflow_start(device);
    if (r == 0)
        r = fsw_keeper_start(device);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN); /* the thread with the request has one of them */
    if (r == 0)
        r = fsw_crew_start(&device->crew, cpus > 1 ? (unsigned)cpus - 1 : 0);
    return r < 0 ? fsw_error(err, r, "starting threads: %s", strerror(-r)) : 0;
}

static void stop(struct fsw_device *device)
{
    fsw_crew_stop(&device->crew);
    fsw_keeper_stop(device);
    fsw_overflow_stop(device);
    fsw_frames_stop(&device->pool.frames);
    fsw_overflow_deinit(device);
    fsw_contexts_deinit(&device->contexts);
    fsw_pool_deinit(&device->pool);
}

void fsw_device_close(struct fsw_device *device)
{
    int fd = device->image.lock_fd;

    stop(device);
    fsw_image_detach(&device->image);
    close(fd);
    free(device);
}

void fsw_device_discard_image(struct fsw_device *device)
{
    int fd = device->image.lock_fd;
    char name[sizeof device->name];

    memcpy(name, device->image.super->name, sizeof name);
    stop(device);
    fsw_image_wipe(&device->image, NULL);
    fsw_registry_remove(name);
    close(fd);
    free(device);
}

int fsw_device_memory_locked(const struct fsw_device *device)
{
    return !device->unlocked;
}

int fsw_device_is_shared(const struct fsw_device *device)
{
    struct shmid_ds segment;
    return shmctl(device->image.shmid, IPC_STAT, &segment) == 0 && segment.shm_nattch > 1;
}

int fsw_device_after_mlockall(struct fsw_device *device)
{
    return munlock(device->image.super, device->image.bytes) < 0 ? -errno : 0;
}

uint64_t fsw_device_size(const struct fsw_device *device)
{
    return device->size;
}

const struct fsw_device_id *fsw_device_id(const struct fsw_device *device)
{
    return &device->image.super->device;
}

void fsw_device_stats(struct fsw_device *device, uint64_t values[FSW_STAT_COUNT])
{
    fsw_image_stats(&device->image, values);
}

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
