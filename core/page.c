/*
 * page.c: one page in, one page out.
 *
 * A whole-page write seals the page without any lock, writes the object into a slot of its own, and
 * publishes it with one exchange of the entry; then the old object is retired. A read of a page in
 * the pool holds the entry's lock bit while it copies the object out (a few hundred nanoseconds),
 * and opens it without. A write of part of a page holds the lock bit from reading the old content
 * to publishing the new. So a page is old or new, never torn, and a failed write leaves the old
 * one.
 *
 * A mutation whose peer is known looks, with the entry's lock bit held, whether that peer is still
 * there: a write that a client gave up and sent again on another connection must not undo a newer
 * one. The lock bit is held until the value is in its place, so that no stall fits in between.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "core/crash.h"
#include "core/engine.h"

void fsw_page_count(struct fsw_device *device, uint64_t value, int64_t sign)
{
    const struct fsw_image *image = &device->image;
    uint64_t units = fsw_entry_units(value);

    switch (fsw_entry_state(value)) {
    case FSW_EMPTY:
        break;
    case FSW_SAME:
        fsw_stat_add(image, FSW_STAT_PAGES_SAME, (uint64_t)sign);
        break;
    case FSW_POOL:
        fsw_stat_add(image, FSW_STAT_PAGES_POOL, (uint64_t)sign);
        fsw_stat_add(image, FSW_STAT_COMPR_DATA_SIZE, (uint64_t)sign * units * FSW_UNIT);
        if (units == FSW_OBJECT_UNITS_MAX)
            fsw_stat_add(image, FSW_STAT_HUGE_PAGES, (uint64_t)sign);
        break;
    case FSW_STORE:
        fsw_stat_add(image, FSW_STAT_PAGES_STORE, (uint64_t)sign);
        fsw_stat_add(image, FSW_STAT_STORE_DATA_SIZE, (uint64_t)sign * units * FSW_UNIT);
        break;
    }
}

/* Counts that one value took another's place. Mostly an object of about the same size. */
static void count_replaced(struct fsw_device *device, uint64_t old, uint64_t value)
{
    unsigned from = fsw_entry_units(old), to = fsw_entry_units(value);

    if (fsw_entry_state(old) != FSW_POOL || fsw_entry_state(value) != FSW_POOL ||
        (from == FSW_OBJECT_UNITS_MAX) != (to == FSW_OBJECT_UNITS_MAX)) {
        fsw_page_count(device, value, 1);
        fsw_page_count(device, old, -1);
    } else if (from != to) {
        fsw_stat_add(&device->image, FSW_STAT_COMPR_DATA_SIZE,
                     ((uint64_t)to - (uint64_t)from) * FSW_UNIT);
    }
}

/* E2: what an entry named is dead, unless an evictor holds it. */
static void retire(struct fsw_device *device, uint64_t value)
{
    int r = 0;

    if (fsw_entry_state(value) == FSW_POOL && !(value & FSW_ENTRY_OVERFLOW))
        r = fsw_pool_free(&device->pool, fsw_entry_location(value));
    else if (fsw_entry_state(value) == FSW_STORE)
        r = fsw_row_kill(&device->rows, fsw_entry_row(value), fsw_live(1, fsw_entry_units(value)));
    if (r > 0) {
        fsw_crash_point("row: its last page has gone, nobody asks for its drop");
        fsw_overflow_drop(device, fsw_entry_row(value));
    } else if (r < 0) { /* the entry was damaged: it named nothing that could be freed */
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
    }
}

/* A slot that has just come free is what the next object of its size gets (LIFO): its cache lines come
 * while that one is compressed. */
static void expect_object(struct fsw_device *device, uint64_t retired)
{
    if (fsw_entry_state(retired) == FSW_POOL && !(retired & FSW_ENTRY_OVERFLOW))
        fsw_pool_prefetch(&device->pool, fsw_entry_location(retired), fsw_entry_units(retired));
}

