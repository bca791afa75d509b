/*
 * crypt.c: a store around a store: what goes there is encrypted, what comes back is proved.
 */
#include "client/store/crypt.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/store/requests.h"
#include "client/store/seal.h"

/* Seals that can be worked on at once: threads that submit, and the store's own. */
#define SEALS 16u

struct guarded_seal {
    pthread_mutex_t lock;
    struct seal *seal;
};

struct crypt_store {
    struct fsw_store base;
    struct fsw_store *lower;
    struct guarded_seal seals[SEALS];
    atomic_uint turn;
    /* Gets whose bytes were not what was put, by the copy that answered. */
    atomic_uint_fast64_t lies[FSW_COPIES_MAX];
};

static struct crypt_store *of_base(struct fsw_store *base)
{
    return (struct crypt_store *)base;
}

/* ---- seals ---- */

/* One that is idle; if none is, the next that will be, in some 25 µs. */
static struct guarded_seal *seal_take(struct crypt_store *store)
{
    unsigned turn = atomic_fetch_add(&store->turn, 1);

    for (unsigned i = 0; i < SEALS; i++) {
        struct guarded_seal *guarded = &store->seals[(turn + i) % SEALS];
        if (pthread_mutex_trylock(&guarded->lock) == 0)
            return guarded;
    }
    pthread_mutex_lock(&store->seals[turn % SEALS].lock);
    return &store->seals[turn % SEALS];
}

static int close_put(struct crypt_store *store, struct fsw_store_request *request)
{
    struct guarded_seal *guarded = seal_take(store);
    int r = seal_close(guarded->seal, request->id, request->bytes, request->length);

    pthread_mutex_unlock(&guarded->lock);
    return r;
}

static int open_get(struct crypt_store *store, struct fsw_store_request *request)
{
    struct guarded_seal *guarded = seal_take(store);
    int r = seal_open(guarded->seal, request->id, request->offset, request->bytes, request->length);

    pthread_mutex_unlock(&guarded->lock);
    return r;
}

/* ---- requests ---- */

/* A copy that lied is not asked again; 1 if another is. */
static int ask_another(struct crypt_store *store, struct fsw_store_request *request)
{
    struct fsw_store_outer *outer = &request->outer[FSW_OUTER_CRYPT];
    uint32_t left = (uint32_t)outer->kept[0] & ~request->copies;

    for (unsigned copy = 0; copy < FSW_COPIES_MAX; copy++)
        store->lies[copy] += request->copies >> copy & 1;
    outer->kept[0] = left;
    if (left == 0)
        return 0;
    request->copies = left;
    store->lower->ops->submit(store->lower, &request, 1);
    return 1;
}

static void get_done(struct fsw_store_request *request)
{
    struct fsw_store_outer *outer = &request->outer[FSW_OUTER_CRYPT];
    struct crypt_store *store = outer->owner;

    if (request->result == FSW_STORE_OK && open_get(store, request) < 0) {
        if (ask_another(store, request))
            return;
        request->result = FSW_STORE_CORRUPT;
    }
    request->done = outer->done;
    request->done(request);
}

/* Stands in front of done(). */
static void watch_get(struct crypt_store *store, struct fsw_store_request *request)
{
    uint32_t all = (1u << store->base.copies) - 1, asked = request->copies & all;

    request->outer[FSW_OUTER_CRYPT] = (struct fsw_store_outer){
        .done = request->done, .owner = store, .kept = {asked ? asked : all}};
    request->done = get_done;
}

/* 1 if it may go down to the lower store; else it was answered. */
static int prepare(struct crypt_store *store, struct fsw_store_request *request)
{
    fsw_request_check(request);
    if (request->verb == FSW_STORE_GET)
        watch_get(store, request);
    if (request->verb != FSW_STORE_PUT || close_put(store, request) == 0)
        return 1;
    request->result = FSW_STORE_REFUSED;
    request->copies = 0;
    request->done(request);
    return 0;
}

