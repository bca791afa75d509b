/*
 * test_prefetch.c: reads of pages in the store: joined, batched, prefetched, given up; and that nothing
 * that lies beside the table is ever taken for what the table names. Run with and without seals.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "farswap/steer.h"
#include "rig.h"

#define READERS 16u

static const struct rig_options automatic = {.size = 64 << 20, .memory = 16 << 20, .with_store = 1};
static const struct rig_options switched_off = {
    .size = 64 << 20, .memory = 16 << 20, .with_store = 1, .prefetch = FSW_PREFETCH_OFF};

/* Pages 0..count-1 in the store, neighbours in their segments. */
static void open_with_pages_away(struct rig *rig, const struct rig_options *options, unsigned count)
{
    rig_open(rig, options);
    for (unsigned page = 0; page < count; page++)
        assert_int_equal(rig_write_page(rig, page, RIG_TEXT, page), 0);
    rig_evict_all(rig);
    assert_int_equal(rig_stat(rig, FSW_STAT_PAGES_STORE), count);
}

static uint64_t segment_of(struct rig *rig, uint64_t page)
{
    return fsw_row_id(&rig->device->image, fsw_entry_row(*rig_entry(rig, page)));
}

static int read_page(struct rig *rig, uint64_t page, void *bytes)
{
    return fsw_device_read(rig->device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
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

static void set_timeout(struct rig *rig, uint32_t ms)
{
    atomic_store(&rig->device->image.super->fetch_timeout, ms);
}

/* ---- threads that read ---- */

struct reading {
    struct rig *rig;
    pthread_t thread;
    uint64_t page, count;
    int result;
    char bytes[FSW_FETCH_BATCH * FSW_PAGE_SIZE];
};

static void *run_reading(void *opaque)
{
    struct reading *reading = opaque;

    reading->result =
        fsw_device_read(reading->rig->device, reading->bytes, reading->page * FSW_PAGE_SIZE,
                        reading->count * FSW_PAGE_SIZE);
    return NULL;
}

static void begin_reading(struct reading *reading, struct rig *rig, uint64_t page, uint64_t count)
{
    reading->rig = rig;
    reading->page = page;
    reading->count = count;
    assert_int_equal(pthread_create(&reading->thread, NULL, run_reading, reading), 0);
}

static void end_reading(struct reading *reading, int result)
{
    char expected[FSW_PAGE_SIZE];

    pthread_join(reading->thread, NULL);
    assert_int_equal(reading->result, result);
    for (uint64_t i = 0; result == 0 && i < reading->count; i++) {
        rig_fill(expected, RIG_TEXT, reading->page + i);
        assert_memory_equal(reading->bytes + i * FSW_PAGE_SIZE, expected, FSW_PAGE_SIZE);
    }
}

/* The windows' users: readers that have found theirs. */
static unsigned users(struct rig *rig)
{
    struct fsw_windows *windows = &rig->device->windows;
    unsigned sum = 0;

    pthread_mutex_lock(&windows->lock);
    for (unsigned i = 0; i < windows->count; i++)
        sum += windows->all[i].users;
    pthread_mutex_unlock(&windows->lock);
    return sum;
}

static int has_users(struct rig *rig, void *opaque)
{
    return users(rig) == *(unsigned *)opaque;
}

static int row_is_free(struct rig *rig, void *opaque)
{
    return fsw_row_state(&rig->device->image, *(uint32_t *)opaque) == FSW_ROW_FREE;
}

/* ---- one get for many ---- */

static void reads_of_one_page_share_a_get(void **state)
{
    static struct reading readings[READERS];
    struct rig rig;
    unsigned all = READERS;

    open_with_pages_away(&rig, &switched_off, 4);
    teststore_hold(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        begin_reading(&readings[i], &rig, 1, 1);
    rig_wait(&rig, has_users, &all);
    teststore_wait_held(rig.store, TESTSTORE_GETS, 1);
    assert_int_equal(teststore_gets(rig.store), 1);
    teststore_release(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        end_reading(&readings[i], 0);
    assert_int_equal(teststore_gets(rig.store), 1);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_JOINED), READERS - 1);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_PAGES), READERS);
    rig_expect_page(&rig, 1, RIG_TEXT, 1); /* with prefetch=off nothing is kept */
    assert_int_equal(teststore_gets(rig.store), 2);
    rig_close(&rig);
}

