/*
 * test_store_fixture.h: how a test of the stores begins and ends: a device, a store for it, and servers, if
 * they are to be the test's own.
 */
#ifndef FSW_TEST_STORE_FIXTURE_H
#define FSW_TEST_STORE_FIXTURE_H

#include "test_store_place.h"

struct fixture {
    struct place place;    /* of this test alone; not started before it says so */
    struct server *server; /* the first of them */
    struct fsw_device_id device;
    struct fsw_store *store; /* NULL: none is open */
    uint64_t id;
    uint8_t bytes[FSW_SEGMENT_BYTES],
        back[FSW_SEGMENT_BYTES]; /* a segment, as it was put, and read */
};

/* With a device, and a place like that one; NULL: with none. Nothing is started or opened. */
struct fixture *fixture_new(const struct place *chosen);
/* Closes the store, if one is open. */
void fixture_close(struct fixture *f);
/* Closes, thaws and stops what there is, and frees. */
void fixture_end(struct fixture *f);
int fixture_teardown(void **state); /* the same, for cmocka */

#define FIXTURE_TEST(name, setup) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)

struct fsw_store_health fixture_health(struct fixture *f);
/* The store's last error has this in it, or the test fails. */
void assert_says(struct fsw_store *store, const char *part);

#endif