static void store_submit(struct fsw_store *base, struct fsw_store_request *const *requests,
                         size_t n)
{
    struct crypt_store *store = of_base(base);
    struct fsw_store *lower = store->lower;
    size_t from = 0;

    for (size_t i = 0; i < n; i++) {
        if (prepare(store, requests[i]))
            continue;
        if (i > from)
            lower->ops->submit(lower, requests + from, i - from);
        from = i + 1;
    }
    if (n > from)
        lower->ops->submit(lower, requests + from, n - from);
}

static void store_get(struct fsw_store *base, struct fsw_store_request *request, uint64_t until)
{
    struct crypt_store *store = of_base(base);

    fsw_request_check(request);
    watch_get(store, request);
    fsw_store_get(store->lower, request, until);
}

/* ---- the other verbs ---- */

static int store_probe(struct fsw_store *base, struct fsw_error *err)
{
    struct fsw_store *lower = of_base(base)->lower;

    return lower->ops->probe(lower, err);
}

static int store_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                       struct fsw_error *err)
{
    struct crypt_store *store = of_base(base);

    for (unsigned i = 0; i < SEALS; i++) {
        store->seals[i].seal = seal_new(&identity->device, identity->key);
        if (store->seals[i].seal == NULL)
            return fsw_error(err, -ENOMEM, "no memory for encryption, or no AES-256-GCM");
    }
    return store->lower->ops->start(store->lower, identity, err);
}

static void store_lost(struct fsw_store *base, uint32_t copies, uint64_t sentinel)
{
    struct fsw_store *lower = of_base(base)->lower;

    lower->ops->lost(lower, copies, sentinel);
}

static int store_list(struct fsw_store *base, const struct fsw_device_id *device,
                      int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                      struct fsw_error *err)
{
    struct fsw_store *lower = of_base(base)->lower;

    return lower->ops->list(lower, device, each, opaque, err);
}

static int store_forget(struct fsw_store *base, const struct fsw_device_id *device,
                        uint64_t *ret_count, struct fsw_error *err)
{
    struct fsw_store *lower = of_base(base)->lower;

    return lower->ops->forget(lower, device, ret_count, err);
}

static void store_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    struct crypt_store *store = of_base(base);
    uint64_t lies = 0;

    store->lower->ops->health(store->lower, ret_health);
    for (unsigned copy = 0; copy < FSW_COPIES_MAX; copy++)
        lies += ret_health->copy[copy].lies = store->lies[copy];
    ret_health->errors += lies;
    ret_health->lies += lies;
    /* What else was said of it is small beside that, unless it is away now. */
    if (lies > 0 && (ret_health->connected || ret_health->last_error[0] == '\0'))
        snprintf(ret_health->last_error, sizeof ret_health->last_error,
                 "%llu answers of it were not what was put there", (unsigned long long)lies);
}

static void store_free(struct crypt_store *store)
{
    for (unsigned i = 0; i < SEALS; i++) {
        seal_free(store->seals[i].seal);
        pthread_mutex_destroy(&store->seals[i].lock);
    }
    free(store);
}

static void store_close(struct fsw_store *base)
{
    struct crypt_store *store = of_base(base);

    store->lower->ops->close(store->lower);
    store_free(store);
}

static const struct fsw_store_ops crypt_ops = {
    .scheme = "crypt",
    .probe = store_probe,
    .start = store_start,
    .submit = store_submit,
    .get = store_get,
    .lost = store_lost,
    .list = store_list,
    .forget = store_forget,
    .health = store_health,
    .close = store_close,
};

int crypt_store_new(struct fsw_store *lower, struct fsw_store **ret_store)
{
    struct crypt_store *store = calloc(1, sizeof *store);

    if (store == NULL)
        return -ENOMEM;
    assert(lower->seal == 0);
    store->base =
        (struct fsw_store){.ops = &crypt_ops, .seal = FSW_SEAL_BYTES, .copies = lower->copies};
    store->lower = lower;
    for (unsigned i = 0; i < SEALS; i++)
        pthread_mutex_init(&store->seals[i].lock, NULL);
    *ret_store = &store->base;
    return 0;
}
