/*
 * test_fetch.c: reads of pages in the store: joined, batched, waited for briefly, given up. Run with and
 * without seals.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "away.h"

#define READERS 16u

static void set_timeout(struct rig *rig, uint32_t ms)
{
    atomic_store(&rig->device->image.super->fetch_timeout, ms);
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

    away_open(&rig, &away_switched_off, 4);
    teststore_hold(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        reading_begin(&readings[i], &rig, 1, 1);
    rig_wait(&rig, away_has_users, &all);
    teststore_wait_held(rig.store, TESTSTORE_GETS, 1);
    assert_int_equal(teststore_gets(rig.store), 1);
    teststore_release(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        reading_end(&readings[i], 0);
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

    away_open(&rig, &away_switched_off, 4);
    teststore_hold(rig.store, TESTSTORE_GETS);
    teststore_answer(rig.store, TESTSTORE_GETS, FSW_STORE_REFUSED, 1, 0);
    for (unsigned i = 0; i < READERS; i++)
        reading_begin(&readings[i], &rig, 1, 1);
    rig_wait(&rig, away_has_users, &all);
    teststore_release(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        reading_end(&readings[i], -EIO);
    rig_expect_page(&rig, 1, RIG_TEXT, 1);
    rig_close(&rig);
}

static void a_burst_goes_to_the_store_in_one_batch(void **state)
{
    static char bytes[FSW_FETCH_BATCH * FSW_PAGE_SIZE];
    struct rig rig;
    struct fsw_io ios[FSW_FETCH_BATCH];

    away_open(&rig, &away_switched_off, 64);
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

    away_open(&rig, &away_switched_off, 4);
    rig_impatient(&rig);
    teststore_hold(rig.store, TESTSTORE_GETS);
    uint64_t start = fsw_now_ns();
    reading_begin(&reading, &rig, 1, 1);
    rig_wait(&rig, away_has_users, &one);
    assert_int_equal(fsw_device_write(rig.device, &byte, FSW_PAGE_SIZE, 1), -EIO);
    assert_in_range(fsw_now_ns() - start, FSW_WRITE_WAIT_NS * 9 / 10, FSW_WRITE_WAIT_NS * 60);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_TIMEOUTS), 1);
    assert_int_equal(teststore_gets(rig.store), 1);
    teststore_release(rig.store, TESTSTORE_GETS);
    reading_end(&reading, 0);
    rig_close(&rig);
}

static struct reading writing;
static _Atomic int has_given_up;

static void *write_a_byte(void *opaque)
{
    char byte = 1;

    writing.result = fsw_device_write(writing.rig->device, &byte, writing.page * FSW_PAGE_SIZE, 1);
    atomic_store(&has_given_up, 1);
    return NULL;
}

static int has_begun(struct rig *rig, void *opaque)
{
    return away_users(rig) == 1 || atomic_load(&has_given_up);
}

/* The reader has come to the writer; or too late. */
static int has_joined(struct rig *rig, void *opaque)
{
    return away_users(rig) == 2 || (atomic_load(&has_given_up) && away_users(rig) == 1);
}

static int asked_so_often(struct rig *rig, void *opaque)
{
    return teststore_gets(rig->store) >= *(uint64_t *)opaque;
}

/* The writer waits for a second, and the reader joins it. 0: it came too late for that. */
static int joined_and_asked_again(struct rig *rig)
{
    static struct reading reading;
    uint64_t gets = teststore_gets(rig->store), again = gets + 2;

    teststore_hold(rig->store, TESTSTORE_GETS);
    writing.rig = rig;
    writing.page = 1;
    atomic_store(&has_given_up, 0);
    pthread_create(&writing.thread, NULL, write_a_byte, NULL);
    rig_wait(rig, has_begun, NULL);
    reading_begin(&reading, rig, 1, 1);
    rig_wait(rig, has_joined, NULL);
    int joined = away_users(rig) == 2 && teststore_gets(rig->store) == gets + 1;
    pthread_join(writing.thread, NULL);
    assert_int_equal(writing.result, -EIO);
    rig_wait(rig, asked_so_often, &again); /* the reader asks for itself */
    teststore_release(rig->store, TESTSTORE_GETS);
    reading_end(&reading, 0);
    return joined;
}

static void a_get_that_was_given_up_is_asked_again_by_who_joined(void **state)
{
    struct rig rig;
    unsigned tries = 0;

    away_open(&rig, &away_switched_off, 4);
    rig_impatient(&rig);
    while (!joined_and_asked_again(&rig))
        assert_true(++tries < 20);
    rig_close(&rig);
}

/* More reads than there are windows: they take turns. */
static void reads_wait_for_windows_when_all_are_out(void **state)
{
    static struct reading readings[READERS];
    struct rig rig;

    away_open(&rig, &away_switched_off, READERS * FSW_FETCH_BATCH);
    unsigned windows = rig.device->windows.count;
    assert_true(windows < READERS * FSW_FETCH_BATCH);
    teststore_hold(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        reading_begin(&readings[i], &rig, i * FSW_FETCH_BATCH, FSW_FETCH_BATCH);
    teststore_wait_held(rig.store, TESTSTORE_GETS, windows);
    rig_wait(&rig, away_has_users, &windows);
    assert_int_equal(teststore_gets(rig.store), windows);
    teststore_release(rig.store, TESTSTORE_GETS);
    for (unsigned i = 0; i < READERS; i++)
        reading_end(&readings[i], 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_PAGES), READERS * FSW_FETCH_BATCH);
    rig_close(&rig);
}