static void a_failed_get_fails_all_who_joined_it_and_nobody_else(void **state)
{
    static struct reading readings[READERS];
    struct rig rig;
    unsigned all = READERS;

    open_with_pages_away(&rig, &switched_off, 4);
    teststore_hold(rig.store, TESTSTORE_GETS);
    teststore_answer(rig.store, TESTSTORE_GETS, FSW_STORE_REFUSED, 1, 0);
    for (unsigned i = 0; i < READERS; i++)
        begin_reading(&readings[i], &rig, 1, 1);
    rig_wait(&rig, has_users, &all);
    teststore_release(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        end_reading(&readings[i], -EIO);
    rig_expect_page(&rig, 1, RIG_TEXT, 1);
    rig_close(&rig);
}

static void a_burst_goes_to_the_store_in_one_batch(void **state)
{
    static char bytes[FSW_FETCH_BATCH * FSW_PAGE_SIZE];
    struct rig rig;
    struct fsw_io ios[FSW_FETCH_BATCH];

    open_with_pages_away(&rig, &switched_off, 64);
    rig_prove(&rig); /* nothing else is on its way */
    uint64_t submits = teststore_submits(rig.store);
    for (unsigned i = 0; i < FSW_FETCH_BATCH; i++)
        ios[i] = (struct fsw_io){.verb = FSW_READ,
                                 .bytes = bytes + i * FSW_PAGE_SIZE,
                                 .offset = i * 4 * FSW_PAGE_SIZE,
                                 .length = FSW_PAGE_SIZE};
    fsw_device_read_pages(rig.device, ios, FSW_FETCH_BATCH);
    assert_int_equal(teststore_submits(rig.store), submits + 1);
    assert_int_equal(teststore_gets(rig.store), FSW_FETCH_BATCH);
    for (unsigned i = 0; i < FSW_FETCH_BATCH; i++) {
        char expected[FSW_PAGE_SIZE];
        rig_fill(expected, RIG_TEXT, i * 4);
        assert_int_equal(ios[i].result, 0);
        assert_memory_equal(ios[i].bytes, expected, FSW_PAGE_SIZE);
    }
    rig_close(&rig);
}

/* A write of part of a page waits a second for the store, whatever it joined. */
static void who_joins_keeps_his_own_deadline(void **state)
{
    static struct reading reading;
    struct rig rig;
    char byte = 1;
    unsigned one = 1;

    open_with_pages_away(&rig, &switched_off, 4);
    teststore_hold(rig.store, TESTSTORE_GETS);
    uint64_t start = fsw_now_ns();
    begin_reading(&reading, &rig, 1, 1);
    rig_wait(&rig, has_users, &one);
    assert_int_equal(fsw_device_write(rig.device, &byte, FSW_PAGE_SIZE, 1), -EIO);
    assert_in_range(fsw_now_ns() - start, FSW_WRITE_WAIT_NS * 9 / 10, FSW_WRITE_WAIT_NS * 20);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_TIMEOUTS), 1);
    assert_int_equal(teststore_gets(rig.store), 1);
    teststore_release(rig.store, TESTSTORE_GETS);
    end_reading(&reading, 0);
    rig_close(&rig);
}

static void *write_a_byte(void *opaque)
{
    struct reading *writing = opaque;
    char byte = 1;

    writing->result =
        fsw_device_write(writing->rig->device, &byte, writing->page * FSW_PAGE_SIZE, 1);
    return NULL;
}

static int asked_twice(struct rig *rig, void *opaque)
{
    return teststore_gets(rig->store) >= 2;
}

static void a_get_that_was_given_up_is_asked_again_by_who_joined(void **state)
{
    static struct reading reading, writing;
    struct rig rig;
    unsigned one = 1, two = 2;

    open_with_pages_away(&rig, &switched_off, 4);
    teststore_hold(rig.store, TESTSTORE_GETS);
    writing.rig = &rig;
    writing.page = 1;
    pthread_create(&writing.thread, NULL, write_a_byte, &writing);
    rig_wait(&rig, has_users, &one);
    begin_reading(&reading, &rig, 1, 1);
    rig_wait(&rig, has_users, &two);
    teststore_wait_held(rig.store, TESTSTORE_GETS, 1);
    assert_int_equal(teststore_gets(rig.store), 1);
    pthread_join(writing.thread, NULL);
    assert_int_equal(writing.result, -EIO);
    rig_wait(&rig, asked_twice, NULL); /* the reader asks for itself */
    teststore_release(rig.store, TESTSTORE_GETS);
    end_reading(&reading, 0);
    rig_close(&rig);
}

