/*
 * test_device_races.c: overflow and fetch against everything that can happen to their pages
 * meanwhile, driven on purpose.
 *
 * A segment of PAGES pages is on its way. At one step of that way (a hook of the engine, or the
 * store holding the put) each of three of its pages, the first, one in the middle, the last, is
 * rewritten, written in part, discarded, ... Then the put goes on, and ends well or badly. In the
 * end every page must be what was written last, and everything must add up (rig_prove): no leak, no
 * object freed twice, no row forgotten.
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"

#define PAGES 40u
#define OTHERS 64u /* written to take what was freed too early */

enum action {
    REWRITE,
    REWRITE_OFTEN, /* would take the place that a wrong free left (rule a) */
    REWRITE_SAME_BYTES,
    WRITE_PART,
    ZERO_PART,
    FILL_SAME,
    DISCARD,
    DISCARD_AND_REWRITE,
    READ,
    ACTIONS,
};

struct race {
    struct rig rig;
    char content[PAGES + OTHERS][FSW_PAGE_SIZE];
    enum hook_point { AT_HOOK, IN_FLIGHT } point;
    enum fsw_hook at;
    unsigned nth, seen;
    enum action action;
};

static struct race race;
static const uint64_t targets[] = {0, PAGES / 2, PAGES - 1};

static void fill(uint64_t page, enum rig_kind kind, uint64_t seed)
{
    rig_fill(race.content[page], kind, seed);
    assert_int_equal(
        fsw_device_write(race.rig.device, race.content[page], page * FSW_PAGE_SIZE, FSW_PAGE_SIZE),
        0);
}

static void expect(uint64_t page)
{
    char bytes[FSW_PAGE_SIZE];

    assert_int_equal(fsw_device_read(race.rig.device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE),
                     0);
    if (memcmp(bytes, race.content[page], FSW_PAGE_SIZE) != 0)
        fail_msg("page %u: action %d at %s %d (%u) lost its content", (unsigned)page,
                 (int)race.action, race.point == AT_HOOK ? "hook" : "flight", (int)race.at,
                 race.nth);
}

static void write_part(uint64_t page, const char *bytes)
{
    memcpy(race.content[page] + 70, bytes, 100);
    assert_int_equal(fsw_device_write(race.rig.device, bytes, page * FSW_PAGE_SIZE + 70, 100), 0);
}

static void act_on(uint64_t page)
{
    struct fsw_device *device = race.rig.device;
    uint64_t at = page * FSW_PAGE_SIZE;
    char noise[FSW_PAGE_SIZE];

    rig_fill(noise, RIG_NOISE, page);
    switch (race.action) {
    case REWRITE_OFTEN:
        for (unsigned i = 0; i < OTHERS; i++) {
            fill(page, RIG_TEXT, 5000 + page * 100 + i);
            fill(PAGES + i, RIG_TEXT, 9000 + page * 100 + i);
        }
        break;
    case REWRITE_SAME_BYTES:
        fill(page, RIG_TEXT, page);
        break;
    case WRITE_PART:
        write_part(page, noise);
        break;
    case ZERO_PART:
        memset(race.content[page] + 9, 0, 2000);
        assert_int_equal(fsw_device_zero(device, at + 9, 2000), 0);
        break;
    case FILL_SAME:
        fill(page, RIG_SAME32, page);
        break;
    case DISCARD:
    case DISCARD_AND_REWRITE:
        memset(race.content[page], 0, FSW_PAGE_SIZE);
        assert_int_equal(fsw_device_discard(device, at, FSW_PAGE_SIZE), 0);
        if (race.action == DISCARD)
            break;
        /* fall through */
    case REWRITE:
        fill(page, RIG_TEXT, 1000 + page);
        break;
    default:
        break;
    }
    expect(page);
}

static void act(void)
{
    for (unsigned i = 0; i < sizeof targets / sizeof targets[0]; i++)
        act_on(targets[i]);
}

static void on_hook(enum fsw_hook at, void *opaque)
{
    if (at == FSW_HOOK_PACKED)
        rig_evict(&race.rig, 0); /* one segment is enough */
    if (race.point == AT_HOOK && at == race.at && ++race.seen == race.nth)
        act();
}

static int put_ended(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_OVERFLOW_SEGMENTS) + rig_stat(rig, FSW_STAT_OVERFLOW_FAILED) > 0;
}

