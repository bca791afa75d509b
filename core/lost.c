/*
 * lost.c: copies of which somebody says that they have lost everything.
 *
 * A store that is away, or was emptied, may come back with what it had: so reads wait. Only a person
 * knows that it will not. He says so by a word in the image, bit c for the copy c, and the keeper
 * follows within a tenth of a second:
 *
 *     it answers, emptied       it is taken as it is: what it lacks is gone, what it has stays
 *     it does not answer        all that was put there is lost
 *     it answers, not emptied   it has lost nothing: refused
 *
 * Until then, what only a store acknowledged that was emptied stays here (put.c). One that had nothing is
 * taken as it is without a word.
 *
 * A row that no copy has any more is marked (FSW_ROW_LOST), and its pages are EIO without a question;
 * where there is another copy, that answers, and repair.c, which is told, puts a second one again.
 *
 * Reads that wait at a store are sent back to think again (the contract's lost()). None may be missed:
 * a reader notes `losses` before it looks at its row, and looks again after it has submitted; we mark
 * the rows, count `losses` up, and send back. So either it sees the count, or we see its request. A
 * reader that was sent back knows it by the count; without, its store is closing. One that begins between
 * our count and the store's word is sent back with no further count: `sending_back` tells it, so it notes
 * another than the count that it saw.
 */

#include "common/cleanup.h"
#include "core/engine.h"

static void lose_row(struct fsw_device *device, uint32_t number, uint32_t copies)
{
    _Atomic uint32_t *word = &device->image.rows[number].copies;
    uint32_t has = atomic_load(word), left;

    do {
        if ((has & copies) == 0)
            return;
        left = has & ~copies;
        if ((left & fsw_all_copies(device)) == 0)
            left |= FSW_ROW_LOST;
    } while (!atomic_compare_exchange_weak(word, &has, left));
    if (fsw_row_is_lost(device, number))
        fsw_stat_add(&device->image, FSW_STAT_PAGES_GIVEN_UP,
                     fsw_row_live_count(&device->image, number));
}

static void lose_rows(struct fsw_device *device, uint32_t copies)
{
    uint32_t top = atomic_load(&device->image.super->rows_top);

    for (uint32_t number = 1; number < top; number++)
        if (fsw_row_state(&device->image, number) == FSW_ROW_LIVE)
            lose_row(device, number, copies);
}

/* Counted: others are sent back with it. */
static void send_back(struct fsw_device *device, uint32_t copies, uint64_t sentinel)
{
    atomic_fetch_add(&device->sending_back, 1);
    atomic_fetch_add(&device->losses, 1);
    device->store->ops->lost(device->store, copies, sentinel);
    atomic_fetch_sub(&device->sending_back, 1);
}

/* The count first: who sees the new one, and nobody sending back, begins after the store was told. */
uint32_t fsw_losses_noted(const struct fsw_device *device)
{
    uint32_t losses = atomic_load(&device->losses);

    return atomic_load(&device->sending_back) == 0 ? losses : losses - 1;
}

void fsw_lost_since(struct fsw_device *device, uint32_t losses)
{
    if (atomic_load(&device->losses) != losses)
        send_back(device, 0, 0);
}

/* One that no copy has shown yet. */
static uint64_t next_sentinel(const struct fsw_superblock *super)
{
    uint64_t most = 0;

    for (unsigned copy = 0; copy < FSW_COPIES_MAX; copy++)
        if (fsw_sentinel(super, copy) > most)
            most = fsw_sentinel(super, copy);
    return most + 1 != 0 ? most + 1 : 1;
}

/* The old one may come back for all that: it does not show the new sentinel, and so can't say of what it
 * never got that it is gone. The sentinel first: whoever dies between finds an emptied store, and no old
 * one that is taken for the new. */
void fsw_lost_adopt(struct fsw_device *device, uint32_t copies)
{
    static pthread_mutex_t adopting =
        PTHREAD_MUTEX_INITIALIZER; /* keeper, repair: in the same order */
    struct fsw_superblock *super = device->image.super;
    FSW_LOCK_SCOPE(&adopting);
    uint64_t sentinel = next_sentinel(super);

    for (unsigned copy = 0; copy < FSW_COPIES_MAX; copy++)
        if (copies >> copy & 1)
            atomic_store(&super->sentinels[copy], sentinel);
    atomic_fetch_and(&super->planted, ~copies);
    send_back(device, copies, sentinel);
}

uint32_t fsw_lost_waited_for(const struct fsw_device *device, uint32_t copies)
{
    uint32_t top = atomic_load(&device->image.super->rows_top), waited_for = 0;

    for (uint32_t number = 1; number < top && waited_for != copies; number++) {
        uint32_t has = atomic_load(&device->image.rows[number].copies);

        if ((has & ~copies) == 0 && fsw_row_state(&device->image, number) == FSW_ROW_LIVE)
            waited_for |= has != 0 ? has : copies;
    }
    return waited_for;
}

static int puts_are_out(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    return overflow->puts_out > 0;
}

/* No put that the old one acknowledged is about to be LIVE, and none is. (Cleaning needs some to put. What
 * waits for its drop, or was lost before, is not waited for.) */
static int nothing_is_there(struct fsw_device *device)
{
    return !puts_are_out(device) && fsw_lost_waited_for(device, 1) == 0;
}

void fsw_lost_follow_emptied(struct fsw_device *device, const struct fsw_store_health *health)
{
    if (device->store->copies == 1 && (health->up & health->emptied) != 0 &&
        nothing_is_there(device))
        fsw_lost_adopt(device, 1);
}

void fsw_lost_follow(struct fsw_device *device)
{
    struct fsw_superblock *super = device->image.super;
    uint32_t asked = atomic_load(&super->lost_asked), copies;
    struct fsw_store_health health = {0};

    if (asked == 0)
        return;
    copies = device->store == NULL ? 0 : asked & fsw_all_copies(device);
    if (copies != 0)
        device->store->ops->health(device->store, &health);
    copies &= ~(health.up & ~health.emptied);
    if ((copies & ~health.up) != 0) {
        fsw_repair_want(device);
        lose_rows(device, copies & ~health.up);
        fsw_repair_want(device);
    }
    if (copies != 0)
        fsw_lost_adopt(device, copies);
    atomic_store(&super->lost_refused, asked & ~copies);
    atomic_fetch_and(&super->lost_asked, ~asked);
}
