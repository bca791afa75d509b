/*
 * test_store_rates.c: how fast a store is: puts and gets of whole segments and gets of single
 * objects, with a number of requests always in flight, and one at a time. A benchmark: prints,
 * judges nothing but that all succeed. test_store_rates redis|farswapd BINARY [unix]
 */
#include "test_store_server.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/clock.h"

#define MOST_IN_FLIGHT 128

/* A lane of the benchmark: a request that submits its successor when it is done. */
struct runner {
    struct fsw_store_request request; /* first: done() gets it */
    struct run *run;
    uint8_t bytes[FSW_SEGMENT_BYTES];
};

struct run {
    struct fsw_store *store;
    uint64_t next, count, distinct;
    unsigned running, failed;
    sem_t over;
};

/* On the store's thread; the run is its alone while it lasts. */
static int take_next(struct run *run, struct runner *runner)
{
    if (run->next == run->count)
        return 0;
    runner->request.id = run->next++ % run->distinct;
    return 1;
}

static void on_done(struct fsw_store_request *request)
{
    struct runner *runner = (struct runner *)request;
    struct run *run = runner->run;

    run->failed += request->result != FSW_STORE_OK;
    if (take_next(run, runner))
        run->store->ops->submit(run->store, &request, 1);
    else if (--run->running == 0)
        sem_post(&run->over);
}

static void measure(struct fsw_store *store, const char *what, enum fsw_store_verb verb,
                    uint32_t length, unsigned in_flight, uint64_t count)
{
    static struct runner runners[MOST_IN_FLIGHT];
    struct fsw_store_request *requests[MOST_IN_FLIGHT];
    struct run run = {.store = store, .count = count, .distinct = 4000, .running = in_flight};
    uint64_t start = fsw_now_ns();
    double seconds;

    sem_init(&run.over, 0, 0);
    for (unsigned i = 0; i < in_flight; i++) {
        runners[i].run = &run;
        runners[i].request = (struct fsw_store_request){
            .verb = verb, .bytes = runners[i].bytes, .length = length, .done = on_done};
        take_next(&run, &runners[i]);
        requests[i] = &runners[i].request;
    }
    store->ops->submit(store, requests, in_flight);
    sem_wait(&run.over);
    sem_destroy(&run.over);
    seconds = (double)(fsw_now_ns() - start) / (double)FSW_NS_PER_S;
    printf("%-5s %6u bytes, %3u in flight: %8.0f /s %7.0f MB/s %8.1f us each%s\n", what, length,
           in_flight, (double)count / seconds, (double)count * length / seconds / 1e6,
           seconds / (double)count * 1e6 * in_flight, run.failed ? "  FAILED" : "");
    assert_int_equal(run.failed, 0);
}

static struct server server;

static void test_rates(void **state)
{
    struct fsw_device_id device = device_random();
    struct fsw_store *store = store_started(&server, &device);

    wait_connected(store, 1);
    measure(store, "put", FSW_STORE_PUT, FSW_SEGMENT_BYTES, 64, 20000);
    measure(store, "put", FSW_STORE_PUT, FSW_SEGMENT_BYTES, 8, 20000);
    measure(store, "put", FSW_STORE_PUT, FSW_SEGMENT_BYTES, 1, LONG_MS);
    measure(store, "get", FSW_STORE_GET, FSW_SEGMENT_BYTES, 64, 20000);
    measure(store, "get", FSW_STORE_GET, FSW_SEGMENT_BYTES, 1, LONG_MS);
    measure(store, "get", FSW_STORE_GET, 1400, 128, 200000);
    measure(store, "get", FSW_STORE_GET, 1400, 16, 100000);
    measure(store, "get", FSW_STORE_GET, 1400, 1, 10000);
    store->ops->close(store);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rates)};
    int failed;

    server_choose(&server, argc, argv);
    server.memory = "1024mb";
    server_start(&server);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    server_stop(&server);
    return failed;
}
