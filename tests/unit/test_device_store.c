/*
 * test_device_store.c: a device whose store is away, full, forgetful, or lies.
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "core/budget.h"
#include "farswap/steer.h"

static const struct rig_options with_store = {
    .size = 8 << 20, .memory = 8 << 20, .with_store = 1, .prefetch = FSW_PREFETCH_OFF};

static int read_page(struct rig *rig, uint64_t page, char *bytes)
{
    return fsw_device_read(rig->device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
}

/* Pages 0..count-1 in the store. */
static void open_with_pages_away(struct rig *rig, unsigned count)
{
    rig_open(rig, &with_store);
    for (unsigned page = 0; page < count; page++)
        assert_int_equal(rig_write_page(rig, page, RIG_TEXT, page), 0);
    rig_evict_all(rig);
    assert_int_equal(rig_stat(rig, FSW_STAT_PAGES_STORE), count);
}

static uint64_t segment_of(struct rig *rig, uint64_t page)
{
    return fsw_row_id(&rig->device->image, fsw_entry_row(*rig_entry(rig, page)));
}

struct reader {
    struct rig *rig;
    _Atomic int done;
};

static void *read_page_0(void *opaque)
{
    struct reader *reader = opaque;
    rig_expect_page(reader->rig, 0, RIG_TEXT, 0);
    atomic_store(&reader->done, 1);
    return NULL;
}

static void local_pages_do_not_wait_for_a_store_that_is_away(void **state)
{
    struct rig rig;
    pthread_t thread;
    char bytes[FSW_PAGE_SIZE];

    open_with_pages_away(&rig, 4);
    rig_impatient(&rig);
    assert_int_equal(rig_write_page(&rig, 100, RIG_HALF, 7), 0);
    teststore_hold(rig.store, TESTSTORE_GETS);
    struct reader reader = {.rig = &rig};
    pthread_create(&thread, NULL, read_page_0, &reader);
    teststore_wait_held(rig.store, TESTSTORE_GETS, 1);
    for (unsigned i = 0; i < 1000; i++) {
        rig_expect_page(&rig, 100, RIG_HALF, 7 + i);
        rig_expect_page(&rig, 101, RIG_ZERO, 0);
        assert_int_equal(rig_write_page(&rig, 100, RIG_HALF, 8 + i), 0);
        assert_int_equal(rig_write_page(&rig, 1, RIG_HALF, i), 0); /* a remote one, rewritten */
    }
    assert_int_equal(fsw_device_discard(rig.device, 2 * FSW_PAGE_SIZE, FSW_PAGE_SIZE), 0);

    /* A write of part of a remote page gives up in time, and changes nothing. */
    uint64_t start = fsw_now_ns();
    memset(bytes, 1, sizeof bytes);
    assert_int_equal(fsw_device_write(rig.device, bytes, 3 * FSW_PAGE_SIZE + 5, 100), -EIO);
    uint64_t took = fsw_now_ns() - start;
    assert_in_range(took, FSW_WRITE_WAIT_NS * 9 / 10, FSW_WRITE_WAIT_NS * 30);
    assert_int_equal(atomic_load(&reader.done), 0);
    teststore_release(rig.store, TESTSTORE_GETS);
    pthread_join(thread, NULL);
    rig_expect_page(&rig, 3, RIG_TEXT, 3);
    rig_close(&rig);
}

static void a_lost_segment_costs_its_pages_and_says_so(void **state)
{
    struct rig rig;
    char bytes[16 * FSW_PAGE_SIZE];

    open_with_pages_away(&rig, 8);
    assert_int_equal(rig_write_page(&rig, 20, RIG_TEXT, 20), 0);
    teststore_lose(rig.store, segment_of(&rig, 0));
    assert_int_equal(read_page(&rig, 0, bytes), -EIO);
    assert_int_equal(rig_stat(&rig, FSW_STAT_STORE_LOST_PAGES), 1);
    assert_int_equal(fsw_device_write(rig.device, bytes, 10, 10), -EIO);
    assert_int_equal(fsw_device_read(rig.device, bytes, 0, sizeof bytes), -EIO);
    assert_int_equal(rig_stat(&rig, FSW_STAT_STORE_LOST_PAGES), 10);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FAILED_READS), 2);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FAILED_WRITES), 1);
    rig_expect_page(&rig, 20, RIG_TEXT, 20);
    for (unsigned page = 0; page < 8; page++) /* writing heals */
        assert_int_equal(rig_write_page(&rig, page, RIG_HALF, page), 0);
    for (unsigned page = 0; page < 8; page++)
        rig_expect_page(&rig, page, RIG_HALF, page);
    rig_close(&rig);
}

