/*
 * test_huge.c: huge=store. Pages that do not compress leave as soon as they fill a segment, though there
 * is room for them.
 */
#include "rig.h"

#include "common/clock.h"
#include "core/steer.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define A_SEGMENT 15u /* so many pages that do not compress fill one */
#define KIND 1000u    /* pages that compress, and behind them those that do not */

static void set(struct rig *rig, const char *key, const char *value)
{
    struct fsw_error err = {""};

    if (fsw_device_set(rig->device, key, value, &err) < 0)
        fail_msg("%s", err.text);
}

static void write_pages(struct rig *rig, enum rig_kind kind, unsigned from, unsigned to)
{
    for (uint64_t page = from; page < to; page++)
        assert_int_equal(rig_write_page(rig, page, kind, page), 0);
}

static void expect_pages(struct rig *rig, enum rig_kind kind, unsigned from, unsigned to)
{
    for (uint64_t page = from; page < to; page++)
        rig_expect_page(rig, page, kind, page);
}

static unsigned in_store(struct rig *rig, unsigned from, unsigned to)
{
    unsigned count = 0;

    for (uint64_t page = from; page < to; page++)
        count += fsw_entry_state(fsw_entry_load(rig_entry(rig, page))) == FSW_STORE;
    return count;
}

static unsigned puts_out(struct rig *rig)
{
    struct fsw_overflow *overflow = &rig->device->overflow;

    pthread_mutex_lock(&overflow->lock);
    unsigned out = overflow->puts_out;
    pthread_mutex_unlock(&overflow->lock);
    return out;
}

/* And nothing is on its way. */
static int less_than_a_segment_is_left(struct rig *rig, void *opaque)
{
    return puts_out(rig) == 0 && rig_stat(rig, FSW_STAT_HUGE_PAGES) < A_SEGMENT;
}

/* The keeper has looked, twice, whether some are to leave: each time it does so before it compacts. */
static void let_keeper_look(struct rig *rig)
{
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(fsw_device_compact(rig->device, 60 * FSW_NS_PER_S), 0);
}

/* Room for twice of all that is written here. */
static void open_rig(struct rig *rig)
{
    rig_open(rig, &(struct rig_options){.size = MIB(16), .memory = MIB(16), .with_store = 1});
}

static void what_does_not_compress_leaves_and_nothing_else(void **state)
{
    const unsigned half = KIND / 2, end = 2 * KIND;
    struct rig rig;

    open_rig(&rig);
    write_pages(&rig, RIG_HALF, 0, half);
    write_pages(&rig, RIG_NOISE, KIND, KIND + half);
    set(&rig, "huge", "store"); /* also for those that are there */
    rig_wait(&rig, less_than_a_segment_is_left, NULL);
    write_pages(&rig, RIG_HALF, half, KIND);
    write_pages(&rig, RIG_NOISE, KIND + half, end);
    rig_wait(&rig, less_than_a_segment_is_left, NULL);
    assert_int_equal(atomic_load(&rig.device->overflow.wanted), 0);
    assert_true(fsw_frames_free(&rig.device->pool.frames) > atomic_load(&rig.device->reclaim.high));
    unsigned left = in_store(&rig, KIND, end);
    assert_true(left > KIND - A_SEGMENT);
    assert_int_equal(in_store(&rig, 0, KIND), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_HUGE), left);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_PAGES), left);
    /* In whole segments, unless compaction was moving one of them. */
    assert_in_range(rig_stat(&rig, FSW_STAT_OVERFLOW_SEGMENTS), left / A_SEGMENT,
                    left / A_SEGMENT + 5);
    expect_pages(&rig, RIG_HALF, 0, KIND);
    expect_pages(&rig, RIG_NOISE, KIND, end);
    assert_int_equal(in_store(&rig, KIND, end), left); /* those that were read stay there */
    rig_close(&rig);
}

/* There are not rows enough for a segment a page. Those on their way are none that others wait for. */
static void few_wait_for_others(void **state)
{
    const unsigned few = A_SEGMENT - 1;
    struct rig rig;

    open_rig(&rig);
    write_pages(&rig, RIG_NOISE, 0, few + A_SEGMENT);
    teststore_hold(rig.store, TESTSTORE_PUTS);
    set(&rig, "huge", "store");
    teststore_wait_held(rig.store, TESTSTORE_PUTS, 1);
    let_keeper_look(&rig);
    assert_int_equal(puts_out(&rig), 1);
    teststore_release(rig.store, TESTSTORE_PUTS);
    rig_wait(&rig, less_than_a_segment_is_left, NULL);
    let_keeper_look(&rig);
    assert_int_equal(rig_stat(&rig, FSW_STAT_HUGE_PAGES), few);
    write_pages(&rig, RIG_NOISE, few + A_SEGMENT, 2 * A_SEGMENT);
    rig_wait(&rig, less_than_a_segment_is_left, NULL);
    assert_int_equal(rig_stat(&rig, FSW_STAT_HUGE_PAGES), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_SEGMENTS), 2);
    set(&rig, "huge", "first"); /* from now on they stay while there is room */
    write_pages(&rig, RIG_NOISE, 100, 200);
    let_keeper_look(&rig);
    assert_int_equal(rig_stat(&rig, FSW_STAT_HUGE_PAGES), 100);
    expect_pages(&rig, RIG_NOISE, 0, 2 * A_SEGMENT);
    rig_close(&rig);
}