/* What an entry that names no object fills its page with. -EIO: it is damaged. */
static int fill_word(struct fsw_device *device, uint64_t value, void *page)
{
    uint64_t word = fsw_entry_word(value); /* EMPTY: 0 */

    if (!fsw_entry_is_word(value)) {
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
        return -EIO;
    }
    fsw_same_fill(page, word << 32 | word);
    return 0;
}

/* The page has no entry: it is empty, or its leaf can't be found. */
static int no_entry(struct fsw_device *device, uint64_t number)
{
    if (!fsw_table_is_damaged(&device->image, number))
        return 0;
    fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
    return -EIO;
}

/* ---- reading ---- */

/* What read_age= makes of a page that is read. */
static uint64_t with_age_of_read(const struct fsw_device *device, uint64_t value)
{
    uint8_t now = atomic_load_explicit(&device->clock, memory_order_relaxed);
    uint32_t word = atomic_load_explicit(&device->image.super->read_age, memory_order_relaxed);

    if (__builtin_expect(word == FSW_READ_AGE_YOUNG, 1))
        return fsw_entry_with_age(value, now);
    if (word == FSW_READ_AGE_KEEP)
        return value;
    return fsw_entry_with_age(value, now - (uint8_t)(now - fsw_entry_age(value)) / 2);
}

/* The object of a locked entry, opened after the lock bit is gone. */
static int open_locked(struct fsw_device *device, fsw_entry *entry, uint64_t value, uint64_t number,
                       void *page)
{
    char object[FSW_OBJECT_MAX];
    unsigned units = fsw_entry_units(value);
    int huge = units == FSW_OBJECT_UNITS_MAX; /* goes straight to where it is wanted */
    uint64_t location = fsw_entry_location(value);
    int r = huge ? fsw_pool_read_huge(&device->image, location, object, page)
                 : fsw_pool_read(&device->image, location, object, units);

    fsw_crash_point("page: locked by a reader");
    fsw_entry_unlock(entry, with_age_of_read(device, value));
    fsw_crash_point("page: read, younger");
    if (r == 0)
        r = huge ? fsw_object_open_huge(device->seed, (uint32_t)number, object, page)
                 : fsw_object_open(device->seed, (uint32_t)number, object, units, page);
    if (r < 0)
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
    return r;
}

int fsw_page_read_local(struct fsw_device *device, uint64_t number, void *page,
                        fsw_entry **ret_entry, uint64_t *ret_value)
{
    fsw_entry *entry = fsw_table_find(&device->image, number);
    uint64_t value = entry != NULL ? fsw_entry_load(entry) : 0;

    if (entry == NULL && no_entry(device, number) < 0)
        return -EIO;
    if (fsw_entry_state(value) == FSW_POOL) {
        value = fsw_entry_lock(entry);
        if (fsw_entry_state(value) == FSW_POOL)
            return open_locked(device, entry, value, number, page);
        fsw_entry_unlock(entry, value);
    }
    if (fsw_entry_state(value) == FSW_STORE) {
        *ret_entry = entry;
        *ret_value = value;
        return 1;
    }
    return fill_word(device, value, page);
}

void fsw_page_expect(struct fsw_device *device, enum fsw_verb verb, uint64_t number)
{
    fsw_entry *entry = fsw_table_find(&device->image, number);
    uint64_t value = entry != NULL ? fsw_entry_load(entry) : 0;

    if (fsw_entry_state(value) != FSW_POOL)
        return;
    if (verb == FSW_READ)
        fsw_pool_prefetch(&device->pool, fsw_entry_location(value), fsw_entry_units(value));
    else
        fsw_pool_prefetch_slot(&device->pool, fsw_entry_location(value));
}