static void damaged_bytes_are_an_error_and_never_content(void **state)
{
    struct rig rig;
    char bytes[FSW_PAGE_SIZE], expected[FSW_PAGE_SIZE];

    rig_open(&rig, &with_store);
    assert_int_equal(rig_write_page(&rig, 0, RIG_NOISE, 0), 0);
    rig_evict_all(&rig);
    uint64_t id = segment_of(&rig, 0), errors = 0;
    uint32_t length = teststore_length(rig.store, id);
    rig_fill(expected, RIG_NOISE, 0);
    for (uint32_t at = 0; at < length; at++) {
        teststore_damage(rig.store, id, at);
        int r = read_page(&rig, 0, bytes);
        if (r == 0) /* padding */
            assert_memory_equal(bytes, expected, sizeof expected);
        else
            assert_int_equal(r, -EIO);
        errors += r != 0;
        teststore_damage(rig.store, id, at);
    }
    assert_true(errors > length - FSW_UNIT);
    assert_int_equal(rig_stat(&rig, FSW_STAT_CORRUPT_PAGES), errors);
    rig_expect_page(&rig, 0, RIG_NOISE, 0);
    rig_close(&rig);
}

static void a_get_that_is_refused_is_an_error_once(void **state)
{
    static const enum fsw_store_result results[] = {FSW_STORE_REFUSED, FSW_STORE_CORRUPT,
                                                    FSW_STORE_GONE};
    struct rig rig;
    char bytes[FSW_PAGE_SIZE];

    open_with_pages_away(&rig, 2);
    for (unsigned i = 0; i < 3; i++) {
        teststore_answer(rig.store, TESTSTORE_GETS, results[i], 1, 0);
        assert_int_equal(read_page(&rig, 0, bytes), -EIO);
        rig_expect_page(&rig, 0, RIG_TEXT, 0);
    }
    rig_close(&rig);
}

static void a_long_read_fetches_in_batches(void **state)
{
    struct rig rig;
    static char bytes[50 * FSW_PAGE_SIZE], page[FSW_PAGE_SIZE];

    open_with_pages_away(&rig, 50);
    assert_int_equal(fsw_device_read(rig.device, bytes, 0, sizeof bytes), 0);
    for (unsigned i = 0; i < 50; i++) {
        rig_fill(page, RIG_TEXT, i);
        assert_memory_equal(bytes + i * FSW_PAGE_SIZE, page, FSW_PAGE_SIZE);
    }
    assert_int_equal(rig_stat(&rig, FSW_STAT_FETCH_PAGES), 50);
    assert_int_equal(teststore_gets(rig.store), 50);
    rig_close(&rig);
}

/* ---- no room ---- */

static void set(struct rig *rig, const char *key, const char *value)
{
    struct fsw_error err = {""};

    assert_int_equal(fsw_device_set(rig->device, key, value, &err), 0);
}

static int nothing_is_on_its_way(struct rig *rig, void *opaque)
{
    struct fsw_overflow *overflow = &rig->device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    return overflow->puts_out == 0;
}

/* It has refused a segment, and what it took before has left the pool. */
static int store_is_full(struct rig *rig)
{
    if (rig_stat(rig, FSW_STAT_STORE_FULL) == 0)
        return 0;
    rig_wait(rig, nothing_is_on_its_way, NULL);
    return 1;
}

