/*
 * test_store_mirror_both.c: two copies, and both are frozen, slow or far away. Each test has two servers
 * of its own.
 *     test_store_mirror_both redis|farswapd BINARY [unix]
 */
#include "test_store_mirrored.h"
#include "test_store_relay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"

static void test_deadlines_without_both(void **state)
{
    struct fixture *f = *state;

    segment_fill(f->store, f->bytes, MIRRORED_LENGTH, 1);
    for (unsigned copy = 0; copy < 2; copy++)
        server_freeze(&f->place.servers[copy]);
    fixture_deadlines_are_kept(f, 3, PLACE_OBJECT);
}

/* The contract's lost(), also of no copy: who waits comes back to think again, whichever he waits for. */
static void test_lost_sends_back_who_waits(void **state)
{
    struct fixture *f = *state;
    struct call calls[8];
    uint8_t back[8];

    mirrored_puts(f, 0, 8, 3);
    server_freeze(&f->place.servers[0]);
    server_freeze(&f->place.servers[1]);
    for (unsigned i = 0; i < 8; i++) {
        call_prepare(&calls[i], FSW_STORE_GET, i, back + i, 0, 1, 0);
        call_submit(f->store, &calls[i]);
    }
    f->store->ops->lost(f->store, 0, 0);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(call_wait(&calls[i]), FSW_STORE_UNREACHABLE);
        assert_int_equal(calls[i].done, 1);
    }
    server_thaw(&f->place.servers[0]);
    server_thaw(&f->place.servers[1]);
    mirrored_reads(f, 0, 8, 0, LONG_MS);
}

/* Both are slower than the time after which the other is asked: answers come all the same. */
static void test_both_are_slow(void **state)
{
    struct fixture *f = *state;
    struct call get, put;
    uint8_t back[PLACE_OBJECT];

    mirrored_puts(f, 1, 2, 3);
    for (unsigned copy = 0; copy < 2; copy++)
        server_freeze(&f->place.servers[copy]);
    call_prepare(&get, FSW_STORE_GET, 1, back, 0, PLACE_OBJECT, 0);
    call_submit(f->store, &get);
    segment_fill(f->store, f->bytes, MIRRORED_LENGTH, 2);
    call_prepare(&put, FSW_STORE_PUT, 2, f->bytes, 0, MIRRORED_LENGTH, LONG_MS);
    call_submit(f->store, &put);
    usleep(1200000); /* that slow */
    assert_int_equal(get.done + put.done, 0);
    for (unsigned copy = 0; copy < 2; copy++)
        server_thaw(&f->place.servers[copy]);
    assert_int_equal(call_wait(&get), FSW_STORE_OK);
    assert_int_equal(call_wait(&put), FSW_STORE_OK);
    segment_fill(f->store, f->bytes, PLACE_OBJECT, 1);
    assert_memory_equal(back, f->bytes, PLACE_OBJECT);
}

/* Both are suspect, and the one that a get would rather ask stays frozen. */
static void test_the_other_is_asked_again(void **state)
{
    struct fixture *f = *state;
    struct call gets[2];
    uint8_t back[2][PLACE_OBJECT];
    uint64_t thawed;

    mirrored_puts(f, 0, 3, 3);
    for (unsigned copy = 0; copy < 2; copy++)
        server_freeze(&f->place.servers[copy]);
    for (unsigned i = 0; i < 2; i++) {
        call_prepare(&gets[i], FSW_STORE_GET, 2 * i, back[i], 0, PLACE_OBJECT, 0);
        call_submit(f->store, &gets[i]);
    }
    mirrored_wait_up(f, 0);
    server_thaw(&f->place.servers[1]);
    thawed = fsw_now_ns();
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(call_wait(&gets[i]), FSW_STORE_OK);
        assert_int_equal(gets[i].request.copies, 2);
        assert_true(gets[i].finished_ns < thawed + PATIENCE_NS);
    }
}

#define WAY_MS 450 /* longer than the other copy is waited for at first */

static void test_a_long_way_to_both(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err;
    pid_t relays[2];
    int ports[2];
    char uri[100];
    uint32_t answered;
    unsigned ms;

    mirrored_puts(f, 0, 4, 3);
    f->store->ops->close(f->store);
    for (unsigned copy = 0; copy < 2; copy++)
        relays[copy] = relay_start(f->place.servers[copy].socket, WAY_MS, &ports[copy]);
    snprintf(uri, sizeof uri, "resp://127.0.0.1:%d resp://127.0.0.1:%d", ports[0], ports[1]);
    f->store = store_open(uri, NULL);
    assert_int_equal(store_start_as(f->store, &f->device, 3, &err), 0);
    wait_connected(f->store, 1);
    for (uint64_t id = 0; id < 4; id++)
        assert_int_equal(mirrored_get(f, id, 0, &answered, &ms), FSW_STORE_OK);
    assert_true(mirrored_put(f, 10, 0) != 0);
    for (unsigned copy = 0; copy < 2; copy++)
        relay_stop(relays[copy]);
}

static void test_close_answers_everything_once(void **state)
{
    enum { N = 600 };
    struct fixture *f = *state;
    struct call *calls = calloc(N, sizeof *calls);

    segment_fill(f->store, f->bytes, MIRRORED_LENGTH, 1);
    for (unsigned copy = 0; copy < 2; copy++)
        server_freeze(&f->place.servers[copy]);
    for (unsigned i = 0; i < N; i++) {
        call_prepare(&calls[i], (enum fsw_store_verb)(i % 3), i, f->bytes, 0, PLACE_OBJECT, 0);
        call_submit(f->store, &calls[i]);
    }
    f->store->ops->close(f->store);
    f->store = NULL;
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(calls[i].done, 1);
        assert_int_equal(calls[i].request.result, FSW_STORE_UNREACHABLE);
    }
    free(calls);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_deadlines_without_both, mirrored_setup),
        FIXTURE_TEST(test_lost_sends_back_who_waits, mirrored_setup),
        FIXTURE_TEST(test_both_are_slow, mirrored_setup),
        FIXTURE_TEST(test_the_other_is_asked_again, mirrored_setup),
        FIXTURE_TEST(test_a_long_way_to_both, mirrored_setup),
        FIXTURE_TEST(test_close_answers_everything_once, mirrored_setup),
    };

    mirrored_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
