/*
 * nbd_sync.c: the verbs a person waits for: probe, list, forget. Each makes a connection of its own, so
 * they work before start() and beside it, and in any thread. Every answer is waited for PATIENCE_S.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/store/nbd.h"
#include "client/store/nbd_lib.h"
#include "common/cleanup.h"
#include "common/clock.h"

#define PATIENCE_S 3
/* What one question of block status covers. */
#define STATUS_BYTES (1ull << 30)
#define WINDOW 32u /* heads read at once */

struct sync {
    const struct nbd_store *store;
    struct nbd_handle *handle;
    struct fsw_error *err;
};

static int unreachable(struct sync *sync, const char *why)
{
    return fsw_error(
        sync->err, -EHOSTUNREACH,
        "the export at %s can't be reached: %s; start its server, or name another with "
        "overflow=",
        sync->store->export.address.text, why);
}

/* Until done(sync) or the connection's end. */
static int wait_for(struct sync *sync, int (*done)(struct nbd_handle *handle, void *opaque),
                    void *opaque)
{
    uint64_t end = fsw_now_ns() + PATIENCE_S * FSW_NS_PER_S;

    while (!done(sync->handle, opaque)) {
        if (libnbd.aio_is_dead(sync->handle) || libnbd.aio_is_closed(sync->handle))
            return unreachable(sync, libnbd.get_error() ? libnbd.get_error() : "it hung up");
        if (fsw_now_ns() > end)
            return unreachable(sync, "no answer within 3 s");
        if (libnbd.poll(sync->handle, 200) < 0)
            return unreachable(sync, libnbd.get_error());
    }
    return 0;
}

static int is_ready(struct nbd_handle *handle, void *opaque)
{
    return libnbd.aio_is_ready(handle);
}

static int connect_place(struct sync *sync, const union fsw_sockaddr *place)
{
    int r;

    sync->handle = libnbd.create();
    if (sync->handle == NULL)
        return fsw_error(sync->err, -ENOMEM, "no memory for a connection");
    libnbd.set_export_name(sync->handle, sync->store->export.name);
    libnbd.add_meta_context(sync->handle, LIBNBD_CONTEXT_BASE_ALLOCATION);
    if (place->any.sa_family == AF_UNIX)
        r = libnbd.aio_connect_unix(sync->handle, place->path.sun_path);
    else
        r = libnbd.aio_connect(sync->handle, &place->any,
                               place->any.sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                                               : sizeof(struct sockaddr_in6));
    r = r < 0 ? unreachable(sync, libnbd.get_error()) : wait_for(sync, is_ready, NULL);
    if (r < 0) {
        libnbd.close(sync->handle);
        sync->handle = NULL;
    }
    return r;
}

static int sync_open(struct sync *sync, const struct nbd_store *store, struct fsw_error *err)
{
    struct fsw_address address = store->export.address;
    int r = address.count == 0 ? fsw_address_resolve(&address, err) : 0;

    *sync = (struct sync){.store = store, .err = err};
    if (r < 0)
        return r;
    r = -EHOSTUNREACH;
    for (unsigned i = 0; r < 0 && i < address.count; i++)
        r = connect_place(sync, &address.places[i]);
    return r;
}

/* ---- commands ---- */

/* A command by its cookie: 0, or a negative errno. */
static int finish(struct sync *sync, int64_t cookie)
{
    uint64_t number = (uint64_t)cookie;

    if (cookie < 0)
        return fsw_error(sync->err, -EIO, "nbd:%s: %s", sync->store->export.address.text,
                         libnbd.get_error());
    /* libnbd tells once that a command failed, and forgets it: so its error is asked for here. */
    uint64_t end = fsw_now_ns() + PATIENCE_S * FSW_NS_PER_S;
    for (;;) {
        int r = libnbd.aio_command_completed(sync->handle, number);
        if (r == 1)
            return 0;
        if (r < 0)
            return fsw_error(sync->err, libnbd.get_errno() ? -libnbd.get_errno() : -EIO,
                             "nbd:%s: %s", sync->store->export.address.text, libnbd.get_error());
        if (fsw_now_ns() > end || libnbd.aio_is_dead(sync->handle))
            return unreachable(sync, "no answer within 3 s");
        libnbd.poll(sync->handle, 200);
    }
}

static int read_block(struct sync *sync, void *buffer, uint64_t at)
{
    return finish(sync,
                  libnbd.aio_pread(sync->handle, buffer, SLOTS_BLOCK, at, NBD_NULL_COMPLETION, 0));
}

/* ---- probe ---- */