static void with_a_full_store_writes_wait_and_then_fail(void **state)
{
    unsigned page = 0, refused = 0;
    int r, was_full;
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = 16 << 20, .memory = 2 << 20, .with_store = 1});
    rig_impatient(&rig);
    teststore_room(rig.store, 2);
    do { /* until one is refused that began when pool and store were full: a busy machine refuses others */
        was_full = store_is_full(&rig);
        uint64_t start = fsw_now_ns();
        r = rig_write_page(&rig, page, RIG_NOISE, page);
        if (r < 0)
            assert_in_range(fsw_now_ns() - start, FSW_WRITE_WAIT_NS * 9 / 10,
                            FSW_WRITE_WAIT_NS * 60);
        refused += r == -ENOSPC;
        page += r == 0;
    } while (page < 4096 && (r == 0 || !was_full));
    assert_int_equal(r, -ENOSPC);
    assert_int_equal(rig_stat(&rig, FSW_STAT_NO_SPACE), refused);
    assert_int_equal(rig_write_page(&rig, 0, RIG_NOISE, 12345), -ENOSPC);
    for (unsigned i = 0; i < page; i++)
        rig_expect_page(&rig, i, RIG_NOISE, i);
    set(&rig, "write_wait", "60");
    teststore_room(rig.store, 1000); /* room again: nobody has to be told */
    assert_int_equal(rig_write_page(&rig, 0, RIG_NOISE, 12345), 0);
    rig_expect_page(&rig, 0, RIG_NOISE, 12345);
    rig_close(&rig);
}

/* What a write that finds no room takes, and how it ends: *ret_page, if it did not fit. */
static uint64_t a_write_that_waits(struct rig *rig, unsigned *page)
{
    uint64_t start;
    int r;

    do {
        start = fsw_now_ns();
        r = rig_write_page(rig, *page, RIG_NOISE, *page);
    } while (r == 0 && ++*page < 4096);
    assert_int_equal(r, -ENOSPC);
    return fsw_now_ns() - start;
}

static void *make_room(void *opaque)
{
    struct rig *rig = opaque;

    uint64_t stalls = rig_stat(rig, FSW_STAT_NO_SPACE) + 1; /* each that was refused waited */

    while (rig_stat(rig, FSW_STAT_WRITE_STALLS) < stalls)
        usleep(1000);
    usleep(1500 * 1000); /* longer than the default */
    teststore_room(rig->store, 1000);
    return NULL;
}

static void write_wait_says_how_long_writes_wait_for_room(void **state)
{
    uint64_t least = UINT64_MAX;
    unsigned page = 0;
    pthread_t thread;
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = 16 << 20, .memory = 2 << 20, .with_store = 1});
    rig_impatient(&rig);
    teststore_room(rig.store, 2);
    a_write_that_waits(&rig, &page);
    set(&rig, "write_wait", "0"); /* at once, but for a busy machine */
    for (int i = 0; i < 5; i++) {
        uint64_t took = a_write_that_waits(&rig, &page);
        least = took < least ? took : least;
    }
    assert_true(least < FSW_WRITE_WAIT_NS / 2);
    assert_int_equal(fsw_device_write_wait(rig.device), FSW_WRITE_WAIT_NS);

    /* Long enough for a store that has room again after a while. */
    set(&rig, "write_wait", "86400");
    assert_int_equal(fsw_device_write_wait(rig.device), 86400 * FSW_NS_PER_S);
    uint64_t refused = rig_stat(&rig, FSW_STAT_NO_SPACE);
    pthread_create(&thread, NULL, make_room, &rig);
    assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    pthread_join(thread, NULL);
    assert_int_equal(rig_stat(&rig, FSW_STAT_NO_SPACE), refused);
    for (unsigned i = 0; i <= page; i++)
        rig_expect_page(&rig, i, RIG_NOISE, i);
    rig_close(&rig);
}

/* ---- pages that could not leave for long ---- */

static int puts_have_failed(struct rig *rig, void *opaque)
{
    const uint64_t *wanted = opaque;
    return rig_stat(rig, FSW_STAT_OVERFLOW_FAILED) >= *wanted;
}

