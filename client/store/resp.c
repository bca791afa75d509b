/*
 * resp.c: the resp store: wiring, its thread, and what it says of itself.
 */
#include "client/store/resp.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"

#define SWEEP_MS 50
#define ASK_AGAIN_MS 1000

static struct resp_store *of_base(struct fsw_store *base)
{
    return (struct resp_store *)base;
}

/* ---- for the lanes ---- */

void resp_store_finish(struct resp_store *store, struct fsw_store_request *request,
                       enum fsw_store_result result)
{
    report_finish(&store->report, request, result, 1);
}

void resp_store_lane_changed(struct resp_store *store)
{
    report_connected(&store->report, store->gets.ready && store->puts.ready);
}

void resp_store_is_back(struct resp_store *store, const struct resp_lane *lane)
{
    struct resp_conn *const all[] = {&store->gets.conn, &store->puts.conn, &store->quick.lane.conn};

    for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++)
        resp_conn_hurry(all[i], lane->conn.place);
}

/* ---- the thread ---- */

/* What others left for the thread, by value. */
struct left {
    struct fsw_requests requests, before;
    unsigned stopping, interrupted, replants;
    uint64_t replant_as;
    struct resp_quick_left quick;
    int returned;
};

static void take_inbox(struct resp_store *store, struct left *left)
{
    FSW_LOCK_SCOPE(&store->inbox_lock);
    fsw_requests_init(&left->requests);
    fsw_requests_init(&left->before);
    fsw_requests_splice(&left->requests, &store->inbox);
    fsw_requests_splice(&left->before, &store->before);
    left->stopping = store->stopping;
    left->interrupted = store->interrupted;
    left->replants = store->replants;
    left->replant_as = store->replant_as;
    store->interrupted = store->replants = 0;
    left->returned = resp_quick_is_returned(&store->quick, &left->quick);
}

static void set_sentinel(struct resp_store *store, uint64_t sentinel, unsigned left)
{
    snprintf(store->sentinel, sizeof store->sentinel, "%016" PRIx64, sentinel);
    store->sentinel_left = left;
}

/* As if no put was ever acknowledged: both lanes are greeted anew, and that leaves the sentinel. */
static void replant(struct resp_store *store, uint64_t sentinel)
{
    set_sentinel(store, sentinel, 0);
    report_emptied(&store->report, store->address.text, 0);
    resp_conn_reset(&store->puts.conn, "it is new from now on");
    resp_conn_reset(&store->gets.conn, "it is new from now on");
    if (resp_quick_recall(&store->quick))
        resp_conn_reset(&store->quick.lane.conn, "it is new from now on");
}

static void open_lanes(struct resp_store *store)
{
    store->lanes_open = 1;
    resp_lane_open(&store->gets);
    resp_lane_open(&store->puts);
}

static void end_lanes(struct resp_store *store)
{
    if (!store->lanes_open) {
        resp_lane_give_up(&store->gets);
        resp_lane_give_up(&store->puts);
        return;
    }
    resp_lane_end(&store->gets);
    resp_lane_end(&store->puts);
    resp_quick_end(&store->quick);
}

static void stop(struct resp_store *store)
{
    store->ending = 1;
    end_lanes(store);
    if (store->asking)
        uv_cancel((uv_req_t *)&store->question); /* one that is at work comes to its end */
    uv_close((uv_handle_t *)&store->ask_again, NULL);
    uv_close((uv_handle_t *)&store->sweep, NULL);
    uv_close((uv_handle_t *)&store->wake, NULL);
}

/* ---- the place, while only its name is known ---- */

static void ask_for_place(uv_timer_t *timer);

static void on_place(uv_getaddrinfo_t *question, int status, struct addrinfo *list)
{
    struct resp_store *store = question->data;
    struct fsw_error err = {""};

    if (status == 0)
        status = fsw_address_keep(&store->place, list, &err);
    uv_freeaddrinfo(list);
    store->asking = 0;
    if (store->ending)
        return;
    if (status == 0) {
        open_lanes(store);
        return;
    }
    if (err.text[0] == '\0')
        fsw_error(&err, status, "its host can't be found: %s", uv_strerror(status));
    report_say(&store->report, store->address.text, err.text);
    uv_timer_start(&store->ask_again, ask_for_place, ASK_AGAIN_MS, 0);
}

