/*
 * shelf.c: one lock, one thread, one list of what waits; segments in an array by id.
 */
#include "shelf.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"
#include "common/cleanup.h"
#include "core/crash.h"

enum life { NEVER, PUTTING, ENDED, DROPPING, DROPPED };

struct shelf_store {
    struct fsw_store base;
    struct shelf *shelf;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int started, closing;
    struct fsw_store_request *waiting; /* through next */
};

static void __attribute__((noreturn))
broken(const char *rule, const struct fsw_store_request *request)
{
    fprintf(stderr, "the engine broke the store's contract: %s (verb %d, id %llu, row %u, %u+%u)\n",
            rule, (int)request->verb, (unsigned long long)request->id, request->row,
            request->offset, request->length);
    _Exit(1);
}

static void __attribute__((noreturn)) broken_start(const char *rule)
{
    fprintf(stderr, "the engine broke the store's contract: %s\n", rule);
    _Exit(1);
}

static uint64_t next_random(struct shelf *shelf)
{
    shelf->random ^= shelf->random << 13;
    shelf->random ^= shelf->random >> 7;
    shelf->random ^= shelf->random << 17;
    return shelf->random;
}

/* ---- places ---- */

static void forget_bytes(struct shelf *shelf, struct shelf_segment *segment)
{
    if (segment->place != 0)
        shelf->place_taken[segment->place] = 0;
    segment->place = 0;
}

/* The segment's bytes in a place of their own: not stored yet. */
static uint16_t copy_bytes(struct shelf *shelf, const void *bytes, uint32_t length)
{
    for (uint16_t place = 1; place < SHELF_PLACES; place++)
        if (!shelf->place_taken[place]) {
            shelf->place_taken[place] = 1;
            memcpy(shelf->places[place], bytes, length);
            return place;
        }
    fprintf(stderr, "the shelf is full\n");
    _Exit(1);
}

/* ---- copies ---- */

/* Those that a request is for. */
static uint32_t wanted_copies(const struct shelf *shelf, const struct fsw_store_request *request)
{
    uint32_t all = (1u << shelf->copies) - 1;

    return request->copies == 0 ? all : request->copies & all;
}

/* Of those that a put is for, which it reaches: one in four only one, if it is for two. */
static uint32_t reached_copies(struct shelf *shelf, const struct fsw_store_request *request)
{
    uint32_t wanted = wanted_copies(shelf, request);
    unsigned fate = (unsigned)(next_random(shelf) % 8);

    return wanted == 3 && fate < 2 ? 1u << fate : wanted;
}

/* ---- what the engine may ask (the lock is held) ---- */

static struct shelf_segment *segment_of(struct shelf *shelf,
                                        const struct fsw_store_request *request)
{
    if (request->id == 0 || request->row == 0)
        broken("id and row begin at 1", request);
    if (request->id >= SHELF_SEGMENTS || request->row >= SHELF_ROWS)
        broken("more ids or rows than this run can have", request);
    return &shelf->segments[request->id];
}

/* To a copy that lacks it. */
static void submitted_again(struct shelf *shelf, struct fsw_store_request *request)
{
    struct shelf_segment *segment = segment_of(shelf, request);

    if (!segment->acknowledged || segment->again)
        broken("put again what was not put, or is being (S1)", request);
    if (request->copies == 0 || wanted_copies(shelf, request) != request->copies)
        broken("put again to no copy (S1)", request);
    if (segment->row != request->row || segment->length != request->length ||
        segment->checksum != fsw_checksum(request->bytes, request->length, 0))
        broken("put again, and it is not the same (S1)", request);
    segment->again = 1;
}

