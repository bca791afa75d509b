/*
 * test_store_mirror.c: two copies: one of two servers is killed, frozen, emptied, full, forgetful or
 * lies, and nobody notices but health. Each test has two servers of its own.
 *     test_store_mirror redis|farswapd BINARY [unix]
 */
#include "test_store_place.h"
#include "test_store_relay.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/store/keys.h"
#include "common/clock.h"

static struct place chosen;

#define LENGTH (20 * PLACE_OBJECT)

struct fixture {
    struct place place;
    struct server *servers;
    struct fsw_device_id device;
    struct fsw_store *store;
    uint8_t bytes[FSW_SEGMENT_BYTES];
};

static int set_up(void **state, int encrypts, const char *memory)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    f->place = chosen;
    f->place.copies = 2;
    f->place.encrypts = encrypts;
    f->servers = f->place.servers;
    f->servers[0].memory = memory; /* the first is the one that has trouble */
    f->device = device_random();
    place_start(&f->place);
    f->store = place_started(&f->place, &f->device);
    wait_connected(f->store, 1);
    return 0;
}

static struct fsw_store_health health_of(struct fixture *f)
{
    struct fsw_store_health health;

    f->store->ops->health(f->store, &health);
    return health;
}

/* Until these copies answer, and no others. */
static void wait_up(struct fixture *f, uint32_t up)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    while (health_of(f).up != up) {
        if (fsw_now_ns() > end)
            fail_msg("copies %x are up, not %x: %s", health_of(f).up, up, health_of(f).last_error);
        usleep(2000);
    }
}

static int setup(void **state)
{
    set_up(state, 0, NULL);
    wait_up(*state, 3);
    return 0;
}

static int setup_encrypted(void **state)
{
    set_up(state, 1, NULL);
    wait_up(*state, 3);
    return 0;
}

static int setup_small(void **state)
{
    set_up(state, 0, "16mb");
    wait_up(*state, 3);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (unsigned copy = 0; copy < 2; copy++)
        if (f->servers[copy].pid > 0)
            server_thaw(&f->servers[copy]);
    if (f->store != NULL)
        f->store->ops->close(f->store);
    place_stop(&f->place);
    free(f);
    return 0;
}

/* A put of that segment to these copies (0: all): which have it; 0: none. */
static uint32_t put_to(struct fixture *f, uint64_t id, uint32_t copies)
{
    struct call call;

    segment_fill(f->store, f->bytes, LENGTH, id);
    call_prepare(&call, FSW_STORE_PUT, id, f->bytes, 0, LENGTH, 5000);
    call.request.copies = copies;
    call_submit(f->store, &call);
    return call_wait(&call) == FSW_STORE_OK ? call.request.copies : 0;
}

/* A get from these copies: its result; *ret_copies: which answered; *ret_ms: how long it took. */
static enum fsw_store_result get_from(struct fixture *f, uint64_t id, uint32_t copies,
                                      uint32_t *ret_copies, unsigned *ret_ms)
{
    uint8_t expected[PLACE_OBJECT], back[PLACE_OBJECT];
    uint64_t start = fsw_now_ns();
    struct call call;

    call_prepare(&call, FSW_STORE_GET, id, back, 0, PLACE_OBJECT, 5000);
    call.request.copies = copies;
    call_submit(f->store, &call);
    enum fsw_store_result result = call_wait(&call);
    segment_fill(f->store, expected, PLACE_OBJECT, id);
    if (result == FSW_STORE_OK)
        assert_memory_equal(back, expected, PLACE_OBJECT);
    *ret_copies = call.request.copies;
    *ret_ms = (unsigned)((call.finished_ns - start) / FSW_NS_PER_MS);
    return result;
}

static void reads_all(struct fixture *f, uint64_t from, uint64_t to, uint32_t copies,
                      unsigned most_ms)
{
    uint32_t answered;
    unsigned ms;

    for (uint64_t id = from; id < to; id++) {
        assert_int_equal(get_from(f, id, 0, &answered, &ms), FSW_STORE_OK);
        if (copies != 0)
            assert_int_equal(answered, copies);
        if (ms > most_ms)
            fail_msg("a get took %u ms, not %u at most", ms, most_ms);
    }
}

