/*
 * mirror.c: two copies on two stores: what is known of the two, and the store they are together.
 */
#include "client/store/mirror.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

#define CANARY_NS FSW_NS_PER_S
#define TRY_NS (300 * FSW_NS_PER_MS)

static struct mirror_store *of_base(struct fsw_store *base)
{
    return (struct mirror_store *)base;
}

/* ---- the two ---- */

enum mirror_worth mirror_worth(struct mirror_copy *copy)
{
    struct fsw_store_health health;
    uint64_t suspect = atomic_load(&copy->suspect);

    copy->store->ops->health(copy->store, &health);
    if (suspect != 0 && health.connected && health.since > suspect)
        atomic_compare_exchange_strong(&copy->suspect, &suspect, 0); /* it has come back */
    if (!health.connected)
        return MIRROR_AWAY;
    if (atomic_load(&copy->suspect) != 0)
        return MIRROR_SUSPECT;
    return health.emptied ? MIRROR_EMPTIED : MIRROR_GOOD;
}

void mirror_answered(struct mirror_copy *copy)
{
    atomic_store(&copy->suspect, 0);
}

void mirror_was_slow(struct mirror_store *store, unsigned which)
{
    struct mirror_copy *copy = &store->copies[which];
    uint64_t none = 0, now = fsw_now_ns();

    if (!atomic_compare_exchange_strong(&copy->suspect, &none, now))
        return;
    atomic_store(&copy->canary, now);
    mirror_minder_wake(store);
}

int mirror_canary_is_due(struct mirror_copy *copy)
{
    uint64_t last = atomic_load(&copy->canary), now = fsw_now_ns();

    return now - last > CANARY_NS && atomic_compare_exchange_strong(&copy->canary, &last, now);
}

int mirror_enter(struct mirror_store *store)
{
    pthread_rwlock_rdlock(&store->gate);
    if (!store->closing)
        return 1;
    pthread_rwlock_unlock(&store->gate);
    return 0;
}

void mirror_leave(struct mirror_store *store)
{
    pthread_rwlock_unlock(&store->gate);
}

/* GONE only if all say so; what is worse than that is told first. */
enum fsw_store_result mirror_worse(enum fsw_store_result a, enum fsw_store_result b)
{
    static const uint8_t rank[] = {
        [FSW_STORE_OK] = 0,      [FSW_STORE_GONE] = 1,    [FSW_STORE_FULL] = 2,
        [FSW_STORE_REFUSED] = 3, [FSW_STORE_CORRUPT] = 4, [FSW_STORE_UNREACHABLE] = 5,
    };

    return rank[a] > rank[b] ? a : b;
}

/* ---- the verbs ---- */

static void store_submit(struct fsw_store *base, struct fsw_store_request *const *requests,
                         size_t n)
{
    struct mirror_store *store = of_base(base);

    for (size_t i = 0; i < n; i++) {
        fsw_request_check(requests[i]);
        if (requests[i]->verb == FSW_STORE_GET)
            mirror_get(store, requests[i]);
        else
            mirror_both(store, requests[i]);
    }
}

static void store_get(struct fsw_store *base, struct fsw_store_request *request, uint64_t until)
{
    fsw_request_check(request);
    mirror_get_here(of_base(base), request, until);
}

/* One that answers is enough: a device must come up again when the other's donor is lost for good. */
static int store_probe(struct fsw_store *base, struct fsw_error *err)
{
    struct mirror_store *store = of_base(base);
    struct fsw_error why[MIRROR_COPIES] = {{""}};
    int r[MIRROR_COPIES], bad = 0;

    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++) {
        struct fsw_store *one = store->copies[copy].store;
        r[copy] = one->ops->probe(one, &why[copy]);
        bad += r[copy] < 0;
    }
    if (bad == MIRROR_COPIES)
        return fsw_error(err, r[0], "%s", why[0].text);
    if (bad > 0)
        fsw_error_add(err, "pages have one copy only, until both stores can be used");
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++)
        if (why[copy].text[0] != '\0')
            fsw_error_add(err, "%s", why[copy].text);
    return 0;
}

static int store_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                       struct fsw_error *err)
{
    struct mirror_store *store = of_base(base);
    struct fsw_store_identity one = *identity;
    int r = 0;

    for (unsigned copy = 0; r == 0 && copy < MIRROR_COPIES; copy++) {
        one.planted = identity->planted >> copy & 1;
        one.sentinel[0] = identity->sentinel[copy];
        r = store->copies[copy].store->ops->start(store->copies[copy].store, &one, err);
    }
    explicit_bzero(&one, sizeof one);
    if (r < 0)
        return r;
    r = mirror_minder_start(store);
    return r == 0 ? 0 : fsw_error(err, r, "the store's thread can't start: %s", strerror(-r));
}

/* No get that was asked before is still under way when this returns, but for those that the stores
 * end now: whoever is inside the gate has submitted, and whoever comes later sees the generation. */