/* More reads than there are windows: they take turns. */
static void reads_wait_for_windows_when_all_are_out(void **state)
{
    static struct reading readings[READERS];
    struct rig rig;

    open_with_pages_away(&rig, &switched_off, READERS * FSW_FETCH_BATCH);
    unsigned windows = rig.device->windows.count;
    assert_true(windows < READERS * FSW_FETCH_BATCH);
    teststore_hold(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        begin_reading(&readings[i], &rig, i * FSW_FETCH_BATCH, FSW_FETCH_BATCH);
    teststore_wait_held(rig.store, TESTSTORE_GETS, windows);
    rig_wait(&rig, has_users, &windows);
    assert_int_equal(teststore_gets(rig.store), windows);
    teststore_release(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        end_reading(&readings[i], 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_PAGES), READERS * FSW_FETCH_BATCH);
    rig_close(&rig);
}

/* ---- fetch_timeout= ---- */

static void a_read_ends_after_fetch_timeout(void **state)
{
    static struct reading readings[READERS];
    struct rig rig;
    char bytes[FSW_PAGE_SIZE];

    open_with_pages_away(&rig, &switched_off, READERS * FSW_FETCH_BATCH);
    set_timeout(&rig, 200);
    teststore_hold(rig.store, TESTSTORE_GETS);
    uint64_t start = fsw_now_ns();
    assert_int_equal(read_page(&rig, 1, bytes), -EIO);
    assert_in_range(fsw_now_ns() - start, 200 * FSW_NS_PER_MS, 60 * FSW_NS_PER_S);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_TIMEOUTS), 1);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FAILED_READS), 1);
    for (unsigned i = 0; i < READERS; i++) /* also those that find no window */
        begin_reading(&readings[i], &rig, i * FSW_FETCH_BATCH, FSW_FETCH_BATCH);
    for (unsigned i = 0; i < READERS; i++)
        end_reading(&readings[i], -EIO);
    /* Each is two parts, and the second is not begun where the first has failed. */
    assert_in_range(rig_stat(&rig, FSW_STAT_FETCH_TIMEOUTS), 1 + READERS * FSW_FETCH_BATCH / 2,
                    1 + READERS * FSW_FETCH_BATCH);
    assert_int_equal(rig_stat(&rig, FSW_STAT_CORRUPT_PAGES), 0);
    teststore_release(rig.store, TESTSTORE_GETS);
    rig_expect_page(&rig, 1, RIG_TEXT, 1);
    set_timeout(&rig, 0);
    rig_close(&rig); /* and no pin is left */
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

    open_with_pages_away(&rig, &switched_off, 100);
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

    open_with_pages_away(&rig, &automatic, 400);
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
    struct rig_options fixed = automatic;
    struct rig rig;

    fixed.prefetch = 8192;
    open_with_pages_away(&rig, &fixed, 400);
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

    open_with_pages_away(&rig, &automatic, 8000);
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

    open_with_pages_away(&rig, &automatic, 40);
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

static int read_briefly(struct rig *rig, uint64_t page, void *bytes, unsigned *ret_flags)
{
    struct fsw_io io = {.verb = FSW_READ,
                        .flags = FSW_IO_NOWAIT | FSW_IO_BRIEFLY,
                        .bytes = bytes,
                        .offset = page * FSW_PAGE_SIZE,
                        .length = FSW_PAGE_SIZE};

    fsw_device_do(rig->device, &io);
    *ret_flags = io.flags;
    return io.result;
}

static void who_may_wait_briefly_gets_what_comes_at_once(void **state)
{
    struct rig_options at_once = switched_off;
    struct rig rig;
    char bytes[FSW_PAGE_SIZE], expected[FSW_PAGE_SIZE];
    unsigned flags;

    at_once.answer_at_once = 1;
    open_with_pages_away(&rig, &at_once, 4);
    assert_int_equal(rig_write_page(&rig, 9, RIG_TEXT, 9), 0);
    assert_int_equal(read_briefly(&rig, 9, bytes, &flags), 0);
    assert_int_equal(flags & FSW_IO_WAITED, 0);
    assert_int_equal(read_briefly(&rig, 1, bytes, &flags), 0);
    assert_int_equal(flags & FSW_IO_WAITED, FSW_IO_WAITED);
    rig_fill(expected, RIG_TEXT, 1);
    assert_memory_equal(bytes, expected, sizeof bytes);
    rig_close(&rig);
}