static void submitted_put(struct shelf *shelf, struct fsw_store_request *request)
{
    struct shelf_segment *segment = segment_of(shelf, request);
    uint64_t *owner = &shelf->owner[request->row];

    if (segment->life == ENDED && shelf->copies > 1) {
        submitted_again(shelf, request);
        return;
    }
    if (request->length == 0 || request->length > FSW_SEGMENT_BYTES)
        broken("a segment has 1 to 65,520 bytes", request);
    if (segment->life != NEVER)
        broken("an id is put once (S1)", request);
    if (request->id < shelf->earlier)
        broken("an earlier process had taken this id (S1)", request);
    if (*owner != 0 && *owner != request->id)
        broken("the row belongs to another segment (S2)", request);
    *owner = request->id;
    *segment = (struct shelf_segment){
        .life = PUTTING,
        .row = request->row,
        .length = request->length,
        .checksum = fsw_checksum(request->bytes, request->length, 0),
    };
    /* What a process that dies now has sent already. */
    request->scratch[1] = copy_bytes(shelf, request->bytes, request->length);
    segment->on_the_wire = 1;
    segment->place = (uint16_t)request->scratch[1];
}

static void submitted_get(struct shelf *shelf, struct fsw_store_request *request)
{
    struct shelf_segment *segment = segment_of(shelf, request);

    if (segment->life != ENDED || !segment->acknowledged)
        broken("a get of what was not put, or is dropped (S3)", request);
    if (segment->row != request->row || shelf->owner[request->row] != request->id)
        broken("a get with another segment's row (S3)", request);
    if (request->length == 0 || (uint64_t)request->offset + request->length > segment->length)
        broken("a get past the segment's end (S3)", request);
    segment->gets++;
}

static void submitted_drop(struct shelf *shelf, struct fsw_store_request *request)
{
    struct shelf_segment *segment = segment_of(shelf, request);
    int unsure = request->id < shelf->earlier;

    if (segment->life != ENDED && !(unsure && (segment->life == NEVER || segment->life == DROPPED)))
        broken("a drop of what was not put, or twice (S4)", request);
    if (segment->gets != 0 || segment->again)
        broken("a drop under a get or a put (S4)", request);
    if (segment->life == ENDED && segment->row != request->row)
        broken("a drop with another segment's row (S4)", request);
    if (shelf->owner[request->row] != 0 && shelf->owner[request->row] != request->id)
        broken("a drop with a row that belongs to another segment (S4)", request);
    segment->row = request->row; /* that of one never put is not known yet */
    segment->life = DROPPING;
}

/* ---- answers (the lock is held) ---- */

static void ended_again(struct shelf *shelf, struct shelf_segment *segment,
                        struct fsw_store_request *request)
{
    segment->again = 0;
    request->copies = request->result == FSW_STORE_OK ? wanted_copies(shelf, request) : 0;
    segment->copies |= (uint8_t)request->copies;
}

static void ended_put(struct shelf *shelf, struct fsw_store_request *request, int lands)
{
    struct shelf_segment *segment = segment_of(shelf, request);

    if (fsw_checksum(request->bytes, request->length, 0) != segment->checksum)
        broken("bytes changed while they were put (S1)", request);
    if (segment->again) {
        ended_again(shelf, segment, request);
        return;
    }
    fsw_crash_point("store: put on the wire");
    segment->on_the_wire = 0;
    if (!lands)
        forget_bytes(shelf, segment);
    fsw_crash_point("store: put done, not acknowledged");
    segment->life = ENDED;
    segment->acknowledged = request->result == FSW_STORE_OK;
    request->copies = segment->acknowledged ? reached_copies(shelf, request) : 0;
    segment->copies = (uint8_t)request->copies;
}

static void ended_get(struct shelf *shelf, struct fsw_store_request *request)
{
    struct shelf_segment *segment = segment_of(shelf, request);

    uint32_t has = segment->place != 0 ? segment->copies & wanted_copies(shelf, request) : 0;

    segment->gets--;
    request->copies = has & -has;
    if (has == 0)
        request->result = FSW_STORE_GONE;
    else
        memcpy(request->bytes, shelf->places[segment->place] + request->offset, request->length);
}

