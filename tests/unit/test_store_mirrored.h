/*
 * test_store_mirrored.h: a mirror of two servers of the test's own, and what is asked of it.
 */
#ifndef FSW_TEST_STORE_MIRRORED_H
#define FSW_TEST_STORE_MIRRORED_H

#include "test_store_fixture.h"

#define MIRRORED_LENGTH (20 * PLACE_OBJECT) /* of each segment */

/* main()'s arguments; the kind of servers. */
void mirrored_choose(int argc, char **argv);
enum server_kind mirrored_kind(void);

/* For cmocka, with fixture_teardown: both servers are up. Small: the first one has 16 MiB. */
int mirrored_setup(void **state);
int mirrored_setup_encrypted(void **state);
int mirrored_setup_small(void **state);

/* Until these copies answer, and no others. */
void mirrored_wait_up(struct fixture *f, uint32_t up);

/* A put of that segment to these copies (0: all): which have it; 0: none. Again, while none answers. */
uint32_t mirrored_put(struct fixture *f, uint64_t id, uint32_t copies);
/* A get from these copies: its result; *ret_copies: which answered; *ret_ms: how long it took. */
enum fsw_store_result mirrored_get(struct fixture *f, uint64_t id, uint32_t copies,
                                   uint32_t *ret_copies, unsigned *ret_ms);

/* Puts ids from..to-1 until just these copies have each. */
void mirrored_puts(struct fixture *f, uint64_t from, uint64_t to, uint32_t copies);
/* Gets them, of these copies (0: any), each until it took no more than that: who waits for a store waits
 * each time, and a machine that stood still does not. */
void mirrored_reads(struct fixture *f, uint64_t from, uint64_t to, uint32_t copies,
                    unsigned most_ms);

#endif