/* The clock ticks so often, and the sweep follows; then the hand passes, and nothing can leave. */
static void time_passes(struct rig *rig, unsigned ticks)
{
    uint64_t wanted = rig_stat(rig, FSW_STAT_OVERFLOW_FAILED) + 2;

    atomic_fetch_add(&rig->device->clock, (uint8_t)ticks);
    rig_evict(rig, 1);
    rig_wait(rig, puts_have_failed, &wanted);
    rig_evict(rig, 0);
}

static void what_the_sweep_has_not_clamped_is_old(void **state)
{
    const unsigned last =
        62 * FSW_LEAF_ENTRIES; /* its leaf's turn comes at the 63rd tick and 126th */
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = 126 << 20, .memory = 8 << 20, .with_store = 1});
    teststore_room(rig.store, 0);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(rig_write_page(&rig, last + i, RIG_HALF, i), 0);
    time_passes(&rig, 126);
    time_passes(&rig, 14);
    uint64_t chances = rig_stat(&rig, FSW_STAT_RECLAIM_SECOND_CHANCES);
    teststore_room(rig.store, 1000);
    rig_evict_all(&rig);
    assert_int_equal(rig_stat(&rig, FSW_STAT_RECLAIM_SECOND_CHANCES), chances);
    for (unsigned i = 0; i < 10; i++)
        rig_expect_page(&rig, last + i, RIG_HALF, i);
    rig_close(&rig);
}

/* ---- overflow_limit= ---- */

static uint64_t spent(struct rig *rig)
{
    rig_wait(rig, nothing_is_on_its_way, NULL);
    return atomic_load(&rig->device->image.super->overflow_spent);
}

static int was_limited(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_OVERFLOW_LIMITED) >= *(uint64_t *)opaque;
}

/* Writes until one waits in vain, since no more may leave; and until that has come about so many times.
 * (On a busy machine others may have waited in vain before.) */
static void write_until_limited(struct rig *rig, unsigned *page, uint64_t times)
{
    do
        a_write_that_waits(rig, page);
    while (fsw_device_overflow_budget(rig->device) >= FSW_SEGMENT_BYTES && *page < 4096);
    rig_wait(rig, was_limited, &times);
}

static void no_more_leaves_in_a_day_than_overflow_limit(void **state)
{
    const uint64_t mib = 1 << 20;
    struct fsw_superblock *super;
    struct fsw_overflowed went;
    unsigned page = 0;
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = 16 << 20, .memory = 2 << 20, .with_store = 1});
    rig_impatient(&rig);
    super = rig.device->image.super;
    super->overflow[0] = 't';
    set(&rig, "overflow_limit", "1M");
    teststore_room(rig.store, 4); /* what the store does not take costs nothing */
    a_write_that_waits(&rig, &page);
    assert_int_equal(spent(&rig), rig_stat(&rig, FSW_STAT_OVERFLOW_BYTES));
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_LIMITED), 0);

    /* As with a full store, though there is room. */
    teststore_room(rig.store, 1000);
    write_until_limited(&rig, &page, 1);
    uint64_t full = rig_stat(&rig, FSW_STAT_STORE_FULL);
    assert_in_range(spent(&rig), mib - FSW_SEGMENT_BYTES + 1, mib);
    assert_int_equal(spent(&rig), rig_stat(&rig, FSW_STAT_OVERFLOW_BYTES));
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_LIMITED), 1);
    assert_int_equal(fsw_device_overflow_idle(rig.device, 0, 30 * FSW_NS_PER_S, &went), -EDQUOT);
    assert_int_equal(went.pages, 0);
    assert_in_range(fsw_budget_until_refill(super), 86000, 86400);

    /* The next day. */
    atomic_store(&super->overflow_refill, fsw_boot_seconds());
    write_until_limited(&rig, &page, 2);
    assert_in_range(spent(&rig), mib - FSW_SEGMENT_BYTES + 1, mib);
    assert_in_range(rig_stat(&rig, FSW_STAT_OVERFLOW_BYTES), 2 * mib - 2 * FSW_SEGMENT_BYTES,
                    2 * mib);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_LIMITED), 2);
    assert_int_equal(rig_stat(&rig, FSW_STAT_STORE_FULL), full);

    /* What somebody gives by hand is not given again, until a day's is. */
    atomic_store(&super->overflow_refill, fsw_boot_seconds());
    fsw_device_set_overflow_budget(rig.device, mib / 2);
    write_until_limited(&rig, &page, 0);
    assert_in_range(spent(&rig), mib / 2 - FSW_SEGMENT_BYTES + 1, mib / 2);
    assert_in_range(fsw_device_overflow_budget(rig.device), 0, FSW_SEGMENT_BYTES - 1);
    assert_true(fsw_budget_until_refill(super) == UINT64_MAX);
    set(&rig, "overflow_limit", "1M");
    assert_int_equal(fsw_device_overflow_budget(rig.device), mib);
    write_until_limited(&rig, &page, 0);
    assert_in_range(fsw_budget_until_refill(super), 86000, 86400);

    set(&rig, "overflow_limit", "off");
    set(&rig, "write_wait", "60");
    for (unsigned i = 0; i < 400; i++, page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    for (unsigned i = 0; i < page; i++)
        rig_expect_page(&rig, i, RIG_NOISE, i);
    rig_close(&rig);
}

