/*
 * resp.h: a store that speaks RESP (farswapd, Redis, Valkey), as its own files see it.
 *
 *     submit() ── inbox ──▶ loop thread ─┬─ lane "gets": GET              ── connection ══ server
 *      any thread   (lock)               └─ lane "puts": PUT, DROP        ── connection ══
 *     get() ────────── lane "quick", lent to this thread: one GET ──────── connection ══
 *
 * Two lanes, so that a read never waits behind 64 KB puts. A PUT and the DROP of the same id share
 * a lane, and so their order. A third for one read at a time whose thread waits for it (resp_quick.h).
 *
 * Threads: `inbox` to `losses` and what quick says under inbox_lock (a few instructions); `report` has a
 * lock of its own; everything else but quick belongs to the loop's thread between start() and the end of close(). Neither lock
 * is held while done() runs, and none is taken inside the other.
 */
#ifndef FSW_STORE_RESP_H
#define FSW_STORE_RESP_H

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "client/store/address.h"
#include "client/store/keys.h"
#include "client/store/report.h"
#include "client/store/requests.h"
#include "client/store/resp_lane.h"
#include "client/store/resp_quick.h"

#define RESP_SENTINEL_TEXT 17 /* hex */

struct resp_store {
    struct fsw_store base;
    struct fsw_address address; /* as it was given, for good */
    char *password;             /* NULL: none */
    struct fsw_device_id device;

    /* the sentinel: what the device left at the store, to know it again by */
    char sentinel[RESP_SENTINEL_TEXT];
    unsigned sentinel_left; /* 1: a store has acknowledged it, to this process or an earlier one */

    pthread_mutex_t inbox_lock;
    struct fsw_requests inbox, before; /* lost() was called: since, and before */
    unsigned stopping;
    unsigned interrupted, replants; /* lost() was called: of no copy, of this one */
    uint64_t replant_as;            /* with this sentinel */
    atomic_uint losses;             /* how often; changes under the lock */

    unsigned started;
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t wake;
    uv_timer_t sweep;
    struct fsw_address place; /* where the lanes connect to; the same, and resolved */
    uv_getaddrinfo_t question;
    uv_timer_t ask_again;
    unsigned asking, lanes_open, ending;
    struct resp_lane gets, puts;
    struct resp_quick quick;

    struct report report;
};

/* Takes the password over by copy. Allocates; connects to nothing. 0 or -ENOMEM. */
int resp_store_new(const struct fsw_address *address, const char *password,
                   struct fsw_store **ret_store);

/* For the lanes, on the loop's thread. */
void resp_store_finish(struct resp_store *store, struct fsw_store_request *request,
                       enum fsw_store_result result);
void resp_store_lane_changed(struct resp_store *store);
/* This one has reached the server: the others don't wait out their pause. */
void resp_store_is_back(struct resp_store *store, const struct resp_lane *lane);

/* On any thread: submits a GET that had no answer which ends it. losses: when it was begun. */
void resp_store_ask_again(struct resp_store *store, struct fsw_store_request *request,
                          unsigned losses);

/* resp_sync.c: the ops that block. */
int resp_sync_probe(struct fsw_store *base, struct fsw_error *err);
int resp_sync_list(struct fsw_store *base, const struct fsw_device_id *device,
                   int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                   struct fsw_error *err);
int resp_sync_forget(struct fsw_store *base, const struct fsw_device_id *device,
                     uint64_t *ret_count, struct fsw_error *err);

#endif