static void run_race(enum fsw_store_result result, int lands)
{
    race.seen = 0;
    rig_open(&race.rig, &(struct rig_options){.size = 8 << 20, .memory = 8 << 20, .with_store = 1});
    for (uint64_t page = 0; page < PAGES; page++)
        fill(page, RIG_TEXT, page);
    memset(race.content[PAGES], 0, sizeof race.content - PAGES * FSW_PAGE_SIZE);
    teststore_answer(race.rig.store, TESTSTORE_PUTS, result, 1, lands);
    race.rig.device->hook = on_hook;
    if (race.point == IN_FLIGHT)
        teststore_hold(race.rig.store, TESTSTORE_PUTS);
    rig_evict(&race.rig, 1);
    if (race.point == IN_FLIGHT) {
        teststore_wait_held(race.rig.store, TESTSTORE_PUTS, 1);
        act();
        teststore_release(race.rig.store, TESTSTORE_PUTS);
    }
    rig_wait(&race.rig, put_ended, NULL);
    rig_prove(&race.rig);
    for (uint64_t page = 0; page < PAGES + OTHERS; page++)
        expect(page);
    if (result != FSW_STORE_OK)
        assert_int_equal(rig_stat(&race.rig, FSW_STAT_OVERFLOW_FAILED), 1);
    else
        assert_int_equal(rig_stat(&race.rig, FSW_STAT_OVERFLOW_PAGES) +
                             rig_stat(&race.rig, FSW_STAT_OVERFLOW_RACED),
                         PAGES);
    assert_int_equal(fsw_device_discard(race.rig.device, 0, 8 << 20), 0);
    rig_prove(&race.rig);
    assert_int_equal(rig_stat(&race.rig, FSW_STAT_PAGES_STORED), 0);
    assert_int_equal(rig_stat(&race.rig, FSW_STAT_STORE_BYTES), 0);
    rig_close(&race.rig);
}

static void run_actions(enum hook_point point, enum fsw_hook at, unsigned nth,
                        enum fsw_store_result result, int lands)
{
    race.point = point;
    race.at = at;
    race.nth = nth;
    for (race.action = 0; race.action < ACTIONS; race.action++)
        run_race(result, lands);
}

static void changes_before_the_put(void **state)
{
    run_actions(AT_HOOK, FSW_HOOK_PACKED, 1, FSW_STORE_OK, 1);
}

static void changes_while_the_put_is_in_flight(void **state)
{
    run_actions(IN_FLIGHT, 0, 0, FSW_STORE_OK, 1);
}

static void changes_after_the_put_before_the_row_lives(void **state)
{
    run_actions(AT_HOOK, FSW_HOOK_ANSWERED, 1, FSW_STORE_OK, 1);
}

static void changes_before_any_entry_flips(void **state)
{
    run_actions(AT_HOOK, FSW_HOOK_LIVE, 1, FSW_STORE_OK, 1);
}

static void changes_between_the_flips(void **state)
{
    run_actions(AT_HOOK, FSW_HOOK_FLIPPED, 1, FSW_STORE_OK, 1);
    run_actions(AT_HOOK, FSW_HOOK_FLIPPED, PAGES / 2 + 1, FSW_STORE_OK, 1);
    run_actions(AT_HOOK, FSW_HOOK_FLIPPED, PAGES, FSW_STORE_OK, 1);
}

static void changes_under_a_put_that_fails(void **state)
{
    run_actions(IN_FLIGHT, 0, 0, FSW_STORE_FULL, 0);
    run_actions(IN_FLIGHT, 0, 0, FSW_STORE_UNREACHABLE, 0);
    run_actions(IN_FLIGHT, 0, 0, FSW_STORE_UNREACHABLE, 1);
    run_actions(IN_FLIGHT, 0, 0, FSW_STORE_REFUSED, 0);
    run_actions(IN_FLIGHT, 0, 0, FSW_STORE_CORRUPT, 0);
    run_actions(AT_HOOK, FSW_HOOK_PACKED, 1, FSW_STORE_UNREACHABLE, 1);
}

/* ---- fetches ---- */

/* One page, alone in its segment, at the store. */
static void open_with_page_0_away(void)
{
    rig_open(&race.rig, &(struct rig_options){.size = 8 << 20, .memory = 8 << 20, .with_store = 1});
    fill(0, RIG_NOISE, 1);
    rig_evict_all(&race.rig);
}

static int row_is(struct rig *rig, uint32_t row, enum fsw_row_state wanted)
{
    return fsw_row_state(&rig->device->image, row) == wanted;
}

static void *read_page_0(void *opaque)
{
    int r = fsw_device_read(race.rig.device, opaque, 0, FSW_PAGE_SIZE);
    return (void *)(intptr_t)r;
}

/* Rule c. The store ends the program if the row is dropped, or used again, under the get. */
static void a_row_stays_while_a_get_of_it_is_in_flight(void **state)
{
    char bytes[FSW_PAGE_SIZE], old[FSW_PAGE_SIZE];
    pthread_t reader;
    void *r;

    open_with_page_0_away();
    uint32_t row = fsw_entry_row(*rig_entry(&race.rig, 0));
    memcpy(old, race.content[0], sizeof old);
    teststore_hold(race.rig.store, TESTSTORE_GETS);
    pthread_create(&reader, NULL, read_page_0, bytes);
    teststore_wait_held(race.rig.store, TESTSTORE_GETS, 1);
    assert_int_equal(fsw_row_pins(&race.rig.device->image, row), 2); /* the read's, the get's */
    for (unsigned i = 0; i < 5; i++) { /* nothing lives in it any more; others want a row */
        fill(0, RIG_NOISE, 2 + i);
        rig_evict_all(&race.rig);
        assert_int_not_equal(fsw_entry_row(*rig_entry(&race.rig, 0)), row);
        assert_true(row_is(&race.rig, row, FSW_ROW_LIVE));
    }
    teststore_release(race.rig.store, TESTSTORE_GETS);
    pthread_join(reader, &r);
    assert_int_equal((intptr_t)r, 0);
    assert_memory_equal(bytes, old, sizeof old); /* as it was when the read began */
    expect(0);
    rig_prove(&race.rig);
    assert_true(row_is(&race.rig, row, FSW_ROW_FREE));
    rig_close(&race.rig);
}

