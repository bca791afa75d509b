/*
 * teststore.c: one lock, one thread, one list of what waits, and an array of all segments by id
 * (the engine counts ids up from 1, so it is dense).
 */
#include "teststore.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"
#include "common/cleanup.h"
#include "common/clock.h"

enum life { NEVER, PUTTING, ENDED, DROPPING, DROPPED };

struct segment {
    char *bytes; /* NULL: not stored */
    uint32_t length, row, checksum, gets;
    uint8_t life, acknowledged, damaged;
};

struct teststore {
    struct fsw_store base;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int started, closing, at_once;
    struct fsw_store_request *waiting; /* through next; scratch[0]: not before */
    struct segment *segments;
    uint64_t segment_room;
    uint64_t *row_owner;
    uint32_t row_room;
    unsigned held, delay_us, fail_in_thousand, stored, room;
    struct {
        enum fsw_store_result result;
        unsigned count;
        int lands;
    } answer[3];
    uint64_t submitted[3], submits;
    uint64_t random;
    uint32_t lost;
    struct fsw_store_health health;
};

static void __attribute__((noreturn))
broken(const char *rule, const struct fsw_store_request *request)
{
    fprintf(stderr, "the engine broke the store's contract: %s (verb %d, id %llu, row %u, %u+%u)\n",
            rule, (int)request->verb, (unsigned long long)request->id, request->row,
            request->offset, request->length);
    abort();
}

static uint64_t next_random(struct teststore *store)
{
    store->random ^= store->random << 13;
    store->random ^= store->random >> 7;
    store->random ^= store->random << 17;
    return store->random;
}

static void *grown(void *array, size_t size, uint64_t from, uint64_t to)
{
    char *bigger = realloc(array, to * size);
    if (bigger == NULL)
        abort();
    memset(bigger + from * size, 0, (to - from) * size);
    return bigger;
}

static struct segment *segment_of(struct teststore *store, uint64_t id)
{
    if (id >= store->segment_room) {
        uint64_t room = id * 2 + 64;
        store->segments =
            grown(store->segments, sizeof store->segments[0], store->segment_room, room);
        store->segment_room = room;
    }
    return &store->segments[id];
}

static uint64_t *owner_of(struct teststore *store, uint32_t row)
{
    if (row >= store->row_room) {
        uint32_t room = row * 2 + 64;
        store->row_owner =
            grown(store->row_owner, sizeof store->row_owner[0], store->row_room, room);
        store->row_room = room;
    }
    return &store->row_owner[row];
}

/* ---- seals (the lock is held) ---- */

/* 1 if there are none, or if they lead from the begin to `to`. */
static int seals_lead_to(struct teststore *store, const char *bytes, uint32_t length, uint32_t to)
{
    uint32_t at = 0;

    while (store->base.seal != 0 && at < to) {
        if (length - at < FSW_SEAL_BYTES || fsw_seal_units(bytes + at) == 0)
            return 0;
        at += FSW_SEAL_BYTES + fsw_seal_units(bytes + at) * FSW_SEAL_BYTES;
        if (at > length)
            return 0;
    }
    return store->base.seal == 0 || at == to;
}

/* There and back. No substitute for encryption. */
static void scramble(char *bytes, uint32_t length, uint64_t id)
{
    for (uint32_t i = 0; i < length; i++)
        bytes[i] ^= (char)(id * 0x9e3779b1u + i * 31 + 1);
}

/* As a store with seals does: objects that are not whole are nothing. */
static void cut_off(struct fsw_store_request *request)
{
    char *bytes = request->bytes;
    uint32_t at = 0, length = request->length, object;

    while (length - at >= FSW_SEAL_BYTES) {
        object = FSW_SEAL_BYTES + fsw_seal_units(bytes + at) * FSW_SEAL_BYTES;
        if (object == FSW_SEAL_BYTES || object > length - at)
            break;
        at += object;
    }
    memset(bytes + at, 0, length - at < FSW_SEAL_BYTES ? length - at : FSW_SEAL_BYTES);
    if (length - at > FSW_SEAL_BYTES)
        memset(bytes + at + FSW_SEAL_BYTES, 0xa5, length - at - FSW_SEAL_BYTES);
}

