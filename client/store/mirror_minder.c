/*
 * mirror_minder.c: what becomes due in a mirror though nothing comes in: requests that have waited long
 * enough for the other copy, or for their turn; gets that wait at a copy that does not answer, while the
 * other one does again; a copy that was slow and is asked nothing.
 */
#include <signal.h>

#include "client/store/mirror.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"

#define LOOK_NS (50 * FSW_NS_PER_MS)
#define ALONE_NS (2 * FSW_NS_PER_S) /* more than the puts take that try it once a second */
#define CANARY_DEADLINE_NS (5 * FSW_NS_PER_S)

/* ---- whose time is over ---- */

/* One pair whose request has waited long enough for the other copy; NULL: none. The lock is held. */
static struct mirror_pair *find_patient(struct mirror_store *store, uint64_t now)
{
    for (unsigned i = 0; i < MIRROR_PAIRS; i++) {
        struct mirror_pair *pair = &store->pairs[i];
        if (pair->request != NULL && pair->patience_ends != 0 && pair->patience_ends <= now)
            return pair;
    }
    return NULL;
}

/* The lock is held, and let go while the request is finished. */
static void end_patience(struct mirror_store *store, struct mirror_pair *pair)
{
    enum fsw_store_result result;
    struct fsw_store_request *request = mirror_pair_answer(pair, &result);
    uint32_t acknowledged = pair->acknowledged, pending = pair->pending;

    pthread_mutex_unlock(&store->lock);
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++)
        if (pending >> copy & 1)
            mirror_was_slow(store, copy);
    report_finish(&store->report, request, result, acknowledged);
    pthread_mutex_lock(&store->lock);
}

/* Of those that wait for a pair. The lock is held, and let go while one is finished. */
static void give_up_waiting(struct mirror_store *store, uint64_t now)
{
    struct fsw_requests late;
    struct fsw_store_request *request;

    fsw_requests_init(&late);
    FSW_FOR_EACH_REQUEST(at, &store->waiting)
    {
        if (at->deadline == 0 || at->deadline > now)
            continue;
        fsw_requests_remove(at);
        fsw_requests_push_back(&late, at);
    }
    while ((request = fsw_requests_pop(&late)) != NULL) {
        pthread_mutex_unlock(&store->lock);
        report_finish(&store->report, request, FSW_STORE_UNREACHABLE, 0);
        pthread_mutex_lock(&store->lock);
    }
}

/* ---- gets that wait at the wrong copy ---- */

void mirror_astray(struct mirror_store *store, int by)
{
    FSW_LOCK_SCOPE(&store->lock);

    store->astray += (unsigned)by;
    if (by > 0 && store->astray == 1)
        pthread_cond_signal(&store->wake);
}

static int answers(struct mirror_copy *copy)
{
    return mirror_worth(copy) >= MIRROR_EMPTIED;
}

/* Their copy says that it could not be reached, and so they turn to the other. The lock is held, and let
 * go meanwhile. */
static void call_back(struct mirror_store *store)
{
    if (store->astray == 0)
        return;
    pthread_mutex_unlock(&store->lock);
    if (mirror_enter(store)) {
        for (unsigned copy = 0; copy < MIRROR_COPIES; copy++) {
            struct fsw_store *one = store->copies[copy].store;
            if (!answers(&store->copies[copy]) && answers(&store->copies[copy ^ 1]))
                one->ops->lost(one, 0, 0);
        }
        mirror_leave(store);
    }
    pthread_mutex_lock(&store->lock);
}

/* ---- copies that were slow ---- */

static void canary_done(struct fsw_store_request *request)
{
    struct mirror_copy *copy = request->owner;

    if (request->result != FSW_STORE_UNREACHABLE)
        mirror_answered(copy);
    atomic_store(&copy->tried, 0);
}

/* Inside the gate. */
static void send_canary(struct mirror_copy *copy, uint64_t now)
{
    struct fsw_store_request *request = &copy->try;

    *request = (struct fsw_store_request){
        .verb = FSW_STORE_DROP,
        .row = 1,         /* any */
        .id = UINT64_MAX, /* none */
        .deadline = now + CANARY_DEADLINE_NS,
        .done = canary_done,
        .owner = copy,
    };
    copy->store->ops->submit(copy->store, &request, 1);
}

/* Nobody else has tried it for a while, and nothing says that it can't answer. Inside the gate. */
static int is_left_alone(struct mirror_copy *copy, uint64_t now)
{
    uint64_t last = atomic_load(&copy->canary);

    return atomic_load(&copy->suspect) != 0 && now - last > ALONE_NS &&
           mirror_worth(copy) == MIRROR_SUSPECT &&
           atomic_compare_exchange_strong(&copy->canary, &last, now) &&
           !atomic_exchange(&copy->tried, 1);
}

static int is_any_suspect(const struct mirror_store *store)
{
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++)
        if (atomic_load(&store->copies[copy].suspect) != 0)
            return 1;
    return 0;
}

/* A device at rest, or one that only reads, asks nothing of it: so we do. The lock is held, and let go
 * meanwhile. */
static void try_those_left_alone(struct mirror_store *store, uint64_t now)
{
    if (!is_any_suspect(store))
        return;
    pthread_mutex_unlock(&store->lock);
    if (mirror_enter(store)) {
        for (unsigned copy = 0; copy < MIRROR_COPIES; copy++)
            if (is_left_alone(&store->copies[copy], now))
                send_canary(&store->copies[copy], now);
        mirror_leave(store);
    }
    pthread_mutex_lock(&store->lock);
}

void mirror_minder_wake(struct mirror_store *store)
{
    FSW_LOCK_SCOPE(&store->lock);

    pthread_cond_signal(&store->wake);
}

/* ---- the thread ---- */

/* Until there may be something to do. The lock is held. */
static void rest(struct mirror_store *store, uint64_t now)
{
    int often = store->busy > 0 || store->astray > 0;
    struct timespec until = fsw_timespec(now + (often ? LOOK_NS : ALONE_NS));

    if (often || is_any_suspect(store))
        pthread_cond_timedwait(&store->wake, &store->lock, &until);
    else
        pthread_cond_wait(&store->wake, &store->lock);
}

static void *mind(void *opaque)
{
    struct mirror_store *store = opaque;
    struct mirror_pair *pair;
    FSW_LOCK_SCOPE(&store->lock);

    pthread_setname_np(pthread_self(), "farswap-mirror");
    fsw_touch_stack();
    while (!store->stopping) {
        uint64_t now = fsw_now_ns();

        while ((pair = find_patient(store, now)) != NULL)
            end_patience(store, pair);
        give_up_waiting(store, now);
        call_back(store);
        try_those_left_alone(store, now);
        if (!store->stopping)
            rest(store, now);
    }
    return NULL;
}

int mirror_minder_start(struct mirror_store *store)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = -pthread_create(&store->minder, NULL, mind, store);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    store->started = r == 0;
    return r;
}

void mirror_minder_stop(struct mirror_store *store)
{
    pthread_mutex_lock(&store->lock);
    store->stopping = 1;
    pthread_cond_signal(&store->wake);
    pthread_mutex_unlock(&store->lock);
    if (store->started)
        pthread_join(store->minder, NULL);
}
