/*
 * test_overflow_idle.c: pages that are asked to leave: all of them, or those that nobody used.
 */
#include "rig.h"

#include <errno.h>

#include "common/clock.h"
#include "farswap/steer.h"

#define PATIENCE_NS (30 * FSW_NS_PER_S)
#define PAGES 300u

static const struct rig_options with_store = {.size = 8 << 20, .memory = 8 << 20, .with_store = 1};

static void write_pages(struct rig *rig, unsigned from, unsigned to)
{
    for (unsigned page = from; page < to; page++)
        assert_int_equal(rig_write_page(rig, page, RIG_HALF, page), 0);
}

static void expect_pages(struct rig *rig, unsigned to)
{
    for (unsigned page = 0; page < to; page++)
        rig_expect_page(rig, page, RIG_HALF, page);
}

static int ask(struct rig *rig, uint32_t seconds, struct fsw_overflowed *went)
{
    return fsw_device_overflow_idle(rig->device, seconds, PATIENCE_NS, went);
}

static void all_pages_leave_when_asked(void **state)
{
    struct fsw_overflowed went;
    struct rig rig;

    rig_open(&rig, &with_store);
    assert_int_equal(ask(&rig, 0, &went), -ENOTSUP); /* an image that was made without a store */
    rig.device->image.super->overflow[0] = 't';
    assert_int_equal(ask(&rig, 0, &went), 0);
    assert_int_equal(went.pages, 0);
    write_pages(&rig, 0, PAGES);
    assert_int_equal(ask(&rig, 0, &went), 0);
    assert_int_equal(went.pages, PAGES);
    assert_int_equal(went.bytes, rig_stat(&rig, FSW_STAT_STORE_BYTES));
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_STORE), PAGES);
    assert_int_equal(ask(&rig, 0, &went), 0); /* nothing is left, and it says so */
    assert_int_equal(went.pages, 0);
    assert_int_equal(went.bytes, 0);
    expect_pages(&rig, PAGES);
    rig_close(&rig);
}

/* The clock is at a new value, and came there so many seconds ago. */
static void tick(struct rig *rig, unsigned seconds_ago)
{
    struct fsw_device *device = rig->device;
    uint8_t clock;

    fsw_keeper_stop(device);
    fsw_reclaim_follow_clock(device);
    clock = (uint8_t)(atomic_fetch_add(&device->clock, 1) + 1);
    fsw_reclaim_follow_clock(device);
    atomic_store(&device->reclaim.ticked_at[clock], fsw_now_ns() - seconds_ago * FSW_NS_PER_S);
    atomic_store(&device->keeper.stop, 0);
    assert_int_equal(fsw_keeper_start(device), 0);
}

static void pages_that_are_used_stay(void **state)
{
    struct fsw_overflowed went;
    struct rig rig;

    rig_open(&rig, &with_store);
    rig.device->image.super->overflow[0] = 't';
    write_pages(&rig, 0, 100);
    tick(&rig, 50);
    write_pages(&rig, 100, 200);
    expect_pages(&rig, 10); /* read: they are young */
    tick(&rig, 20);
    write_pages(&rig, 200, PAGES);
    assert_int_equal(ask(&rig, 1000, &went), 0);
    assert_int_equal(went.pages, 0);
    assert_int_equal(ask(&rig, 30, &went), 0);
    assert_int_equal(went.pages, 90);
    assert_int_equal(fsw_entry_state(*rig_entry(&rig, 9)), FSW_POOL);
    assert_int_equal(fsw_entry_state(*rig_entry(&rig, 10)), FSW_STORE);
    assert_int_equal(ask(&rig, 10, &went), 0);
    assert_int_equal(went.pages, 110);
    for (unsigned page = 200; page < PAGES; page++)
        assert_int_equal(fsw_entry_state(*rig_entry(&rig, page)), FSW_POOL);
    expect_pages(&rig, PAGES);
    rig_close(&rig);
}

static void a_clock_that_nobody_winds_ticks_by_itself(void **state)
{
    struct rig rig;

    rig_open(&rig, &with_store);
    fsw_keeper_stop(rig.device);
    fsw_reclaim_follow_clock(rig.device);
    uint64_t ticks = rig_stat(&rig, FSW_STAT_AGE_TICKS);
    uint8_t clock = atomic_load(&rig.device->clock);
    fsw_reclaim_follow_clock(rig.device);
    assert_int_equal(atomic_load(&rig.device->clock), clock);
    atomic_store(&rig.device->reclaim.ticked_at[clock], fsw_now_ns() - 61 * FSW_NS_PER_S);
    fsw_reclaim_follow_clock(rig.device);
    assert_int_equal(atomic_load(&rig.device->clock), (uint8_t)(clock + 1));
    assert_int_equal(rig_stat(&rig, FSW_STAT_AGE_TICKS), ticks + 1);
    fsw_reclaim_follow_clock(rig.device); /* not once more: it has just ticked */
    assert_int_equal(atomic_load(&rig.device->clock), (uint8_t)(clock + 1));
    rig_close(&rig);
}

static void a_store_that_takes_no_more_ends_it(void **state)
{
    struct fsw_overflowed went;
    struct rig rig;

    rig_open(&rig, &with_store);
    rig.device->image.super->overflow[0] = 't';
    write_pages(&rig, 0, PAGES);
    teststore_room(rig.store, 2);
    assert_int_equal(ask(&rig, 0, &went), -ENOSPC);
    assert_int_equal(went.pages, rig_stat(&rig, FSW_STAT_PAGES_STORE));
    assert_in_range(went.pages, 1, PAGES - 1);
    assert_int_equal(went.bytes, rig_stat(&rig, FSW_STAT_STORE_BYTES));
    teststore_room(rig.store, 1000);
    teststore_answer(rig.store, TESTSTORE_PUTS, FSW_STORE_UNREACHABLE, 1, 0);
    assert_int_equal(ask(&rig, 0, &went), -EIO);
    uint64_t left = rig_stat(&rig, FSW_STAT_PAGES_POOL);
    assert_true(left > 0);
    assert_int_equal(ask(&rig, 0, &went), 0);
    assert_int_equal(went.pages, left);
    expect_pages(&rig, PAGES);
    rig_close(&rig);
}

/* A second one who asks meanwhile has its answer with, or after, the first. */
static void two_who_ask_are_both_answered(void **state)
{
    struct fsw_overflowed went;
    struct rig rig;

    rig_open(&rig, &with_store);
    rig.device->image.super->overflow[0] = 't';
    write_pages(&rig, 0, PAGES);
    teststore_hold(rig.store, TESTSTORE_PUTS);
    assert_int_equal(fsw_device_overflow_idle(rig.device, 0, 1, &went), -ETIMEDOUT);
    teststore_wait_held(rig.store, TESTSTORE_PUTS, 1);
    uint64_t second = fsw_device_overflow_idle(rig.device, 3600, 1, &went) == -ETIMEDOUT;
    assert_int_equal(second, 1);
    teststore_release(rig.store, TESTSTORE_PUTS);
    assert_int_equal(ask(&rig, 0, &went), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_STORE), PAGES);
    assert_int_equal(atomic_load(&rig.device->image.super->idle_answered), 3);
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(all_pages_leave_when_asked), cmocka_unit_test(pages_that_are_used_stay),
         cmocka_unit_test(a_clock_that_nobody_winds_ticks_by_itself),
         cmocka_unit_test(a_store_that_takes_no_more_ends_it),
         cmocka_unit_test(two_who_ask_are_both_answered))
