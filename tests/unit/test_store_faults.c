/*
 * test_store_faults.c: what a store promises when its server is killed, frozen, full or emptied. Each
 * test has a server of its own.
 *     test_store_faults redis|farswapd BINARY [unix]
 */
#include "test_store_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/store/keys.h"
#include "client/store/resp.h"
#include "common/clock.h"

static struct place chosen; /* what the arguments say */

static int setup_server(void **state, const char *memory, int keeps)
{
    struct fixture *f = *state = fixture_new(&chosen);

    f->server->memory = memory;
    f->server->keeps = keeps && f->server->kind == SERVER_FARSWAPD;
    fill_segment(f->bytes, FSW_SEGMENT_BYTES, 1);
    place_start(&f->place);
    return 0;
}

static int setup_started(void **state, int keeps)
{
    struct fixture *f;

    setup_server(state, NULL, keeps);
    f = *state;
    f->store = store_started(f->server, &f->device);
    wait_connected(f->store, 1);
    return 0;
}

static int setup(void **state)
{
    return setup_started(state, 0);
}

static int setup_kept(void **state)
{
    return setup_started(state, 1);
}

/* A server that says nothing for 300 ms is left. */
static int setup_impatient(void **state)
{
    struct fixture *f;
    struct resp_store *store;
    struct fsw_error err;

    setup_server(state, NULL, 0);
    f = *state;
    f->store = store_open(server_uri(f->server), NULL);
    store = (struct resp_store *)f->store;
    store->gets.silence_ns = store->puts.silence_ns = 300 * FSW_NS_PER_MS;
    assert_int_equal(store_start_as(f->store, &f->device, 0, &err), 0);
    wait_connected(f->store, 1);
    return 0;
}

static int setup_small(void **state)
{
    struct fixture *f;

    setup_server(state, "16mb", 0);
    f = *state;
    f->store = store_started(f->server, &f->device);
    return 0;
}

static int exists(struct fixture *f, uint64_t id)
{
    char key[FSW_KEY_TEXT];

    fsw_key_segment(key, &f->device, id);
    return (int)server_ask(f->server, "EXISTS %s", key);
}

/* ---- killed ---- */

/* Clears what the server keeps, if it keeps anything, so that it starts empty. */
static void restart_empty(struct fixture *f)
{
    server_restart(f->server);
    if (f->server->kind == SERVER_REDIS)
        freeReplyObject(server_command(f->server, "FLUSHALL"));
}

static void test_restarted_empty_is_not_gone(void **state)
{
    struct fixture *f = *state;
    struct fsw_store_health health;

    assert_int_equal(do_put(f->store, 1, f->bytes, 1000), FSW_STORE_OK);
    server_kill(f->server);
    wait_connected(f->store, 0);
    restart_empty(f);
    wait_connected(f->store, 1);
    assert_int_equal(do_get(f->store, 1, f->back, 0, 10, 500), FSW_STORE_UNREACHABLE);
    assert_says(f->store, "emptied");
    assert_int_equal(do_put(f->store, 2, f->bytes, 1000), FSW_STORE_OK);
    assert_int_equal(do_get(f->store, 2, f->back, 0, 1000, LONG_MS), FSW_STORE_OK);
    assert_memory_equal(f->bytes, f->back, 1000);
    f->store->ops->health(f->store, &health);
    assert_in_range(health.reconnects, 2, 20); /* both lanes came back */
}

/* Gets and puts that have no deadline wait for the server through its death. */
static void test_requests_outlive_the_server(void **state)
{
    enum { N = 200 };
    struct fixture *f = *state;
    struct call *gets = calloc(N, sizeof *gets), *puts = calloc(N, sizeof *puts);
    uint8_t *back = malloc(N * 100);

    assert_int_equal(do_put(f->store, 1, f->bytes, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    if (f->server->kind == SERVER_REDIS)
        freeReplyObject(server_command(f->server, "SAVE"));
    server_freeze(f->server); /* so that they are in flight when it dies */
    for (unsigned i = 0; i < N; i++) {
        call_prepare(&gets[i], FSW_STORE_GET, 1, back + i * 100, i, 100, 0);
        call_submit(f->store, &gets[i]);
        call_prepare(&puts[i], FSW_STORE_PUT, 100 + i, f->bytes + i, 0, 20000, 0);
        call_submit(f->store, &puts[i]);
    }
    server_kill(f->server);
    wait_connected(f->store, 0);
    server_restart(f->server);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(call_wait(&gets[i]), FSW_STORE_OK);
        assert_memory_equal(back + i * 100, f->bytes + i, 100);
        assert_int_equal(call_wait(&puts[i]), FSW_STORE_OK);
    }
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(do_get(f->store, 100 + i, back, 0, 50, LONG_MS), FSW_STORE_OK);
        assert_memory_equal(back, f->bytes + i, 50);
        assert_int_equal(gets[i].done + puts[i].done, 2);
    }
    assert_int_equal(do_get(f->store, 99, f->back, 0, 1, LONG_MS), FSW_STORE_GONE);
    free(gets);
    free(puts);
    free(back);
}