static void ask_for_place(uv_timer_t *timer)
{
    struct resp_store *store = timer->data;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct fsw_host_port where;

    fsw_address_question(&store->place, &where);
    store->question.data = store;
    store->asking = 1;
    int r =
        uv_getaddrinfo(&store->loop, &store->question, on_place, where.host, where.port, &hints);
    if (r < 0)
        on_place(&store->question, r, NULL);
}

static void on_sweep(uv_timer_t *timer)
{
    struct resp_store *store = timer->data;
    uint64_t now = fsw_now_ns();

    if (resp_lane_sweep(&store->gets, now) + resp_lane_sweep(&store->puts, now) +
            resp_quick_sweep(&store->quick, now) ==
        0)
        uv_timer_stop(timer);
    resp_quick_offer(&store->quick);
}

static void sweep_on(struct resp_store *store)
{
    if (!uv_is_active((uv_handle_t *)&store->sweep))
        uv_timer_start(&store->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
}

static void add_all(struct resp_store *store, struct fsw_requests *requests)
{
    struct fsw_store_request *request;

    if (fsw_requests_first(requests) != NULL)
        sweep_on(store);
    while ((request = fsw_requests_pop(requests)) != NULL)
        resp_lane_add(request->verb == FSW_STORE_GET ? &store->gets : &store->puts, request);
}

static void on_wake(uv_async_t *wake)
{
    struct resp_store *store = wake->data;
    struct left left;

    take_inbox(store, &left);
    add_all(store, &left.before);
    if (left.replants)
        replant(store, left.replant_as);
    if (left.interrupted) {
        resp_lane_give_up(&store->gets);
        resp_quick_give_up(&store->quick);
    }
    if (left.returned) {
        resp_quick_collect(&store->quick, &left.quick);
        sweep_on(store);
    }
    if (store->lanes_open)
        resp_quick_open(&store->quick);
    resp_quick_offer(&store->quick);
    add_all(store, &left.requests);
    resp_lane_pump(&store->gets);
    resp_lane_pump(&store->puts);
    if (left.stopping)
        stop(store);
}

static void *run(void *opaque)
{
    struct resp_store *store = opaque;

    pthread_setname_np(pthread_self(), "farswap-store");
    fsw_touch_stack();
    if (store->place.count > 0)
        open_lanes(store);
    else
        ask_for_place(&store->ask_again);
    uv_run(&store->loop, UV_RUN_DEFAULT);
    return NULL;
}

/* The thread takes no signals: they are its program's, and SIGPIPE is a failed write to us. */
static int start_thread(struct resp_store *store)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = -pthread_create(&store->thread, NULL, run, store);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

static int init_loop(struct resp_store *store)
{
    int r = uv_loop_init(&store->loop);

    if (r < 0)
        return r;
    r = uv_async_init(&store->loop, &store->wake, on_wake);
    if (r < 0) {
        uv_loop_close(&store->loop);
        return r;
    }
    uv_timer_init(&store->loop, &store->sweep);
    uv_timer_init(&store->loop, &store->ask_again);
    store->wake.data = store->sweep.data = store->ask_again.data = store;
    return 0;
}

static void deinit_loop(struct resp_store *store)
{
    uv_run(&store->loop, UV_RUN_DEFAULT); /* the last closing callbacks */
    if (uv_loop_close(&store->loop) != 0)
        assert(!"a handle of the store's loop was left open");
}

static int store_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                       struct fsw_error *err)
{
    struct resp_store *store = of_base(base);
    int r;

    assert(!store->started);
    store->device = identity->device;
    set_sentinel(store, identity->sentinel[0], identity->planted != 0);
    r = init_loop(store);
    if (r < 0)
        return fsw_error(err, r, "the store's event loop can't start: %s", strerror(-r));
    r = start_thread(store);
    if (r < 0) {
        uv_close((uv_handle_t *)&store->ask_again, NULL);
        uv_close((uv_handle_t *)&store->sweep, NULL);
        uv_close((uv_handle_t *)&store->wake, NULL);
        deinit_loop(store);
        return fsw_error(err, r, "the store's thread can't start: %s", strerror(-r));
    }
    store->started = 1;
    return 0;
}

/* The thread is woken for the first request of a batch; the others it finds there. */
static void store_submit(struct fsw_store *base, struct fsw_store_request *const *requests,
                         size_t n)
{
    struct resp_store *store = of_base(base);
    int wake;

    pthread_mutex_lock(&store->inbox_lock);
    wake = fsw_requests_first(&store->inbox) == NULL && !store->stopping;
    for (size_t i = 0; i < n; i++) {
        fsw_request_check(requests[i]);
        fsw_requests_push_back(&store->inbox, requests[i]);
    }
    pthread_mutex_unlock(&store->inbox_lock);
    if (wake)
        uv_async_send(&store->wake);
}

