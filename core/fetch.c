/*
 * fetch.c: pages read from the store, where they stay.
 *
 *      entry ──pin row──> entry still the same? ──get range──> open ──unpin
 *
 * A pin is only given while the row is LIVE, and a row that an entry names is: so if the entry is
 * the same after the pin, row and segment are right, and stay right until we unpin. The answer may
 * wait as long as the store is away; nothing local waits with it.
 */
#include <errno.h>
#include <sched.h>
#include <semaphore.h>

#include "core/crash.h"
#include "core/engine.h"

#define PIN_TRIES 100

struct batch {
    _Atomic unsigned left;
    sem_t answered;
};

struct get {
    struct fsw_store_request request;
    struct fsw_fetch *fetch;
    uint32_t copies;                             /* that may have the page yet */
    uint32_t losses;                             /* of the device, before `copies` was looked up */
    char bytes[FSW_SEAL_BYTES + FSW_OBJECT_MAX]; /* the object, behind its seal if it has one */
};

static void get_done(struct fsw_store_request *request)
{
    struct batch *batch = request->owner;

    if (atomic_fetch_sub(&batch->left, 1) == 1)
        sem_post(&batch->answered);
}

void fsw_fetch_unpin(struct fsw_device *device, uint64_t value)
{
    if (fsw_row_unpin(&device->rows, fsw_entry_row(value)))
        fsw_overflow_drop(device, fsw_entry_row(value));
}

static int unchanged(const struct fsw_fetch *fetch)
{
    return fsw_entry_same_place(fsw_entry_load(fetch->entry), fetch->value);
}

/* The row that the fetch's entry names, pinned: 0. -EAGAIN: the entry has changed. -EIO: it names
 * a row that is not LIVE, or bytes that no object can have: it is damaged. */
static int pin(struct fsw_device *device, const struct fsw_fetch *fetch)
{
    uint32_t row = fsw_entry_row(fetch->value);
    unsigned units = fsw_entry_units(fetch->value);
    unsigned offset = fsw_entry_offset_units(fetch->value);
    int tries = PIN_TRIES;

    while (!fsw_row_pin(&device->rows, row)) {
        if (!unchanged(fetch))
            return -EAGAIN;
        /* Between the two looks, page and row may have come back to the same place. */
        if (--tries == 0)
            return -EIO;
        sched_yield();
    }
    int r = 0;
    if (!unchanged(fetch))
        r = -EAGAIN;
    else if (units < FSW_OBJECT_UNITS_MIN || units > FSW_OBJECT_UNITS_MAX ||
             offset < device->seal ||
             (offset + units) * FSW_UNIT > atomic_load(&device->image.rows[row].bytes))
        r = -EIO;
    if (r < 0)
        fsw_fetch_unpin(device, fetch->value);
    return r;
}

/* The copies that were acknowledged when it was put; all, if none is known. */
static uint32_t copies_of(struct fsw_device *device, uint32_t row)
{
    uint32_t all = fsw_all_copies(device);
    uint32_t has = atomic_load(&device->image.rows[row].copies) & all;

    return has != 0 ? has : all;
}

/* 1, and unpinned, if no copy has the row's segment any more: nobody needs to be asked. */
static int is_lost(struct fsw_device *device, struct fsw_fetch *fetch)
{
    if (!fsw_row_is_lost(device, fsw_entry_row(fetch->value)))
        return 0;
    fetch->result = unchanged(fetch) ? -EIO : -EAGAIN;
    if (fetch->result == -EIO)
        fsw_stat_add(&device->image, FSW_STAT_STORE_LOST_PAGES, 1);
    fsw_fetch_unpin(device, fetch->value);
    return 1;
}

/* 1 if the row is pinned and the request made. */
static int prepare(struct fsw_device *device, struct fsw_fetch *fetch, struct get *get)
{
    uint32_t row = fsw_entry_row(fetch->value);

    fetch->result = pin(device, fetch);
    if (fetch->result == -EIO)
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
    if (fetch->result < 0)
        return 0;
    get->losses = atomic_load(&device->losses);
    if (is_lost(device, fetch))
        return 0;
    get->fetch = fetch;
    get->copies = copies_of(device, row);
    get->request = (struct fsw_store_request){
        .verb = FSW_STORE_GET,
        .row = row,
        .id = fsw_row_id(&device->image, row),
        .bytes = get->bytes,
        .offset = (fsw_entry_offset_units(fetch->value) - device->seal) * FSW_UNIT,
        .length = (fsw_entry_units(fetch->value) + device->seal) * FSW_UNIT,
        .copies = get->copies,
        .deadline = fetch->deadline,
        .done = get_done,
    };
    return 1;
}