static void store_lost(struct fsw_store *base, uint32_t copies, uint64_t sentinel)
{
    struct mirror_store *store = of_base(base);

    pthread_rwlock_wrlock(&store->gate);
    store->generation++;
    pthread_rwlock_unlock(&store->gate);
    if (!mirror_enter(store))
        return;
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++) {
        struct fsw_store *one = store->copies[copy].store;
        one->ops->lost(one, copies >> copy & 1, sentinel);
    }
    mirror_leave(store);
}

/* Of both, also if one can't; then why is what is told. */
static int store_list(struct fsw_store *base, const struct fsw_device_id *device,
                      int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                      struct fsw_error *err)
{
    struct mirror_store *store = of_base(base);
    int r = 0, worst = 0;

    for (unsigned copy = 0; r <= 0 && copy < MIRROR_COPIES; copy++) {
        struct fsw_store *one = store->copies[copy].store;
        r = one->ops->list(one, device, each, opaque, err);
        worst = r < 0 ? r : worst;
    }
    return r > 0 ? r : worst;
}

/* At both, even if the first can't; then that is what is told. */
static int store_forget(struct fsw_store *base, const struct fsw_device_id *device,
                        uint64_t *ret_count, struct fsw_error *err)
{
    struct mirror_store *store = of_base(base);
    struct fsw_error why[MIRROR_COPIES] = {{""}};
    uint64_t count;
    int r, first = 0;

    *ret_count = 0;
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++) {
        struct fsw_store *one = store->copies[copy].store;
        r = one->ops->forget(one, device, &count, &why[copy]);
        if (r < 0 && first == 0)
            first = fsw_error(err, r, "%s", why[copy].text);
        if (count > *ret_count)
            *ret_count = count;
    }
    return first;
}

/* Requests as the engine made them; bytes, losses and words of both. */
static void store_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    struct mirror_store *store = of_base(base);
    struct fsw_store_health health[MIRROR_COPIES];
    uint32_t up = 0, emptied = 0;

    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++) {
        struct fsw_store *one = store->copies[copy].store;
        mirror_worth(&store->copies[copy]); /* nobody else may ask whether it has come back */
        one->ops->health(one, &health[copy]);
        int answers = health[copy].connected && atomic_load(&store->copies[copy].suspect) == 0;
        up |= (uint32_t)answers << copy;
        emptied |= (uint32_t)(health[copy].emptied != 0) << copy;
    }
    report_connected(&store->report, up != 0);
    report_health(&store->report, ret_health);
    ret_health->up = up;
    ret_health->emptied = emptied;
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++) {
        ret_health->copy[copy] = health[copy].copy[0];
        ret_health->bytes_out += health[copy].bytes_out;
        ret_health->bytes_in += health[copy].bytes_in;
        ret_health->reconnects += health[copy].reconnects;
        ret_health->retries += health[copy].retries;
        ret_health->errors += health[copy].errors;
        int troubled = !(up >> copy & 1) || emptied >> copy & 1;
        if ((troubled && health[copy].last_error[0] != '\0') || ret_health->last_error[0] == '\0')
            snprintf(ret_health->last_error, sizeof ret_health->last_error, "%.*s",
                     (int)sizeof health[copy].last_error - 1, health[copy].last_error);
    }
}

/* ---- birth and death ---- */

static void store_free(struct mirror_store *store)
{
    mirror_pairs_deinit(store);
    pthread_mutex_destroy(&store->lock);
    pthread_cond_destroy(&store->wake);
    pthread_rwlock_destroy(&store->gate);
    report_deinit(&store->report);
    free(store);
}

/* From the gate's closing on, whatever a store answers is an end, and what waits ends at once. */
static void store_close(struct fsw_store *base)
{
    struct mirror_store *store = of_base(base);

    pthread_rwlock_wrlock(&store->gate);
    store->closing = 1;
    pthread_rwlock_unlock(&store->gate);
    mirror_minder_stop(store);
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++)
        store->copies[copy].store->ops->close(store->copies[copy].store);
    mirror_serve_waiting(store);
    assert(store->busy == 0);
    store_free(store);
}

static const struct fsw_store_ops mirror_ops = {
    .scheme = "mirror",
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

int mirror_store_new(struct fsw_store *const stores[MIRROR_COPIES], struct fsw_store **ret_store)
{
    struct mirror_store *store = calloc(1, sizeof *store);
    pthread_condattr_t monotonic;

    if (store == NULL)
        return -ENOMEM;
    store->base = (struct fsw_store){.ops = &mirror_ops, .copies = MIRROR_COPIES};
    store->try_ns = TRY_NS;
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++) {
        assert(stores[copy]->copies == 1 && stores[copy]->seal == 0);
        store->copies[copy].store = stores[copy];
    }
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&store->lock, NULL);
    pthread_rwlock_init(&store->gate, NULL);
    report_init(&store->report);
    fsw_requests_init(&store->waiting);
    if (mirror_pairs_init(store) < 0) {
        store_free(store);
        return -ENOMEM;
    }
    *ret_store = &store->base;
    return 0;
}