static int one_has_left(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_STORE_FULL) > 0 && rig_stat(rig, FSW_STAT_OVERFLOW_SEGMENTS) == 1;
}

static int nothing_is_on_its_way(struct rig *rig, void *opaque)
{
    return puts_out(rig) == 0;
}

static int store_was_full_again(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_STORE_FULL) > *(uint64_t *)opaque;
}

/* The hand that looks for room stops in the midst of a zspage, and what it leaves there stays. */
static void what_another_hand_left_stays(void **state)
{
    struct fsw_reclaim *reclaim;
    struct rig rig;

    open_rig(&rig);
    reclaim = &rig.device->reclaim;
    write_pages(&rig, RIG_HALF, 0, KIND);
    teststore_room(rig.store, 1);
    rig_evict(&rig, 1);
    rig_wait(&rig, one_has_left, NULL);
    rig_evict(&rig, 0);
    rig_wait(&rig, nothing_is_on_its_way, NULL);
    for (unsigned tries = 0; reclaim->next == reclaim->count; tries++) { /* it stopped at an end */
        uint64_t full = rig_stat(&rig, FSW_STAT_STORE_FULL);
        assert_true(tries < 20);
        rig_evict(&rig, 1);
        rig_wait(&rig, store_was_full_again, &full);
        rig_evict(&rig, 0);
        rig_wait(&rig, nothing_is_on_its_way, NULL);
    }
    unsigned left = in_store(&rig, 0, KIND);
    teststore_room(rig.store, 1000);
    set(&rig, "huge", "store");
    write_pages(&rig, RIG_NOISE, KIND, KIND + A_SEGMENT);
    rig_wait(&rig, less_than_a_segment_is_left, NULL);
    assert_int_equal(in_store(&rig, KIND, KIND + A_SEGMENT), A_SEGMENT);
    assert_int_equal(in_store(&rig, 0, KIND), left);
    expect_pages(&rig, RIG_HALF, 0, KIND);
    rig_close(&rig);
}

#define MANY 500u
#define ROOM 3u

static int is_refused(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_STORE_FULL) >= FSW_PUTS_IN_FLIGHT + 2 &&
           rig_stat(rig, FSW_STAT_HUGE_PAGES) == MANY - ROOM * A_SEGMENT;
}

/* Nothing is lost, and the store is asked with one segment at a time. */
static void what_the_store_does_not_take_stays(void **state)
{
    struct rig rig;

    open_rig(&rig);
    set(&rig, "huge", "store");
    teststore_room(rig.store, ROOM);
    write_pages(&rig, RIG_NOISE, 0, MANY);
    rig_wait(&rig, is_refused, NULL);
    teststore_hold(rig.store, TESTSTORE_PUTS);
    teststore_wait_held(rig.store, TESTSTORE_PUTS, 1);
    let_keeper_look(&rig);
    assert_int_equal(puts_out(&rig), 1);
    expect_pages(&rig, RIG_NOISE, 0, MANY);
    teststore_room(rig.store, 1000);
    teststore_release(rig.store, TESTSTORE_PUTS);
    rig_wait(&rig, less_than_a_segment_is_left, NULL);
    expect_pages(&rig, RIG_NOISE, 0, MANY);
    rig_close(&rig);
}

static int is_limited(struct rig *rig, void *opaque)
{
    return puts_out(rig) == 0 && rig_stat(rig, FSW_STAT_OVERFLOW_LIMITED) > 0;
}

static void no_more_leaves_than_overflow_limit(void **state)
{
    struct rig rig;

    open_rig(&rig);
    set(&rig, "huge", "store");
    set(&rig, "overflow_limit", "1M");
    write_pages(&rig, RIG_NOISE, 0, MANY);
    rig_wait(&rig, is_limited, NULL);
    assert_in_range(rig_stat(&rig, FSW_STAT_OVERFLOW_BYTES), MIB(1) - FSW_SEGMENT_BYTES, MIB(1));
    assert_true(rig_stat(&rig, FSW_STAT_HUGE_PAGES) > MANY / 3);
    set(&rig, "overflow_limit", "off");
    rig_wait(&rig, less_than_a_segment_is_left, NULL);
    expect_pages(&rig, RIG_NOISE, 0, MANY);
    rig_close(&rig);
}

/* What stands in the way of those does not stand in the way of others, who must leave. */
static void others_leave_for_room_as_ever(void **state)
{
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = MIB(64), .memory = MIB(8), .with_store = 1});
    set(&rig, "huge", "store");
    for (unsigned page = 0; page < 8 * KIND; page += KIND) {
        write_pages(&rig, RIG_HALF, page, page + KIND / 2);
        write_pages(&rig, RIG_NOISE, page + KIND / 2, page + KIND);
    }
    assert_true(in_store(&rig, 0, KIND / 2) > 0);
    for (unsigned page = 0; page < 8 * KIND; page += KIND) {
        expect_pages(&rig, RIG_HALF, page, page + KIND / 2);
        expect_pages(&rig, RIG_NOISE, page + KIND / 2, page + KIND);
    }
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(what_does_not_compress_leaves_and_nothing_else),
         cmocka_unit_test(few_wait_for_others), cmocka_unit_test(what_another_hand_left_stays),
         cmocka_unit_test(what_the_store_does_not_take_stays),
         cmocka_unit_test(no_more_leaves_than_overflow_limit),
         cmocka_unit_test(others_leave_for_room_as_ever))