static void copy_range(struct teststore *store, struct segment *segment,
                       struct fsw_store_request *request)
{
    if (store->base.seal != 0)
        scramble(segment->bytes, segment->length, request->id);
    memcpy(request->bytes, segment->bytes + request->offset, request->length);
    if (store->base.seal == 0)
        return;
    scramble(segment->bytes, segment->length, request->id);
    cut_off(request);
}

/* ---- what the engine may ask (the lock is held) ---- */

static void submitted_put(struct teststore *store, struct fsw_store_request *request)
{
    struct segment *segment = segment_of(store, request->id);
    uint64_t *owner = owner_of(store, request->row);

    if (request->id == 0 || request->row == 0)
        broken("id and row begin at 1", request);
    if (request->length == 0 || request->length > FSW_SEGMENT_BYTES)
        broken("a segment has 1 to 65,520 bytes", request);
    uint32_t checksum = fsw_checksum(request->bytes, request->length, 0);
    if (segment->life != NEVER && (segment->life != ENDED || segment->checksum != checksum))
        broken("an id is put once (S1)", request);
    if (*owner != 0 && *owner != request->id)
        broken("the row belongs to another segment (S2)", request);
    if (!seals_lead_to(store, request->bytes, request->length, request->length))
        broken("the seals of a segment lead from its begin to its end (S6)", request);
    *owner = request->id;
    segment->life = PUTTING;
    segment->row = request->row;
    segment->length = request->length;
    segment->checksum = checksum;
}

static void submitted_get(struct teststore *store, struct fsw_store_request *request)
{
    struct segment *segment = segment_of(store, request->id);

    if (segment->life != ENDED || !segment->acknowledged)
        broken("a get of what was not put, or is dropped (S3)", request);
    if (segment->row != request->row || *owner_of(store, request->row) != request->id)
        broken("a get with another segment's row (S3)", request);
    if (request->length == 0 || (uint64_t)request->offset + request->length > segment->length)
        broken("a get past the segment's end (S3)", request);
    segment->gets++;
    if (store->base.seal == 0 || segment->bytes == NULL || segment->damaged)
        return;
    scramble(segment->bytes, segment->length, request->id);
    if (!seals_lead_to(store, segment->bytes, segment->length, request->offset))
        broken("a get that does not begin with a seal (S6)", request);
    scramble(segment->bytes, segment->length, request->id);
}

static void submitted_drop(struct teststore *store, struct fsw_store_request *request)
{
    struct segment *segment = segment_of(store, request->id);

    if (segment->life != ENDED)
        broken("a drop of what was not put, or twice (S4)", request);
    if (segment->gets != 0)
        broken("a drop under a get (S4)", request);
    if (segment->row != request->row)
        broken("a drop with another segment's row (S4)", request);
    segment->life = DROPPING;
}

/* ---- answers (the lock is held) ---- */

static void forget_bytes(struct teststore *store, struct segment *segment)
{
    if (segment->bytes != NULL)
        store->stored--;
    free(segment->bytes);
    segment->bytes = NULL;
}

static void ended_put(struct teststore *store, struct fsw_store_request *request, int lands)
{
    struct segment *segment = segment_of(store, request->id);

    if (fsw_checksum(request->bytes, request->length, 0) != segment->checksum)
        broken("bytes changed while they were put (S5)", request);
    segment->life = ENDED;
    segment->acknowledged = request->result == FSW_STORE_OK;
    request->copies = segment->acknowledged;
    if (!lands || segment->bytes != NULL)
        return;
    segment->bytes = malloc(request->length);
    memcpy(segment->bytes, request->bytes, request->length);
    store->stored++;
    if (store->base.seal == 0)
        return;
    scramble(segment->bytes, request->length, request->id);
    scramble(request->bytes, request->length, request->id); /* they were ours to change */
}

static void ended_get(struct teststore *store, struct fsw_store_request *request)
{
    struct segment *segment = segment_of(store, request->id);

    segment->gets--;
    if (request->result == FSW_STORE_OK && segment->bytes == NULL)
        request->result = FSW_STORE_GONE;
    request->copies = request->result == FSW_STORE_OK;
    if (request->result == FSW_STORE_OK)
        copy_range(store, segment, request);
    else
        memset(request->bytes, 0xa5, request->length);
}

