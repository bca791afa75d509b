/*
 * nbd.c: a store in an NBD export: its thread, its lists, its verbs.
 */
#include "client/store/nbd.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/store/keys.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"

#define REST_NS (100 * FSW_NS_PER_MS)
#define TURN_MS 50
#define ALL UINT64_MAX /* for `now`: later than every deadline, and none */

static struct nbd_store *of_base(struct fsw_store *base)
{
    return (struct nbd_store *)base;
}

/* ---- for the connection ---- */

void nbd_store_finish(struct nbd_store *store, struct fsw_store_request *request,
                      enum fsw_store_result result)
{
    report_finish(&store->report, request, result, 1);
}

void nbd_store_rest(struct nbd_store *store, struct fsw_store_request *request)
{
    store->report.retries++;
    request->scratch[0] = fsw_now_ns() + REST_NS;
    fsw_requests_push_back(&store->resting, request);
}

int nbd_header_check(const struct nbd_store *store, const void *block, uint64_t *ret_sentinel,
                     struct fsw_error *err)
{
    const char *where = store->export.address.text;
    struct fsw_device_id device;
    char id[FSW_DEVICE_ID_TEXT];
    enum slot_header what = slot_header_read(block, &device, ret_sentinel);

    if (what == SLOT_HEADER_FOREIGN)
        return fsw_error(err, -EINVAL, "nbd:%s has somebody's data: name an export that is empty",
                         where);
    if (what == SLOT_HEADER_DAMAGED)
        return fsw_error(err, -EUCLEAN, "nbd:%s: its header is damaged: empty the export", where);
    if (what == SLOT_HEADER_FITS && memcmp(&device, &store->identity.device, sizeof device) == 0)
        return 0;
    *ret_sentinel = 0;
    if (what == SLOT_HEADER_BLANK || slot_device_is_gone(&device, &store->identity))
        return 0;
    fsw_device_id_text(&device, id);
    return fsw_error(err, -EEXIST,
                     "nbd:%s belongs to another device (id %s): name another export, or destroy "
                     "that device; if it is gone for good, empty the export",
                     where, id);
}

/* ---- time ---- */

static int is_late(const struct fsw_store_request *request, uint64_t now)
{
    return now == ALL || (request->deadline != 0 && request->deadline <= now);
}

static void give_up_list(struct nbd_store *store, struct fsw_requests *list, uint64_t now,
                         int only_gets)
{
    FSW_FOR_EACH_REQUEST(request, list)
    {
        if (!is_late(request, now) || (only_gets && request->verb != FSW_STORE_GET))
            continue;
        fsw_requests_remove(request);
        nbd_store_finish(store, request, FSW_STORE_UNREACHABLE);
    }
}

static void give_up(struct nbd_store *store, uint64_t now, int only_gets)
{
    give_up_list(store, &store->gets, now, only_gets);
    give_up_list(store, &store->puts, now, only_gets);
    give_up_list(store, &store->resting, now, only_gets);
    for (unsigned i = 0; i < NBD_FLIGHTS; i++) {
        struct fsw_store_request *request = store->flights[i].request;

        if (request == NULL || !is_late(request, now) ||
            (only_gets && request->verb != FSW_STORE_GET))
            continue;
        store->flights[i].request = NULL; /* the flight goes on in its own memory */
        nbd_store_finish(store, request, FSW_STORE_UNREACHABLE);
    }
}

static struct fsw_requests *list_of(struct nbd_store *store,
                                    const struct fsw_store_request *request)
{
    return request->verb == FSW_STORE_GET ? &store->gets : &store->puts;
}

static void wake_rested(struct nbd_store *store, uint64_t now)
{
    FSW_FOR_EACH_REQUEST(request, &store->resting)
    {
        if (request->scratch[0] > now)
            break; /* they came in the order of time */
        fsw_requests_remove(request);
        fsw_requests_push_back(list_of(store, request), request);
    }
}

/* ---- the thread ---- */

/* As if no put was ever acknowledged. Nothing is put there before the header shows the sentinel. */
static void replant(struct nbd_store *store, uint64_t sentinel)
{
    store->identity.planted = 0;
    store->shown = 0;
    store->sentinel = store->identity.sentinel[0] = sentinel;
    report_emptied(&store->report, store->export.address.text, 0);
    if (store->state == NBD_RESTING)
        return;
    if (store->state != NBD_UP || nbd_conn_plant(store) < 0)
        nbd_conn_down(store, "it is new from now on");
    else
        nbd_conn_wait_for_header(store);
}