static void pause_until(struct rig *rig, uint64_t ns)
{
    FSW_LOCK_SCOPE(&rig->device->overflow.lock);
    rig->device->overflow.pause_until = ns;
    pthread_cond_signal(&rig->device->overflow.wake);
}

static void *end_the_pause(void *opaque)
{
    while (rig_stat(opaque, FSW_STAT_WRITE_STALLS) == 0)
        usleep(1000);
    pause_until(opaque, 0);
    return NULL;
}

/* The array of rows can't grow when nothing is free: its first frame must be there before. */
static void the_first_segment_leaves_a_pool_that_is_full_already(void **state)
{
    pthread_t thread;
    struct rig rig;

    rig_open(&rig, &(struct rig_options){.size = 16 << 20, .memory = 2 << 20, .with_store = 1});
    pause_until(&rig, fsw_now_ns() + 60 * FSW_NS_PER_S);
    assert_int_equal(pthread_create(&thread, NULL, end_the_pause, &rig), 0);
    for (unsigned page = 0; page < 1000; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_NOISE, page), 0);
    pthread_join(thread, NULL); /* one has waited */
    assert_int_equal(rig_stat(&rig, FSW_STAT_NO_SPACE), 0);
    for (unsigned page = 0; page < 1000; page++)
        rig_expect_page(&rig, page, RIG_NOISE, page);
    rig_close(&rig);
}

static int drops_tried(struct rig *rig, void *opaque)
{
    return teststore_drops(rig->store) >= 3;
}

static void a_drop_is_tried_until_it_is_answered(void **state)
{
    struct rig rig;

    open_with_pages_away(&rig, 3);
    assert_int_equal(rig_stat(&rig, FSW_STAT_SEGMENTS), 1);
    teststore_answer(rig.store, TESTSTORE_DROPS, FSW_STORE_UNREACHABLE, 2, 0);
    assert_int_equal(fsw_device_discard(rig.device, 0, 8 << 20), 0);
    rig_wait(&rig, drops_tried, NULL);
    rig_prove(&rig);
    assert_int_equal(teststore_segments(rig.store), 0);
    assert_int_equal(rig_stat(&rig, FSW_STAT_STORE_DROPS), 1);
    rig_close(&rig);
}

/* ---- the end ---- */