static void who_waited_briefly_in_vain_finds_the_get_on_its_way(void **state)
{
    static struct reading reading;
    struct rig rig;
    char bytes[FSW_PAGE_SIZE];
    unsigned flags, one = 1;

    open_with_pages_away(&rig, &switched_off, 4);
    teststore_hold(rig.store, TESTSTORE_GETS);
    assert_int_equal(read_briefly(&rig, 1, bytes, &flags), -EAGAIN);
    assert_int_equal(flags & FSW_IO_WAITED, FSW_IO_WAITED);
    begin_reading(&reading, &rig, 1, 1);
    rig_wait(&rig, has_users, &one);
    teststore_release(rig.store, TESTSTORE_GETS);
    end_reading(&reading, 0);
    assert_int_equal(teststore_gets(rig.store), 1);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_TIMEOUTS), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_READS), 1);
    rig_close(&rig);
}

/* What nobody waits for any more is still being got: its row must not become another's. */
static void a_get_that_was_left_holds_its_row(void **state)
{
    struct rig rig;
    char bytes[FSW_PAGE_SIZE];
    unsigned flags;

    open_with_pages_away(&rig, &switched_off, 4);
    rig_prove(&rig); /* the put's pin is gone */
    uint32_t row = fsw_entry_row(*rig_entry(&rig, 1));
    teststore_hold(rig.store, TESTSTORE_GETS);
    assert_int_equal(read_briefly(&rig, 1, bytes, &flags), -EAGAIN);
    assert_int_equal(users(&rig), 0);
    assert_int_equal(fsw_row_pins(&rig.device->image, row), 1);
    assert_int_equal(fsw_device_discard(rig.device, 0, 64 << 20), 0);
    assert_int_equal(fsw_row_state(&rig.device->image, row), FSW_ROW_LIVE);
    teststore_release(rig.store, TESTSTORE_GETS);
    rig_wait(&rig, row_is_free, &row);
    rig_prove(&rig);
    rig_close(&rig);
}

/* ---- the table has the last word ---- */

static void what_was_prefetched_is_old_when_its_page_was_written(void **state)
{
    struct rig rig;
    char bytes[FSW_PAGE_SIZE], zeroes[FSW_PAGE_SIZE] = {0};

    open_with_pages_away(&rig, &automatic, 40);
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

    open_with_pages_away(&rig, &automatic, 40);
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

    open_with_pages_away(&rig, &automatic, 40);
    uint64_t id = segment_of(&rig, 1);
    uint32_t at = fsw_entry_offset_units(*rig_entry(&rig, 1)) * FSW_UNIT + 100;
    teststore_damage(rig.store, id, at);
    rig_expect_page(&rig, 0, RIG_TEXT, 0);
    assert_int_equal(read_page(&rig, 1, bytes), -EIO);
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

    open_with_pages_away(&rig, &automatic, 40);
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

RIG_MAIN(cmocka_unit_test(reads_of_one_page_share_a_get),
         cmocka_unit_test(a_failed_get_fails_all_who_joined_it_and_nobody_else),
         cmocka_unit_test(a_burst_goes_to_the_store_in_one_batch),
         cmocka_unit_test(who_joins_keeps_his_own_deadline),
         cmocka_unit_test(a_get_that_was_given_up_is_asked_again_by_who_joined),
         cmocka_unit_test(reads_wait_for_windows_when_all_are_out),
         cmocka_unit_test(a_read_ends_after_fetch_timeout),
         cmocka_unit_test(it_can_be_set_while_the_device_lives),
         cmocka_unit_test(reading_on_brings_neighbours),
         cmocka_unit_test(a_window_of_one_size_is_kept_to),
         cmocka_unit_test(random_reads_switch_it_off_and_reading_on_switches_it_on),
         cmocka_unit_test(who_may_not_wait_takes_what_was_prefetched),
         cmocka_unit_test(who_may_wait_briefly_gets_what_comes_at_once),
         cmocka_unit_test(who_waited_briefly_in_vain_finds_the_get_on_its_way),
         cmocka_unit_test(a_get_that_was_left_holds_its_row),
         cmocka_unit_test(what_was_prefetched_is_old_when_its_page_was_written),
         cmocka_unit_test(a_row_that_is_used_again_shows_nothing_of_the_one_before),
         cmocka_unit_test(damaged_neighbours_are_an_error_and_then_forgotten),
         cmocka_unit_test(a_get_that_fails_for_its_length_is_asked_without),
         cmocka_unit_test(what_was_read_of_it_says_how_much_comes))
