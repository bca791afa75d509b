/*
 * fetch.c: pages read from the store, where they stay.
 *
 *      entry ──pin row──> entry still the same? ──window (windows.h)──> open ──unpin
 *
 * A pin is only given while the row is LIVE, and a row that an entry names is: so if the entry is
 * the same after the pin, row and segment are right, and stay right until we unpin. What a window has of
 * that segment was never anything else: segments don't change. The answer may wait as long as the store
 * is away, or fetch_timeout=; nothing local waits with it.
 *
 * All gets that a batch begins go to the store in one submit, and one alone by the store's get(), since we
 * have nothing to do until it is answered; what others have begun is joined.
 */
#include <errno.h>
#include <sched.h>

#include "core/crash.h"
#include "core/engine.h"

#define PIN_TRIES 100

/* One page of a batch, its row pinned. */
struct want {
    struct fsw_fetch *fetch;
    struct fsw_place place;
    struct fsw_window *window;
    enum fsw_found found;
};

struct batch {
    struct fsw_device *device;
    uint64_t started, deadline; /* 0: none */
    uint64_t until;             /* that we wait: for the deadline, or less */
    int brief;                  /* less: who asked comes again */
};

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

/* Of a pinned row. */
static struct fsw_place place_of(struct fsw_device *device, const struct fsw_fetch *fetch)
{
    uint32_t row = fsw_entry_row(fetch->value);

    return (struct fsw_place){.id = fsw_row_id(&device->image, row),
                              .row = row,
                              .offset = fsw_entry_offset_units(fetch->value),
                              .units = fsw_entry_units(fetch->value)};
}

/* 1 if the row is pinned, and worth asking for. */
static int prepare(struct fsw_device *device, struct fsw_fetch *fetch, struct want *want)
{
    fetch->result = pin(device, fetch);
    if (fetch->result == -EIO)
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
    if (fetch->result < 0 || is_lost(device, fetch))
        return 0;
    *want = (struct want){.fetch = fetch, .place = place_of(device, fetch)};
    return 1;
}

/* For who waits for them, until then. losses: as it was before their rows were looked at (lost.c). */
static void get(struct fsw_device *device, struct fsw_store_request *const *requests, unsigned n,
                uint64_t until, uint32_t losses)
{
    if (n == 1)
        fsw_store_get(device->store, requests[0], until);
    else
        device->store->ops->submit(device->store, requests, n);
    fsw_lost_since(device, losses);
}

/* ---- one object alone, where a window's bytes are no use ---- */

struct alone {
    struct fsw_store_request request;
    sem_t answered;
    char bytes[FSW_SEAL_BYTES + FSW_OBJECT_MAX]; /* the object, behind its seal if it has one */
};

static void alone_done(struct fsw_store_request *request)
{
    struct alone *alone = request->owner;

    sem_post(&alone->answered);
}

/* Returns when it is answered. */
static void ask_alone(struct fsw_device *device, const struct want *want, uint32_t copies,
                      uint64_t deadline, struct alone *alone)
{
    struct fsw_store_request *request = &alone->request;
    uint32_t losses = atomic_load(&device->losses);

    *request = (struct fsw_store_request){
        .verb = FSW_STORE_GET,
        .row = want->place.row,
        .id = want->place.id,
        .bytes = alone->bytes,
        .offset = (want->place.offset - device->seal) * FSW_UNIT,
        .length = (want->place.units + device->seal) * FSW_UNIT,
        .copies = copies,
        .deadline = deadline,
        .done = alone_done,
        .owner = alone,
    };
    sem_init(&alone->answered, 0, 0);
    get(device, &request, 1, deadline, losses);
    while (sem_wait(&alone->answered) < 0) /* EINTR */
        ;
    sem_destroy(&alone->answered);
}

static int open_object(struct fsw_device *device, const struct want *want, const char *object)
{
    return fsw_object_open(device->seed, (uint32_t)want->fetch->number, object, want->place.units,
                           want->fetch->page);
}

/* 1 if a get was sent back because a copy was declared lost, and there is time to ask again. noted: by it,
 * as it began. */
static int was_sent_back(const struct batch *batch, const struct fsw_store_request *got,
                         uint32_t noted)
{
    return got->result == FSW_STORE_UNREACHABLE && noted != atomic_load(&batch->device->losses) &&
           (batch->deadline == 0 || fsw_now_ns() < batch->deadline);
}