static void ended_drop(struct teststore *store, struct fsw_store_request *request)
{
    struct segment *segment = segment_of(store, request->id);

    if (request->result != FSW_STORE_OK) {
        segment->life = ENDED;
        segment->acknowledged = 0;
        return;
    }
    segment->life = DROPPED;
    forget_bytes(store, segment);
    *owner_of(store, request->row) = 0;
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
    if (!late && verb == FSW_STORE_PUT && store->stored >= store->room)
        request->result = FSW_STORE_FULL;
    if (request->result != FSW_STORE_UNREACHABLE)
        lands = request->result == FSW_STORE_OK;
    if (verb == FSW_STORE_PUT)
        ended_put(store, request, lands);
    else if (verb == FSW_STORE_GET)
        ended_get(store, request);
    else
        ended_drop(store, request);
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
        *ret_late = store->closing || request->scratch[1] != 0 ||
                    (request->deadline != 0 && request->deadline <= now);
        int held = store->held >> request->verb & 1;
        if (*ret_late || (!held && request->scratch[0] <= now)) {
            *at = request->next;
            return request;
        }
        uint64_t next = held ? UINT64_MAX : request->scratch[0];
        if (request->deadline != 0 && request->deadline < next)
            next = request->deadline;
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
    return -pthread_create(&store->thread, NULL, run, store);
}

static void submit_one(struct teststore *store, struct fsw_store_request *request)
{
    store->submitted[request->verb]++;
    if (request->verb == FSW_STORE_PUT)
        submitted_put(store, request);
    else if (request->verb == FSW_STORE_GET)
        submitted_get(store, request);
    else
        submitted_drop(store, request);
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

static void store_lost(struct fsw_store *base, uint32_t copies)
{
    struct teststore *store = of_base(base);
    FSW_LOCK_SCOPE(&store->lock);

    for (struct fsw_store_request *request = store->waiting; request != NULL;
         request = request->next)
        request->scratch[1] = request->verb == FSW_STORE_GET;
    store->lost |= copies;
    pthread_cond_broadcast(&store->changed);
}

/* Of what is stored; 0: nothing is, under this id. UINT32_MAX: and under no later one. */
static uint32_t row_of(struct teststore *store, uint64_t id)
{
    FSW_LOCK_SCOPE(&store->lock);

    if (id >= store->segment_room)
        return UINT32_MAX;
    return store->segments[id].bytes == NULL ? 0 : store->segments[id].row;
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

    *ret_count = store->stored;
    for (uint64_t id = 1; id < store->segment_room; id++)
        forget_bytes(store, &store->segments[id]);
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
    for (uint64_t id = 0; id < store->segment_room; id++)
        free(store->segments[id].bytes);
    free(store->segments);
    free(store->row_owner);
    free(store);
}

void teststore_seems(struct teststore *store, int up, int emptied)
{
    FSW_LOCK_SCOPE(&store->lock);

    store->health = (struct fsw_store_health){
        .connected = up, .up = up ? 1 : 0, .emptied = emptied ? 1 : 0, .since = fsw_now_ns()};
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
    uint64_t deadline = fsw_now_ns() + 10 * FSW_NS_PER_S;
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
            fprintf(stderr, "%u requests of verb %u held, not %u, after 10 s\n", n, index_of(verb),
                    count);
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
    forget_bytes(store, segment_of(store, id));
}

void teststore_damage(struct teststore *store, uint64_t id, uint32_t byte)
{
    FSW_LOCK_SCOPE(&store->lock);
    struct segment *segment = segment_of(store, id);
    if (segment->bytes == NULL || byte >= segment->length)
        abort();
    segment->bytes[byte] ^= 4;
    segment->damaged = 1;
}

uint32_t teststore_length(struct teststore *store, uint64_t id)
{
    FSW_LOCK_SCOPE(&store->lock);
    struct segment *segment = segment_of(store, id);
    return segment->bytes != NULL ? segment->length : 0;
}

unsigned teststore_segments(struct teststore *store)
{
    FSW_LOCK_SCOPE(&store->lock);
    return store->stored;
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
