/*
 * test_lost.c: somebody says that the store has lost what it had (core/lost.c).
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "common/clock.h"
#include "core/steer.h"

#define PAGES 400u
#define READERS 8u
#define PATIENCE_NS (60 * FSW_NS_PER_S)

static void open_with_pages_away(struct rig *rig)
{
    rig_open(rig, &(struct rig_options){.size = 16 << 20, .memory = 8 << 20, .with_store = 1});
    for (unsigned page = 0; page < PAGES; page++)
        assert_int_equal(rig_write_page(rig, page, RIG_HALF, page), 0);
    rig_evict_all(rig);
}

static int read_page(struct rig *rig, uint64_t page)
{
    char bytes[FSW_PAGE_SIZE];

    return fsw_device_read(rig->device, bytes, page * FSW_PAGE_SIZE, sizeof bytes);
}

static int declare(struct rig *rig)
{
    struct fsw_error err = {""};

    if (fsw_device_set(rig->device, "overflow-lost", "1", &err) < 0)
        fail_msg("%s", err.text);
    return fsw_image_await_lost(&rig->device->image, PATIENCE_NS);
}

struct reader {
    pthread_t thread;
    struct rig *rig;
    uint64_t page;
    int result;
};

static void *read_one(void *opaque)
{
    struct reader *reader = opaque;

    reader->result = read_page(reader->rig, reader->page);
    return NULL;
}

static void start_readers(struct rig *rig, struct reader *readers)
{
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.rig = rig, .page = i * (PAGES / READERS), .result = 1};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_one, &readers[i]), 0);
    }
}

static void join_readers(struct reader *readers, int expected)
{
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].result, expected);
    }
}

/* For this test the device must say that it has a store: the rig's has no URI. */
static void name_store(struct rig *rig)
{
    strcpy(rig->device->image.super->overflow, "test");
}

static void a_store_that_is_away_loses_all_it_had(void **state)
{
    struct reader readers[READERS];
    struct rig rig;

    open_with_pages_away(&rig);
    name_store(&rig);
    teststore_hold(rig.store, TESTSTORE_GETS);
    teststore_seems(rig.store, 0, 0);
    start_readers(&rig, readers);
    teststore_wait_held(rig.store, TESTSTORE_GETS, READERS);
    uint64_t start = fsw_now_ns();
    assert_int_equal(declare(&rig), 0);
    join_readers(readers, -EIO);
    assert_true(fsw_now_ns() - start < PATIENCE_NS);
    assert_int_equal(teststore_lost(rig.store), 1);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_GIVEN_UP), PAGES);
    assert_int_equal(rig_stat(&rig, FSW_STAT_STORE_LOST_PAGES), READERS);
    assert_int_equal(atomic_load(&rig.device->image.super->planted), 0);
    /* nobody is asked any more, and it is not counted twice */
    uint64_t gets = teststore_gets(rig.store);
    assert_int_equal(read_page(&rig, 1), -EIO);
    assert_int_equal(teststore_gets(rig.store), gets);
    assert_int_equal(declare(&rig), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_GIVEN_UP), PAGES);
    /* a page that is written again is there, here and there */
    teststore_release(rig.store, TESTSTORE_GETS);
    assert_int_equal(rig_write_page(&rig, 7, RIG_HALF, 77), 0);
    rig_evict_all(&rig);
    rig_expect_page(&rig, 7, RIG_HALF, 77);
    assert_int_equal(atomic_load(&rig.device->image.super->planted), 1);
    assert_int_equal(read_page(&rig, 8), -EIO);
    rig_close(&rig);
}

static void a_store_that_answers_has_lost_nothing(void **state)
{
    struct reader readers[READERS];
    struct rig rig;

    open_with_pages_away(&rig);
    name_store(&rig);
    teststore_hold(rig.store, TESTSTORE_GETS);
    start_readers(&rig, readers);
    teststore_wait_held(rig.store, TESTSTORE_GETS, READERS);
    assert_int_equal(declare(&rig), -EEXIST);
    teststore_release(rig.store, TESTSTORE_GETS);
    join_readers(readers, 0);
    assert_int_equal(teststore_lost(rig.store), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_GIVEN_UP), 0);
    rig_expect_page(&rig, 9, RIG_HALF, 9);
    rig_close(&rig);
}