static void add_all(struct nbd_store *store, struct fsw_requests *requests)
{
    struct fsw_store_request *request;

    while ((request = fsw_requests_pop(requests)) != NULL)
        fsw_requests_push_back(list_of(store, request), request);
}

/* Takes what others left. 0: the store is to stop. */
static int take_inbox(struct nbd_store *store)
{
    struct fsw_requests taken, before;

    fsw_requests_init(&taken);
    fsw_requests_init(&before);
    pthread_mutex_lock(&store->inbox_lock);
    fsw_requests_splice(&taken, &store->inbox);
    fsw_requests_splice(&before, &store->before);
    unsigned stopping = store->stopping, interrupted = store->interrupted;
    unsigned replants = store->replants;
    uint64_t sentinel = store->replant_as;
    store->interrupted = store->replants = 0;
    pthread_mutex_unlock(&store->inbox_lock);
    add_all(store, &before);
    if (replants)
        replant(store, sentinel);
    if (interrupted)
        give_up(store, ALL, 1);
    add_all(store, &taken);
    return !stopping;
}

static void *run(void *opaque)
{
    struct nbd_store *store = opaque;

    pthread_setname_np(pthread_self(), "farswap-nbd-st");
    fsw_touch_stack();
    while (take_inbox(store)) {
        uint64_t now = fsw_now_ns();
        if (store->state == NBD_RESTING && now >= store->next_try)
            nbd_conn_try(store);
        wake_rested(store, now);
        give_up(store, now, 0);
        known_grow(&store->known);
        nbd_conn_pump(store);
        nbd_conn_turn(store, TURN_MS);
    }
    nbd_conn_down(store, "closed");
    resolver_end(&store->resolver);
    give_up(store, ALL, 0);
    return NULL;
}

/* ---- the verbs ---- */

static void wake(struct nbd_store *store)
{
    uint64_t one = 1;

    if (write(store->wake, &one, sizeof one) < 0)
        return; /* it is full: the thread is woken */
}

static void store_submit(struct fsw_store *base, struct fsw_store_request *const *requests,
                         size_t n)
{
    struct nbd_store *store = of_base(base);

    pthread_mutex_lock(&store->inbox_lock);
    for (size_t i = 0; i < n; i++) {
        fsw_request_check(requests[i]);
        requests[i]->scratch[1] = 0;
        fsw_requests_push_back(&store->inbox, requests[i]);
    }
    pthread_mutex_unlock(&store->inbox_lock);
    wake(store);
}

static void store_lost(struct fsw_store *base, uint32_t copies, uint64_t sentinel)
{
    struct nbd_store *store = of_base(base);

    pthread_mutex_lock(&store->inbox_lock);
    fsw_requests_splice(&store->before, &store->inbox);
    store->interrupted = 1;
    store->replants |= copies & 1;
    if (copies & 1)
        store->replant_as = sentinel;
    pthread_mutex_unlock(&store->inbox_lock);
    wake(store);
}

static void store_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    report_health(&of_base(base)->report, ret_health);
}

static int start_thread(struct nbd_store *store)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = -pthread_create(&store->thread, NULL, run, store);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

/* What another process had under way when it was killed may land yet. */
static int store_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                       struct fsw_error *err)
{
    struct nbd_store *store = of_base(base);
    int r = 0;

    assert(!store->started);
    store->identity = *identity;
    explicit_bzero(store->identity.key, sizeof store->identity.key); /* not ours to need */
    if (!identity->recovered && !identity->planted)
        r = nbd_sync_header(store, err);
    if (r == -EEXIST || r == -EINVAL || r == -EUCLEAN)
        return r;
    store->hold_all = identity->planted ? UINT64_MAX : 0;
    r = start_thread(store);
    if (r < 0)
        return fsw_error(err, r, "the store's thread can't start: %s", strerror(-r));
    store->started = 1;
    return 0;
}

/* ---- birth and death ---- */

static void store_free(struct nbd_store *store)
{
    for (unsigned i = 0; i < NBD_FLIGHTS; i++)
        free(store->flights[i].buffer);
    known_deinit(&store->known);
    report_deinit(&store->report);
    pthread_mutex_destroy(&store->inbox_lock);
    if (store->wake >= 0)
        close(store->wake);
    free(store);
}

