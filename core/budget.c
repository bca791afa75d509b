/*
 * budget.c: a limit, what is spent of it, and when it is full again.
 *
 *   B1  overflow_spent counts while overflow_limited says so, and not when overflow_refill is over:
 *       then nothing is spent, and the next charge begins a day.
 *   B2  A day begins with nothing spent, and only then says when it ends: who dies in between begins
 *       it again.
 *   B3  Only the server charges, under overflow.lock. Others store single words.
 */
#include "core/budget.h"

#include "common/cleanup.h"
#include "common/clock.h"
#include "core/crash.h"
#include "core/engine.h"
#include "farswap/steer.h"

#define DAY_S 86400u
#define NEVER UINT64_MAX /* of overflow_refill: somebody says how much may leave */

/* ---- for whoever maps the image ---- */

void fsw_budget_set_day(struct fsw_superblock *super, uint64_t bytes)
{
    if (bytes == 0) {
        atomic_store(&super->overflow_limited, 0);
        return;
    }
    atomic_store(&super->overflow_limit, bytes);
    if (atomic_load(&super->overflow_refill) == NEVER)
        atomic_store(&super->overflow_refill, 0);
    atomic_store(&super->overflow_limited, 1);
}

int fsw_budget_is_on(const struct fsw_superblock *super)
{
    return atomic_load(&super->overflow_limited) != 0;
}

uint64_t fsw_budget_until_refill(const struct fsw_superblock *super)
{
    uint64_t refill = atomic_load(&super->overflow_refill), now = fsw_boot_seconds();

    return refill == NEVER ? NEVER : now < refill ? refill - now : 0;
}

uint64_t fsw_budget_left(const struct fsw_superblock *super)
{
    uint64_t limit = atomic_load(&super->overflow_limit);
    uint64_t spent = atomic_load(&super->overflow_spent);

    if (fsw_budget_until_refill(super) == 0)
        return limit;
    return spent < limit ? limit - spent : 0;
}

/* ---- for the server ---- */

int fsw_budget_allows(const struct fsw_device *device, unsigned segments)
{
    const struct fsw_superblock *super = device->image.super;

    return !fsw_budget_is_on(super) ||
           fsw_budget_left(super) >= segments * (uint64_t)FSW_SEGMENT_BYTES;
}

void fsw_budget_charge(struct fsw_device *device, uint32_t bytes)
{
    struct fsw_superblock *super = device->image.super;
    FSW_LOCK_SCOPE(&device->overflow.lock);

    if (!fsw_budget_is_on(super))
        return;
    if (fsw_budget_until_refill(super) == 0) {
        atomic_store(&super->overflow_spent, 0);
        fsw_crash_point("budget: a new day, nothing spent");
        atomic_store(&super->overflow_refill, fsw_boot_seconds() + DAY_S);
    }
    atomic_fetch_add(&super->overflow_spent, bytes);
    fsw_crash_point("budget: charged, not asked for");
}

void fsw_budget_give_back(struct fsw_device *device, uint32_t bytes)
{
    _Atomic uint64_t *spent = &device->image.super->overflow_spent;
    FSW_LOCK_SCOPE(&device->overflow.lock);

    /* Less, if it was charged the day before, or not at all. */
    atomic_fetch_sub(spent, atomic_load(spent) < bytes ? atomic_load(spent) : bytes);
}

/* ---- as zram has it ---- */

void fsw_device_set_overflow_budget(struct fsw_device *device, uint64_t bytes)
{
    struct fsw_superblock *super = device->image.super;
    FSW_LOCK_SCOPE(&device->overflow.lock);

    atomic_store(&super->overflow_refill, NEVER);
    atomic_store(&super->overflow_spent, 0);
    atomic_store(&super->overflow_limit, bytes);
}

uint64_t fsw_device_overflow_budget(const struct fsw_device *device)
{
    return fsw_budget_left(device->image.super);
}

void fsw_device_limit_overflow(struct fsw_device *device, int on)
{
    atomic_store(&device->image.super->overflow_limited, (uint32_t)on);
}

int fsw_device_overflow_is_limited(const struct fsw_device *device)
{
    return fsw_budget_is_on(device->image.super);
}
