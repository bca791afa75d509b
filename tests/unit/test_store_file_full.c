/*
 * test_store_file_full.c: a file store on a disk that is full, nearly full, or frozen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test_store_disk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"

/* ---- full ---- */

static uint64_t fill_up(struct fixture *f)
{
    enum fsw_store_result result;
    uint64_t id = 0;

    do
        result = segment_put(f->store, id++, FSW_SEGMENT_BYTES);
    while (result == FSW_STORE_OK && id < 1000);
    assert_int_equal(result, FSW_STORE_FULL);
    return id;
}

static void test_full_stores_nothing(void **state)
{
    struct fixture *f = *state;
    uint64_t id = fill_up(f);

    assert_in_range(id, 100, 256);
    assert_says(f->store, "No space left");
    assert_int_equal(segment_get(f->store, id - 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
    for (uint64_t i = 0; i + 1 < id; i++)
        assert_int_equal(segment_get(f->store, i, 0, FSW_SEGMENT_BYTES, LONG_MS), FSW_STORE_OK);
    assert_int_equal(do_drop(f->store, 7), FSW_STORE_OK);
    assert_int_equal(do_drop(f->store, 8), FSW_STORE_OK);
    assert_int_equal(segment_put(f->store, id, FSW_SEGMENT_BYTES), FSW_STORE_OK);
}

/* There is room for a slot's head, but not for all of it: what was written must go again. */
static void test_nearly_full_stores_nothing(void **state)
{
    struct fixture *f = *state;
    uint64_t full = fill_up(f), id = full + 1;

    while (segment_put(f->store, id, PLACE_OBJECT) == FSW_STORE_OK)
        id++;
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(do_drop(f->store, id - i), FSW_STORE_OK);
        /* the same row: within the file, where nothing is undone by the file system */
        uint64_t again = id - i + 65536;
        assert_int_equal(segment_put(f->store, again, FSW_SEGMENT_BYTES), FSW_STORE_FULL);
        assert_int_equal(segment_get(f->store, again, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
    }
    for (unsigned i = 1; i < 4; i++)
        assert_int_equal(segment_put(f->store, id + 10 + i, PLACE_OBJECT), FSW_STORE_OK);
}

static void test_buffered_full(void **state)
{
    test_full_stores_nothing(state);
}

static void test_no_room_at_all(void **state)
{
    struct fixture *f = *state, *other;
    char elsewhere[sizeof disk_path];
    struct fsw_error err = {""};

    fill_up(f);
    snprintf(elsewhere, sizeof elsewhere, "%s", disk_path);
    snprintf(disk_path, sizeof disk_path, "%s/late", disk_folder);
    disk_setup_idle((void **)&other);
    assert_int_equal(other->store->ops->probe(other->store, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "has no room"));
    fixture_end(other);
    memcpy(disk_path, elsewhere, sizeof disk_path);
}

/* ---- frozen ---- */

static void test_a_given_up_put_is_quarantined(void **state)
{
    enum { ID = 5, NEXT = ID + 65536 };
    struct fixture *f = *state;
    struct call drop, next;
    static uint8_t bytes[FSW_SEGMENT_BYTES];

    assert_int_equal(segment_put(f->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    disk_freeze();
    segment_fill(f->store, bytes, sizeof bytes, ID);
    call_prepare(&next, FSW_STORE_PUT, ID, bytes, 0, sizeof bytes, 200);
    call_submit(f->store, &next);
    assert_int_equal(call_wait(&next), FSW_STORE_UNREACHABLE);
    call_prepare(&drop, FSW_STORE_DROP, ID, NULL, 0, 0, 200);
    call_submit(f->store, &drop);
    assert_int_equal(call_wait(&drop), FSW_STORE_UNREACHABLE);
    /* reads don't wait behind it, nor do they find it */
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_OK);
    call_prepare(&drop, FSW_STORE_DROP, ID, NULL, 0, 0, 0);
    call_submit(f->store, &drop);
    segment_fill(f->store, bytes, sizeof bytes, NEXT);
    call_prepare(&next, FSW_STORE_PUT, NEXT, bytes, 0, sizeof bytes, 0);
    call_submit(f->store, &next);
    assert_int_equal(drop.done, 0);
    disk_thaw();
    assert_int_equal(call_wait(&drop), FSW_STORE_OK);
    assert_int_equal(call_wait(&next), FSW_STORE_OK);
    assert_true(drop.finished_ns <= next.finished_ns);
    assert_int_equal(segment_get(f->store, NEXT, 0, FSW_SEGMENT_BYTES, LONG_MS), FSW_STORE_OK);
    assert_int_equal(segment_get(f->store, ID, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
}

static void test_deadlines_of_a_frozen_disk(void **state)
{
    struct fixture *f = *state;

    segment_fill(f->store, f->bytes, sizeof f->bytes, 1);
    disk_freeze();
    fixture_deadlines_are_kept(f, 2, sizeof f->bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DISK_TEST(test_full_stores_nothing, disk_setup),
        DISK_TEST(test_nearly_full_stores_nothing, disk_setup),
        DISK_TEST(test_nearly_full_stores_nothing, disk_setup_buffered),
        DISK_TEST(test_buffered_full, disk_setup_buffered),
        DISK_TEST(test_no_room_at_all, disk_setup),
        DISK_TEST(test_a_given_up_put_is_quarantined, disk_setup),
        DISK_TEST(test_deadlines_of_a_frozen_disk, disk_setup),
    };

    return disk_run(tests);
}
