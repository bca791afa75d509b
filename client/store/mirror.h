/*
 * mirror.h: two copies on two stores.
 *
 *     PUT, DROP ── pair ─┬─ leg ──▶ store 0          GET ──▶ the one that has it and answers; where
 *                        └─ leg ──▶ store 1                  that fails, the other, and so on
 *
 * A put is done when both have answered, or when one has it and the other has been slow for half a
 * second (one that was emptied does not count for that: it is no place for an only copy): its `copies` say
 * who has it, and who knows that can put the other copy later. A segment is
 * gone only if every copy that was asked for is. A store that was slow is left out (suspect), but
 * for a put a second, until it answers again; while nobody puts, it is asked to drop what it does not
 * have. What it should have dropped meanwhile stays there, under ids that are never used again.
 *
 *   M1  A pair has its own copy of a put's bytes, so that it can end while a leg is still under way.
 *   M2  A pair is idle again when both legs have ended; its request was answered once, then or before.
 *   M3  Nothing is submitted to a store once closing has begun (gate).
 *   M4  A get that waits at a copy that does not answer, since neither did, is called back when the other
 *       one does again.
 *
 * Threads: submit() on the caller's, done() of the legs on the stores', and a minder that looks for
 * pairs whose time is over, gets that wait at the wrong copy, and copies that were slow and are asked
 * nothing. `lock` guards pairs and lists; it is not held while a store's submit() or a request's done()
 * runs. `gate` is held for reading where a store is looked at or submitted to; lock is never taken
 * before it.
 *
 *     mirror.c the store, the two     mirror_get.c GET     mirror_pair.c PUT, DROP     mirror_minder.c time
 */
#ifndef FSW_STORE_MIRROR_H
#define FSW_STORE_MIRROR_H

#include <pthread.h>
#include <stdatomic.h>

#include "client/store/report.h"
#include "client/store/requests.h"

#define MIRROR_COPIES FSW_COPIES_MAX
#define MIRROR_ALL ((1u << MIRROR_COPIES) - 1)

/* Puts at once: the engine has 8 under way, and a slow store may hold some more. */
#define MIRROR_PUTS 16u
#define MIRROR_DROPS 64u
#define MIRROR_PAIRS (MIRROR_PUTS + MIRROR_DROPS)

struct mirror_pair;
struct mirror_store;

struct mirror_leg {
    struct fsw_store_request request;
    struct mirror_pair *pair;
    unsigned copy;
};

/* One PUT or DROP. */
struct mirror_pair {
    struct mirror_store *store;
    struct fsw_store_request *request; /* NULL: answered */
    struct mirror_leg legs[MIRROR_COPIES];
    uint32_t pending, acknowledged, emptied; /* copies */
    uint64_t patience_ends;                  /* 0: nobody has acknowledged it yet */
    enum fsw_store_result worst;
    struct mirror_pair *next; /* idle */
    void *bytes;              /* PUT */
};

/* One of the two. */
struct mirror_copy {
    struct fsw_store *store;
    _Atomic uint64_t suspect;     /* since when (ns); 0: it answers */
    _Atomic uint64_t canary;      /* when it was last tried all the same */
    struct fsw_store_request try; /* the minder's canary; its own while `tried` is 0 */
    _Atomic int tried;            /* 1: it is under way */
};

struct mirror_store {
    struct fsw_store base;
    struct mirror_copy copies[MIRROR_COPIES];
    struct report report;
    pthread_rwlock_t gate;
    int closing;         /* under gate */
    uint16_t generation; /* under gate: gets of an earlier one are to end */

    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct mirror_pair *pairs, *idle[2]; /* puts, drops */
    struct fsw_requests waiting;         /* for a pair */
    unsigned busy;                       /* pairs that are not idle */
    unsigned astray;                     /* gets at a copy that does not answer, for none did */
    uint64_t try_ns; /* of a get at the first copy; longer while both are slow */
    int stopping, started;
    pthread_t minder;
};

/* Takes both over: close() closes them. -ENOMEM, and they stay the caller's. */
int mirror_store_new(struct fsw_store *const stores[MIRROR_COPIES], struct fsw_store **ret_store);

/* ---- mirror.c ---- */

/* What a store is worth now, the more the better. Inside the gate, or in a done() of its own. */
enum mirror_worth { MIRROR_AWAY, MIRROR_SUSPECT, MIRROR_EMPTIED, MIRROR_GOOD };
enum mirror_worth mirror_worth(struct mirror_copy *copy);
void mirror_answered(struct mirror_copy *copy);
/* Not with the lock held. */
void mirror_was_slow(struct mirror_store *store, unsigned which);

/* 1 once a second, for one that is suspect. */
int mirror_canary_is_due(struct mirror_copy *copy);

/* The worse of two results: GONE only if all say so. */
enum fsw_store_result mirror_worse(enum fsw_store_result a, enum fsw_store_result b);

/* Around every use of the two from a done(): 0, and nothing to leave, once closing has begun. May be
 * nested. */
int mirror_enter(struct mirror_store *store);
void mirror_leave(struct mirror_store *store);

/* ---- mirror_get.c ---- */

/* As submit() of one, and as get(). */
void mirror_get(struct mirror_store *store, struct fsw_store_request *request);
void mirror_get_here(struct mirror_store *store, struct fsw_store_request *request, uint64_t until);

/* ---- mirror_pair.c ---- */

/* 0 or -ENOMEM; deinit in any case. */
int mirror_pairs_init(struct mirror_store *store);
void mirror_pairs_deinit(struct mirror_store *store);

/* PUT or DROP. */
void mirror_both(struct mirror_store *store, struct fsw_store_request *request);
/* Pairs have become idle, or closing has begun: who waits for one goes on. */
void mirror_serve_waiting(struct mirror_store *store);

/* The request's end, if it has not ended yet: taken out, for the caller to finish. The lock is held. */
struct fsw_store_request *mirror_pair_answer(struct mirror_pair *pair,
                                             enum fsw_store_result *ret_result);

/* ---- mirror_minder.c ---- */

/* A get goes astray (1), or has ended at that copy (-1). Inside the gate, or in a done(). */
void mirror_astray(struct mirror_store *store, int by);

/* A copy is suspect. Not with the lock held. */
void mirror_minder_wake(struct mirror_store *store);

int mirror_minder_start(struct mirror_store *store);
void mirror_minder_stop(struct mirror_store *store);

#endif
