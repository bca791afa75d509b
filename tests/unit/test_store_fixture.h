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
/* Sixty requests of all three verbs, or of two (no gets), with f->bytes and that length, deadlines 20 ms apart,
 * and nobody who answers: each is answered at its deadline. Again, until most were in one round and each in
 * some: a machine that stood still was late for those of a while. */
void fixture_deadlines_are_kept(struct fixture *f, unsigned verbs, uint32_t length);
/* Waits until the store's last error has this in it. */
void assert_says(struct fsw_store *store, const char *part);

#endif
