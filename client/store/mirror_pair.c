/*
 * mirror_pair.c: a PUT or DROP goes to both copies at once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/store/mirror.h"
#include "common/cleanup.h"
#include "common/clock.h"

/* After one copy was acknowledged, for the other. Writers wait a second for room. */
#define PATIENCE_NS (500 * FSW_NS_PER_MS)

struct fsw_store_request *mirror_pair_answer(struct mirror_pair *pair,
                                             enum fsw_store_result *ret_result)
{
    struct fsw_store_request *request = pair->request;

    pair->request = NULL;
    if (request != NULL)
        request->emptied = pair->emptied;
    *ret_result = pair->acknowledged != 0 ? FSW_STORE_OK : pair->worst;
    return request;
}

/* The lock is held. */
static void pair_idle(struct mirror_pair *pair)
{
    struct mirror_store *store = pair->store;
    unsigned list = pair->bytes == NULL;

    pair->next = store->idle[list];
    store->idle[list] = pair;
    store->busy--;
}

/* One that was emptied does not keep it alone: then the other is waited for. The lock is held. */
static void leg_acknowledged(const struct mirror_leg *leg)
{
    struct mirror_pair *pair = leg->pair;

    pair->acknowledged |= 1u << leg->copy;
    if (leg->request.emptied)
        pair->emptied |= 1u << leg->copy;
    else
        pair->patience_ends = fsw_now_ns() + PATIENCE_NS;
}

/* A leg has ended. With the last one, so has the pair. */
static void leg_end(struct mirror_leg *leg, enum fsw_store_result result)
{
    struct mirror_pair *pair = leg->pair;
    struct mirror_store *store = pair->store;
    struct fsw_store_request *request = NULL;
    enum fsw_store_result all = FSW_STORE_UNREACHABLE;
    uint32_t acknowledged;

    pthread_mutex_lock(&store->lock);
    pair->pending &= ~(1u << leg->copy);
    pair->worst = mirror_worse(pair->worst, result);
    if (result == FSW_STORE_OK)
        leg_acknowledged(leg);
    acknowledged = pair->acknowledged;
    if (pair->pending == 0) {
        request = mirror_pair_answer(pair, &all);
        pair_idle(pair);
    }
    pthread_mutex_unlock(&store->lock);
    if (request != NULL)
        report_finish(&store->report, request, all, acknowledged);
}

static void leg_done(struct fsw_store_request *request)
{
    struct mirror_leg *leg = request->owner;
    struct mirror_store *store = leg->pair->store;

    if (request->result == FSW_STORE_UNREACHABLE)
        mirror_was_slow(store, leg->copy);
    else
        mirror_answered(&store->copies[leg->copy]);
    leg_end(leg, request->result);
    mirror_serve_waiting(store);
}

/* Those that answer, and one that is suspect if it is time to try; if none answers, all: then
 * somebody has to wait. */
static uint32_t choose_both(struct mirror_store *store, uint32_t asked)
{
    uint32_t good = 0, tried = 0;

    asked = asked & MIRROR_ALL ? asked & MIRROR_ALL : MIRROR_ALL;
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++) {
        enum mirror_worth worth = mirror_worth(&store->copies[copy]);
        if (worth >= MIRROR_EMPTIED)
            good |= asked & 1u << copy;
        else if (worth == MIRROR_SUSPECT && mirror_canary_is_due(&store->copies[copy]))
            tried |= asked & 1u << copy;
    }
    return good != 0 ? good | tried : asked;
}

static void fill_leg(struct mirror_leg *leg, const struct fsw_store_request *request)
{
    leg->request = (struct fsw_store_request){
        .verb = request->verb,
        .row = request->row,
        .id = request->id,
        .bytes = leg->pair->bytes,
        .length = request->length,
        .deadline = request->deadline,
        .done = leg_done,
        .owner = leg,
    };
}

/* The pair is ours alone until its first leg is under way; then, pending tells. */
static void pair_begin(struct mirror_store *store, struct mirror_pair *pair,
                       struct fsw_store_request *request)
{
    uint32_t chosen = choose_both(store, request->copies);

    if (request->verb == FSW_STORE_PUT)
        memcpy(pair->bytes, request->bytes, request->length);
    pair->acknowledged = pair->emptied = 0;
    pair->patience_ends = 0;
    pair->worst = FSW_STORE_OK;
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++)
        fill_leg(&pair->legs[copy], request);
    pthread_mutex_lock(&store->lock);
    pair->pending = chosen;
    pair->request = request;
    pthread_mutex_unlock(&store->lock);
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++) {
        struct fsw_store_request *leg = &pair->legs[copy].request;
        struct fsw_store *to = store->copies[copy].store;
        if (chosen >> copy & 1)
            to->ops->submit(to, &leg, 1);
    }
}

/* Closing has begun. */
static void pair_refuse(struct mirror_store *store, struct mirror_pair *pair,
                        struct fsw_store_request *request)
{
    pthread_mutex_lock(&store->lock);
    pair_idle(pair);
    pthread_mutex_unlock(&store->lock);
    report_finish(&store->report, request, FSW_STORE_UNREACHABLE, 0);
}

/* A request that waits, and a pair for it; 0: there are not both. */
static int take_waiting(struct mirror_store *store, struct mirror_pair **ret_pair,
                        struct fsw_store_request **ret_request)
{
    FSW_LOCK_SCOPE(&store->lock);

    FSW_FOR_EACH_REQUEST(request, &store->waiting)
    {
        struct mirror_pair **idle = &store->idle[request->verb != FSW_STORE_PUT];
        if (*idle == NULL)
            continue;
        *ret_pair = *idle;
        *idle = (*idle)->next;
        fsw_requests_remove(request);
        *ret_request = request;
        if (store->busy++ == 0)
            pthread_cond_signal(&store->wake);
        return 1;
    }
    return 0;
}

void mirror_serve_waiting(struct mirror_store *store)
{
    struct fsw_store_request *request;
    struct mirror_pair *pair;

    while (take_waiting(store, &pair, &request)) {
        if (mirror_enter(store)) {
            pair_begin(store, pair, request);
            mirror_leave(store);
        } else {
            pair_refuse(store, pair, request);
        }
    }
}

void mirror_both(struct mirror_store *store, struct fsw_store_request *request)
{
    pthread_mutex_lock(&store->lock);
    fsw_requests_push_back(&store->waiting, request);
    pthread_mutex_unlock(&store->lock);
    mirror_serve_waiting(store);
}

/* ---- birth and death ---- */

int mirror_pairs_init(struct mirror_store *store)
{
    store->pairs = calloc(MIRROR_PAIRS, sizeof store->pairs[0]);
    if (store->pairs == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < MIRROR_PAIRS; i++) {
        struct mirror_pair *pair = &store->pairs[i];

        pair->store = store;
        for (unsigned copy = 0; copy < MIRROR_COPIES; copy++)
            pair->legs[copy] = (struct mirror_leg){.pair = pair, .copy = copy};
        if (i < MIRROR_PUTS && (pair->bytes = malloc(FSW_SEGMENT_BYTES)) == NULL)
            return -ENOMEM;
        if (i < MIRROR_PUTS)
            memset(pair->bytes, 0, FSW_SEGMENT_BYTES);
        store->busy++;
        pair_idle(pair);
    }
    return 0;
}

void mirror_pairs_deinit(struct mirror_store *store)
{
    for (unsigned i = 0; store->pairs != NULL && i < MIRROR_PUTS; i++)
        free(store->pairs[i].bytes);
    free(store->pairs);
}
