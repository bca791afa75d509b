/*
 * report.h: what a store says of itself: the counters and words behind its health().
 *
 * Counters are atomic; the words have a lock that is held for a few instructions and never while
 * done() runs. Any thread.
 */
#ifndef FSW_STORE_REPORT_H
#define FSW_STORE_REPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "farswap/store.h"

struct report {
    atomic_uint_fast64_t answered[3]; /* by verb */
    atomic_uint_fast64_t bytes_out, bytes_in;
    atomic_uint_fast64_t reconnects, retries, errors;
    pthread_mutex_t lock; /* the words below */
    int connected;
    _Atomic int emptied;
    uint64_t since;
    char last_error[sizeof((struct fsw_store_health *)0)->last_error];
};

void report_init(struct report *report);
void report_deinit(struct report *report);

/* One line for people; why may be NULL. */
void report_say(struct report *report, const char *what, const char *why);
void report_connected(struct report *report, int connected);
/* Whether the store shows another sentinel than ours, or none. If so, it is also said. */
void report_emptied(struct report *report, const char *who, int emptied);
void report_health(struct report *report, struct fsw_store_health *ret_health);

/* Counts the request's end and calls done(). copies: which have it, or answered; for FSW_STORE_OK. All of
 * them count as emptied if the store is; those that already do, stay so. */
void report_finish(struct report *report, struct fsw_store_request *request,
                   enum fsw_store_result result, uint32_t copies);

#endif