static uint64_t segment_of(struct rig *rig, uint64_t page)
{
    return fsw_row_id(&rig->device->image, fsw_entry_row(fsw_entry_load(rig_entry(rig, page))));
}

static int has_left(struct rig *rig, void *page)
{
    return fsw_entry_state(fsw_entry_load(rig_entry(rig, *(uint64_t *)page))) == FSW_STORE;
}

static int some_failed(struct rig *rig, void *before)
{
    return rig_stat(rig, FSW_STAT_OVERFLOW_FAILED) >= *(uint64_t *)before + 3;
}

static int one_failed(struct rig *rig, void *before)
{
    return rig_stat(rig, FSW_STAT_OVERFLOW_FAILED) > *(uint64_t *)before;
}

/* It may come back with what it had: a page that only it got meanwhile would be gone then. */
static void an_emptied_store_alone_keeps_nothing(void **state)
{
    uint64_t page = 3, failed;
    struct rig rig;

    open_with_pages_away(&rig);
    teststore_seems(rig.store, 1, 1);
    assert_int_equal(rig_write_page(&rig, page, RIG_HALF, 33), 0);
    failed = rig_stat(&rig, FSW_STAT_OVERFLOW_FAILED);
    rig_evict(&rig, 1);
    rig_wait(&rig, some_failed, &failed);
    assert_int_equal(fsw_entry_state(fsw_entry_load(rig_entry(&rig, page))), FSW_POOL);
    rig_expect_page(&rig, page, RIG_HALF, 33);
    teststore_seems(rig.store, 1, 0);
    rig_wait(&rig, has_left, &page);
    rig_evict(&rig, 0);
    rig_expect_page(&rig, page, RIG_HALF, 33);
    assert_int_equal(teststore_lost(rig.store), 0);
    rig_close(&rig);
}

/* One was under way when it was declared lost: nobody knows whether the old one acknowledged it. */
static void what_was_being_put_to_a_lost_one_stays(void **state)
{
    uint64_t page = 3, failed;
    struct rig rig;

    open_with_pages_away(&rig);
    name_store(&rig);
    assert_int_equal(rig_write_page(&rig, page, RIG_HALF, 33), 0);
    failed = rig_stat(&rig, FSW_STAT_OVERFLOW_FAILED);
    teststore_hold(rig.store, TESTSTORE_PUTS);
    rig_evict(&rig, 1);
    teststore_wait_held(rig.store, TESTSTORE_PUTS, 1);
    teststore_seems(rig.store, 0, 0);
    assert_int_equal(declare(&rig), 0);
    teststore_seems(rig.store, 1, 0);
    teststore_release(rig.store, TESTSTORE_PUTS);
    rig_wait(&rig, one_failed, &failed);
    rig_wait(&rig, has_left, &page);
    rig_evict(&rig, 0);
    rig_expect_page(&rig, page, RIG_HALF, 33);
    rig_close(&rig);
}

static int nothing_is_there(struct rig *rig, void *unused)
{
    return rig_stat(rig, FSW_STAT_SEGMENTS) == 0;
}

static int is_new_again(struct rig *rig, void *before)
{
    return teststore_sentinel(rig->store) != *(uint64_t *)before;
}

static int is_as_new(struct rig *rig, void *unused)
{
    return teststore_lost(rig->store) == 1;
}

/* Nobody waits for anything that it had, so nobody has to be asked. */
static void an_emptied_store_that_had_nothing_is_as_new(void **state)
{
    struct rig rig;

    open_with_pages_away(&rig);
    assert_int_equal(fsw_device_discard(rig.device, 0, 16 << 20), 0);
    rig_wait(&rig, nothing_is_there, NULL);
    teststore_seems(rig.store, 1, 1);
    uint64_t sentinel = teststore_sentinel(rig.store);
    rig_wait(&rig, is_as_new, NULL);
    /* and if the old one comes back it is not taken for this one */
    assert_int_not_equal(teststore_sentinel(rig.store), sentinel);
    assert_int_equal(fsw_sentinel(rig.device->image.super, 0), teststore_sentinel(rig.store));
    rig_close(&rig);
}