int fsw_page_read(struct fsw_device *device, uint64_t number, void *page)
{
    struct fsw_fetch fetch = {.number = number, .page = page};
    int r;

    while ((r = fsw_page_read_local(device, number, page, &fetch.entry, &fetch.value)) == 1) {
        fsw_fetch(device, &fetch, 1);
        if (fetch.result != -EAGAIN)
            return fetch.result;
    }
    return r;
}

/* ---- writing ---- */

/* A value that holds the page: a new object in the pool, or none where the page is one word. 0 is
 * the empty page. -ENOSPC: there is no frame. Does not wait. */
static int place(struct fsw_device *device, uint64_t number, const void *page, uint64_t *ret_value)
{
    uint64_t word;
    int same = fsw_same_filled(page, &word);

    if (same && word >> 32 == (uint32_t)word) {
        *ret_value = word == 0 ? 0 : fsw_entry_same((uint32_t)word);
        return 0;
    }
    struct fsw_context *context = fsw_context_borrow(&device->contexts);
    unsigned units = same ? fsw_object_pack_same(page, context->object)
                          : fsw_object_pack(page, context->codec, context->codec_id, context->level,
                                            context->state, context->object);
    uint64_t location = fsw_pool_alloc(&device->pool, units);
    fsw_crash_point("page: slot taken, nothing written");
    if (location != 0) {
        /* The slot's cache lines come while the checksum is worked out. */
        fsw_pool_prefetch(&device->pool, location, units);
        fsw_object_seal(device->seed, (uint32_t)number, page, context->object);
        if (units == FSW_OBJECT_UNITS_MAX) {
            fsw_stat_add(&device->image, FSW_STAT_HUGE_PAGES_SINCE, 1);
            fsw_pool_write_huge(&device->pool, location, context->object, page);
        } else {
            fsw_pool_write(&device->pool, location, context->object, units);
        }
    }
    fsw_context_return(&device->contexts, context);
    if (location == 0)
        return -ENOSPC;
    uint8_t now = atomic_load_explicit(&device->clock, memory_order_relaxed);
    *ret_value = fsw_entry_pool(location, units, now);
    return 0;
}

uint64_t fsw_device_write_wait(const struct fsw_device *device)
{
    uint64_t wait = fsw_write_wait_ns(device->image.super);

    return wait > FSW_WRITE_WAIT_NS ? wait : FSW_WRITE_WAIT_NS;
}

/* Waits for space, the first time setting the deadline. */
static int wait_for_space(struct fsw_device *device, const struct fsw_how *how, uint64_t *deadline)
{
    if (how->flags & FSW_IO_NOWAIT)
        return -EAGAIN;
    uint64_t start = fsw_now_ns();
    if (*deadline == 0) {
        *deadline = start + fsw_write_wait_ns(device->image.super);
        if (how->deadline != 0 && how->deadline < *deadline)
            *deadline = how->deadline;
        fsw_stat_add(&device->image, FSW_STAT_WRITE_STALLS, 1);
    }
    int r = fsw_overflow_wait(device, *deadline);
    fsw_stat_add(&device->image, FSW_STAT_WRITE_STALL_NS, fsw_now_ns() - start);
    if (r < 0)
        fsw_stat_add(&device->image, FSW_STAT_NO_SPACE, 1);
    return r;
}

/* Test builds that lose pages on purpose: what can't catch this is no test of content. A server that is
 * killed soon loses one, too. */
static int lose_this_one(void)
{
#ifdef FSW_LOSE_ONE_IN
    static _Atomic unsigned writes;
    unsigned nth = atomic_fetch_add(&writes, 1), begin = (unsigned)getpid() * 7919u;
    return nth == 500 + begin % 2000 || (nth + begin) % FSW_LOSE_ONE_IN == FSW_LOSE_ONE_IN - 1;
#else
    return 0;
#endif
}

/* ---- publishing ---- */

#define LOOK_EVERY_NS (250 * FSW_NS_PER_MS)

