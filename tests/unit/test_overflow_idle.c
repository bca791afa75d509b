/*
 * test_overflow_idle.c: pages that are asked to leave: all of them, or those that nobody used.
 */
#include "rig.h"

#include <errno.h>

#include "common/clock.h"
#include "core/steer.h"

#define PATIENCE_NS (60 * FSW_NS_PER_S)
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

static unsigned age_of(struct rig *rig, uint64_t page)
{
    return (uint8_t)(atomic_load(&rig->device->clock) - fsw_entry_age(*rig_entry(rig, page)));
}

static void read_age_says_what_a_read_does_to_an_age(void **state)
{
    static const char *const words[] = {"young", "half", "keep"};
    const unsigned expected[] = {0, 50, 100}, later[] = {0, 63, 127};
    struct fsw_error err = {""};
    struct fsw_overflowed went;
    struct rig rig;

    rig_open(&rig, &with_store);
    rig.device->image.super->overflow[0] = 't';
    fsw_keeper_stop(rig.device); /* the clock is ours */
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(fsw_device_set(rig.device, "read_age", words[i], &err), 0);
        write_pages(&rig, 0, 2);
        atomic_fetch_add(&rig.device->clock, 100);
        rig_expect_page(&rig, 0, RIG_HALF, 0);
        assert_int_equal(age_of(&rig, 0), expected[i]);
        assert_int_equal(age_of(&rig, 1), 100); /* nobody read it */
        atomic_fetch_add(&rig.device->clock, 27);
        rig_expect_page(&rig, 1, RIG_HALF, 1);
        assert_int_equal(age_of(&rig, 1), later[i]);
    }
    atomic_store(&rig.device->keeper.stop, 0);
    assert_int_equal(fsw_keeper_start(rig.device), 0);

    /* So with keep what is only read is idle. */
    write_pages(&rig, 0, 2);
    tick(&rig, 50);
    expect_pages(&rig, 1);
    assert_int_equal(ask(&rig, 30, &went), 0);
    assert_int_equal(went.pages, 2);
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

/* As zram's `idle`: marked now, and what is used afterwards stays. */
static void what_was_used_before_a_mark_leaves(void **state)
{
    struct fsw_overflowed went;
    struct rig rig;

    rig_open(&rig, &with_store);
    rig.device->image.super->overflow[0] = 't';
    write_pages(&rig, 0, 80);
    assert_int_equal(ask(&rig, FSW_OVERFLOW_MARKED, &went), 0);
    assert_int_equal(went.pages, 0); /* nobody has marked anything */
    fsw_device_mark(rig.device);
    expect_pages(&rig, 20);
    write_pages(&rig, 80, 280); /* the clock ticks meanwhile */
    assert_true(rig_stat(&rig, FSW_STAT_AGE_TICKS) > 1);
    assert_int_equal(ask(&rig, FSW_OVERFLOW_MARKED, &went), 0);
    assert_int_equal(went.pages, 60);
    for (unsigned page = 80; page < 280; page++)
        assert_int_equal(fsw_entry_state(*rig_entry(&rig, page)), FSW_POOL);
    expect_pages(&rig, 280);
    rig_close(&rig);
}

/* Nobody has to wait for a tick of the clock. */
static void a_device_at_rest_is_idle_at_once(void **state)
{
    struct fsw_overflowed went;
    struct rig rig;

    rig_open(&rig, &with_store);
    rig.device->image.super->overflow[0] = 't';
    uint64_t written = fsw_now_ns(), deadline = written + PATIENCE_NS;
    write_pages(&rig, 0, 80);
    do
        assert_int_equal(ask(&rig, 1, &went), 0);
    while (went.pages == 0 && fsw_now_ns() < deadline);
    assert_int_equal(went.pages, 80);
    assert_true(fsw_now_ns() - written > FSW_NS_PER_S);
    uint64_t ticks = rig_stat(&rig, FSW_STAT_AGE_TICKS);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(ask(&rig, 1, &went), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_AGE_TICKS), ticks); /* asking ages nothing */
    rig_close(&rig);
}

static void huge_pages_leave_alone(void **state)
{
    struct fsw_overflowed went;
    struct rig rig;

    rig_open(&rig, &with_store);
    rig.device->image.super->overflow[0] = 't';
    write_pages(&rig, 0, 100);
    for (unsigned page = 100; page < 150; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    assert_int_equal(ask(&rig, FSW_OVERFLOW_HUGE | 3600, &went), 0);
    assert_int_equal(went.pages, 0); /* idle ones only */
    assert_int_equal(ask(&rig, FSW_OVERFLOW_HUGE, &went), 0);
    assert_int_equal(went.pages, 50);
    assert_int_equal(rig_stat(&rig, FSW_STAT_HUGE_PAGES), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_POOL), 100);
    expect_pages(&rig, 100);
    rig_close(&rig);
}

/* Of two that wait, the answer is to what either wants. */
static void the_wider_request_counts(void **state)
{
    const uint32_t huge = FSW_OVERFLOW_HUGE;
    const uint32_t cases[][3] = {{huge | 60, huge | 10, huge | 10},
                                 {huge, 60, 0},
                                 {60, huge, 0},
                                 {10, huge | 60, 10},
                                 {0, 5, 0}};
    struct rig rig;

    rig_open(&rig, &with_store);
    rig.device->image.super->overflow[0] = 't';
    fsw_keeper_stop(rig.device); /* nobody answers */
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        _Atomic uint64_t *asked = &rig.device->image.super->idle_asked;
        atomic_store(&rig.device->image.super->idle_answered, atomic_load(asked) >> 32);
        fsw_image_ask_overflow(&rig.device->image, cases[i][0]);
        assert_int_equal((uint32_t)atomic_load(asked), cases[i][0]);
        fsw_image_ask_overflow(&rig.device->image, cases[i][1]);
        assert_int_equal((uint32_t)atomic_load(asked), cases[i][2]);
    }
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(all_pages_leave_when_asked), cmocka_unit_test(pages_that_are_used_stay),
         cmocka_unit_test(read_age_says_what_a_read_does_to_an_age),
         cmocka_unit_test(a_clock_that_nobody_winds_ticks_by_itself),
         cmocka_unit_test(a_store_that_takes_no_more_ends_it),
         cmocka_unit_test(what_was_used_before_a_mark_leaves),
         cmocka_unit_test(a_device_at_rest_is_idle_at_once),
         cmocka_unit_test(huge_pages_leave_alone), cmocka_unit_test(the_wider_request_counts),
         cmocka_unit_test(two_who_ask_are_both_answered))