/* The page from one of these copies; 0: there is none to ask. */
static int open_elsewhere(const struct batch *batch, const struct want *want, uint32_t copies)
{
    struct fsw_device *device = batch->device;
    struct alone alone;

    while (copies != 0) {
        uint32_t noted = fsw_losses_noted(device);
        ask_alone(device, want, copies, batch->deadline, &alone);
        if (was_sent_back(batch, &alone.request, noted)) {
            copies &= fsw_row_is_lost(device, want->place.row)
                          ? 0
                          : fsw_copies_of(device, want->place.row);
            continue;
        }
        if (alone.request.result != FSW_STORE_OK)
            return -EIO;
        if (open_object(device, want, alone.bytes + device->seal * FSW_UNIT) == 0)
            return 0;
        copies &= alone.request.copies != 0 ? ~alone.request.copies : 0;
        if (copies != 0)
            fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
    }
    return -EIO;
}

/* ---- what came ---- */

/* The page of the bytes that came; where they are no page, of those that another copy has. */
static int open_window(const struct batch *batch, const struct want *want,
                       const struct fsw_store_request *got)
{
    struct fsw_device *device = batch->device;

    if (open_object(device, want, fsw_window_object(want->window, &want->place)) == 0)
        return 0;
    fsw_window_distrust(want->window);
    uint32_t others = got->copies != 0 ? fsw_copies_of(device, want->place.row) & ~got->copies : 0;
    if (others != 0)
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
    return open_elsewhere(batch, want, others);
}

/* 1 if somebody else's get ended in a way that says nothing to us, or ours was sent back because a
 * copy was declared lost, and goes where the row says now. */
static int is_no_answer(const struct batch *batch, const struct want *want,
                        struct fsw_store_request *got)
{
    struct fsw_device *device = batch->device;

    if (got->result == FSW_STORE_OK)
        return fsw_window_object(want->window, &want->place) == NULL;
    if (was_sent_back(batch, got, want->window->losses)) {
        if (!fsw_row_is_lost(device, want->place.row))
            return 1;
        got->result = FSW_STORE_GONE;
        return 0;
    }
    return want->found != FSW_FOUND_BEGUN && got->result == FSW_STORE_UNREACHABLE &&
           got->deadline != 0 && (batch->deadline == 0 || got->deadline < batch->deadline);
}

static void count(const struct batch *batch, const struct want *want)
{
    const struct fsw_image *image = &batch->device->image;

    if (want->found == FSW_FOUND_HERE) {
        fsw_stat_add(image, FSW_STAT_PREFETCH_HITS, 1);
        return;
    }
    fsw_stat_add(image, FSW_STAT_FETCH_PAGES, 1);
    fsw_latency_add(image, FSW_LATENCY_FETCH, batch->started);
    fsw_stat_add(image, FSW_STAT_FETCH_BYTES, want->place.units * FSW_UNIT);
    if (want->found == FSW_FOUND_FLYING)
        fsw_stat_add(image, FSW_STAT_FETCH_JOINED, 1);
}

/* Sets the fetch's result, by what the store said. */
static void conclude(struct fsw_device *device, struct fsw_fetch *fetch,
                     enum fsw_store_result result, int timed_out)
{
    const struct fsw_image *image = &device->image;

    if ((fetch->result < 0 || fetch->fresh) && !unchanged(fetch)) {
        fetch->result = -EAGAIN; /* rewritten meanwhile: the loss is nobody's */
        fsw_stat_add(image, FSW_STAT_FETCH_RETRIES, 1);
    } else if (result == FSW_STORE_GONE) {
        fsw_stat_add(image, FSW_STAT_STORE_LOST_PAGES, 1);
    } else if (timed_out) {
        fsw_stat_add(image, FSW_STAT_FETCH_TIMEOUTS, 1);
    } else if (fetch->result < 0 && result != FSW_STORE_UNREACHABLE) {
        fsw_stat_add(image, FSW_STAT_CORRUPT_PAGES, 1);
    }
    if (fetch->result < 0 || !fetch->keep_pin)
        fsw_fetch_unpin(device, fetch->value);
}

/* Ends a fetch that has no answer yet: the caller comes again, or it is too late. */
static void give_up(const struct batch *batch, struct fsw_fetch *fetch)
{
    fetch->result = batch->brief ? -EAGAIN : -EIO;
    if (fetch->result == -EIO)
        conclude(batch->device, fetch, FSW_STORE_UNREACHABLE, 1);
    else
        fsw_fetch_unpin(batch->device, fetch->value);
}