/* 1: what this peer sent is too late. */
static int is_late(struct fsw_peer *peer)
{
    if (atomic_load(&peer->gone))
        return 1;
    uint64_t now = fsw_now_coarse_ns();
    if (now - atomic_load(&peer->looked_at) <= LOOK_EVERY_NS)
        return 0;
    if (peer->is_gone(peer)) {
        atomic_store(&peer->gone, 1);
        return 1;
    }
    atomic_store(&peer->looked_at, now);
    return 0;
}

/* The lock bit's holder asks before it publishes: 0, or -ECANCELED. */
static int may_publish(struct fsw_device *device, const struct fsw_how *how)
{
    if (how->peer == NULL)
        return 0;
    fsw_hook(device, FSW_HOOK_LOCKED);
    if (!is_late(how->peer))
        return 0;
    fsw_stat_add(&device->image, FSW_STAT_LATE_WRITES, 1);
    return -ECANCELED;
}

/* Puts value in the entry's place; *ret_old is what was there. */
static int publish(struct fsw_device *device, const struct fsw_how *how, fsw_entry *entry,
                   uint64_t value, uint64_t *ret_old)
{
    if (how->peer == NULL) {
        *ret_old = fsw_entry_exchange(entry, value);
        return 0;
    }
    fsw_hook(device, FSW_HOOK_PUBLISH);
    *ret_old = fsw_entry_lock(entry);
    fsw_crash_point("page: locked to be published");
    int r = may_publish(device, how);
    fsw_entry_unlock(entry, r == 0 ? value : *ret_old);
    return r;
}

/* A value that was never published. */
static void take_back(struct fsw_device *device, uint64_t value)
{
    if (fsw_entry_state(value) == FSW_POOL)
        fsw_pool_free(&device->pool, fsw_entry_location(value));
}

int fsw_page_write(struct fsw_device *device, const struct fsw_how *how, uint64_t number,
                   const void *page)
{
    uint64_t value, old, deadline = 0;
    fsw_entry *entry = NULL;
    int r;

    fsw_table_prefetch(&device->image, number); /* it comes while the page is compressed */
    while ((r = place(device, number, page, &value)) < 0)
        if ((r = wait_for_space(device, how, &deadline)) < 0)
            return r;
    if (value == 0)
        return fsw_page_empty(device, how, number);
    while ((entry = fsw_table_make(&device->table, number)) == NULL)
        if ((r = no_entry(device, number)) < 0 ||
            (r = wait_for_space(device, how, &deadline)) < 0) {
            take_back(device, value);
            return r;
        }
    if (lose_this_one()) {
        take_back(device, value);
        return 0;
    }
    fsw_crash_point("page: object written, not published");
    r = publish(device, how, entry, value, &old);
    if (r < 0) {
        take_back(device, value);
        return r;
    }
    fsw_crash_point("page: published, not counted");
    count_replaced(device, old, value);
    fsw_crash_point("page: published, what it named before not retired");
    retire(device, old);
    expect_object(device, old);
    fsw_reclaim_tick(device);
    fsw_crash_point("page: written, not acknowledged");
    return 0;
}

int fsw_page_empty(struct fsw_device *device, const struct fsw_how *how, uint64_t number)
{
    fsw_entry *entry = fsw_table_find(&device->image, number);
    uint64_t old;

    if (entry == NULL || atomic_load_explicit(entry, memory_order_acquire) == 0)
        return 0;
    fsw_crash_point("page: about to be emptied");
    int r = publish(device, how, entry, 0, &old);
    if (r < 0)
        return r;
    fsw_crash_point("page: emptied, what it named not retired");
    count_replaced(device, old, 0);
    retire(device, old);
    fsw_crash_point("page: emptied, not acknowledged");
    return 0;
}

/* A page that is in the store, fetched, with its entry locked on success (0); 1: it changed
 * meanwhile. */