static void closing_under_a_put_leaves_its_pages_in_the_pool(void **state)
{
    struct rig rig;
    struct fsw_image image;

    rig_open(&rig, &with_store);
    for (unsigned page = 0; page < 20; page++)
        assert_int_equal(rig_write_page(&rig, page, RIG_TEXT, page), 0);
    teststore_hold(rig.store, TESTSTORE_PUTS);
    rig_evict(&rig, 1);
    teststore_wait_held(rig.store, TESTSTORE_PUTS, 1);
    assert_int_equal(fsw_image_attach(&image, rig.device->image.shmid, 1, NULL), 0);
    uint64_t seed = rig.device->seed;
    fsw_device_close(rig.device);
    for (unsigned page = 0; page < 20; page++) {
        uint64_t value = *fsw_table_find(&image, page);
        char object[FSW_OBJECT_MAX], bytes[FSW_PAGE_SIZE], expected[FSW_PAGE_SIZE];
        assert_int_equal(fsw_entry_state(value), FSW_POOL);
        assert_int_equal(value & (FSW_ENTRY_LOCK | FSW_ENTRY_OVERFLOW), 0);
        assert_int_equal(
            fsw_pool_read(&image, fsw_entry_location(value), object, fsw_entry_units(value)), 0);
        assert_int_equal(fsw_object_open(seed, page, object, fsw_entry_units(value), bytes), 0);
        rig_fill(expected, RIG_TEXT, page);
        assert_memory_equal(bytes, expected, sizeof bytes);
    }
    fsw_image_detach(&image);
    teststore_free(rig.store);
}

/* A store that encrypts keeps bytes that are nothing to one that does not. */
static void an_image_keeps_to_encryption(void **state)
{
    struct teststore *stores[2] = {teststore_new(1), teststore_new(1)};
    struct fsw_params params;
    struct fsw_error err = {""};
    struct fsw_device *device;

    teststore_seal(stores[0]);
    for (unsigned made = 0; made < 2; made++) {
        fsw_params_init(&params);
        snprintf(params.name, sizeof params.name, "seal%u", made);
        params.size = params.memory = 8 << 20;
        assert_int_equal(
            fsw_device_open(&params, FSW_OPEN_NEW, 0, teststore_base(stores[made]), &device, &err),
            0);
        fsw_device_close(device);
        assert_int_equal(fsw_device_open(&params, FSW_OPEN_EXISTING, 0,
                                         teststore_base(stores[!made]), &device, &err),
                         -EINVAL);
        assert_non_null(strstr(err.text, made ? "plaintext=yes" : "plaintext=no"));
        assert_int_equal(fsw_device_open(&params, FSW_OPEN_EXISTING, 0,
                                         teststore_base(stores[made]), &device, &err),
                         0);
        shmctl(device->image.shmid, IPC_RMID, NULL);
        fsw_device_close(device);
    }
    teststore_free(stores[0]);
    teststore_free(stores[1]);
}

static void overflow_twice_is_a_mirror(void **state)
{
    struct fsw_params params;
    struct fsw_error err = {""};

    fsw_params_init(&params);
    assert_int_equal(fsw_params_set(&params, "overflow", "resp://a", &err), 0);
    assert_string_equal(params.overflow, "resp://a");
    assert_int_equal(fsw_params_set(&params, "overflow", "file:/b", &err), 0);
    assert_string_equal(params.overflow, "resp://a file:/b");
    assert_int_equal(fsw_params_set(&params, "overflow", "file:/c", &err), -EINVAL);
    assert_non_null(strstr(err.text, "two stores"));
    assert_string_equal(params.overflow, "resp://a file:/b");
}

RIG_MAIN(cmocka_unit_test(overflow_twice_is_a_mirror),
         cmocka_unit_test(an_image_keeps_to_encryption),
         cmocka_unit_test(local_pages_do_not_wait_for_a_store_that_is_away),
         cmocka_unit_test(a_lost_segment_costs_its_pages_and_says_so),
         cmocka_unit_test(damaged_bytes_are_an_error_and_never_content),
         cmocka_unit_test(a_get_that_is_refused_is_an_error_once),
         cmocka_unit_test(a_long_read_fetches_in_batches),
         cmocka_unit_test(with_a_full_store_writes_wait_and_then_fail),
         cmocka_unit_test(write_wait_says_how_long_writes_wait_for_room),
         cmocka_unit_test(what_the_sweep_has_not_clamped_is_old),
         cmocka_unit_test(no_more_leaves_in_a_day_than_overflow_limit),
         cmocka_unit_test(the_first_segment_leaves_a_pool_that_is_full_already),
         cmocka_unit_test(a_drop_is_tried_until_it_is_answered),
         cmocka_unit_test(closing_under_a_put_leaves_its_pages_in_the_pool))
