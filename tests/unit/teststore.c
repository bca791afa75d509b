/*
 * teststore.c: one lock, one thread, one list of what waits. What is stored, and what the engine may
 * do with it, is teststore_segments.c's.
 */
#include "teststore.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "teststore_segments.h"

struct teststore {
    struct fsw_store base;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int started, closing, at_once;
    struct fsw_store_request *waiting; /* through next; scratch[0]: not before */
    struct segments segments;
    unsigned held, delay_us, fail_in_thousand, room;
    struct {
        enum fsw_store_result result;
        unsigned count;
        int lands;
    } answer[3];
    uint64_t submitted[3], submits;
    uint64_t random;
    uint32_t lost;
    uint64_t sentinel;
    void (*when_lost)(void *arg);
    void *when_lost_arg;
    struct fsw_store_health health;
};

static uint64_t next_random(struct teststore *store)
{
    store->random ^= store->random << 13;
    store->random ^= store->random >> 7;
    store->random ^= store->random << 17;
    return store->random;
}

static enum fsw_store_result random_failure(struct teststore *store, enum fsw_store_verb verb)
{
    static const enum fsw_store_result put[] = {FSW_STORE_FULL, FSW_STORE_UNREACHABLE,
                                                FSW_STORE_REFUSED, FSW_STORE_CORRUPT};

    if (verb == FSW_STORE_GET || next_random(store) % 1000 >= store->fail_in_thousand)
        return FSW_STORE_OK;
    return verb == FSW_STORE_DROP ? FSW_STORE_UNREACHABLE : put[next_random(store) % 4];
}

/* Decides how it ends, and does it to the segments. */
static void settle(struct teststore *store, struct fsw_store_request *request, int late)
{
    unsigned verb = request->verb;
    int lands = next_random(store) % 2;

    request->result = late ? FSW_STORE_UNREACHABLE : random_failure(store, request->verb);
    if (!late && store->answer[verb].count > 0) {
        store->answer[verb].count--;
        request->result = store->answer[verb].result;
        lands = store->answer[verb].lands;
    }
    if (!late && verb == FSW_STORE_PUT && store->segments.stored >= store->room)
        request->result = FSW_STORE_FULL;
    if (request->result != FSW_STORE_UNREACHABLE)
        lands = request->result == FSW_STORE_OK;
    segments_answered(&store->segments, request, lands);
    if (request->result == FSW_STORE_OK && (store->health.emptied & 1))
        request->emptied = request->copies;
}

static void finish(struct teststore *store, struct fsw_store_request *request, int late)
{
    settle(store, request, late);
    pthread_mutex_unlock(&store->lock);
    request->done(request);
    pthread_mutex_lock(&store->lock);
}

/* ---- the thread ---- */

/* Takes out one that may be answered now; else *ret_wake says when to look again. */
static struct fsw_store_request *take_due(struct teststore *store, int *ret_late,
                                          uint64_t *ret_wake)
{
    uint64_t now = fsw_now_ns();

    *ret_wake = now + FSW_NS_PER_S;
    for (struct fsw_store_request **at = &store->waiting; *at != NULL; at = &(*at)->next) {
        struct fsw_store_request *request = *at;
        uint64_t deadline = request->verb == FSW_STORE_GET && request->deadline != 0
                                ? request->deadline
                                : UINT64_MAX;
        int held = store->held >> request->verb & 1;
        int due = !held && request->scratch[0] <= now; /* then it is not late, whenever we come */
        *ret_late = store->closing || request->scratch[1] != 0 || (!due && deadline <= now);
        if (*ret_late || due) {
            *at = request->next;
            return request;
        }
        uint64_t next = held ? UINT64_MAX : request->scratch[0];
        if (deadline < next)
            next = deadline;
        if (next < *ret_wake)
            *ret_wake = next;
    }
    return NULL;
}

static void *run(void *opaque)
{
    struct teststore *store = opaque;
    FSW_LOCK_SCOPE(&store->lock);

    for (;;) {
        int late;
        uint64_t wake;
        struct fsw_store_request *request = take_due(store, &late, &wake);
        if (request != NULL) {
            finish(store, request, late);
            continue;
        }
        if (store->closing && store->waiting == NULL)
            return NULL;
        struct timespec until = fsw_timespec(wake);
        pthread_cond_timedwait(&store->changed, &store->lock, &until);
    }
}

/* ---- the contract's verbs ---- */

static struct teststore *of_base(struct fsw_store *base)
{
    return (struct teststore *)base;
}