/* A machine that does too much else can be slow for half a second by itself: then again. */
static void puts_all(struct fixture *f, uint64_t from, uint64_t to, uint32_t copies)
{
    for (uint64_t id = from; id < to; id++) {
        unsigned tries = 0;
        while (put_to(f, id, 0) != copies)
            assert_true(++tries < 10 && usleep(300000) == 0);
    }
}

static void forget_at(struct fixture *f, unsigned copy, uint64_t id)
{
    char key[FSW_KEY_TEXT];

    fsw_key_segment(key, &f->device, id);
    assert_int_equal(server_ask(&f->servers[copy], "UNLINK %s", key), 1);
}

static int has(struct fixture *f, unsigned copy, uint64_t id)
{
    char key[FSW_KEY_TEXT];

    fsw_key_segment(key, &f->device, id);
    return (int)server_ask(&f->servers[copy], "EXISTS %s", key);
}

/* ---- both are there ---- */

static void test_both_have_it_and_both_are_asked(void **state)
{
    struct fixture *f = *state;
    uint32_t answered, seen = 0;
    unsigned ms;

    puts_all(f, 0, 10, 3);
    for (uint64_t id = 0; id < 10; id++) {
        assert_int_equal(has(f, 0, id) + has(f, 1, id), 2);
        assert_int_equal(get_from(f, id, 0, &answered, &ms), FSW_STORE_OK);
        seen |= answered;
        assert_int_equal(do_drop(f->store, id), FSW_STORE_OK);
        assert_int_equal(has(f, 0, id) + has(f, 1, id), 0);
    }
    assert_int_equal(seen, 3);
}

static void test_a_copy_can_be_put_later(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put_to(f, 1, 1), 1);
    assert_int_equal(has(f, 0, 1), 1);
    assert_int_equal(has(f, 1, 1), 0);
    assert_int_equal(put_to(f, 1, 2), 2);
    assert_int_equal(has(f, 1, 1), 1);
}

static void test_gone_if_both_say_so(void **state)
{
    struct fixture *f = *state;
    uint32_t answered;
    unsigned ms;

    for (unsigned first = 0; first < 2; first++) {
        uint64_t id = 10 + first;

        puts_all(f, id, id + 1, 3);
        forget_at(f, first, id);
        assert_int_equal(get_from(f, id, 0, &answered, &ms), FSW_STORE_OK);
        assert_int_equal(answered, 2 - first);
        assert_int_equal(get_from(f, id, 1u << first, &answered, &ms), FSW_STORE_GONE);
        forget_at(f, !first, id);
        assert_int_equal(get_from(f, id, 0, &answered, &ms), FSW_STORE_GONE);
    }
}

/* While one that may have it does not answer, nothing is gone. */
static void test_gone_needs_both_to_answer(void **state)
{
    struct fixture *f = *state;
    struct call get;
    uint8_t back[PLACE_OBJECT];

    puts_all(f, 1, 1 + 1, 3);
    forget_at(f, 1, 1);
    server_kill(&f->servers[0]);
    wait_up(f, 2);
    call_prepare(&get, FSW_STORE_GET, 1, back, 0, PLACE_OBJECT, 600);
    call_submit(f->store, &get);
    assert_int_equal(call_wait(&get), FSW_STORE_UNREACHABLE);
    assert_in_range((get.finished_ns + FSW_NS_PER_MS - get.request.deadline) / FSW_NS_PER_MS, 0,
                    200);
}

/* ---- one is not ---- */

static void one_is_away(struct fixture *f, unsigned away)
{
    uint32_t other = 2u >> away;

    server_kill(&f->servers[away]);
    wait_up(f, other);
    reads_all(f, 0, 20, other, 100);
    puts_all(f, 20, 40, other);
    reads_all(f, 20, 40, other, 100);
    for (uint64_t id = 0; id < 5; id++)
        assert_int_equal(do_drop(f->store, id), FSW_STORE_OK);
}

static void test_one_is_killed(void **state)
{
    struct fixture *f = *state;

    puts_all(f, 0, 20, 3);
    one_is_away(f, 0);
    server_restart(&f->servers[0]);
    wait_up(f, 3);
    puts_all(f, 40, 50, 3);
}

static void test_the_other_is_killed(void **state)
{
    struct fixture *f = *state;

    puts_all(f, 0, 20, 3);
    one_is_away(f, 1);
    server_restart(&f->servers[1]);
    wait_up(f, 3);
    puts_all(f, 40, 50, 3);
}