static int fetch_and_lock(struct fsw_device *device, const struct fsw_how *how,
                          struct fsw_fetch *fetch, uint64_t *ret_value)
{
    if (how->flags & FSW_IO_NOWAIT)
        return -EAGAIN;
    fetch->keep_pin = 1;
    fetch->deadline =
        how->deadline != 0 ? how->deadline : fsw_now_ns() + fsw_device_write_wait(device);
    fsw_fetch(device, fetch, 1);
    if (fetch->result < 0)
        return fetch->result == -EAGAIN ? 1 : fetch->result;
    fsw_hook(device, FSW_HOOK_FETCHED);
    fsw_crash_point("page: fetched for a part, its row pinned");
    *ret_value = fsw_entry_lock(fetch->entry);
    int same = fsw_entry_same_place(*ret_value, fetch->value);
    if (!same)
        fsw_entry_unlock(fetch->entry, *ret_value);
    fsw_fetch_unpin(device, fetch->value); /* not before the compare: the row could be another's */
    return same ? 0 : 1;
}

/* The old content of a page of which part is to be written, with its entry locked on success (0); 1
 * if it changed under a fetch. *ret_value: the locked entry's. */
static int read_and_lock(struct fsw_device *device, const struct fsw_how *how,
                         struct fsw_fetch *page_at, uint64_t *ret_value)
{
    fsw_entry *entry = page_at->entry;
    uint64_t number = page_at->number, value = fsw_entry_load(entry);
    void *page = page_at->page;

    if (fsw_entry_state(value) == FSW_STORE) {
        page_at->value = value;
        return fetch_and_lock(device, how, page_at, ret_value);
    }
    value = fsw_entry_lock(entry);
    if (fsw_entry_state(value) == FSW_STORE) {
        fsw_entry_unlock(entry, value);
        return 1;
    }
    *ret_value = value;
    if (fsw_entry_state(value) != FSW_POOL) {
        int filled = fill_word(device, value, page);
        if (filled < 0)
            fsw_entry_unlock(entry, value);
        return filled;
    }
    char object[FSW_OBJECT_MAX];
    unsigned units = fsw_entry_units(value);
    int r = fsw_pool_read(&device->image, fsw_entry_location(value), object, units);
    if (r == 0)
        r = fsw_object_open(device->seed, (uint32_t)number, object, units, page);
    if (r < 0) {
        fsw_entry_unlock(entry, value);
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
    }
    return r;
}

int fsw_page_write_part(struct fsw_device *device, const struct fsw_how *how,
                        const struct fsw_part *part, const void *bytes)
{
    char page[FSW_PAGE_SIZE];
    uint64_t number = part->number, deadline = 0, old, value;
    struct fsw_fetch at = {.number = number, .page = page};
    int r;

    if (bytes == NULL && fsw_table_find(&device->image, number) == NULL)
        return no_entry(device, number); /* zeroes into zeroes */
    while ((at.entry = fsw_table_make(&device->table, number)) == NULL)
        if ((r = no_entry(device, number)) < 0 || (r = wait_for_space(device, how, &deadline)) < 0)
            return r;
    for (;;) {
        while ((r = read_and_lock(device, how, &at, &old)) > 0)
            ;
        if (r < 0)
            return r;
        if (bytes != NULL)
            memcpy(page + part->offset, bytes, part->length);
        else
            memset(page + part->offset, 0, part->length);
        fsw_crash_point("page: locked for a part");
        r = place(device, number, page, &value);
        if (r == 0)
            break;
        fsw_entry_unlock(at.entry, old);
        if ((r = wait_for_space(device, how, &deadline)) < 0)
            return r;
    }
    fsw_crash_point("page: locked for a part, new object written");
    r = may_publish(device, how);
    fsw_entry_unlock(at.entry, r == 0 ? value : old);
    if (r < 0) {
        take_back(device, value);
        return r;
    }
    fsw_crash_point("page: part published, not counted");
    count_replaced(device, old, value);
    fsw_crash_point("page: part published, old object not retired");
    retire(device, old);
    fsw_reclaim_tick(device);
    return 0;
}