static int check_export(struct sync *sync)
{
    const char *where = sync->store->export.address.text;
    int64_t size = libnbd.get_size(sync->handle);

    if (libnbd.is_read_only(sync->handle) != 0)
        return fsw_error(sync->err, -EROFS, "nbd:%s is read-only", where);
    if (libnbd.get_block_size(sync->handle, LIBNBD_SIZE_MINIMUM) > SLOTS_BLOCK)
        return fsw_error(sync->err, -EINVAL, "nbd:%s wants blocks of more than %u bytes", where,
                         SLOTS_BLOCK);
    if (size < (int64_t)(1 << 20))
        return fsw_error(sync->err, -ENOSPC, "nbd:%s has less than 1 MiB", where);
    return 0;
}

/* Whose it is can't be told before start(). */
static int check_header(struct sync *sync)
{
    FSW_CLEANUP_FREE void *block = slots_buffer();
    struct fsw_device_id device;
    uint64_t sentinel;
    int r = block == NULL ? -ENOMEM : read_block(sync, block, 0);

    if (r == 0 && slot_header_read(block, &device, &sentinel) == SLOT_HEADER_FOREIGN)
        r = nbd_header_check(sync->store, block, &sentinel, sync->err);
    return r;
}

int nbd_sync_probe(struct fsw_store *base, struct fsw_error *err)
{
    struct sync sync;
    int r = sync_open(&sync, (struct nbd_store *)base, err);

    if (r < 0)
        return r;
    r = check_export(&sync);
    if (r == 0)
        r = check_header(&sync);
    libnbd.close(sync.handle);
    return r;
}

int nbd_sync_header(struct nbd_store *store, struct fsw_error *err)
{
    FSW_CLEANUP_FREE void *block = slots_buffer();
    uint64_t sentinel;
    struct sync sync;
    int r = block == NULL ? -ENOMEM : sync_open(&sync, store, err);

    if (r < 0)
        return r;
    r = read_block(&sync, block, 0);
    if (r == 0)
        r = nbd_header_check(store, block, &sentinel, err);
    libnbd.close(sync.handle);
    return r;
}

/* ---- list ---- */

/* Where there is data: bytes from a point on that are the same, as far as the server tells. */
struct extent {
    uint64_t length;
    int hole;
    int told;
};

static int on_extent(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
                     size_t count, int *error)
{
    struct extent *extent = opaque;

    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || count < 2 || extent->told)
        return 0;
    *extent = (struct extent){
        .length = entries[0], .hole = (entries[1] & LIBNBD_STATE_ZERO) != 0, .told = 1};
    return 0;
}