/* Nor for what was declared lost before, though it still has its rows. */
static void what_was_lost_before_is_not_waited_for(void **state)
{
    uint64_t sentinel, page = 3;
    struct rig rig;

    open_with_pages_away(&rig);
    name_store(&rig);
    teststore_seems(rig.store, 0, 0);
    assert_int_equal(declare(&rig), 0);
    sentinel = teststore_sentinel(rig.store);
    teststore_seems(rig.store, 1, 1);
    rig_wait(&rig, is_new_again, &sentinel);
    /* but for one page that was put since */
    teststore_seems(rig.store, 1, 0);
    assert_int_equal(rig_write_page(&rig, page, RIG_HALF, 33), 0);
    rig_evict_all(&rig);
    assert_int_equal(fsw_lost_waited_for(rig.device, 1), 1);
    rig_close(&rig);
}

/* What it lacks is gone, what it has stays. */
static void an_emptied_store_is_taken_as_it_is(void **state)
{
    struct reader readers[READERS];
    struct rig rig;

    open_with_pages_away(&rig);
    name_store(&rig);
    for (unsigned page = 0; page < PAGES; page++)
        teststore_lose(rig.store, segment_of(&rig, page));
    assert_int_equal(rig_write_page(&rig, 3, RIG_HALF, 33), 0);
    rig_evict_all(&rig); /* before anybody knew */
    teststore_hold(rig.store, TESTSTORE_GETS);
    teststore_seems(rig.store, 1, 1);
    start_readers(&rig, readers);
    teststore_wait_held(rig.store, TESTSTORE_GETS, READERS);
    assert_int_equal(declare(&rig), 0);
    teststore_release(rig.store, TESTSTORE_GETS);
    join_readers(readers, -EIO);
    assert_int_equal(teststore_lost(rig.store), 1);
    rig_expect_page(&rig, 3, RIG_HALF, 33);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_GIVEN_UP), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_STORE_LOST_PAGES), READERS);
    assert_int_equal(fsw_device_discard(rig.device, 0, 16 << 20), 0); /* they leave no row behind */
    rig_close(&rig);
}

struct crowd {
    struct rig *rig;
    _Atomic int ended;
};

static void *read_all(void *opaque)
{
    struct crowd *crowd = opaque;

    for (unsigned page = 0; page < PAGES; page++)
        read_page(crowd->rig, page);
    atomic_fetch_add(&crowd->ended, 1);
    return NULL;
}

/* No reader may be left at a store that never answers, whatever it was doing when we said so. */
static void no_reader_is_missed(void **state)
{
    for (unsigned round = 0; round < (RIG_SLOW ? 3 : 8); round++) {
        struct crowd crowd = {0};
        pthread_t threads[READERS];
        struct rig rig;

        open_with_pages_away(&rig);
        name_store(&rig);
        crowd.rig = &rig;
        for (unsigned i = 0; i < READERS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, read_all, &crowd), 0);
        teststore_seems(rig.store, 0, 0);
        teststore_hold(rig.store, TESTSTORE_GETS);
        assert_int_equal(declare(&rig), 0);
        for (unsigned i = 0; i < READERS; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(atomic_load(&crowd.ended), READERS);
        rig_close(&rig);
    }
}

static void a_store_that_is_not_there_is_refused(void **state)
{
    struct fsw_error err = {""};
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = 16 << 20, .memory = 8 << 20});
    assert_int_equal(fsw_device_set(rig.device, "overflow-lost", "1", &err), -EINVAL);
    rig_close(&rig);
    open_with_pages_away(&rig);
    name_store(&rig);
    assert_int_equal(fsw_device_set(rig.device, "overflow-lost", "2", &err), -EINVAL);
    assert_int_equal(fsw_device_set(rig.device, "overflow-lost", "0", &err), -EINVAL);
    assert_int_equal(fsw_device_set(rig.device, "overflow-lost", "", &err), -EINVAL);
    assert_int_equal(rig_stat(&rig, FSW_STAT_PAGES_GIVEN_UP), 0);
    rig_expect_page(&rig, 9, RIG_HALF, 9);
    rig_close(&rig);
}

