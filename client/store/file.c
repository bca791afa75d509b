/*
 * file.c: a store in a file: its minder, its verbs.
 */
#include "client/store/file.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"

#define SWEEP_NS (50 * FSW_NS_PER_MS)
#define REOPEN_NS (200 * FSW_NS_PER_MS)

static struct file_store *of_base(struct fsw_store *base)
{
    return (struct file_store *)base;
}

/* ---- the minder ---- */

static int is_late(const struct fsw_store_request *request, uint64_t now)
{
    return request->deadline != 0 && request->deadline <= now;
}

static void give_up_list(struct fsw_requests *list, uint64_t now, struct fsw_requests *late)
{
    FSW_FOR_EACH_REQUEST(request, list)
    {
        if (!is_late(request, now))
            continue;
        fsw_requests_remove(request);
        fsw_requests_push_back(late, request);
    }
}

/* Those that are late, or all. */
static void give_up_working(struct file_store *store, uint64_t now, int all,
                            struct fsw_requests *late)
{
    for (unsigned i = 0; i < FILE_WORKERS; i++) {
        struct file_worker *worker = &store->workers[i];

        if (worker->request == NULL || worker->keeps || !(all || is_late(worker->request, now)))
            continue;
        fsw_requests_push_back(late, worker->request);
        worker->request = NULL;
    }
}

static struct fsw_requests *list_of(struct file_store *store, const struct fsw_store_request *r)
{
    return r->verb == FSW_STORE_GET ? &store->gets : &store->puts;
}

static void wake_rested(struct file_store *store, uint64_t now)
{
    FSW_FOR_EACH_REQUEST(request, &store->resting)
    {
        if (request->scratch[0] > now)
            break; /* they came in the order of time */
        fsw_requests_remove(request);
        fsw_requests_push_back(list_of(store, request), request);
        pthread_cond_signal(request->verb == FSW_STORE_GET ? &store->gets_wake : &store->puts_wake);
    }
}

static int has_requests(struct file_store *store)
{
    for (unsigned i = 0; i < FILE_WORKERS; i++)
        if (store->workers[i].request != NULL)
            return 1;
    return fsw_requests_first(&store->gets) != NULL || fsw_requests_first(&store->puts) != NULL ||
           fsw_requests_first(&store->resting) != NULL;
}

static void finish_all(struct file_store *store, struct fsw_requests *late)
{
    struct fsw_store_request *request;

    while ((request = fsw_requests_pop(late)) != NULL)
        report_finish(&store->report, request, FSW_STORE_UNREACHABLE, 0);
}

/* Only gets end: a put may be under way to the disk. */
static void send_back_gets(struct file_store *store)
{
    struct fsw_requests *late = &store->sent_back;

    fsw_requests_splice(late, &store->gets);
    FSW_FOR_EACH_REQUEST(request, &store->resting)
    {
        if (request->verb != FSW_STORE_GET)
            continue;
        fsw_requests_remove(request);
        fsw_requests_push_back(late, request);
    }
    for (unsigned i = 0; i < FILE_READERS; i++) {
        struct file_worker *worker = &store->workers[i];

        if (worker->request != NULL)
            fsw_requests_push_back(late, worker->request);
        worker->request = NULL;
    }
}

/* The file shows the sentinel again; one that is away will, when it is opened. 0 or negative errno. */
static int replant(struct file_store *store, uint64_t sentinel)
{
    int r = 0;

    store->identity.planted = 0;
    store->identity.sentinel[0] = sentinel;
    if (store->slots.fd >= 0)
        r = slots_plant(&store->slots, sentinel);
    if (r == 0)
        report_emptied(&store->report, store->path, 0);
    else
        report_say(&store->report, store->path, strerror(-r));
    return r;
}

static int open_slots(struct file_store *store, struct fsw_error *err)
{
    int emptied = 0;
    int r = slots_open(&store->slots, store->path, &store->identity, store->direct, &emptied, err);

    if (r < 0)
        return r;
    if (emptied)
        report_emptied(&store->report, store->path, 1);
    report_connected(&store->report, 1);
    FSW_LOCK_SCOPE(&store->lock);
    store->open = 1;
    pthread_cond_broadcast(&store->gets_wake);
    pthread_cond_broadcast(&store->puts_wake);
    return 0;
}