static int store_probe(struct fsw_store *base, struct fsw_error *err)
{
    return 0;
}

static int store_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                       struct fsw_error *err)
{
    struct teststore *store = of_base(base);

    store->started = 1;
    store->sentinel = identity->sentinel[0];
    return -pthread_create(&store->thread, NULL, run, store);
}

static void submit_one(struct teststore *store, struct fsw_store_request *request)
{
    store->submitted[request->verb]++;
    segments_asked(&store->segments, request);
    if (store->at_once && !(store->held >> request->verb & 1)) {
        finish(store, request, 0);
        return;
    }
    request->scratch[0] = request->scratch[1] = 0;
    if (store->delay_us != 0)
        request->scratch[0] = fsw_now_ns() + next_random(store) % store->delay_us * 1000;
    request->next = store->waiting; /* last in, first out: never the order of submission */
    store->waiting = request;
}

static void store_submit(struct fsw_store *base, struct fsw_store_request *const *requests,
                         size_t n)
{
    struct teststore *store = of_base(base);
    FSW_LOCK_SCOPE(&store->lock);

    store->submits++;
    for (size_t i = 0; i < n; i++)
        submit_one(store, requests[i]);
    pthread_cond_broadcast(&store->changed);
}

static void store_lost(struct fsw_store *base, uint32_t copies, uint64_t sentinel)
{
    struct teststore *store = of_base(base);

    if (store->when_lost != NULL)
        store->when_lost(store->when_lost_arg);
    FSW_LOCK_SCOPE(&store->lock);
    for (struct fsw_store_request *request = store->waiting; request != NULL;
         request = request->next)
        request->scratch[1] = request->verb == FSW_STORE_GET;
    store->lost |= copies;
    if (copies != 0)
        store->sentinel = sentinel;
    pthread_cond_broadcast(&store->changed);
}

/* Of what is stored; 0: nothing is, under this id. UINT32_MAX: and under no later one. */
static uint32_t row_of(struct teststore *store, uint64_t id)
{
    FSW_LOCK_SCOPE(&store->lock);

    if (id >= store->segments.room)
        return UINT32_MAX;
    return store->segments.all[id].bytes == NULL ? 0 : store->segments.all[id].row;
}

static int store_list(struct fsw_store *base, const struct fsw_device_id *device,
                      int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                      struct fsw_error *err)
{
    struct teststore *store = of_base(base);
    uint32_t row = 0;
    int r = 0;

    for (uint64_t id = 1; r == 0 && row != UINT32_MAX; id++) {
        row = row_of(store, id);
        if (row != 0 && row != UINT32_MAX)
            r = each(row, id, opaque);
    }
    return r;
}

static int store_forget(struct fsw_store *base, const struct fsw_device_id *device,
                        uint64_t *ret_count, struct fsw_error *err)
{
    struct teststore *store = of_base(base);

    *ret_count = store->segments.stored;
    for (uint64_t id = 1; id < store->segments.room; id++)
        segments_forget(&store->segments, &store->segments.all[id]);
    return 0;
}

static void store_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    struct teststore *store = of_base(base);
    FSW_LOCK_SCOPE(&store->lock);

    *ret_health = store->health;
}

static void store_close(struct fsw_store *base)
{
    struct teststore *store = of_base(base);

    pthread_mutex_lock(&store->lock);
    store->closing = 1;
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->lock);
    if (store->started)
        pthread_join(store->thread, NULL);
}

static const struct fsw_store_ops ops = {
    .scheme = "test",
    .probe = store_probe,
    .start = store_start,
    .submit = store_submit,
    .lost = store_lost,
    .list = store_list,
    .forget = store_forget,
    .health = store_health,
    .close = store_close,
};

/* ---- the test's side ---- */

struct teststore *teststore_new(uint64_t seed)
{
    struct teststore *store = calloc(1, sizeof *store);
    pthread_condattr_t monotonic;