/* Killed under load: what is in flight goes to the other. */
static void test_killed_with_gets_in_flight(void **state)
{
    enum { N = 200 };
    struct fixture *f = *state;
    struct call *gets = calloc(N, sizeof *gets);
    uint8_t *back = malloc(N * PLACE_OBJECT), expected[PLACE_OBJECT];

    puts_all(f, 0, 20, 3);
    server_freeze(&f->servers[0]);
    for (unsigned i = 0; i < N; i++) {
        call_prepare(&gets[i], FSW_STORE_GET, i % 20, back + i * PLACE_OBJECT, 0, PLACE_OBJECT, 0);
        call_submit(f->store, &gets[i]);
    }
    server_kill(&f->servers[0]);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(call_wait(&gets[i]), FSW_STORE_OK);
        segment_fill(f->store, expected, PLACE_OBJECT, i % 20);
        assert_memory_equal(back + i * PLACE_OBJECT, expected, PLACE_OBJECT);
        assert_int_equal(gets[i].request.copies, 2);
    }
    free(gets);
    free(back);
}

/* It accepts and says nothing: the first wait for it, and nobody after them. */
static void test_one_is_frozen(void **state)
{
    struct fixture *f = *state;
    uint64_t start;

    puts_all(f, 0, 20, 3);
    server_freeze(&f->servers[0]);
    reads_all(f, 0, 2, 0, 600);
    wait_up(f, 2);
    reads_all(f, 0, 20, 2, 100);
    start = fsw_now_ns();
    puts_all(f, 20, 40, 2);
    assert_true(fsw_now_ns() - start < 2 * FSW_NS_PER_S); /* a canary or two */
    server_thaw(&f->servers[0]);
    for (uint64_t id = 40; health_of(f).up != 3; id++) {
        assert_true(id < 400);
        assert_true(put_to(f, id, 0) != 0);
        usleep(20000);
    }
    puts_all(f, 1000, 1000 + 1, 3);
}

static void test_puts_don_t_wait_for_a_frozen_one(void **state)
{
    struct fixture *f = *state;
    uint64_t start = fsw_now_ns();

    server_freeze(&f->servers[1]);
    assert_int_equal(put_to(f, 1, 0), 1);
    assert_in_range((fsw_now_ns() - start) / FSW_NS_PER_MS, 400, 900);
    start = fsw_now_ns();
    assert_int_equal(put_to(f, 2, 0), 1);
    assert_in_range((fsw_now_ns() - start) / FSW_NS_PER_MS, 0, 100);
}

static void test_one_was_emptied(void **state)
{
    struct fixture *f = *state;

    puts_all(f, 0, 20, 3);
    freeReplyObject(server_command(&f->servers[0], "FLUSHALL"));
    reads_all(f, 0, 20, 2, 700);
    assert_int_equal(health_of(f).emptied, 1);
    assert_int_equal(health_of(f).up & 1, 1); /* it was slow to say nothing, and is not suspect */
    reads_all(f, 0, 20, 2, 100);
    assert_non_null(strstr(health_of(f).last_error, "emptied"));
    puts_all(f, 20, 40, 3);
    reads_all(f, 20, 40, 0, 100);
}

static void test_one_is_full(void **state)
{
    struct fixture *f = *state;
    uint64_t id = 0;

    while (put_to(f, id, 0) == 3 && id < 5000)
        id++;
    assert_in_range(id, 500, 4000);
    assert_int_equal(put_to(f, id + 1, 0), 2);
    reads_all(f, 0, id + 2, 0, 200);
}

static void test_one_answers_nonsense(void **state)
{
    struct fixture *f = *state;
    uint32_t answered;
    unsigned ms;

    puts_all(f, 2, 4, 3);
    for (uint64_t id = 2; id < 4; id++) {
        place_forge(&f->place, id % 2, &f->device, id, "short", 5);
        assert_int_equal(get_from(f, id, 0, &answered, &ms), FSW_STORE_OK);
        assert_int_equal(answered, id % 2 ? 1 : 2);
    }
    place_forge(&f->place, 0, &f->device, 3, "short", 5);
    assert_int_equal(get_from(f, 3, 0, &answered, &ms), FSW_STORE_CORRUPT);
}