/* One would rest for ten minutes and more, and is told by the other, which is up again. */
static void test_a_connection_that_is_back_brings_the_other(void **state)
{
    struct fixture *f = *state;
    struct resp_store *store = (struct resp_store *)f->store;
    struct resp_lane *const lanes[] = {&store->puts, &store->gets};

    for (unsigned i = 0; i < 2; i++) {
        lanes[i]->conn.pause_ms = 20 * 60 * 1000;
        assert_int_equal(do_put(f->store, 1 + i, f->bytes, 1000), FSW_STORE_OK);
        server_kill(f->server);
        wait_connected(f->store, 0);
        server_restart(f->server);
        wait_connected(f->store, 1);
    }
}

static void test_deadlines_without_a_server(void **state)
{
    struct fixture *f = *state;

    server_kill(f->server);
    fixture_deadlines_are_kept(f, 3, 100);
}

/* ---- cut ---- */

struct worker {
    pthread_t thread;
    struct fsw_store *store;
    unsigned number, wrong;
    atomic_uint rounds;
    atomic_bool *over;
};

static enum fsw_store_result patiently(struct worker *worker, enum fsw_store_verb verb, uint64_t id,
                                       void *bytes, uint32_t offset, uint32_t length)
{
    struct call call;

    call_prepare(&call, verb, id, bytes, offset, length, 0);
    if (verb == FSW_STORE_GET && id % 2 == 0)
        call_get(worker->store, &call, 0);
    else
        call_submit(worker->store, &call);
    call_wait(&call);
    worker->wrong += call.done != 1;
    return call.request.result;
}

/* Each id is put, read, dropped, and then gone, whatever happens to the connections. */
static void *work(void *opaque)
{
    struct worker *worker = opaque;
    uint8_t *bytes = malloc(FSW_SEGMENT_BYTES), *back = malloc(FSW_SEGMENT_BYTES);

    for (; !*worker->over; worker->rounds++) {
        uint64_t id = worker->number * 1000000 + worker->rounds;
        uint32_t length = 1 + (uint32_t)(id * 7919 % FSW_SEGMENT_BYTES), offset = length / 3;

        fill_segment(bytes, length, id);
        worker->wrong += patiently(worker, FSW_STORE_PUT, id, bytes, 0, length) != FSW_STORE_OK;
        worker->wrong +=
            patiently(worker, FSW_STORE_GET, id, back, offset, length - offset) != FSW_STORE_OK;
        worker->wrong += memcmp(bytes + offset, back, length - offset) != 0;
        worker->wrong += patiently(worker, FSW_STORE_DROP, id, NULL, 0, 0) != FSW_STORE_OK;
        worker->wrong += patiently(worker, FSW_STORE_GET, id, back, 0, 1) != FSW_STORE_GONE;
    }
    free(bytes);
    free(back);
    return NULL;
}

static void wait_reconnects(struct fsw_store *store, uint64_t count)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    struct fsw_store_health health;

    do {
        store->ops->health(store, &health);
    } while (health.reconnects < count && fsw_now_ns() < end && usleep(1000) == 0);
    assert_true(health.reconnects >= count);
}

#define WORKERS 16u

/* Much was done, and some was in flight at a cut, as often as not. */
static int enough_was_cut(struct fixture *f, struct worker *workers)
{
    unsigned rounds = 0;

    for (unsigned i = 0; i < WORKERS; i++)
        rounds += workers[i].rounds;
    return rounds > 100 && fixture_health(f).retries >= 20;
}

static void test_cut_connections_lose_nothing(void **state)
{
    struct fixture *f = *state;
    struct worker workers[WORKERS];
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    atomic_bool over = false;

    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){.store = f->store, .number = i + 1, .over = &over};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned cuts = 0; cuts < 20 || (!enough_was_cut(f, workers) && fsw_now_ns() < end);
         cuts++) {
        wait_connected(f->store, 1);
        usleep(1000 * (cuts % 7)); /* at some point of the traffic */
        server_ask(f->server, "CLIENT KILL TYPE normal");
        wait_reconnects(f->store, 2 * (cuts + 1));
    }
    over = true;
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].wrong, 0);
    }
    assert_true(enough_was_cut(f, workers));
    assert_int_equal(server_ask(f->server, "DBSIZE"), 1); /* the sentinel */
}

/* ---- frozen ---- */

