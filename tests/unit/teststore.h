/*
 * teststore.h: a store in memory that does what a test tells it, with a thread of its own.
 *
 * It implements include/farswap/store.h and nothing else, and on the way proves that the engine
 * keeps its side of that contract. What the engine may never do ends the program with a line:
 *
 *   S1  an id is put once; put again it has the same bytes
 *   S2  a row belongs to one segment from its put to the answered drop
 *   S3  a get names a segment that was acknowledged and not dropped, its own row, and a range in it
 *   S4  a drop names a segment whose put has ended, and no get of it is in flight
 *   S5  bytes that are being put do not change under way
 *   S6  with seals: those of a segment lead from its begin to its end, and a get begins with one
 *
 * The test owns it: the engine's close() ends the thread, and what is stored can still be looked
 * at, until teststore_free().
 */
#ifndef TESTSTORE_H
#define TESTSTORE_H

#include "farswap/store.h"

struct teststore;

enum teststore_verbs { TESTSTORE_PUTS = 1, TESTSTORE_GETS = 2, TESTSTORE_DROPS = 4 };

struct teststore *teststore_new(uint64_t seed);
struct fsw_store *teststore_base(struct teststore *store);
void teststore_free(struct teststore *store); /* after the engine closed it */

/* Requests of these verbs wait until they are released. A get's deadline still ends it; puts and drops have
 * as much time as the test takes. */
void teststore_hold(struct teststore *store, unsigned verbs);
void teststore_release(struct teststore *store, unsigned verbs);
/* Waits until so many of that verb are held; fails the program after a minute. */
void teststore_wait_held(struct teststore *store, unsigned verb, unsigned count);

/* The next `count` requests of the verb end in result (a PUT with UNREACHABLE: it lands if
 * `lands`). A GET without deadline is never answered UNREACHABLE: it waits. */
void teststore_answer(struct teststore *store, unsigned verb, enum fsw_store_result result,
                      unsigned count, int lands);
/* From now on so many in a thousand puts and drops fail, each way there is. */
void teststore_fail_some(struct teststore *store, unsigned in_thousand);
/* Each answer comes after up to that long, in any order. */
void teststore_delay(struct teststore *store, unsigned max_us);
/* Wants seals, and stores and takes bytes that are nobody's. Before a device has it. */
void teststore_seal(struct teststore *store);
/* Answers inside submit(). Before the engine starts it. */
void teststore_answer_at_once(struct teststore *store);
/* So many segments and then FULL. */
void teststore_room(struct teststore *store, unsigned segments);

/* The stored segment is forgotten: gets of it are GONE. */
void teststore_lose(struct teststore *store, uint64_t id);
/* Changes one bit of the stored segment. */
void teststore_damage(struct teststore *store, uint64_t id, uint32_t byte);

/* What health says. At first: up, not emptied. */
void teststore_seems(struct teststore *store, int up, int emptied);
/* Before lost() does anything: on its thread, with no lock held. */
void teststore_when_lost(struct teststore *store, void (*call)(void *arg), void *arg);
/* The copies that were ever declared lost. */
uint32_t teststore_lost(struct teststore *store);
/* The sentinel that it has to show. */
uint64_t teststore_sentinel(struct teststore *store);

/* The length of what is stored under id, 0 for nothing. */
uint32_t teststore_length(struct teststore *store, uint64_t id);
unsigned teststore_segments(struct teststore *store); /* stored now */
uint64_t teststore_gets(struct teststore *store);     /* submitted ever */
uint64_t teststore_submits(struct teststore *store);  /* batches of requests, of any verb */
uint64_t teststore_puts(struct teststore *store);
uint64_t teststore_drops(struct teststore *store);

#endif
