/*
 * test_store_seal.c: objects that are encrypted one by one: what opens, and what must not.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "client/store/seal.h"
#include "test_store_server.h"

static const struct fsw_device_id device = {"a device"}, other = {"other device"};
static const uint8_t key[FSW_STORE_KEY_BYTES] = "a key of 32 bytes, more or less";
static const uint32_t units[] = {2, 257, 81, 1, 100, 2};

enum { OBJECTS = sizeof units / sizeof *units, ROOM = 8192 };

struct fixture {
    struct seal *seal;
    uint32_t length, at[OBJECTS + 1];
    uint8_t plain[ROOM], bytes[ROOM];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->seal = seal_new(&device, key);
    assert_non_null(f->seal);
    fill_segment(f->plain, ROOM, 1);
    for (unsigned i = 0; i < OBJECTS; i++) {
        f->at[i] = f->length;
        fsw_seal_write(f->plain + f->length, units[i]);
        f->length += FSW_SEAL_BYTES * (1 + units[i]);
    }
    f->at[OBJECTS] = f->length;
    memcpy(f->bytes, f->plain, f->length);
    assert_int_equal(seal_close(f->seal, 7, f->bytes, f->length), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    seal_free(f->seal);
    free(f);
    return 0;
}

/* Opens the range of objects [from, to) from a copy; compares those that opened. How many did. */
static unsigned opens(struct fixture *f, struct seal *seal, uint64_t id, unsigned from, unsigned to)
{
    uint32_t begin = f->at[from], length = f->at[to] - begin;
    uint8_t *copy = malloc(length);
    unsigned n = from;

    memcpy(copy, f->bytes + begin, length);
    int r = seal_open(seal, id, begin, copy, length);
    while (n < to && fsw_seal_units(copy + f->at[n] - begin) != 0) {
        assert_memory_equal(copy + f->at[n] - begin, f->plain + f->at[n], f->at[n + 1] - f->at[n]);
        n++;
    }
    assert_int_equal(r, n == from ? -EBADMSG : 0);
    free(copy);
    return n - from;
}

static void test_what_was_closed_opens(void **state)
{
    struct fixture *f = *state;

    for (unsigned from = 0; from < OBJECTS; from++)
        for (unsigned to = from + 1; to <= OBJECTS; to++)
            assert_int_equal(opens(f, f->seal, 7, from, to), to - from);
}

static void test_nothing_is_left_readable(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < OBJECTS; i++)
        for (uint32_t at = f->at[i] + FSW_SEAL_BYTES; at + 8 <= f->at[i + 1]; at++)
            assert_memory_not_equal(f->bytes + at, f->plain + at, 8);
}

/* Equal objects don't look equal, at another place or in another segment. */
static void test_equal_objects_look_different(void **state)
{
    struct fixture *f = *state;
    uint8_t twice[2][2 * 48] = {{0}};

    for (unsigned i = 0; i < 2; i++) {
        fsw_seal_write(twice[i], 2);
        fsw_seal_write(twice[i] + 48, 2);
        assert_int_equal(seal_close(f->seal, 8 + i, twice[i], 96), 0);
    }
    assert_memory_not_equal(twice[0] + 16, twice[0] + 64, 32);
    assert_memory_not_equal(twice[0] + 16, twice[1] + 16, 32);
}

static void test_a_repeated_put_has_the_same_bytes(void **state)
{
    struct fixture *f = *state;
    uint8_t again[ROOM];

    memcpy(again, f->plain, f->length);
    assert_int_equal(seal_close(f->seal, 7, again, f->length), 0);
    assert_memory_equal(again, f->bytes, f->length);
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    struct fixture *f = *state;

    for (unsigned object = 0; object < OBJECTS; object++)
        for (uint32_t at = f->at[object]; at < f->at[object + 1]; at += at % 16 == 15 ? 33 : 1) {
            f->bytes[at] ^= (uint8_t)(1u << at % 8);
            assert_int_equal(opens(f, f->seal, 7, object, object + 1), 0);
            assert_int_equal(opens(f, f->seal, 7, 0, OBJECTS), object);
            f->bytes[at] ^= (uint8_t)(1u << at % 8);
        }
}

static void test_another_segment_device_or_key(void **state)
{
    struct fixture *f = *state;
    uint8_t wrong[FSW_STORE_KEY_BYTES];
    struct seal *foreign = seal_new(&other, key), *stolen;

    memcpy(wrong, key, sizeof wrong);
    wrong[31] ^= 1;
    stolen = seal_new(&device, wrong);
    assert_int_equal(opens(f, f->seal, 6, 0, OBJECTS), 0);
    assert_int_equal(opens(f, f->seal, 7 | 1ull << 63, 0, OBJECTS), 0);
    assert_int_equal(opens(f, foreign, 7, 0, OBJECTS), 0);
    assert_int_equal(opens(f, stolen, 7, 0, OBJECTS), 0);
    seal_free(foreign);
    seal_free(stolen);
}

/* The first and the last object are of one length. */
static void test_exchanged_objects_are_noticed(void **state)
{
    struct fixture *f = *state;
    uint8_t first[48];

    memcpy(first, f->bytes, 48);
    memcpy(f->bytes, f->bytes + f->at[OBJECTS - 1], 48);
    memcpy(f->bytes + f->at[OBJECTS - 1], first, 48);
    assert_int_equal(opens(f, f->seal, 7, 0, 1), 0);
    assert_int_equal(opens(f, f->seal, 7, OBJECTS - 1, OBJECTS), 0);
}

/* A range that ends in the middle of an object: those before it. */
static void test_a_cut_object_is_left_out(void **state)
{
    struct fixture *f = *state;

    for (uint32_t length = 0; length <= f->length; length += 1 + length % 61) {
        uint8_t *copy = malloc(length + 1);
        unsigned whole = 0;

        while (whole < OBJECTS && f->at[whole + 1] <= length)
            whole++;
        memcpy(copy, f->bytes, length);
        copy[length] = 0xee;
        assert_int_equal(seal_open(f->seal, 7, 0, copy, length),
                         whole == 0 && length > 0 ? -EBADMSG : 0);
        assert_memory_equal(copy, f->plain, f->at[whole]);
        for (uint32_t i = f->at[whole]; i < length && i < f->at[whole] + FSW_SEAL_BYTES; i++)
            assert_int_equal(copy[i], 0);
        assert_int_equal(copy[length], 0xee);
        free(copy);
    }
}

static void test_a_segment_that_is_not_whole_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[ROOM];

    memcpy(bytes, f->plain, f->length);
    assert_int_equal(seal_close(f->seal, 9, bytes, f->length - 16), -EINVAL);
    assert_int_equal(seal_close(f->seal, 9, bytes, f->length + 16), -EINVAL);
    fsw_seal_write(bytes + f->at[3], 0);
    assert_int_equal(seal_close(f->seal, 9, bytes, f->length), -EINVAL);
    fsw_seal_write(bytes + f->at[3], units[3]);
    bytes[f->at[3] + 2] = 1;
    assert_int_equal(seal_close(f->seal, 9, bytes, f->length), -EINVAL);
    bytes[f->at[3] + 2] = 0;
    assert_memory_equal(bytes, f->plain, f->length);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_was_closed_opens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_left_readable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_equal_objects_look_different, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_repeated_put_has_the_same_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_flipped_bit_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_segment_device_or_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exchanged_objects_are_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_cut_object_is_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_that_is_not_whole_is_refused, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