static void ended_drop(struct shelf *shelf, struct fsw_store_request *request)
{
    struct shelf_segment *segment = segment_of(shelf, request);

    if (request->result != FSW_STORE_OK) {
        segment->life = ENDED;
        segment->acknowledged = 0;
        return;
    }
    fsw_crash_point("store: drop on the wire");
    if (!segment->on_the_wire)
        forget_bytes(shelf, segment);
    fsw_crash_point("store: drop done, not acknowledged");
    segment->life = DROPPED;
    shelf->owner[request->row] = 0;
}

static enum fsw_store_result chance(struct shelf *shelf, enum fsw_store_verb verb)
{
    static const enum fsw_store_result put[] = {FSW_STORE_FULL, FSW_STORE_UNREACHABLE,
                                                FSW_STORE_REFUSED, FSW_STORE_CORRUPT};

    if (verb == FSW_STORE_GET || next_random(shelf) % 1000 >= shelf->fail_in_thousand)
        return FSW_STORE_OK;
    return verb == FSW_STORE_DROP ? FSW_STORE_UNREACHABLE : put[next_random(shelf) % 4];
}

static void settle(struct shelf *shelf, struct fsw_store_request *request, int closing)
{
    request->result = closing ? FSW_STORE_UNREACHABLE : chance(shelf, request->verb);
    if (request->verb == FSW_STORE_PUT)
        ended_put(shelf, request,
                  request->result == FSW_STORE_OK ||
                      (request->result == FSW_STORE_UNREACHABLE && next_random(shelf) % 2));
    else if (request->verb == FSW_STORE_GET)
        ended_get(shelf, request);
    else
        ended_drop(shelf, request);
}

/* What a dead process had sent arrives. */
static void land_one(struct shelf *shelf)
{
    for (uint64_t id = 1; id < shelf->earlier; id++)
        if (shelf->segments[id].on_the_wire) {
            shelf->segments[id].on_the_wire = 0;
            return;
        }
}

/* ---- the thread ---- */

static void *run(void *opaque)
{
    struct shelf_store *store = opaque;
    FSW_LOCK_SCOPE(&store->lock);

    for (;;) {
        struct fsw_store_request *request = store->waiting;
        if (request == NULL && store->closing)
            return NULL;
        if (request == NULL) {
            pthread_cond_wait(&store->changed, &store->lock);
            continue;
        }
        store->waiting = request->next;
        if (next_random(store->shelf) % 4 == 0)
            land_one(store->shelf);
        settle(store->shelf, request, store->closing);
        pthread_mutex_unlock(&store->lock);
        request->done(request);
        pthread_mutex_lock(&store->lock);
    }
}

/* ---- the contract's verbs ---- */

static struct shelf_store *of_base(struct fsw_store *base)
{
    return (struct shelf_store *)base;
}

static int store_probe(struct fsw_store *base, struct fsw_error *err)
{
    return 0;
}

static int store_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                       struct fsw_error *err)
{
    struct shelf_store *store = of_base(base);
    struct shelf *shelf = store->shelf;

    if (shelf->sentinel != 0 && shelf->sentinel != identity->sentinel[0])
        broken_start("another sentinel for the same device (S5)");
    if (identity->planted && shelf->sentinel == 0)
        broken_start("planted, and it never was (S5)");
    shelf->sentinel = identity->sentinel[0];
    store->started = 1;
    return -pthread_create(&store->thread, NULL, run, store);
}

static void store_submit(struct fsw_store *base, struct fsw_store_request *const *requests,
                         size_t n)
{
    static void (*const submitted[])(struct shelf *, struct fsw_store_request *) = {
        [FSW_STORE_PUT] = submitted_put,
        [FSW_STORE_GET] = submitted_get,
        [FSW_STORE_DROP] = submitted_drop,
    };
    struct shelf_store *store = of_base(base);
    FSW_LOCK_SCOPE(&store->lock);

    for (size_t i = 0; i < n; i++) {
        submitted[requests[i]->verb](store->shelf, requests[i]);
        requests[i]->next = store->waiting; /* last in, first out: never the order of submission */
        store->waiting = requests[i];
    }
    pthread_cond_signal(&store->changed);
}

