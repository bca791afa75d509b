/*
 * resp_quick.h: the lane of who waits: a connection that is lent to a thread that wants one answer and has
 * nothing to do until then. It sends the command and reads the answer itself. Through the loop's thread
 * that takes two more wake-ups, which on a fast network are most of the time.
 *
 *              offer                 get()
 *      HELD ──────────▶ OFFERED ────────────────▶ LENT ─┬─ answered ─▶ OFFERED
 *       ▲                  │ recall                │    │
 *       └──────────────────┴───◀── RETURNED ◀──────┴────┴─ not in time; broken; recalled
 *
 * While HELD it is a lane like the others, whose only requests are those that came back with it. Anything
 * else than an answer that ends the request is the loop's affair: an empty or refusing one is asked for again
 * on the lane of gets, which knows what to do.
 *
 *   Q1  Lane and connection belong to the loop's thread while HELD, to nobody while OFFERED, to the
 *       borrower while LENT or RECALLED. `state` hands them over.
 *   Q2  It is offered only with no flight, no request and no part of an answer in it: the next answer is
 *       the borrower's.
 *   Q3  A borrower keeps it for RESP_LOAN_NS, or a few ticks of the kernel, whoever waits for it.
 */
#ifndef FSW_STORE_RESP_QUICK_H
#define FSW_STORE_RESP_QUICK_H

#include <stdatomic.h>

#include "client/store/resp_lane.h"

/* What takes longer may well wait for two threads. */
#define RESP_LOAN_NS (1 * FSW_NS_PER_MS)

enum resp_quick_state {
    RESP_QUICK_HELD,
    RESP_QUICK_OFFERED,
    RESP_QUICK_LENT,
    RESP_QUICK_RECALLED, /* lent, and the loop wants it back */
    RESP_QUICK_RETURNED, /* for the loop to take */
};

struct resp_quick {
    struct resp_lane lane;
    atomic_uint state;
    atomic_uint wanted; /* somebody would have borrowed it: it is opened only then */
    unsigned opened;    /* the loop's */

    unsigned brisk; /* the borrower's: the last answer came at once */

    struct resp_quick_left {
        struct fsw_store_request *request; /* sent, without an answer; NULL: none */
        unsigned losses;                   /* the store's when it was sent */
        const char *broken;                /* why; NULL: it is not */
        unsigned interrupted;              /* lost() was called since; set by is_returned */
    } left;                                /* by the borrower, under inbox_lock: RETURNED */
};

/* -ENOMEM; deinit in any case. */
int resp_quick_init(struct resp_quick *quick, struct resp_store *store);
void resp_quick_deinit(struct resp_quick *quick);

/* On any thread: 1 if the request is on its way or at its end, 0: it has to be submitted. */
int resp_quick_get(struct resp_quick *quick, struct fsw_store_request *request, uint64_t until);

/* ---- on the loop's thread ---- */

/* 1 if it was returned: *ret_left is to be collected then, after what lost() wants was done. Under
 * inbox_lock. */
int resp_quick_is_returned(struct resp_quick *quick, struct resp_quick_left *ret_left);
void resp_quick_collect(struct resp_quick *quick, const struct resp_quick_left *left);

/* Opens it, once somebody wants it. */
void resp_quick_open(struct resp_quick *quick);

/* 1: the loop holds it now; 0: it is lent, and the loop will be woken when it is returned. */
int resp_quick_recall(struct resp_quick *quick);

/* To whoever wants it, if nothing is in it. Not within a hook of its connection, but turn(). */
void resp_quick_offer(struct resp_quick *quick);

/* As a lane's; nothing to do while it is not held. */
size_t resp_quick_sweep(struct resp_quick *quick, uint64_t now);
void resp_quick_give_up(struct resp_quick *quick);
void resp_quick_end(struct resp_quick *quick);

#endif
