/*
 * test_prefetch.c: what a get brings besides the page that was asked for: how much, and that nothing
 * that lies beside the table is ever taken for what the table names. Run with and without seals.
 */
#include <errno.h>
#include <string.h>

#include "away.h"
#include "farswap/steer.h"

static uint64_t segment_of(struct rig *rig, uint64_t page)
{
    return fsw_row_id(&rig->device->image, fsw_entry_row(*rig_entry(rig, page)));
}

static int read_now(struct rig *rig, uint64_t page, void *bytes)
{
    struct fsw_io io = {.verb = FSW_READ,
                        .flags = FSW_IO_NOWAIT,
                        .bytes = bytes,
                        .offset = page * FSW_PAGE_SIZE,
                        .length = FSW_PAGE_SIZE};

    fsw_device_do(rig->device, &io);
    return io.result;
}

/* ---- prefetch ---- */

static void set(struct rig *rig, const char *key, const char *value)
{
    struct fsw_error err = {""};

    if (fsw_device_set(rig->device, key, value, &err) < 0)
        fail_msg("%s", err.text);
}

static void it_can_be_set_while_the_device_lives(void **state)
{
    struct rig rig;

    away_open(&rig, &away_switched_off, 100);
    for (unsigned page = 0; page < 50; page++)
        rig_expect_page(&rig, page, RIG_TEXT, page);
    assert_int_equal(teststore_gets(rig.store), 50);
    set(&rig, "prefetch", "16k");
    for (unsigned page = 50; page < 100; page++)
        rig_expect_page(&rig, page, RIG_TEXT, page);
    assert_true(teststore_gets(rig.store) < 60);
    set(&rig, "prefetch", "auto");
    assert_int_equal(rig.device->image.super->prefetch, FSW_PREFETCH_AUTO);
    set(&rig, "fetch_timeout", "86400");
    assert_int_equal(rig.device->image.super->fetch_timeout, 86400000);
    set(&rig, "fetch_timeout", "0");
    assert_int_equal(fsw_device_set(rig.device, "prefetch", "1", NULL), -EINVAL);
    assert_int_equal(rig.device->image.super->prefetch, FSW_PREFETCH_AUTO);
    rig_close(&rig);
}

static void reading_on_brings_neighbours(void **state)
{
    struct rig rig;

    away_open(&rig, &away_automatic, 400);
    for (unsigned page = 0; page < 400; page++)
        rig_expect_page(&rig, page, RIG_TEXT, page);
    assert_true(teststore_gets(rig.store) < 400 / 6);
    uint64_t hits = rig_stat(&rig, FSW_STAT_PREFETCH_HITS);
    assert_true(hits > 300);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_PAGES) + hits, 400);
    assert_true(rig_stat(&rig, FSW_STAT_PREFETCHED) < 400 + 40);
    rig_close(&rig);
}

static void a_window_of_one_size_is_kept_to(void **state)
{
    struct rig_options fixed = away_automatic;
    struct rig rig;

    fixed.prefetch = 8192;
    away_open(&rig, &fixed, 400);
    for (unsigned page = 0; page < 400; page++)
        rig_expect_page(&rig, page, RIG_TEXT, page);
    uint64_t object = fsw_entry_units(*rig_entry(&rig, 0)) * FSW_UNIT;
    uint64_t a_get = 8192 / (object + rig.device->seal * FSW_UNIT);
    assert_in_range(teststore_gets(rig.store), 400 / a_get, 400 / (a_get - 1) + 10);
    rig_close(&rig);
}

static void random_reads_switch_it_off_and_reading_on_switches_it_on(void **state)
{
    struct rig rig;
    uint64_t seed = rig_seed(), gets, came;

    away_open(&rig, &away_automatic, 8000);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t page = rig_below(&seed, 8000);
        rig_expect_page(&rig, page, RIG_TEXT, page);
    }
    gets = teststore_gets(rig.store);
    came = rig_stat(&rig, FSW_STAT_PREFETCHED);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t page = rig_below(&seed, 8000);
        rig_expect_page(&rig, page, RIG_TEXT, page);
    }
    gets = teststore_gets(rig.store) - gets;
    came = rig_stat(&rig, FSW_STAT_PREFETCHED) - came;
    print_message("%llu gets brought %llu more\n", (unsigned long long)gets,
                  (unsigned long long)came);
    assert_true(gets > 800);
    assert_true(came < gets / 2); /* probes */
    assert_true(came > 0);
    gets = teststore_gets(rig.store);
    for (unsigned page = 0; page < 2000; page++)
        rig_expect_page(&rig, page, RIG_TEXT, page);
    assert_true(teststore_gets(rig.store) - gets < 2000 / 4);
    rig_close(&rig);
}