/* What is not quick enough goes the usual way. */
static void store_get(struct fsw_store *base, struct fsw_store_request *request, uint64_t until)
{
    fsw_request_check(request);
    if (!resp_quick_get(&of_base(base)->quick, request, until))
        store_submit(base, &request, 1);
}

void resp_store_ask_again(struct resp_store *store, struct fsw_store_request *request,
                          unsigned losses)
{
    store->report.retries++;
    pthread_mutex_lock(&store->inbox_lock);
    int interrupted = store->losses != losses;
    if (!interrupted)
        fsw_requests_push_back(&store->inbox, request);
    pthread_mutex_unlock(&store->inbox_lock);
    if (interrupted)
        resp_store_finish(store, request, FSW_STORE_UNREACHABLE);
    else
        uv_async_send(&store->wake);
}

static void store_lost(struct fsw_store *base, uint32_t copies, uint64_t sentinel)
{
    struct resp_store *store = of_base(base);

    pthread_mutex_lock(&store->inbox_lock);
    fsw_requests_splice(&store->before, &store->inbox);
    store->interrupted = 1;
    store->losses++;
    store->replants |= copies & 1;
    if (copies & 1)
        store->replant_as = sentinel;
    pthread_mutex_unlock(&store->inbox_lock);
    uv_async_send(&store->wake);
}

static void store_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    struct resp_store *store = of_base(base);

    report_health(&store->report, ret_health);
    ret_health->bytes_out = ret_health->copy[0].bytes_out =
        store->gets.conn.bytes_out + store->puts.conn.bytes_out + store->quick.lane.conn.bytes_out;
    ret_health->bytes_in = ret_health->copy[0].bytes_in =
        store->gets.conn.bytes_in + store->puts.conn.bytes_in + store->quick.lane.conn.bytes_in;
}

/* ---- birth and death ---- */

static void store_free(struct resp_store *store)
{
    resp_lane_deinit(&store->gets);
    resp_lane_deinit(&store->puts);
    resp_quick_deinit(&store->quick);
    pthread_mutex_destroy(&store->inbox_lock);
    report_deinit(&store->report);
    if (store->password != NULL)
        explicit_bzero(store->password, strlen(store->password));
    free(store->password);
    free(store);
}

/* Requests that done() submitted while the thread was ending. */
static void finish_stragglers(struct resp_store *store)
{
    struct fsw_store_request *request;

    fsw_requests_splice(&store->inbox, &store->before);
    while ((request = fsw_requests_pop(&store->inbox)) != NULL)
        resp_store_finish(store, request, FSW_STORE_UNREACHABLE);
}

static void store_close(struct fsw_store *base)
{
    struct resp_store *store = of_base(base);

    if (store->started) {
        pthread_mutex_lock(&store->inbox_lock);
        store->stopping = 1;
        pthread_mutex_unlock(&store->inbox_lock);
        uv_async_send(&store->wake);
        pthread_join(store->thread, NULL);
        deinit_loop(store);
        finish_stragglers(store);
    }
    store_free(store);
}

static const struct fsw_store_ops resp_ops = {
    .scheme = "resp",
    .probe = resp_sync_probe,
    .start = store_start,
    .submit = store_submit,
    .get = store_get,
    .lost = store_lost,
    .list = resp_sync_list,
    .forget = resp_sync_forget,
    .health = store_health,
    .close = store_close,
};

int resp_store_new(const struct fsw_address *address, const char *password,
                   struct fsw_store **ret_store)
{
    struct resp_store *store = calloc(1, sizeof *store);

    if (store == NULL)
        return -ENOMEM;
    store->base = (struct fsw_store){.ops = &resp_ops, .copies = 1};
    store->address = store->place = *address;
    pthread_mutex_init(&store->inbox_lock, NULL);
    report_init(&store->report);
    fsw_requests_init(&store->inbox);
    fsw_requests_init(&store->before);
    if (password != NULL)
        store->password = strdup(password);
    if ((password != NULL && store->password == NULL) ||
        resp_lane_init(&store->gets, store, RESP_LANE_GETS) < 0 ||
        resp_lane_init(&store->puts, store, RESP_LANE_PUTS) < 0 ||
        resp_quick_init(&store->quick, store) < 0) {
        store_free(store);
        return -ENOMEM;
    }
    *ret_store = &store->base;
    return 0;
}