/* ---- a read that begins while others are sent back ---- */

static void begin_to_read(void *opaque)
{
    struct reader *reader = opaque;

    teststore_when_lost(reader->rig->store, NULL, NULL); /* once */
    assert_int_equal(pthread_create(&reader->thread, NULL, read_one, reader), 0);
    teststore_wait_held(reader->rig->store, TESTSTORE_GETS, 1);
}

static int asked_so_often(struct rig *rig, void *opaque)
{
    return teststore_gets(rig->store) >= *(uint64_t *)opaque;
}

/* It is sent back with them, and asks again. gets: that it needs until then. */
static void begins_between_count_and_word(struct rig *rig, uint64_t gets)
{
    struct reader reader = {.rig = rig, .page = 3, .result = 1};
    uint64_t again = teststore_gets(rig->store) + gets + 1;

    teststore_hold(rig->store, TESTSTORE_GETS);
    teststore_when_lost(rig->store, begin_to_read, &reader);
    fsw_lost_adopt(rig->device, 0);
    rig_wait(rig, asked_so_often, &again);
    teststore_release(rig->store, TESTSTORE_GETS);
    pthread_join(reader.thread, NULL);
    assert_int_equal(reader.result, 0);
    assert_int_equal(rig_stat(rig, FSW_STAT_CORRUPT_PAGES), 0);
}

static void a_read_that_begins_while_others_are_sent_back_asks_again(void **state)
{
    struct rig rig;

    open_with_pages_away(&rig);
    begins_between_count_and_word(&rig, 1);
    rig_close(&rig);
}

/* Where the first answer is no use, the object is asked for alone. That get, too; 1 if it was. */
static int was_sent_back_alone(struct rig *rig, uint64_t page)
{
    struct reader reader = {.rig = rig, .page = page, .result = 1};
    uint64_t before = teststore_gets(rig->store), twice = before + 2;

    teststore_answer(rig->store, TESTSTORE_GETS, FSW_STORE_CORRUPT, 1, 0);
    assert_int_equal(pthread_create(&reader.thread, NULL, read_one, &reader), 0);
    rig_wait(rig, asked_so_often, &twice);
    fsw_lost_adopt(rig->device, 0);
    pthread_join(reader.thread, NULL);
    assert_int_equal(reader.result, 0);
    return teststore_gets(rig->store) > twice;
}

static void a_get_of_one_object_that_is_sent_back_asks_again(void **state)
{
    unsigned sent_back = 0;
    struct rig rig;

    for (unsigned tries = 0; sent_back == 0 && tries < 10; tries++) {
        open_with_pages_away(&rig);
        teststore_delay(rig.store, 100 * 1000); /* at most: some are answered before */
        for (uint64_t page = 0; page < PAGES; page += PAGES / 8)
            sent_back += (unsigned)was_sent_back_alone(&rig, page);
        assert_int_equal(rig_stat(&rig, FSW_STAT_CORRUPT_PAGES), 0);
        rig_close(&rig);
    }
    assert_true(sent_back > 0);
}

RIG_MAIN(cmocka_unit_test(a_read_that_begins_while_others_are_sent_back_asks_again),
         cmocka_unit_test(a_get_of_one_object_that_is_sent_back_asks_again),
         cmocka_unit_test(a_store_that_is_away_loses_all_it_had),
         cmocka_unit_test(a_store_that_answers_has_lost_nothing),
         cmocka_unit_test(an_emptied_store_alone_keeps_nothing),
         cmocka_unit_test(what_was_being_put_to_a_lost_one_stays),
         cmocka_unit_test(an_emptied_store_that_had_nothing_is_as_new),
         cmocka_unit_test(what_was_lost_before_is_not_waited_for),
         cmocka_unit_test(an_emptied_store_is_taken_as_it_is),
         cmocka_unit_test(no_reader_is_missed),
         cmocka_unit_test(a_store_that_is_not_there_is_refused))