/* 0: it has to be asked for again. */
static int finish(const struct batch *batch, struct want *want)
{
    struct fsw_fetch *fetch = want->fetch;
    struct fsw_store_request got = {.result = FSW_STORE_UNREACHABLE};
    int flying = fsw_window_wait(want->window, batch->until, &got) < 0;

    fsw_crash_point("fetch: answered, still pinned");
    if (flying || is_no_answer(batch, want, &got)) {
        fsw_window_leave(want->window);
        if (flying)
            give_up(batch, fetch);
        return flying;
    }
    fetch->result = -EIO;
    if (got.result == FSW_STORE_OK) {
        fetch->result = open_window(batch, want, &got);
        count(batch, want);
    } else if (got.result == FSW_STORE_CORRUPT &&
               got.length > (want->place.units + batch->device->seal) * FSW_UNIT) {
        /* Perhaps only what was asked for besides is not there. */
        fetch->result = open_elsewhere(batch, want, fsw_copies_of(batch->device, want->place.row));
    }
    fsw_window_leave(want->window);
    conclude(batch->device, fetch, got.result,
             got.result == FSW_STORE_UNREACHABLE && got.deadline != 0);
    return 1;
}

/* ---- a batch ---- */

/* Gives wants their windows, as long as there are any; returns how many have one, *ret_requests: the
 * gets that were begun. */
static unsigned seek(struct batch *batch, struct want *wants, unsigned count,
                     struct fsw_store_request **requests, unsigned *ret_requests)
{
    struct fsw_device *device = batch->device;
    unsigned i;

    *ret_requests = 0;
    for (i = 0; i < count; i++) {
        struct want *want = &wants[i];
        want->window = fsw_windows_seek(device, &want->place, batch->deadline, &want->found);
        if (want->window == NULL)
            break;
        if (want->found == FSW_FOUND_BEGUN)
            requests[(*ret_requests)++] = &want->window->request;
    }
    return i;
}

/* Asks for as many as there are windows for. Returns how many. */
static unsigned ask(struct batch *batch, struct want *wants, unsigned count)
{
    struct fsw_device *device = batch->device;
    struct fsw_store_request *requests[FSW_FETCH_BATCH];
    uint32_t losses = atomic_load(&device->losses);
    unsigned asked, n = seek(batch, wants, count, requests, &asked);

    if (asked > 0)
        get(device, requests, asked, batch->until, losses);
    return n;
}

/* Takes what comes; those that are to be asked for again are moved to the front. Returns how many these
 * are. */
static unsigned finish_all(struct batch *batch, struct want *wants, unsigned asked, unsigned count)
{
    unsigned again = 0;

    for (unsigned i = 0; i < count; i++)
        if (i >= asked || !finish(batch, &wants[i]))
            wants[again++] = wants[i];
    return again;
}

/* Until when a read waits that says nothing of it. */
static uint64_t fetch_timeout(const struct fsw_device *device, uint64_t now)
{
    uint32_t ms = atomic_load_explicit(&device->image.super->fetch_timeout, memory_order_relaxed);

    return ms == 0 ? 0 : now + ms * FSW_NS_PER_MS;
}

static int is_late(const struct batch *batch)
{
    return batch->until != 0 && fsw_now_ns() >= batch->until;
}

void fsw_fetch(struct fsw_device *device, struct fsw_fetch *fetches, unsigned count)
{
    struct want wants[FSW_FETCH_BATCH];
    unsigned n = 0;

    for (unsigned i = 0; i < count; i++)
        n += (unsigned)prepare(device, &fetches[i], &wants[n]);
    if (n == 0)
        return;
    struct batch batch = {.device = device, .started = fsw_now_ns()};
    batch.deadline =
        fetches[0].deadline != 0 ? fetches[0].deadline : fetch_timeout(device, batch.started);
    batch.brief = fetches[0].patience != 0;
    batch.until = batch.brief ? fetches[0].patience : batch.deadline;
    fsw_hook(device, FSW_HOOK_FETCH_PINNED);
    fsw_crash_point("fetch: pinned, not asked for");
    while (n > 0 && !is_late(&batch)) {
        unsigned asked = ask(&batch, wants, n);
        if (asked == 0)
            fsw_windows_wait_idle(device, batch.until);
        else
            n = finish_all(&batch, wants, asked, n);
    }
    for (unsigned i = 0; i < n; i++)
        give_up(&batch, wants[i].fetch);
}

int fsw_fetch_here(struct fsw_device *device, struct fsw_fetch *fetch)
{
    struct want want = {.fetch = fetch, .found = FSW_FOUND_HERE};

    if (pin(device, fetch) < 0) /* who may wait finds out why */
        return 0;
    want.place = place_of(device, fetch);
    want.window = fsw_windows_seek_here(device, &want.place);
    int here = want.window != NULL &&
               open_object(device, &want, fsw_window_object(want.window, &want.place)) == 0;
    if (want.window != NULL && !here)
        fsw_window_distrust(want.window);
    if (want.window != NULL)
        fsw_window_leave(want.window);
    if (here)
        fsw_stat_add(&device->image, FSW_STAT_PREFETCH_HITS, 1);
    fsw_fetch_unpin(device, fetch->value);
    return here;
}