    store->base = (struct fsw_store){.ops = &ops, .copies = 1};
    store->random = seed | 1;
    store->room = UINT32_MAX;
    store->health = (struct fsw_store_health){.connected = 1, .up = 1};
    pthread_mutex_init(&store->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return store;
}

struct fsw_store *teststore_base(struct teststore *store)
{
    return &store->base;
}

void teststore_free(struct teststore *store)
{
    segments_free(&store->segments);
    free(store);
}

void teststore_seems(struct teststore *store, int up, int emptied)
{
    FSW_LOCK_SCOPE(&store->lock);

    store->health = (struct fsw_store_health){
        .connected = up, .up = up ? 1 : 0, .emptied = emptied ? 1 : 0, .since = fsw_now_ns()};
}

void teststore_when_lost(struct teststore *store, void (*call)(void *arg), void *arg)
{
    store->when_lost = call;
    store->when_lost_arg = arg;
}

uint64_t teststore_sentinel(struct teststore *store)
{
    FSW_LOCK_SCOPE(&store->lock);

    return store->sentinel;
}

uint32_t teststore_lost(struct teststore *store)
{
    FSW_LOCK_SCOPE(&store->lock);

    return store->lost;
}

static unsigned index_of(unsigned verbs)
{
    return (unsigned)__builtin_ctz(verbs);
}

void teststore_hold(struct teststore *store, unsigned verbs)
{
    FSW_LOCK_SCOPE(&store->lock);
    store->held |= verbs;
}

void teststore_release(struct teststore *store, unsigned verbs)
{
    FSW_LOCK_SCOPE(&store->lock);
    store->held &= ~verbs;
    pthread_cond_broadcast(&store->changed);
}

void teststore_wait_held(struct teststore *store, unsigned verb, unsigned count)
{
    uint64_t deadline = fsw_now_ns() + 60 * FSW_NS_PER_S;
    const struct timespec pause = {.tv_nsec = 200 * 1000};

    for (;;) {
        unsigned n = 0;
        pthread_mutex_lock(&store->lock);
        for (struct fsw_store_request *r = store->waiting; r != NULL; r = r->next)
            n += r->verb == index_of(verb);
        pthread_mutex_unlock(&store->lock);
        if (n >= count)
            return;
        if (fsw_now_ns() > deadline) {
            fprintf(stderr, "%u requests of verb %u held, not %u, after a minute\n", n,
                    index_of(verb), count);
            abort();
        }
        nanosleep(&pause, NULL);
    }
}

void teststore_answer(struct teststore *store, unsigned verb, enum fsw_store_result result,
                      unsigned count, int lands)
{
    FSW_LOCK_SCOPE(&store->lock);
    store->answer[index_of(verb)].result = result;
    store->answer[index_of(verb)].count = count;
    store->answer[index_of(verb)].lands = lands;
}

void teststore_fail_some(struct teststore *store, unsigned in_thousand)
{
    FSW_LOCK_SCOPE(&store->lock);
    store->fail_in_thousand = in_thousand;
}

void teststore_delay(struct teststore *store, unsigned max_us)
{
    FSW_LOCK_SCOPE(&store->lock);
    store->delay_us = max_us;
}

void teststore_seal(struct teststore *store)
{
    store->base.seal = FSW_SEAL_BYTES;
    store->segments.seals = 1;
}

void teststore_answer_at_once(struct teststore *store)
{
    store->at_once = 1;
}

void teststore_room(struct teststore *store, unsigned segments)
{
    FSW_LOCK_SCOPE(&store->lock);
    store->room = segments;
}

void teststore_lose(struct teststore *store, uint64_t id)
{
    FSW_LOCK_SCOPE(&store->lock);
    segments_forget(&store->segments, segments_at(&store->segments, id));
}

void teststore_damage(struct teststore *store, uint64_t id, uint32_t byte)
{
    FSW_LOCK_SCOPE(&store->lock);
    struct segment *segment = segments_at(&store->segments, id);
    if (segment->bytes == NULL || byte >= segment->length)
        abort();
    segment->bytes[byte] ^= 4;
    segment->damaged = 1;
}

uint32_t teststore_length(struct teststore *store, uint64_t id)
{
    FSW_LOCK_SCOPE(&store->lock);
    struct segment *segment = segments_at(&store->segments, id);
    return segment->bytes != NULL ? segment->length : 0;
}

unsigned teststore_segments(struct teststore *store)
{
    FSW_LOCK_SCOPE(&store->lock);
    return store->segments.stored;
}

static uint64_t submitted(struct teststore *store, enum fsw_store_verb verb)
{
    FSW_LOCK_SCOPE(&store->lock);
    return store->submitted[verb];
}

uint64_t teststore_submits(struct teststore *store)
{
    FSW_LOCK_SCOPE(&store->lock);
    return store->submits;
}

uint64_t teststore_gets(struct teststore *store)
{
    return submitted(store, FSW_STORE_GET);
}

uint64_t teststore_puts(struct teststore *store)
{
    return submitted(store, FSW_STORE_PUT);
}

uint64_t teststore_drops(struct teststore *store)
{
    return submitted(store, FSW_STORE_DROP);
}