static unsigned hook_calls;
static enum fsw_hook wanted_hook;

/* Page 0 is written anew and leaves again, with every chance to get its old row back. */
static void rewrite_and_evict(enum fsw_hook at, void *opaque)
{
    if (at != wanted_hook || hook_calls++ > 0)
        return;
    uint32_t row = fsw_entry_row(*rig_entry(&race.rig, 0));
    fill(0, RIG_NOISE, 77);
    uint64_t until = fsw_now_ns() + 50 * FSW_NS_PER_MS;
    const struct timespec pause = {.tv_nsec = 1000 * 1000};
    while (!row_is(&race.rig, row, FSW_ROW_FREE) && fsw_now_ns() < until)
        nanosleep(&pause, NULL);
    rig_evict_all(&race.rig);
    assert_int_not_equal(fsw_entry_row(*rig_entry(&race.rig, 0)), row);
}

/* Rule b: the part must go into the content of 77, which came while the old one was fetched. */
static void a_part_is_not_written_into_what_was_replaced(void **state)
{
    static const enum fsw_hook hooks[] = {FSW_HOOK_FETCH_PINNED, FSW_HOOK_FETCHED};
    char part[100];

    memset(part, 'x', sizeof part);
    for (unsigned i = 0; i < 2; i++) {
        open_with_page_0_away();
        hook_calls = 0;
        wanted_hook = hooks[i];
        race.rig.device->hook = rewrite_and_evict;
        assert_int_equal(fsw_device_write(race.rig.device, part, 70, sizeof part), 0);
        memcpy(race.content[0] + 70, part, sizeof part);
        expect(0);
        rig_close(&race.rig);
    }
}

static void a_read_sees_old_or_new_when_its_page_is_replaced(void **state)
{
    char bytes[FSW_PAGE_SIZE], old[FSW_PAGE_SIZE];

    open_with_page_0_away();
    memcpy(old, race.content[0], sizeof old);
    hook_calls = 0;
    wanted_hook = FSW_HOOK_FETCH_PINNED;
    race.rig.device->hook = rewrite_and_evict;
    assert_int_equal((intptr_t)read_page_0(bytes), 0);
    assert_true(memcmp(bytes, old, sizeof old) == 0 ||
                memcmp(bytes, race.content[0], sizeof old) == 0);
    expect(0);
    rig_close(&race.rig);
}

static void discard_0(enum fsw_hook at, void *opaque)
{
    if (at == FSW_HOOK_FETCH_PINNED && hook_calls++ == 0)
        assert_int_equal(fsw_device_discard(race.rig.device, 0, FSW_PAGE_SIZE), 0);
}

/* A loss that nobody needs any more is no error. */
static void a_page_lost_while_it_was_discarded_reads_as_zero(void **state)
{
    char bytes[FSW_PAGE_SIZE], zero[FSW_PAGE_SIZE] = {0};

    open_with_page_0_away();
    teststore_answer(race.rig.store, TESTSTORE_GETS, FSW_STORE_GONE, 1, 0);
    hook_calls = 0;
    race.rig.device->hook = discard_0;
    assert_int_equal((intptr_t)read_page_0(bytes), 0);
    assert_memory_equal(bytes, zero, sizeof zero);
    assert_int_equal(rig_stat(&race.rig, FSW_STAT_STORE_LOST_PAGES), 0);
    assert_int_equal(rig_stat(&race.rig, FSW_STAT_FETCH_RETRIES), 1);
    rig_close(&race.rig);
}

RIG_MAIN(cmocka_unit_test(changes_before_the_put),
         cmocka_unit_test(changes_while_the_put_is_in_flight),
         cmocka_unit_test(changes_after_the_put_before_the_row_lives),
         cmocka_unit_test(changes_before_any_entry_flips),
         cmocka_unit_test(changes_between_the_flips),
         cmocka_unit_test(changes_under_a_put_that_fails),
         cmocka_unit_test(a_row_stays_while_a_get_of_it_is_in_flight),
         cmocka_unit_test(a_part_is_not_written_into_what_was_replaced),
         cmocka_unit_test(a_read_sees_old_or_new_when_its_page_is_replaced),
         cmocka_unit_test(a_page_lost_while_it_was_discarded_reads_as_zero))
