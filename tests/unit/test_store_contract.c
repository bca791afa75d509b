/*
 * test_store_contract.c: what every store promises (farswap/store.h), against the real thing.
 *     test_store_contract PLACE        (see test_store_place.h)
 */
#include "test_store_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"

static struct place place;

static int setup_idle(void **state)
{
    *state = fixture_new(NULL);
    return 0;
}

static int setup(void **state)
{
    struct fixture *f = *state = fixture_new(NULL);

    f->store = place_started(&place, &f->device);
    return 0;
}

static void test_put_get_range_drop(void **state)
{
    struct fixture *f = *state;
    static const uint32_t objects[][2] = {{0, 1}, {0, 163}, {1, 10}, {70, 1}, {162, 1}};
    uint32_t last = FSW_SEGMENT_BYTES / PLACE_OBJECT * PLACE_OBJECT;

    assert_int_equal(segment_put(f->store, 7, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        assert_int_equal(segment_get(f->store, 7, objects[i][0] * PLACE_OBJECT,
                                     objects[i][1] * PLACE_OBJECT, LONG_MS),
                         FSW_STORE_OK);
    assert_int_equal(segment_get(f->store, 7, last, FSW_SEGMENT_BYTES - last, LONG_MS),
                     FSW_STORE_OK);
    assert_int_equal(segment_get(f->store, 7, 0, FSW_SEGMENT_BYTES, LONG_MS), FSW_STORE_OK);
    assert_int_equal(do_drop(f->store, 7), FSW_STORE_OK);
    assert_int_equal(segment_get(f->store, 7, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
    assert_int_equal(do_drop(f->store, 7), FSW_STORE_OK);
}

static void test_every_length(void **state)
{
    struct fixture *f = *state;

    for (uint32_t length = 48; length < FSW_SEGMENT_BYTES; length += 16 * 97) {
        assert_int_equal(segment_put(f->store, length, length), FSW_STORE_OK);
        assert_int_equal(segment_get(f->store, length, 0, length, LONG_MS), FSW_STORE_OK);
        assert_int_equal(do_drop(f->store, length), FSW_STORE_OK);
    }
}

/* A row is used again once its segment was dropped. */
static void test_row_is_used_again(void **state)
{
    struct fixture *f = *state;

    for (uint64_t id = 5; id < 20 * 65536; id += 65536) {
        assert_int_equal(segment_put(f->store, id, 20 * PLACE_OBJECT), FSW_STORE_OK);
        assert_int_equal(segment_get(f->store, id, 19 * PLACE_OBJECT, PLACE_OBJECT, LONG_MS),
                         FSW_STORE_OK);
        assert_int_equal(segment_get(f->store, id + 65536, 0, PLACE_OBJECT, LONG_MS),
                         FSW_STORE_GONE);
        assert_int_equal(do_drop(f->store, id), FSW_STORE_OK);
        assert_int_equal(segment_get(f->store, id, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
    }
}

/* Every copy: so it has its sentinel. One that was slow is asked with a put, to answer again. */
static void wait_up(struct fsw_store *store)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS, id = 60000;
    struct fsw_store_health health;

    for (store->ops->health(store, &health); health.up != (1u << store->copies) - 1;
         store->ops->health(store, &health)) {
        if (fsw_now_ns() > end)
            fail_msg("not up in time: %s", health.last_error);
        if (store->copies > 1)
            segment_put(store, id++, PLACE_OBJECT);
        usleep(2000);
    }
}

static void test_put_says_which_copy(void **state)
{
    struct fixture *f = *state;
    uint64_t end = fsw_now_ns() + PATIENCE_NS, id = 10;
    uint8_t bytes[PLACE_OBJECT];
    struct call call;

    assert_int_equal(segment_put(f->store, 2, PLACE_OBJECT), FSW_STORE_OK);
    do { /* all, unless one of two is slow just now */
        wait_up(f->store);
        segment_fill(f->store, bytes, sizeof bytes, ++id);
        call_prepare(&call, FSW_STORE_PUT, id, bytes, 0, sizeof bytes, LONG_MS);
        call_submit(f->store, &call);
        assert_int_equal(call_wait(&call), FSW_STORE_OK);
        assert_int_not_equal(call.request.copies, 0);
    } while (f->store->copies > 1 && call.request.copies != 3 && fsw_now_ns() < end);
    assert_int_equal(call.request.copies, (1u << f->store->copies) - 1);
}

static void test_id_never_put_is_gone(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_get(f->store, 12345, PLACE_OBJECT, PLACE_OBJECT, LONG_MS),
                     FSW_STORE_GONE);
}

static void test_range_beyond_the_segment_is_corrupt(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_put(f->store, 3, 2 * PLACE_OBJECT), FSW_STORE_OK);
    assert_int_equal(segment_get(f->store, 3, PLACE_OBJECT, 2 * PLACE_OBJECT, LONG_MS),
                     FSW_STORE_CORRUPT);
}

/* A put is acknowledged, and it is told whether a store that was emptied did so. */
static void assert_put_may_go(struct fixture *f, uint64_t id, int emptied)
{
    struct call call;

    segment_fill(f->store, f->bytes, PLACE_OBJECT, id);
    call_prepare(&call, FSW_STORE_PUT, id, f->bytes, 0, PLACE_OBJECT, LONG_MS);
    call_submit(f->store, &call);
    assert_int_equal(call_wait(&call), FSW_STORE_OK);
    assert_int_not_equal(call.request.copies, 0);
    assert_int_equal(call.request.emptied, emptied ? call.request.copies : 0);
}

static void test_without_sentinel_nothing_is_gone(void **state)
{
    struct fixture *f = *state;
    uint64_t start, end = fsw_now_ns() + PATIENCE_NS;
    uint32_t all = (1u << f->store->copies) - 1;
    struct fsw_store_health health;

    assert_int_equal(segment_put(f->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    wait_up(f->store);
    place_spoil_sentinel(&place, &f->device, 0);
    do { /* until every copy has looked before the deadline */
        start = fsw_now_ns();
        assert_int_equal(segment_get(f->store, 2, 0, PLACE_OBJECT, 400), FSW_STORE_UNREACHABLE);
        assert_true(fsw_now_ns() - start >= 400 * FSW_NS_PER_MS);
        f->store->ops->health(f->store, &health);
    } while (health.emptied != all && fsw_now_ns() < end);
    assert_int_equal(health.emptied, all);
    assert_non_null(strstr(health.last_error, "emptied"));
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_OK);
    assert_put_may_go(f, 4, 1);
    /* another device's sentinel, or another life's, is not ours */
    place_spoil_sentinel(&place, &f->device, 1);
    assert_int_equal(segment_get(f->store, 2, 0, PLACE_OBJECT, 300), FSW_STORE_UNREACHABLE);
}

static void wait_emptied(struct fsw_store *store, uint32_t copies)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    struct fsw_store_health health;

    for (store->ops->health(store, &health); health.emptied != copies;
         store->ops->health(store, &health)) {
        if (fsw_now_ns() > end)
            fail_msg("emptied is %u, not %u: %s", health.emptied, copies, health.last_error);
        usleep(2000);
    }
}

/* Segment 1 is there; a get of 2 waits, since no sentinel says any more (or another's) that it is not. */
static void begin_to_wait(struct fixture *f, int other, struct call *call, uint8_t *bytes)
{
    assert_int_equal(segment_put(f->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    wait_up(f->store);
    place_spoil_sentinel(&place, &f->device, other);
    call_prepare(call, FSW_STORE_GET, 2, bytes, 0, PLACE_OBJECT, 0);
    call_submit(f->store, call);
}

/* Nobody waits any more, and it is a store like a new one: what it has stays, what it lacks is gone. */
static void test_declared_lost_it_is_new(void **state)
{
    struct fixture *f = *state;
    uint32_t all = (1u << f->store->copies) - 1;
    uint8_t bytes[PLACE_OBJECT];
    struct call call;

    begin_to_wait(f, 0, &call, bytes);
    wait_emptied(f->store, all);
    assert_int_equal(call.done, 0);
    f->store->ops->lost(f->store, all, SENTINEL + 1);
    assert_int_equal(call_wait(&call), FSW_STORE_UNREACHABLE);
    assert_int_equal(segment_get(f->store, 2, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_OK);
    wait_emptied(f->store, 0);
    assert_put_may_go(f, 3, 0);
    f->store->ops->close(f->store); /* and so it is for the next life */
    f->store = place_open(&place, &f->device);
    assert_int_equal(store_start_with(f->store, &f->device, SENTINEL + 1, 3, NULL), 0);
    assert_int_equal(segment_get(f->store, 2, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
    assert_int_equal(segment_get(f->store, 3, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_OK);
    f->store->ops->close(f->store); /* but not the same as the old one, if that comes back */
    f->store = place_open(&place, &f->device);
    assert_int_equal(store_start_as(f->store, &f->device, 3, NULL), 0);
    assert_int_equal(segment_get(f->store, 2, 0, PLACE_OBJECT, 300), FSW_STORE_UNREACHABLE);
    wait_emptied(f->store, all);
}

/* The same without a loss: a get that waits for whatever reason is sent back. */
static void test_a_get_is_sent_back(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[PLACE_OBJECT];
    struct call call;

    begin_to_wait(f, 1, &call, bytes);
    f->store->ops->lost(f->store, 0, 0);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, LONG_MS),
                     FSW_STORE_OK); /* this is not */
    assert_int_equal(call_wait(&call), FSW_STORE_UNREACHABLE);
    assert_int_equal(segment_put(f->store, 3, PLACE_OBJECT), FSW_STORE_OK);
    assert_int_equal(segment_get(f->store, 3, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_OK);
}

struct worker {
    pthread_t thread;
    struct fsw_store *store;
    unsigned number;
    unsigned wrong;
};

static void *work(void *opaque)
{
    struct worker *worker = opaque;

    for (unsigned i = 0; i < 20; i++) {
        uint64_t id = worker->number * 1000 + i;
        uint32_t offset = i % 3 * PLACE_OBJECT;

        worker->wrong += segment_put(worker->store, id, 5 * PLACE_OBJECT) != FSW_STORE_OK;
        worker->wrong +=
            segment_get(worker->store, id, offset, 2 * PLACE_OBJECT, LONG_MS) != FSW_STORE_OK;
        if (i % 2 == 0)
            continue;
        worker->wrong += do_drop(worker->store, id) != FSW_STORE_OK;
        /* Of two copies, one that was slow just now keeps what it should have dropped. */
        int after = segment_get(worker->store, id, offset, 2 * PLACE_OBJECT, LONG_MS);
        worker->wrong +=
            after != FSW_STORE_GONE && (worker->store->copies == 1 || after != FSW_STORE_OK);
    }
    return NULL;
}

/* Each copy has its part of what went over the wire, and all of them have all. */
static void expect_sums(struct fsw_store *store)
{
    struct fsw_store_health health;
    uint64_t out = 0, in = 0;

    store->ops->health(store, &health);
    for (unsigned copy = 0; copy < store->copies; copy++) {
        assert_true(health.copy[copy].bytes_out > 0 && health.copy[copy].bytes_in > 0);
        out += health.copy[copy].bytes_out;
        in += health.copy[copy].bytes_in;
    }
    assert_int_equal(out, health.bytes_out);
    assert_int_equal(in, health.bytes_in);
}

static void test_many_threads_submit(void **state)
{
    struct fixture *f = *state;
    struct worker workers[64];
    struct fsw_store_health health;

    for (unsigned i = 0; i < 64; i++) {
        workers[i] = (struct worker){.store = f->store, .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 64; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].wrong, 0);
    }
    f->store->ops->health(f->store, &health);
    assert_int_equal(health.puts, 64 * 20);
    assert_int_equal(health.gets, 64 * 30);
    assert_int_equal(health.drops, 64 * 10);
    assert_true(health.bytes_out >= 64 * 20 * 5 * PLACE_OBJECT);
    assert_true(health.bytes_in >= 64 * 20 * 2 * PLACE_OBJECT);
    expect_sums(f->store);
}

/* One batch larger than the windows and the buffers. */
static void test_a_large_batch(void **state)
{
    enum { N = 300, M = 3000, LENGTH = 50 * PLACE_OBJECT };
    struct fixture *f = *state;
    struct call *puts = calloc(N, sizeof *puts), *gets = calloc(M, sizeof *gets);
    struct fsw_store_request *requests[M];
    uint8_t *bytes = malloc((size_t)N * LENGTH), *back = malloc((size_t)M * PLACE_OBJECT);
    uint8_t *original = malloc(LENGTH);

    for (size_t i = 0; i < N; i++) {
        segment_fill(f->store, bytes + i * LENGTH, LENGTH, i);
        call_prepare(&puts[i], FSW_STORE_PUT, i, bytes + i * LENGTH, 0, LENGTH, 0);
        requests[i] = &puts[i].request;
    }
    f->store->ops->submit(f->store, requests, N);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(call_wait(&puts[i]), FSW_STORE_OK);
    for (size_t i = 0; i < M; i++) {
        call_prepare(&gets[i], FSW_STORE_GET, i % N, back + i * PLACE_OBJECT,
                     (uint32_t)i % 50 * PLACE_OBJECT, PLACE_OBJECT, 0);
        requests[i] = &gets[i].request;
    }
    f->store->ops->submit(f->store, requests, M);
    for (size_t i = 0; i < M; i++) {
        assert_int_equal(call_wait(&gets[i]), FSW_STORE_OK);
        segment_fill(f->store, original, LENGTH, i % N);
        assert_memory_equal(back + i * PLACE_OBJECT, original + i % 50 * PLACE_OBJECT,
                            PLACE_OBJECT);
        assert_int_equal(gets[i].done, 1);
    }
    free(puts);
    free(gets);
    free(bytes);
    free(back);
    free(original);
}

struct seen {
    unsigned char times[4096];
    unsigned others;
};

static int see(uint32_t row, uint64_t id, void *opaque)
{
    struct seen *seen = opaque;

    if (id < 4096)
        seen->times[id]++;
    else
        seen->others++;
    return 0;
}

static int stop_at_first(uint32_t row, uint64_t id, void *opaque)
{
    *(unsigned *)opaque += 1;
    return 1;
}

/* Of two copies, one that was slow just now. */
static void put_the_other(struct fixture *f, struct call *call)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    while (call->request.copies != (1u << f->store->copies) - 1) {
        assert_true(fsw_now_ns() < end);
        call->done = 0;
        call->request.copies = 0;
        segment_fill(f->store, call->request.bytes, call->request.length, call->request.id);
        call_submit(f->store, call);
        assert_int_equal(call_wait(call), FSW_STORE_OK);
        usleep(1000);
    }
}

static void put_many(struct fixture *f, unsigned n)
{
    struct call *calls = calloc(n, sizeof *calls);
    uint8_t *bytes = calloc(n, PLACE_OBJECT);

    for (unsigned i = 0; i < n; i++) {
        segment_fill(f->store, bytes + i * PLACE_OBJECT, PLACE_OBJECT, i);
        call_prepare(&calls[i], FSW_STORE_PUT, i, bytes + i * PLACE_OBJECT, 0, PLACE_OBJECT, 0);
        call_submit(f->store, &calls[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(call_wait(&calls[i]), FSW_STORE_OK);
        put_the_other(f, &calls[i]);
    }
    free(calls);
    free(bytes);
}

static void test_list_and_forget(void **state)
{
    struct fixture *f = *state, *other;
    struct seen seen = {{0}, 0};
    struct fsw_error err;
    uint64_t count;
    unsigned stops = 0;

    setup((void **)&other);
    put_many(f, 2500);
    put_many(other, 10);
    assert_int_equal(PATIENTLY(f->store->ops->list(f->store, &f->device, see, &seen, &err)), 0);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(seen.times[i] > 0, i < 2500);
    assert_int_equal(seen.others, 0);
    assert_int_equal(f->store->ops->list(f->store, &f->device, stop_at_first, &stops, &err), 1);
    assert_int_equal(stops, 1);
    assert_int_equal(f->store->ops->forget(f->store, &f->device, &count, &err), 0);
    assert_int_equal(count, 2500);
    assert_int_equal(f->store->ops->forget(f->store, &f->device, &count, &err), 0);
    assert_int_equal(count, 0);
    /* and only of that device: the other still has its segments and its sentinel */
    assert_int_equal(segment_get(other->store, 9, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_OK);
    assert_int_equal(segment_get(other->store, 10, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
    assert_int_equal(segment_get(f->store, 9, 0, PLACE_OBJECT, 300), FSW_STORE_UNREACHABLE);
    fixture_end(other);
}

static void test_list_before_start(void **state)
{
    struct fixture *f = *state;
    struct fsw_store *second = place_open(&place, &f->device);
    struct seen seen = {{0}, 0};
    struct fsw_error err;

    put_many(f, 3);
    assert_int_equal(PATIENTLY(second->ops->list(second, &f->device, see, &seen, &err)), 0);
    assert_int_equal(seen.times[0] && seen.times[1] && seen.times[2], 1);
    second->ops->close(second);
}

/* nbdkit opens and probes before it becomes a daemon, and starts after. */
static void test_starts_in_a_child(void **state)
{
    struct fixture *f = *state;
    struct fsw_store *store = place_open(&place, &f->device);
    struct fsw_error err = {""};
    int status;
    pid_t child;

    assert_int_equal(PATIENTLY(store->ops->probe(store, &err)), 0);
    child = fork();
    if (child == 0) {
        int r = store_start_as(store, &f->device, 0, &err);
        if (r == 0)
            r = segment_put(store, 1, PLACE_OBJECT) != FSW_STORE_OK;
        if (r == 0)
            r = segment_get(store, 1, 0, PLACE_OBJECT, LONG_MS) != FSW_STORE_OK;
        store->ops->close(store);
        _exit(r != 0);
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    store->ops->close(store);
}

/* done() may submit the next request, on the store's own thread. */
static struct fsw_store *chain_store;
static struct call *chain_next;

static void submit_next(struct fsw_store_request *request)
{
    call_submit(chain_store, chain_next);
}

static void test_done_may_submit(void **state)
{
    struct fixture *f = *state;
    struct call first, second;
    uint8_t bytes[PLACE_OBJECT], back[PLACE_OBJECT];

    chain_store = f->store;
    chain_next = &second;
    segment_fill(f->store, bytes, sizeof bytes, 1);
    call_prepare(&first, FSW_STORE_PUT, 1, bytes, 0, sizeof bytes, LONG_MS);
    call_prepare(&second, FSW_STORE_GET, 1, back, 0, sizeof back, LONG_MS);
    first.request.done = submit_next;
    call_submit(f->store, &first);
    assert_int_equal(call_wait(&second), FSW_STORE_OK);
    segment_fill(f->store, bytes, sizeof bytes, 1);
    assert_memory_equal(bytes, back, sizeof back);
}

static void test_close_without_start(void **state)
{
    struct fsw_device_id device = device_random();
    struct fsw_store *store = place_open(&place, &device);

    store->ops->close(store);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_put_get_range_drop, setup),
        FIXTURE_TEST(test_every_length, setup),
        FIXTURE_TEST(test_row_is_used_again, setup),
        FIXTURE_TEST(test_put_says_which_copy, setup),
        FIXTURE_TEST(test_id_never_put_is_gone, setup),
        FIXTURE_TEST(test_range_beyond_the_segment_is_corrupt, setup),
        FIXTURE_TEST(test_without_sentinel_nothing_is_gone, setup),
        FIXTURE_TEST(test_declared_lost_it_is_new, setup),
        FIXTURE_TEST(test_a_get_is_sent_back, setup),
        FIXTURE_TEST(test_many_threads_submit, setup),
        FIXTURE_TEST(test_a_large_batch, setup),
        FIXTURE_TEST(test_list_and_forget, setup),
        FIXTURE_TEST(test_list_before_start, setup),
        FIXTURE_TEST(test_starts_in_a_child, setup_idle),
        FIXTURE_TEST(test_done_may_submit, setup),
        cmocka_unit_test(test_close_without_start),
    };
    int failed;

    place_choose(&place, argc, argv);
    place_start(&place);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    place_stop(&place);
    return failed;
}