static void store_close(struct fsw_store *base)
{
    struct nbd_store *store = of_base(base);
    struct fsw_store_request *request;

    if (store->started) {
        pthread_mutex_lock(&store->inbox_lock);
        store->stopping = 1;
        pthread_mutex_unlock(&store->inbox_lock);
        wake(store);
        pthread_join(store->thread, NULL);
    }
    fsw_requests_splice(&store->inbox, &store->before);
    while ((request = fsw_requests_pop(&store->inbox)) !=
           NULL) /* that done() submitted meanwhile */
        nbd_store_finish(store, request, FSW_STORE_UNREACHABLE);
    store_free(store);
}

static const struct fsw_store_ops nbd_ops = {
    .scheme = "nbd",
    .probe = nbd_sync_probe,
    .start = store_start,
    .submit = store_submit,
    .lost = store_lost,
    .list = nbd_sync_list,
    .forget = nbd_sync_forget,
    .health = store_health,
    .close = store_close,
};

static int init_flights(struct nbd_store *store)
{
    for (unsigned i = 0; i < NBD_FLIGHTS; i++) {
        store->flights[i].store = store;
        store->flights[i].writes = i >= NBD_READS;
        store->flights[i].buffer = slots_buffer();
        if (store->flights[i].buffer == NULL)
            return -ENOMEM;
    }
    return 0;
}

int nbd_store_new(const struct nbd_export *export, struct fsw_store **ret_store)
{
    struct nbd_store *store = calloc(1, sizeof *store);

    if (store == NULL)
        return -ENOMEM;
    store->base = (struct fsw_store){.ops = &nbd_ops, .copies = 1};
    store->export = *export;
    store->way = export->address;
    pthread_mutex_init(&store->inbox_lock, NULL);
    report_init(&store->report);
    fsw_requests_init(&store->inbox);
    fsw_requests_init(&store->before);
    fsw_requests_init(&store->gets);
    fsw_requests_init(&store->puts);
    fsw_requests_init(&store->resting);
    store->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (store->wake < 0 || init_flights(store) < 0 || known_init(&store->known) < 0) {
        store_free(store);
        return -ENOMEM;
    }
    *ret_store = &store->base;
    return 0;
}

/* ---- from text ---- */

static int keep_name(struct nbd_export *export, const char *name, size_t length,
                     struct fsw_error *err)
{
    if (length >= sizeof export->name || memchr(name, '%', length) != NULL)
        return fsw_error(
            err, -EINVAL,
            "overflow=: the name of an export has fewer than %zu characters, and no %%",
            sizeof export->name);
    memcpy(export->name, name, length);
    export->name[length] = '\0';
    return 0;
}

int nbd_export_parse_tcp(struct nbd_export *export, const char *rest, int later,
                         struct fsw_error *err)
{
    size_t length = strcspn(rest, "/");
    const char *name = rest[length] == '/' ? rest + length + 1 : "";
    const char *bracket = memchr(rest, ']', length), *from = bracket != NULL ? bracket : rest;
    int has_port = memchr(from, ':', length - (size_t)(from - rest)) != NULL;
    char where[300];

    memset(export, 0, sizeof *export);
    snprintf(where, sizeof where, has_port ? "%.*s" : "%.*s:" NBD_DEFAULT_PORT, (int)length, rest);
    if (length == 0 || length > 260)
        return fsw_error(
            err, -EINVAL,
            "nbd://%s is not nbd://HOST[:PORT][/EXPORT] (default port " NBD_DEFAULT_PORT
            "; an IPv6 address goes in brackets)",
            rest);
    int r = fsw_address_parse_tcp(&export->address, where, later, err);
    return r < 0 ? r : keep_name(export, name, strlen(name), err);
}

int nbd_export_parse_unix(struct nbd_export *export, const char *rest, struct fsw_error *err)
{
    const char *socket = strstr(rest, "?socket=");

    memset(export, 0, sizeof *export);
    if (rest[0] != '/' || socket == NULL || socket[8] != '/')
        return fsw_error(err, -EINVAL,
                         "nbd+unix://%s is not nbd+unix:///[EXPORT]?socket=PATH (an absolute path)",
                         rest);
    int r = fsw_address_parse_unix(&export->address, socket + 8, err);
    return r < 0 ? r : keep_name(export, rest + 1, (size_t)(socket - rest) - 1, err);
}