/* Encrypted, a lie is told from the truth, and the other copy is asked. */
static void test_one_lies(void **state)
{
    struct fixture *f = *state;
    uint32_t answered;
    unsigned ms;

    puts_all(f, 2, 4, 3);
    for (uint64_t id = 2; id < 4; id++) {
        assert_int_equal(place_look(&f->place, id % 2, &f->device, id, f->bytes), LENGTH);
        f->bytes[100] ^= 1;
        place_forge(&f->place, id % 2, &f->device, id, f->bytes, LENGTH);
        assert_int_equal(get_from(f, id, 0, &answered, &ms), FSW_STORE_OK);
        assert_int_equal(answered, id % 2 ? 1 : 2);
    }
    assert_int_equal(get_from(f, 3, 2, &answered, &ms), FSW_STORE_CORRUPT);
    place_forge(&f->place, 0, &f->device, 3, f->bytes, LENGTH);
    assert_int_equal(get_from(f, 3, 0, &answered, &ms), FSW_STORE_CORRUPT);
    assert_true(health_of(f).errors >= 4);
}

/* ---- none is ---- */

static void test_deadlines_without_both(void **state)
{
    enum { N = 60 };
    struct fixture *f = *state;
    struct call calls[N];

    segment_fill(f->store, f->bytes, LENGTH, 1);
    for (unsigned copy = 0; copy < 2; copy++)
        server_freeze(&f->servers[copy]);
    for (unsigned i = 0; i < N; i++) {
        call_prepare(&calls[i], (enum fsw_store_verb)(i % 3), i, f->bytes, 0, PLACE_OBJECT,
                     10 + 20 * i);
        call_submit(f->store, &calls[i]);
    }
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(call_wait(&calls[i]), FSW_STORE_UNREACHABLE);
        assert_in_range(calls[i].finished_ns + FSW_NS_PER_MS - calls[i].request.deadline, 0,
                        250 * FSW_NS_PER_MS);
    }
}

/* The contract's lost(), also of no copy: who waits comes back to think again, whichever he waits for. */
static void test_lost_sends_back_who_waits(void **state)
{
    struct fixture *f = *state;
    struct call calls[8];
    uint8_t back[8];

    puts_all(f, 0, 8, 3);
    server_freeze(&f->servers[0]);
    server_freeze(&f->servers[1]);
    for (unsigned i = 0; i < 8; i++) {
        call_prepare(&calls[i], FSW_STORE_GET, i, back + i, 0, 1, 0);
        call_submit(f->store, &calls[i]);
    }
    f->store->ops->lost(f->store, 0);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(call_wait(&calls[i]), FSW_STORE_UNREACHABLE);
        assert_int_equal(calls[i].done, 1);
    }
    server_thaw(&f->servers[0]);
    server_thaw(&f->servers[1]);
    reads_all(f, 0, 8, 0, 5000);
}

/* Both are slower than the time after which the other is asked: answers come all the same. */
static void test_both_are_slow(void **state)
{
    struct fixture *f = *state;
    struct call get, put;
    uint8_t back[PLACE_OBJECT];

    puts_all(f, 1, 2, 3);
    for (unsigned copy = 0; copy < 2; copy++)
        server_freeze(&f->servers[copy]);
    call_prepare(&get, FSW_STORE_GET, 1, back, 0, PLACE_OBJECT, 0);
    call_submit(f->store, &get);
    segment_fill(f->store, f->bytes, LENGTH, 2);
    call_prepare(&put, FSW_STORE_PUT, 2, f->bytes, 0, LENGTH, 5000);
    call_submit(f->store, &put);
    usleep(1200000); /* that slow */
    assert_int_equal(get.done + put.done, 0);
    for (unsigned copy = 0; copy < 2; copy++)
        server_thaw(&f->servers[copy]);
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

    puts_all(f, 0, 3, 3);
    for (unsigned copy = 0; copy < 2; copy++)
        server_freeze(&f->servers[copy]);
    for (unsigned i = 0; i < 2; i++) {
        call_prepare(&gets[i], FSW_STORE_GET, 2 * i, back[i], 0, PLACE_OBJECT, 0);
        call_submit(f->store, &gets[i]);
    }
    wait_up(f, 0);
    server_thaw(&f->servers[1]);
    thawed = fsw_now_ns();
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(call_wait(&gets[i]), FSW_STORE_OK);
        assert_int_equal(gets[i].request.copies, 2);
        assert_true(gets[i].finished_ns < thawed + 5 * FSW_NS_PER_S);
    }
}