/* Returns when all are answered. losses: as it was before their rows were looked at (lost.c). */
static void ask(struct fsw_device *device, struct fsw_store_request *const *requests, unsigned n,
                uint32_t losses)
{
    struct batch batch;

    sem_init(&batch.answered, 0, 0);
    atomic_store(&batch.left, n);
    for (unsigned i = 0; i < n; i++)
        requests[i]->owner = &batch;
    device->store->ops->submit(device->store, requests, n);
    fsw_lost_since(device, losses);
    while (sem_wait(&batch.answered) < 0) /* EINTR */
        ;
    sem_destroy(&batch.answered);
}

/* The page of the bytes that came; where they are no page, of those that another copy has. */
static int open_object(struct fsw_device *device, struct get *get)
{
    const struct fsw_fetch *fetch = get->fetch;
    struct fsw_store_request *request = &get->request;

    for (;;) {
        int r = fsw_object_open(device->seed, (uint32_t)fetch->number,
                                get->bytes + device->seal * FSW_UNIT, fsw_entry_units(fetch->value),
                                fetch->page);
        get->copies &= ~request->copies;
        if (r == 0 || get->copies == 0 || request->copies == 0)
            return r;
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
        request->copies = get->copies;
        ask(device, &request, 1, get->losses);
        if (request->result != FSW_STORE_OK)
            return -EIO;
    }
}

/* A get that was sent back because a copy was declared lost is asked again where the row says now. */
static void think_again(struct fsw_device *device, struct get *get)
{
    struct fsw_store_request *request = &get->request;

    while (request->result == FSW_STORE_UNREACHABLE &&
           atomic_load(&device->losses) != get->losses &&
           (request->deadline == 0 || request->deadline > fsw_now_ns())) {
        get->losses = atomic_load(&device->losses);
        get->copies = request->copies = copies_of(device, request->row);
        if (fsw_row_is_lost(device, request->row))
            request->result = FSW_STORE_GONE;
        else
            ask(device, &request, 1, get->losses);
    }
}

static void finish(struct fsw_device *device, struct get *get, uint64_t started)
{
    struct fsw_fetch *fetch = get->fetch;
    const struct fsw_image *image = &device->image;
    unsigned units = fsw_entry_units(fetch->value);

    think_again(device, get);
    if (get->request.result == FSW_STORE_OK) {
        fetch->result = open_object(device, get);
        fsw_stat_add(image, FSW_STAT_FETCH_PAGES, 1);
        fsw_latency_add(image, FSW_LATENCY_FETCH, started);
        fsw_stat_add(image, FSW_STAT_FETCH_BYTES, units * FSW_UNIT);
    } else {
        fetch->result = -EIO;
    }
    if ((fetch->result < 0 || fetch->fresh) && !unchanged(fetch)) {
        fetch->result = -EAGAIN; /* rewritten meanwhile: the loss is nobody's */
        fsw_stat_add(image, FSW_STAT_FETCH_RETRIES, 1);
    } else if (get->request.result == FSW_STORE_GONE) {
        fsw_stat_add(image, FSW_STAT_STORE_LOST_PAGES, 1);
    } else if (fetch->result < 0 && get->request.result != FSW_STORE_UNREACHABLE) {
        fsw_stat_add(image, FSW_STAT_CORRUPT_PAGES, 1);
    }
    if (fetch->result < 0 || !fetch->keep_pin)
        fsw_fetch_unpin(device, fetch->value);
}

void fsw_fetch(struct fsw_device *device, struct fsw_fetch *fetches, unsigned count)
{
    struct get gets[FSW_FETCH_BATCH];
    struct fsw_store_request *requests[FSW_FETCH_BATCH];
    uint32_t losses = atomic_load(&device->losses);
    unsigned n = 0;

    for (unsigned i = 0; i < count; i++)
        if (prepare(device, &fetches[i], &gets[n])) {
            requests[n] = &gets[n].request;
            n++;
        }
    if (n == 0)
        return;
    uint64_t started = fsw_now_ns();
    fsw_hook(device, FSW_HOOK_FETCH_PINNED);
    fsw_crash_point("fetch: pinned, not asked for");
    ask(device, requests, n, losses);
    fsw_crash_point("fetch: answered, still pinned");
    for (unsigned i = 0; i < n; i++)
        finish(device, &gets[i], started);
}