/* The lock is held, and let go while the file is being opened or requests are finished. */
static void mind_once(struct file_store *store, uint64_t *open_after)
{
    uint64_t now = fsw_now_ns();
    struct fsw_requests late;
    struct fsw_error err = {""};
    int try_open = !store->open && now >= *open_after;

    fsw_requests_init(&late);
    wake_rested(store, now);
    give_up_list(&store->gets, now, &late);
    give_up_list(&store->puts, now, &late);
    give_up_list(&store->resting, now, &late);
    give_up_working(store, now, 0, &late);
    fsw_requests_splice(&late, &store->sent_back);
    unsigned replants = store->replants;
    uint64_t sentinel = store->replant_as;
    store->replants = 0;
    pthread_mutex_unlock(&store->lock);
    finish_all(store, &late);
    if (replants)
        replants = replant(store, sentinel) < 0; /* again, with the next look */
    known_grow(&store->known);
    if (try_open && open_slots(store, &err) < 0) {
        report_say(&store->report, err.text, NULL);
        *open_after = fsw_now_ns() + REOPEN_NS;
    }
    pthread_mutex_lock(&store->lock);
    store->replants |= replants;
}

static void *mind(void *opaque)
{
    struct file_store *store = opaque;
    uint64_t open_after = 0;
    FSW_LOCK_SCOPE(&store->lock);

    pthread_setname_np(pthread_self(), "farswap-minder");
    fsw_touch_stack();
    while (!store->stopping) {
        mind_once(store, &open_after);
        store->minding = !store->open || store->replants ||
                         fsw_requests_first(&store->sent_back) != NULL || has_requests(store);
        if (store->stopping)
            break;
        struct timespec until = fsw_timespec(fsw_now_ns() + SWEEP_NS);
        if (store->minding)
            pthread_cond_timedwait(&store->minder_wake, &store->lock, &until);
        else
            pthread_cond_wait(&store->minder_wake, &store->lock);
    }
    return NULL;
}

/* ---- the verbs ---- */

static void store_submit(struct fsw_store *base, struct fsw_store_request *const *requests,
                         size_t n)
{
    struct file_store *store = of_base(base);
    FSW_LOCK_SCOPE(&store->lock);

    for (size_t i = 0; i < n; i++) {
        fsw_request_check(requests[i]);
        assert(requests[i]->row != 0 || requests[i]->verb == FSW_STORE_DROP);
        requests[i]->scratch[1] = 0;
        fsw_requests_push_back(list_of(store, requests[i]), requests[i]);
        pthread_cond_signal(requests[i]->verb == FSW_STORE_GET ? &store->gets_wake
                                                               : &store->puts_wake);
    }
    if (!store->minding)
        pthread_cond_signal(&store->minder_wake);
    store->minding = 1;
}

static int is_open(struct file_store *store)
{
    FSW_LOCK_SCOPE(&store->lock);
    return (int)store->open;
}

static int store_probe(struct fsw_store *base, struct fsw_error *err)
{
    return slots_probe(of_base(base)->path, err);
}

static void store_lost(struct fsw_store *base, uint32_t copies, uint64_t sentinel)
{
    struct file_store *store = of_base(base);
    FSW_LOCK_SCOPE(&store->lock);

    send_back_gets(store);
    store->replants |= copies & 1;
    if (copies & 1)
        store->replant_as = sentinel;
    pthread_cond_signal(&store->minder_wake);
}

struct listing {
    int (*each)(uint32_t row, uint64_t id, void *opaque); /* NULL: only count */
    void *opaque;
    uint64_t count;
};

static int list_one(uint32_t row, uint64_t id, void *opaque)
{
    struct listing *listing = opaque;

    listing->count++;
    return listing->each == NULL ? 0 : listing->each(row, id, listing->opaque);
}

static int store_list(struct fsw_store *base, const struct fsw_device_id *device,
                      int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                      struct fsw_error *err)
{
    struct listing listing = {each, opaque, 0};

    return slots_walk(of_base(base)->path, device, list_one, &listing, err);
}

/* Of the device that this store works for the file stays, since it is open. */
static int store_forget(struct fsw_store *base, const struct fsw_device_id *device,
                        uint64_t *ret_count, struct fsw_error *err)
{
    struct file_store *store = of_base(base);
    struct listing listing = {NULL, NULL, 0};
    int r = slots_walk(store->path, device, list_one, &listing, err);

    *ret_count = r < 0 ? 0 : listing.count;
    if (r < 0)
        return r;
    if (!is_open(store) || memcmp(device, &store->identity.device, sizeof *device) != 0)
        return slots_remove(store->path, device, err);
    known_clear_all(&store->known);
    r = slots_clear(&store->slots);
    return r == 0 ? 0 : fsw_error(err, r, "file:%s: %s", store->path, strerror(-r));
}

static void store_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    report_health(&of_base(base)->report, ret_health);
}

/* ---- birth and death ---- */

/* Threads take no signals: they are their program's, and SIGXFSZ is a full disk to us. */
static int start_threads(struct file_store *store)
{
    sigset_t all, before;
    int r = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; r == 0 && store->threads < FILE_WORKERS; store->threads += r == 0) {
        struct file_worker *worker = &store->workers[store->threads];
        r = -pthread_create(&worker->thread, NULL, file_worker_run, worker);
    }
    if (r == 0)
        r = -pthread_create(&store->minder, NULL, mind, store);
    store->started = r == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