static void who_may_not_wait_takes_what_was_prefetched(void **state)
{
    struct rig rig;
    char bytes[FSW_PAGE_SIZE], expected[FSW_PAGE_SIZE];

    away_open(&rig, &away_automatic, 40);
    assert_int_equal(read_now(&rig, 0, bytes), -EAGAIN);
    rig_expect_page(&rig, 0, RIG_TEXT, 0);
    uint64_t gets = teststore_gets(rig.store);
    teststore_hold(rig.store, TESTSTORE_GETS); /* it does not ask */
    assert_int_equal(read_now(&rig, 1, bytes), 0);
    rig_fill(expected, RIG_TEXT, 1);
    assert_memory_equal(bytes, expected, sizeof bytes);
    assert_int_equal(fsw_device_read(rig.device, bytes, 2 * FSW_PAGE_SIZE + 100, 50), 0);
    rig_fill(expected, RIG_TEXT, 2);
    assert_memory_equal(bytes, expected + 100, 50);
    assert_int_equal(read_now(&rig, 39, bytes), -EAGAIN);
    assert_int_equal(teststore_gets(rig.store), gets);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PREFETCH_HITS), 2);
    teststore_release(rig.store, TESTSTORE_GETS);
    rig_close(&rig);
}

/* ---- the table has the last word ---- */

static void what_was_prefetched_is_old_when_its_page_was_written(void **state)
{
    struct rig rig;
    char bytes[FSW_PAGE_SIZE], zeroes[FSW_PAGE_SIZE] = {0};

    away_open(&rig, &away_automatic, 40);
    rig_expect_page(&rig, 0, RIG_TEXT, 0);
    assert_int_equal(read_now(&rig, 1, bytes), 0); /* it is there */
    assert_int_equal(rig_write_page(&rig, 1, RIG_TEXT, 1001), 0);
    assert_int_equal(fsw_device_discard(rig.device, 2 * FSW_PAGE_SIZE, FSW_PAGE_SIZE), 0);
    rig_expect_page(&rig, 1, RIG_TEXT, 1001);
    assert_int_equal(read_now(&rig, 2, bytes), 0);
    assert_memory_equal(bytes, zeroes, sizeof bytes);
    rig_evict_all(&rig);
    rig_expect_page(&rig, 1, RIG_TEXT, 1001);
    rig_expect_page(&rig, 3, RIG_TEXT, 3);
    rig_close(&rig);
}

/* The same row, the same offsets, the same pages: another segment. */
static void a_row_that_is_used_again_shows_nothing_of_the_one_before(void **state)
{
    struct rig rig;

    away_open(&rig, &away_automatic, 40);
    for (unsigned turn = 1; turn < 20; turn++) {
        uint32_t row = fsw_entry_row(*rig_entry(&rig, 1));
        rig_expect_page(&rig, 0, RIG_TEXT, (turn - 1) * 1000);
        rig_expect_page(&rig, 1, RIG_TEXT, (turn - 1) * 1000 + 1);
        assert_int_equal(fsw_device_discard(rig.device, 0, 64 << 20), 0);
        rig_prove(&rig); /* the row is free */
        assert_int_equal(fsw_row_state(&rig.device->image, row), FSW_ROW_FREE);
        for (unsigned page = 0; page < 40; page++)
            assert_int_equal(rig_write_page(&rig, page, RIG_TEXT, turn * 1000 + page), 0);
        rig_evict_all(&rig);
        assert_int_equal(fsw_entry_row(*rig_entry(&rig, 1)), row);
    }
    rig_close(&rig);
}