/* The first row from `row` on that is not in a hole; 0: there is none before the export's end. */
static uint32_t skip_holes(struct sync *sync, uint32_t row, uint64_t size)
{
    while (slot_at(row) + SLOTS_BYTES <= size) {
        uint64_t left = size - slot_at(row), ask = left < STATUS_BYTES ? left : STATUS_BYTES;
        struct extent extent = {0};

        if (libnbd.can_meta_context(sync->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1 ||
            finish(sync, libnbd.aio_block_status(
                             sync->handle, ask, slot_at(row),
                             (nbd_extent_callback){.callback = on_extent, .user_data = &extent},
                             NBD_NULL_COMPLETION, 0)) < 0 ||
            !extent.told || !extent.hole || extent.length < SLOTS_BYTES)
            return row;
        row += (uint32_t)(extent.length / SLOTS_BYTES);
    }
    return 0;
}

/* Heads of up to WINDOW rows at once; each(row, id) for those that hold a segment. */
static int list_window(struct sync *sync, const struct fsw_device_id *device, char *blocks,
                       uint32_t row, uint32_t count,
                       int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque)
{
    int64_t cookies[WINDOW];
    uint64_t id;
    int r = 0;

    for (uint32_t i = 0; i < count; i++)
        cookies[i] = libnbd.aio_pread(sync->handle, blocks + i * SLOTS_BLOCK, SLOTS_BLOCK,
                                      slot_at(row + i), NBD_NULL_COMPLETION, 0);
    for (uint32_t i = 0; i < count && r == 0; i++)
        r = finish(sync, cookies[i]);
    for (uint32_t i = 0; i < count && r == 0; i++)
        if (slot_head_read(blocks + i * SLOTS_BLOCK, device, row + i, &id) > 0)
            r = each(row + i, id, opaque);
    return r;
}

static int list_slots(struct sync *sync, const struct fsw_device_id *device,
                      int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque)
{
    FSW_CLEANUP_FREE char *blocks = malloc(WINDOW * SLOTS_BLOCK);
    int64_t bytes = libnbd.get_size(sync->handle);
    uint64_t size = bytes > 0 ? (uint64_t)bytes : 0, rows = size / SLOTS_BYTES;
    int r = blocks == NULL ? -ENOMEM : 0;

    for (uint32_t row = 1; r == 0 && (row = skip_holes(sync, row, size)) != 0; row += WINDOW) {
        uint32_t count = rows - row < WINDOW ? (uint32_t)(rows - row) : WINDOW;
        r = list_window(sync, device, blocks, row, count, each, opaque);
    }
    return r;
}

/* 1: the export is that device's. */
static int is_of(struct sync *sync, const struct fsw_device_id *device)
{
    FSW_CLEANUP_FREE void *block = slots_buffer();
    struct fsw_device_id there;
    uint64_t sentinel;
    int r = block == NULL ? -ENOMEM : read_block(sync, block, 0);

    if (r < 0)
        return r;
    return slot_header_read(block, &there, &sentinel) == SLOT_HEADER_FITS &&
           memcmp(&there, device, sizeof there) == 0;
}

int nbd_sync_list(struct fsw_store *base, const struct fsw_device_id *device,
                  int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                  struct fsw_error *err)
{
    struct sync sync;
    int r = sync_open(&sync, (struct nbd_store *)base, err);

    if (r < 0)
        return r;
    r = is_of(&sync, device);
    if (r == 1)
        r = list_slots(&sync, device, each, opaque);
    libnbd.close(sync.handle);
    return r;
}

/* ---- forget ---- */

struct forgetting {
    struct sync *sync;
    const struct fsw_device_id *device;
    void *zeroes;
    uint64_t count;
};

/* Looked at before each write: whoever goes on with the export (N6) needs what is there now. */
static int forget_slot(uint32_t row, uint64_t id, void *opaque)
{
    struct forgetting *forgetting = opaque;
    struct sync *sync = forgetting->sync;
    int r = is_of(sync, forgetting->device);

    if (r <= 0)
        return r < 0 ? r : -ESTALE;
    r = finish(sync, libnbd.aio_pwrite(sync->handle, forgetting->zeroes, SLOTS_BLOCK, slot_at(row),
                                       NBD_NULL_COMPLETION, 0));
    if (r == 0 && libnbd.can_trim(sync->handle) == 1)
        finish(sync,
               libnbd.aio_trim(sync->handle, SLOTS_BYTES, slot_at(row), NBD_NULL_COMPLETION, 0));
    forgetting->count += r == 0;
    return r;
}

/* Of the device that this store works for, the header stays, without a sentinel. */
static int forget_header(struct sync *sync, const struct fsw_device_id *device, void *block)
{
    const struct nbd_store *store = sync->store;
    int r = is_of(sync, device);

    if (r <= 0)
        return r < 0 ? r : -ESTALE;
    if (store->started && memcmp(device, &store->identity.device, sizeof *device) == 0)
        slot_header_write(block, device, 0);
    return finish(sync,
                  libnbd.aio_pwrite(sync->handle, block, SLOTS_BLOCK, 0, NBD_NULL_COMPLETION, 0));
}

/* The export is that device's. The header last, so that a forget that stops half way can be repeated. */
static int forget_all(struct sync *sync, const struct fsw_device_id *device, uint64_t *ret_count)
{
    FSW_CLEANUP_FREE void *zeroes = slots_buffer();
    struct forgetting forgetting = {sync, device, zeroes, 0};
    int r = zeroes == NULL ? -ENOMEM : list_slots(sync, device, forget_slot, &forgetting);

    if (r == 0)
        r = forget_header(sync, device, zeroes);
    *ret_count = forgetting.count;
    return r == -ESTALE ? 0 : r; /* it has become another's */
}

/* Until the export is not that device's any more: the store's thread is about to take it over (N6). */
static int await_heir(struct sync *sync, const struct fsw_device_id *device)
{
    const struct timespec pause = fsw_timespec(20 * FSW_NS_PER_MS);
    uint64_t end = fsw_now_ns() + PATIENCE_S * FSW_NS_PER_S;
    int r;

    while ((r = is_of(sync, device)) == 1) {
        if (fsw_now_ns() > end)
            return unreachable(sync, "its header is still that of the device before");
        nanosleep(&pause, NULL);
    }
    return r;
}

int nbd_sync_forget(struct fsw_store *base, const struct fsw_device_id *device, uint64_t *ret_count,
                    struct fsw_error *err)
{
    struct nbd_store *store = (struct nbd_store *)base;
    struct sync sync;
    int r = sync_open(&sync, store, err);

    *ret_count = 0;
    if (r < 0)
        return r;
    if (store->started && slot_device_is_gone(device, &store->identity)) {
        r = await_heir(&sync, device);
    } else {
        r = is_of(&sync, device);
        known_clear_all(&store->known);
        if (r == 1)
            r = forget_all(&sync, device, ret_count);
    }
    libnbd.close(sync.handle);
    return r;
}