/* ---- a long way to both ---- */

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

    puts_all(f, 0, 4, 3);
    f->store->ops->close(f->store);
    for (unsigned copy = 0; copy < 2; copy++)
        relays[copy] = relay_start(f->servers[copy].socket, WAY_MS, &ports[copy]);
    snprintf(uri, sizeof uri, "resp://127.0.0.1:%d resp://127.0.0.1:%d", ports[0], ports[1]);
    f->store = store_open(uri, NULL);
    assert_int_equal(store_start_as(f->store, &f->device, 3, &err), 0);
    wait_connected(f->store, 1);
    for (uint64_t id = 0; id < 4; id++)
        assert_int_equal(get_from(f, id, 0, &answered, &ms), FSW_STORE_OK);
    assert_true(put_to(f, 10, 0) != 0);
    for (unsigned copy = 0; copy < 2; copy++)
        relay_stop(relays[copy]);
}

static void test_close_answers_everything_once(void **state)
{
    enum { N = 600 };
    struct fixture *f = *state;
    struct call *calls = calloc(N, sizeof *calls);

    segment_fill(f->store, f->bytes, LENGTH, 1);
    for (unsigned copy = 0; copy < 2; copy++)
        server_freeze(&f->servers[copy]);
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

/* A device must come up again without the donor that is lost for good. */
static void test_one_is_enough_to_begin(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err = {""};

    puts_all(f, 0, 10, 3);
    f->store->ops->close(f->store);
    server_kill(&f->servers[0]);
    f->store = place_open(&f->place, &f->device);
    assert_int_equal(f->store->ops->probe(f->store, &err), 0);
    assert_non_null(strstr(err.text, "one copy only"));
    assert_non_null(strstr(err.text, "can't be reached"));
    assert_int_equal(store_start_as(f->store, &f->device, 3, &err), 0);
    wait_up(f, 2);
    reads_all(f, 0, 10, 2, 100);
    server_kill(&f->servers[1]);
    assert_true(f->store->ops->probe(f->store, &err) < 0);
}

static int see(uint32_t row, uint64_t id, void *opaque)
{
    ((unsigned *)opaque)[id]++;
    return 0;
}

static void test_list_and_forget(void **state)
{
    struct fixture *f = *state;
    unsigned seen[4] = {0};
    struct fsw_error err = {""};
    uint64_t count;

    assert_int_equal(put_to(f, 1, 1), 1);
    assert_int_equal(put_to(f, 2, 2), 2);
    puts_all(f, 3, 3 + 1, 3);
    assert_int_equal(f->store->ops->list(f->store, &f->device, see, seen, &err), 0);
    assert_true(seen[0] == 0 && seen[1] > 0 && seen[2] > 0 && seen[3] > 0);
    assert_int_equal(f->store->ops->forget(f->store, &f->device, &count, &err), 0);
    assert_int_equal(count, 2);
    for (uint64_t id = 1; id < 4; id++)
        assert_int_equal(has(f, 0, id) + has(f, 1, id), 0);
    puts_all(f, 5, 5 + 1, 3);
    server_kill(&f->servers[0]);
    assert_true(f->store->ops->forget(f->store, &f->device, &count, &err) < 0);
    assert_int_equal(has(f, 1, 5), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_have_it_and_both_are_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_copy_can_be_put_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone_if_both_say_so, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone_needs_both_to_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_is_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_other_is_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_with_gets_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_is_frozen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_puts_don_t_wait_for_a_frozen_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_answers_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_lies, setup_encrypted, teardown),
        cmocka_unit_test_setup_teardown(test_one_is_full, setup_small, teardown),
        cmocka_unit_test_setup_teardown(test_deadlines_without_both, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_sends_back_who_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_both_are_slow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_other_is_asked_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_long_way_to_both, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_answers_everything_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_is_enough_to_begin, setup, teardown),
        cmocka_unit_test_setup_teardown(test_list_and_forget, setup, teardown),
    };
    /* farswapd's FLUSHALL is not for everybody */
    const struct CMUnitTest redis_tests[] = {
        cmocka_unit_test_setup_teardown(test_one_was_emptied, setup, teardown),
    };
    int failed;

    place_choose(&chosen, argc, argv);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (chosen.servers[0].kind == SERVER_REDIS)
        failed += cmocka_run_group_tests(redis_tests, NULL, NULL);
    return failed;
}