static void test_late_answer_leaves_the_bytes_alone(void **state)
{
    struct fixture *f = *state;
    struct call late, patient;

    assert_int_equal(do_put(f->store, 1, f->bytes, 1000), FSW_STORE_OK);
    memset(f->back, 0xee, FSW_SEGMENT_BYTES);
    server_freeze(f->server);
    call_prepare(&late, FSW_STORE_GET, 1, f->back, 0, 1000, 300);
    call_prepare(&patient, FSW_STORE_GET, 1, f->back + 2000, 0, 1000, 0);
    call_submit(f->store, &late);
    call_submit(f->store, &patient);
    assert_int_equal(call_wait(&late), FSW_STORE_UNREACHABLE);
    call_kept_deadline(&late);
    server_thaw(f->server);
    assert_int_equal(call_wait(&patient), FSW_STORE_OK); /* answered after the late one */
    assert_memory_equal(f->back + 2000, f->bytes, 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(f->back[i], 0xee);
    assert_int_equal(late.done, 1);
}

/* So much at once that the kernel lets the connection hold megabytes from then on. */
static void widen_connection(struct fixture *f)
{
    enum { N = 400 };
    struct call *puts = calloc(N, sizeof *puts);

    for (unsigned i = 0; i < N; i++) {
        call_prepare(&puts[i], FSW_STORE_PUT, 1000 + i, f->bytes, 0, FSW_SEGMENT_BYTES, 0);
        call_submit(f->store, &puts[i]);
    }
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(call_wait(&puts[i]), FSW_STORE_OK);
    free(puts);
}

/* Until the server has done with every connection but the two lanes' and the one that asks. */
static void wait_old_connections_gone(struct fixture *f)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    int gone = 0;

    while (!gone && fsw_now_ns() < end) {
        redisReply *info = server_command(f->server, "INFO clients");

        gone = strstr(info->str, "connected_clients:3\r") != NULL;
        freeReplyObject(info);
    }
    assert_true(gone);
}