/* ---- fetch_timeout= ---- */

static void a_read_ends_after_fetch_timeout(void **state)
{
    static struct reading readings[READERS];
    struct rig rig;
    char bytes[FSW_PAGE_SIZE];

    away_open(&rig, &away_switched_off, READERS * FSW_FETCH_BATCH);
    set_timeout(&rig, 200);
    teststore_hold(rig.store, TESTSTORE_GETS);
    uint64_t start = fsw_now_ns();
    assert_int_equal(away_read(&rig, 1, bytes), -EIO);
    assert_in_range(fsw_now_ns() - start, 200 * FSW_NS_PER_MS, 60 * FSW_NS_PER_S);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_TIMEOUTS), 1);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FAILED_READS), 1);
    for (unsigned i = 0; i < READERS; i++) /* also those that find no window */
        reading_begin(&readings[i], &rig, i * FSW_FETCH_BATCH, FSW_FETCH_BATCH);
    for (unsigned i = 0; i < READERS; i++)
        reading_end(&readings[i], -EIO);
    /* Each is two parts, and the second is not begun where the first has failed. */
    assert_in_range(rig_stat(&rig, FSW_STAT_FETCH_TIMEOUTS), 1 + READERS * FSW_FETCH_BATCH / 2,
                    1 + READERS * FSW_FETCH_BATCH);
    assert_int_equal(rig_stat(&rig, FSW_STAT_CORRUPT_PAGES), 0);
    teststore_release(rig.store, TESTSTORE_GETS);
    set_timeout(&rig, 0);
    rig_expect_page(&rig, 1, RIG_TEXT, 1);
    rig_close(&rig); /* and no pin is left */
}

/* ---- briefly ---- */

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
    struct rig_options at_once = away_switched_off;
    struct rig rig;
    char bytes[FSW_PAGE_SIZE], expected[FSW_PAGE_SIZE];
    unsigned flags, page = 10;

    at_once.answer_at_once = 1;
    away_open(&rig, &at_once, 64);
    assert_int_equal(rig_write_page(&rig, 9, RIG_TEXT, 9), 0);
    assert_int_equal(read_briefly(&rig, 9, bytes, &flags), 0);
    assert_int_equal(flags & FSW_IO_WAITED, 0);
    while (read_briefly(&rig, page, bytes, &flags) ==
           -EAGAIN) /* the machine stood still: another */
        assert_true(++page < 64);
    assert_int_equal(flags & FSW_IO_WAITED, FSW_IO_WAITED);
    rig_fill(expected, RIG_TEXT, page);
    assert_memory_equal(bytes, expected, sizeof bytes);
    rig_close(&rig);
}

static void who_waited_briefly_in_vain_finds_the_get_on_its_way(void **state)
{
    static struct reading reading;
    struct rig rig;
    char bytes[FSW_PAGE_SIZE];
    unsigned flags, one = 1;

    away_open(&rig, &away_switched_off, 4);
    teststore_hold(rig.store, TESTSTORE_GETS);
    assert_int_equal(read_briefly(&rig, 1, bytes, &flags), -EAGAIN);
    assert_int_equal(flags & FSW_IO_WAITED, FSW_IO_WAITED);
    reading_begin(&reading, &rig, 1, 1);
    rig_wait(&rig, away_has_users, &one);
    teststore_release(rig.store, TESTSTORE_GETS);
    reading_end(&reading, 0);
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

    away_open(&rig, &away_switched_off, 4);
    rig_prove(&rig); /* the put's pin is gone */
    uint32_t row = fsw_entry_row(*rig_entry(&rig, 1));
    teststore_hold(rig.store, TESTSTORE_GETS);
    assert_int_equal(read_briefly(&rig, 1, bytes, &flags), -EAGAIN);
    assert_int_equal(away_users(&rig), 0);
    assert_int_equal(fsw_row_pins(&rig.device->image, row), 1);
    assert_int_equal(fsw_device_discard(rig.device, 0, 64 << 20), 0);
    assert_int_equal(fsw_row_state(&rig.device->image, row), FSW_ROW_LIVE);
    teststore_release(rig.store, TESTSTORE_GETS);
    rig_wait(&rig, row_is_free, &row);
    rig_prove(&rig);
    rig_close(&rig);
}

RIG_MAIN(cmocka_unit_test(reads_of_one_page_share_a_get),
         cmocka_unit_test(a_failed_get_fails_all_who_joined_it_and_nobody_else),
         cmocka_unit_test(a_burst_goes_to_the_store_in_one_batch),
         cmocka_unit_test(who_joins_keeps_his_own_deadline),
         cmocka_unit_test(a_get_that_was_given_up_is_asked_again_by_who_joined),
         cmocka_unit_test(reads_wait_for_windows_when_all_are_out),
         cmocka_unit_test(a_read_ends_after_fetch_timeout),
         cmocka_unit_test(who_may_wait_briefly_gets_what_comes_at_once),
         cmocka_unit_test(who_waited_briefly_in_vain_finds_the_get_on_its_way),
         cmocka_unit_test(a_get_that_was_left_holds_its_row))