/* All that is not finished, done() submits during the end too. */
static void finish_rest(struct file_store *store)
{
    struct fsw_requests late;
    int left;

    do {
        fsw_requests_init(&late);
        pthread_mutex_lock(&store->lock);
        fsw_requests_splice(&late, &store->gets);
        fsw_requests_splice(&late, &store->puts);
        fsw_requests_splice(&late, &store->resting);
        fsw_requests_splice(&late, &store->sent_back);
        give_up_working(store, 0, 1, &late);
        left = fsw_requests_first(&late) != NULL;
        pthread_mutex_unlock(&store->lock);
        finish_all(store, &late);
    } while (left);
}

/* Nothing waits for a disk that hangs but this: a worker can't be left behind. */
static void stop_threads(struct file_store *store)
{
    pthread_mutex_lock(&store->lock);
    store->stopping = 1;
    pthread_cond_broadcast(&store->gets_wake);
    pthread_cond_broadcast(&store->puts_wake);
    pthread_cond_signal(&store->minder_wake);
    pthread_mutex_unlock(&store->lock);
    finish_rest(store);
    if (store->started)
        pthread_join(store->minder, NULL);
    for (unsigned i = 0; i < store->threads; i++)
        pthread_join(store->workers[i].thread, NULL);
    finish_rest(store);
}

static void store_free(struct file_store *store)
{
    slots_close(&store->slots);
    for (unsigned i = 0; i < FILE_WORKERS; i++)
        free(store->workers[i].buffer);
    known_deinit(&store->known);
    report_deinit(&store->report);
    pthread_mutex_destroy(&store->lock);
    pthread_cond_destroy(&store->gets_wake);
    pthread_cond_destroy(&store->puts_wake);
    pthread_cond_destroy(&store->minder_wake);
    free(store->path);
    free(store);
}

/* 1 if the file may be opened later, and requests wait for it: it is locked, or it was ours before
 * and is away, or the device has pages that need no file. */
static int can_wait(const struct file_store *store, int r)
{
    return r == -EBUSY || store->identity.recovered ||
           (store->identity.planted && r != -EEXIST && r != -EINVAL && r != -EUCLEAN);
}

static int store_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                       struct fsw_error *err)
{
    struct file_store *store = of_base(base);
    struct fsw_error why = {""};
    int r;

    assert(!store->started);
    store->identity = *identity;
    explicit_bzero(store->identity.key, sizeof store->identity.key); /* not ours to need */
    r = open_slots(store, &why);
    if (r < 0 && !can_wait(store, r))
        return fsw_error(err, r, "%s", why.text);
    if (r < 0)
        report_say(&store->report, why.text, NULL);
    r = start_threads(store);
    return r == 0 ? 0 : fsw_error(err, r, "the store's threads can't start: %s", strerror(-r));
}

static void store_close(struct fsw_store *base)
{
    struct file_store *store = of_base(base);

    stop_threads(store);
    store_free(store);
}

static const struct fsw_store_ops file_ops = {
    .scheme = "file",
    .probe = store_probe,
    .start = store_start,
    .submit = store_submit,
    .lost = store_lost,
    .list = store_list,
    .forget = store_forget,
    .health = store_health,
    .close = store_close,
};

static int init_workers(struct file_store *store)
{
    for (unsigned i = 0; i < FILE_WORKERS; i++) {
        struct file_worker *worker = &store->workers[i];

        worker->store = store;
        worker->writes = i >= FILE_READERS;
        worker->buffer = slots_buffer();
        if (worker->buffer == NULL)
            return -ENOMEM;
    }
    return 0;
}

static void init_locks(struct file_store *store)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->gets_wake, NULL);
    pthread_cond_init(&store->puts_wake, NULL);
    pthread_cond_init(&store->minder_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

int file_store_new(const char *path, struct fsw_store **ret_store, struct fsw_error *err)
{
    struct file_store *store;

    if (path[0] != '/' || path[strlen(path) - 1] == '/')
        return fsw_error(err, -EINVAL, "file:%s is not file:PATH with the absolute path of a file",
                         path);
    store = calloc(1, sizeof *store);
    if (store == NULL)
        return fsw_error(err, -ENOMEM, "no memory for the store");
    store->base = (struct fsw_store){.ops = &file_ops, .copies = 1};
    store->slots.fd = -1;
    store->direct = 1;
    init_locks(store);
    report_init(&store->report);
    fsw_requests_init(&store->gets);
    fsw_requests_init(&store->puts);
    fsw_requests_init(&store->resting);
    fsw_requests_init(&store->sent_back);
    store->path = strdup(path);
    if (store->path == NULL || init_workers(store) < 0 || known_init(&store->known) < 0) {
        store_free(store);
        return fsw_error(err, -ENOMEM, "no memory for the store's buffers");
    }
    *ret_store = &store->base;
    return 0;
}