static int is_stored(const struct shelf_segment *segment)
{
    return segment->place != 0 && !segment->on_the_wire;
}

/* Tells nothing: what is swept has tests of its own. */
static int store_list(struct fsw_store *base, const struct fsw_device_id *device,
                      int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                      struct fsw_error *err)
{
    return 0;
}

static int store_forget(struct fsw_store *base, const struct fsw_device_id *device,
                        uint64_t *ret_count, struct fsw_error *err)
{
    struct shelf *shelf = of_base(base)->shelf;

    *ret_count = 0;
    for (uint64_t id = 1; id < SHELF_SEGMENTS; id++)
        if (is_stored(&shelf->segments[id])) {
            forget_bytes(shelf, &shelf->segments[id]);
            ++*ret_count;
        }
    return 0;
}

static void store_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    *ret_health =
        (struct fsw_store_health){.connected = 1, .up = (1u << of_base(base)->shelf->copies) - 1};
}

static void store_close(struct fsw_store *base)
{
    struct shelf_store *store = of_base(base);

    pthread_mutex_lock(&store->lock);
    store->closing = 1;
    pthread_cond_signal(&store->changed);
    pthread_mutex_unlock(&store->lock);
    if (store->started)
        pthread_join(store->thread, NULL);
    free(store);
}

static const struct fsw_store_ops ops = {
    .scheme = "shelf",
    .probe = store_probe,
    .start = store_start,
    .submit = store_submit,
    .list = store_list,
    .forget = store_forget,
    .health = store_health,
    .close = store_close,
};

/* ---- the harness's side ---- */

struct fsw_store *shelf_open(struct shelf *shelf)
{
    struct shelf_store *store = calloc(1, sizeof *store);

    if (store == NULL)
        abort();
    store->base.ops = &ops;
    store->base.copies = shelf->copies;
    store->shelf = shelf;
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->changed, NULL);
    return &store->base;
}

void shelf_reset(struct shelf *shelf, uint64_t seed, unsigned copies)
{
    memset(shelf, 0, offsetof(struct shelf, places));
    shelf->random = seed | 1;
    shelf->copies = copies;
}

/* A put that was on the wire may have landed, may land later, or is lost; a drop may have been carried
 * out. No answer will come. */
static void request_died(struct shelf *shelf, struct shelf_segment *segment)
{
    unsigned fate = (unsigned)(next_random(shelf) % 3);

    segment->gets = 0;
    segment->again = 0; /* its copy has it, and nobody knows */
    if (segment->life != PUTTING && segment->life != DROPPING)
        return;
    if (segment->life == DROPPING && fate != 0 && !segment->on_the_wire)
        forget_bytes(shelf, segment);
    if (segment->life == PUTTING && segment->on_the_wire) {
        segment->on_the_wire = fate == 0;
        if (fate == 1)
            forget_bytes(shelf, segment);
    }
    segment->life = ENDED;
    segment->acknowledged = 0;
}

void shelf_process_died(struct shelf *shelf, uint64_t next_segment)
{
    shelf->earlier = next_segment;
    for (uint64_t id = 1; id < next_segment && id < SHELF_SEGMENTS; id++)
        request_died(shelf, &shelf->segments[id]);
}

unsigned shelf_known(const struct shelf *shelf)
{
    unsigned n = 0;

    for (uint64_t id = 1; id < SHELF_SEGMENTS; id++)
        n += is_stored(&shelf->segments[id]) && shelf->segments[id].life != DROPPED;
    return n;
}

unsigned shelf_strays(const struct shelf *shelf)
{
    unsigned n = 0;

    for (uint64_t id = 1; id < SHELF_SEGMENTS; id++)
        n += is_stored(&shelf->segments[id]) && shelf->segments[id].life == DROPPED;
    return n;
}