/* A put that was given up may still land. Its drop lands after it. */
static void give_up_puts_then_drop(struct fixture *f, unsigned n, int reconnected)
{
    struct call *puts = calloc(n, sizeof *puts), *drops = calloc(n, sizeof *drops);

    widen_connection(f);
    server_freeze(f->server);
    for (unsigned i = 0; i < n; i++) {
        call_prepare(&puts[i], FSW_STORE_PUT, i, f->bytes, 0, FSW_SEGMENT_BYTES, 200);
        call_submit(f->store, &puts[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(call_wait(&puts[i]), FSW_STORE_UNREACHABLE);
        call_kept_deadline(&puts[i]);
        call_prepare(&drops[i], FSW_STORE_DROP, i, NULL, 0, 0, 0);
        call_submit(f->store, &drops[i]);
    }
    if (reconnected)
        wait_connected(f->store, 0);
    server_thaw(f->server);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(call_wait(&drops[i]), FSW_STORE_OK);
    wait_old_connections_gone(f);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(exists(f, i), 0);
    free(puts);
    free(drops);
}

static void test_given_up_put_never_lands_after_its_drop(void **state)
{
    give_up_puts_then_drop(*state, 60, 0);
}

/* The same when the connection was given up as well: the old one's bytes still lie at the server.
 */
static void test_given_up_connection_never_lands_after_a_drop(void **state)
{
    give_up_puts_then_drop(*state, 60, 1);
}

static void test_silent_connection_is_made_anew(void **state)
{
    struct fixture *f = *state;
    struct call get;

    assert_int_equal(do_put(f->store, 1, f->bytes, 1000), FSW_STORE_OK);
    server_freeze(f->server);
    call_prepare(&get, FSW_STORE_GET, 1, f->back, 0, 1000, 0);
    call_submit(f->store, &get);
    wait_connected(f->store, 0);
    server_thaw(f->server);
    assert_int_equal(call_wait(&get), FSW_STORE_OK);
    assert_memory_equal(f->back, f->bytes, 1000);
}

static void test_close_answers_everything_once(void **state)
{
    enum { N = 300 };
    struct fixture *f = *state;
    struct call *calls = calloc(N, sizeof *calls);

    server_freeze(f->server);
    for (unsigned i = 0; i < N; i++) {
        call_prepare(&calls[i], (enum fsw_store_verb)(i % 3), i, f->bytes, 0, FSW_SEGMENT_BYTES, 0);
        call_submit(f->store, &calls[i]);
    }
    fixture_close(f);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(calls[i].done, 1);
        assert_int_equal(calls[i].request.result, FSW_STORE_UNREACHABLE);
    }
    free(calls);
}

/* ---- full ---- */

static void test_full_refuses_puts_and_serves_gets(void **state)
{
    struct fixture *f = *state;
    enum fsw_store_result result;
    uint64_t id = 0;

    do {
        result = do_put(f->store, id++, f->bytes, FSW_SEGMENT_BYTES);
    } while (result == FSW_STORE_OK && id < 1000);
    assert_int_equal(result, FSW_STORE_FULL);
    assert_in_range(id, 100, 400);
    assert_says(f->store, "OOM");
    assert_int_equal(do_get(f->store, 0, f->back, 0, 100, LONG_MS), FSW_STORE_OK);
    assert_int_equal(do_get(f->store, id - 1, f->back, 0, 100, LONG_MS), FSW_STORE_GONE);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(do_drop(f->store, i), FSW_STORE_OK);
    assert_int_equal(do_put(f->store, id, f->bytes, FSW_SEGMENT_BYTES), FSW_STORE_OK);
}

/* Not a byte more. What Redis counts goes up and down with its clients' buffers, so its limit is
 * lowered far below that. */
static void leave_no_room(struct fixture *f, uint64_t id)
{
    while (do_put(f->store, id++, f->bytes, FSW_SEGMENT_BYTES) == FSW_STORE_OK)
        ;
    if (f->server->kind == SERVER_REDIS)
        freeReplyObject(server_command(f->server, "CONFIG SET maxmemory 2mb"));
    while (do_put(f->store, id++, f->bytes, 100) == FSW_STORE_OK)
        ;
}

static void leave_room(struct fixture *f)
{
    if (f->server->kind == SERVER_REDIS)
        freeReplyObject(server_command(f->server, "CONFIG SET maxmemory 16mb"));
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(do_drop(f->store, i), FSW_STORE_OK);
}

/* A store that is full when we come can't even take the sentinel. */
static void test_full_from_the_start(void **state)
{
    struct fixture *f = *state;
    struct fsw_device_id other = device_random();
    struct fsw_store *late;

    leave_no_room(f, 0);
    late = store_started(f->server, &other);
    assert_int_equal(do_put(late, 1, f->bytes, 1000), FSW_STORE_FULL);
    leave_room(f);
    wait_connected(late, 1);
    assert_int_equal(do_put(late, 1, f->bytes, 1000), FSW_STORE_OK);
    assert_int_equal(do_get(late, 2, f->back, 0, 1, LONG_MS), FSW_STORE_GONE);
    late->ops->close(late);
}

/* ---- not now ---- */

/* Errors that pass are waited out. */
static void test_readonly_passes(void **state)
{
    struct fixture *f = *state;
    struct call put, hasty;

    freeReplyObject(server_command(f->server, "CONFIG SET replica-read-only yes"));
    freeReplyObject(server_command(f->server, "REPLICAOF 127.0.0.1 %d", free_port()));
    call_prepare(&put, FSW_STORE_PUT, 1, f->bytes, 0, 100, LONG_MS);
    call_submit(f->store, &put);
    call_prepare(&hasty, FSW_STORE_PUT, 2, f->bytes, 0, 100, 300);
    call_submit(f->store, &hasty);
    assert_int_equal(call_wait(&hasty), FSW_STORE_UNREACHABLE);
    assert_says(f->store, "READONLY");
    freeReplyObject(server_command(f->server, "REPLICAOF NO ONE"));
    assert_int_equal(call_wait(&put), FSW_STORE_OK);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_restarted_empty_is_not_gone, setup),
        FIXTURE_TEST(test_requests_outlive_the_server, setup_kept),
        FIXTURE_TEST(test_a_connection_that_is_back_brings_the_other, setup),
        FIXTURE_TEST(test_cut_connections_lose_nothing, setup),
        FIXTURE_TEST(test_deadlines_without_a_server, setup),
        FIXTURE_TEST(test_late_answer_leaves_the_bytes_alone, setup),
        FIXTURE_TEST(test_given_up_put_never_lands_after_its_drop, setup),
        FIXTURE_TEST(test_given_up_connection_never_lands_after_a_drop, setup_impatient),
        FIXTURE_TEST(test_silent_connection_is_made_anew, setup_impatient),
        FIXTURE_TEST(test_close_answers_everything_once, setup),
        FIXTURE_TEST(test_full_refuses_puts_and_serves_gets, setup_small),
        FIXTURE_TEST(test_full_from_the_start, setup_small),
    };
    /* farswapd has no replicas */
    const struct CMUnitTest redis_tests[] = {
        FIXTURE_TEST(test_readonly_passes, setup),
    };
    int failed;

    place_choose(&chosen, argc, argv);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (chosen.servers[0].kind == SERVER_REDIS)
        failed += cmocka_run_group_tests(redis_tests, NULL, NULL);
    return failed;
}