static void damaged_neighbours_are_an_error_and_then_forgotten(void **state)
{
    struct rig rig;
    char bytes[FSW_PAGE_SIZE];

    away_open(&rig, &away_automatic, 40);
    uint64_t id = segment_of(&rig, 1);
    uint32_t at = fsw_entry_offset_units(*rig_entry(&rig, 1)) * FSW_UNIT + 100;
    teststore_damage(rig.store, id, at);
    rig_expect_page(&rig, 0, RIG_TEXT, 0);
    assert_int_equal(away_read(&rig, 1, bytes), -EIO);
    assert_int_equal(rig_stat(&rig, FSW_STAT_CORRUPT_PAGES), 1);
    teststore_damage(rig.store, id, at);
    for (unsigned page = 0; page < 40; page++)
        rig_expect_page(&rig, page, RIG_TEXT, page);
    rig_close(&rig);
}

/* What a get asks for besides may not be there; the page is. */
static void a_get_that_fails_for_its_length_is_asked_without(void **state)
{
    struct rig rig;

    away_open(&rig, &away_automatic, 40);
    teststore_answer(rig.store, TESTSTORE_GETS, FSW_STORE_CORRUPT, 1, 0);
    rig_expect_page(&rig, 0, RIG_TEXT, 0);
    assert_int_equal(teststore_gets(rig.store), 2);
    rig_close(&rig);
}

/* ---- the policy ---- */

static uint32_t bytes_for(struct fsw_prefetch *prefetch, unsigned came, unsigned hits)
{
    *prefetch = (struct fsw_prefetch){0};
    fsw_prefetch_came(prefetch, came);
    for (unsigned i = 0; i < hits; i++)
        fsw_prefetch_hit(prefetch);
    return fsw_prefetch_bytes(prefetch, FSW_PREFETCH_AUTO, NULL, 32768);
}

static void what_was_read_of_it_says_how_much_comes(void **state)
{
    struct fsw_prefetch prefetch;
    struct fsw_prefetch_run run = {.bytes = 8192, .objects = 8, .taken = 8};
    unsigned probes = 0;

    assert_int_equal(bytes_for(&prefetch, 0, 0), 8192); /* nothing is known: it is tried */
    assert_int_equal(bytes_for(&prefetch, 800, 800), 32768);
    assert_int_equal(bytes_for(&prefetch, 800, 500), 16384);
    assert_int_equal(bytes_for(&prefetch, 800, 110), 8192);
    assert_int_equal(bytes_for(&prefetch, 800, 90), 0);
    for (unsigned i = 0; i < 640; i++)
        probes += fsw_prefetch_bytes(&prefetch, FSW_PREFETCH_AUTO, NULL, 32768) == 8192;
    assert_int_equal(probes, 10);
    assert_int_equal(fsw_prefetch_bytes(&prefetch, FSW_PREFETCH_AUTO, &run, 32768), 16384);
    run.taken = 3;
    assert_int_equal(fsw_prefetch_bytes(&prefetch, FSW_PREFETCH_AUTO, &run, 32768), 8192);
    run.taken = 1;
    assert_int_equal(fsw_prefetch_bytes(&prefetch, FSW_PREFETCH_AUTO, &run, 32768), 0);
    assert_int_equal(fsw_prefetch_bytes(&prefetch, FSW_PREFETCH_OFF, &run, 32768), 0);
    assert_int_equal(fsw_prefetch_bytes(&prefetch, 5000, NULL, 32768), 5000);
}

RIG_MAIN(cmocka_unit_test(it_can_be_set_while_the_device_lives),
         cmocka_unit_test(reading_on_brings_neighbours),
         cmocka_unit_test(a_window_of_one_size_is_kept_to),
         cmocka_unit_test(random_reads_switch_it_off_and_reading_on_switches_it_on),
         cmocka_unit_test(who_may_not_wait_takes_what_was_prefetched),
         cmocka_unit_test(what_was_prefetched_is_old_when_its_page_was_written),
         cmocka_unit_test(a_row_that_is_used_again_shows_nothing_of_the_one_before),
         cmocka_unit_test(damaged_neighbours_are_an_error_and_then_forgotten),
         cmocka_unit_test(a_get_that_fails_for_its_length_is_asked_without),
         cmocka_unit_test(what_was_read_of_it_says_how_much_comes))
