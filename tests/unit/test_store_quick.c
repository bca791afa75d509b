/*
 * test_store_quick.c: gets whose callers wait for them, and so read the answers themselves where a store
 * can that (the contract's get()); and that this is the same as any get when it can't: a server that is
 * frozen, killed, emptied, or says that there is nothing.
 *     test_store_quick PLACE        (see test_store_place.h), of a server that speaks RESP
 */
#include "test_store_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/clock.h"

#define LENGTH 8000u
/* Too little for any answer of one who is frozen. */
#define MOMENT_NS 100000u

static struct place chosen; /* what the arguments say */

static void each_server(struct fixture *f, void (*act)(struct server *server))
{
    for (unsigned copy = 0; copy < f->place.copies; copy++)
        act(&f->place.servers[copy]);
}

/* The whole of a segment; f->id is one that is there. */
static void prepare(struct fixture *f, struct call *call, uint64_t id, unsigned deadline_ms)
{
    memset(f->back, 0xee, LENGTH);
    call_prepare(call, FSW_STORE_GET, id, f->back, 0, LENGTH, deadline_ms);
}

static void assert_got(struct fixture *f, struct call *call)
{
    assert_int_equal(call_wait(call), FSW_STORE_OK);
    assert_int_equal(call->done, 1);
    assert_memory_equal(f->back, f->bytes, LENGTH);
}

/* Until an answer was read here: a store may take its time to get ready for that, or to be again. */
static void wait_quick(struct fixture *f)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    struct call call;

    do {
        prepare(f, &call, f->id, 0);
        call_get(f->store, &call, 0);
        assert_got(f, &call);
    } while (!pthread_equal(call.by, pthread_self()) && fsw_now_ns() < end);
    assert_true(pthread_equal(call.by, pthread_self()));
}

/* Makes f->id a segment that all copies have: whichever is asked then can answer. */
static void put(struct fixture *f)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    struct call call;

    do {
        assert_true(fsw_now_ns() < end);
        segment_fill(f->store, f->bytes, LENGTH, ++f->id);
        memcpy(f->back, f->bytes, LENGTH); /* the store's to change */
        call_prepare(&call, FSW_STORE_PUT, f->id, f->back, 0, LENGTH, LONG_MS);
        call_submit(f->store, &call);
    } while (call_wait(&call) != FSW_STORE_OK ||
             call.request.copies != (1u << f->place.copies) - 1);
}

static int setup(void **state)
{
    struct fixture *f = *state = fixture_new(&chosen);

    place_start(&f->place);
    f->store = place_started(&f->place, &f->device);
    put(f);
    wait_quick(f);
    return 0;
}

/* Asked for while nobody answers; and get() has come back all the same, before the deadline, unless this
 * thread stood still until then. */
static void ask_the_frozen(struct fixture *f, struct call *call, unsigned deadline_ms)
{
    each_server(f, server_freeze);
    prepare(f, call, f->id, deadline_ms);
    call_get(f->store, call, MOMENT_NS);
    assert_true(call->done == 0 || (deadline_ms != 0 && fsw_now_ns() >= call->request.deadline));
}

static void test_health_counts_it(void **state)
{
    struct fixture *f = *state;
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    struct fsw_store_health before, after;

    do { /* of two copies one may be slow, and the other asked */
        before = fixture_health(f);
        wait_quick(f);
        after = fixture_health(f);
    } while (f->place.copies > 1 && after.errors != before.errors && fsw_now_ns() < end);
    assert_true(after.gets > before.gets);
    assert_true(after.bytes_in >= before.bytes_in + LENGTH);
    assert_true(after.bytes_out >= before.bytes_out + 50);
    assert_int_equal(after.errors, before.errors);
}

static void test_patience_ends_and_the_get_goes_on(void **state)
{
    struct fixture *f = *state;
    struct call call;

    ask_the_frozen(f, &call, 0);
    each_server(f, server_thaw);
    assert_got(f, &call);
    wait_quick(f);
}

/* What comes after the deadline is nobody's, and the next answer is the next one's. */
static void test_late_answer_leaves_the_bytes_alone(void **state)
{
    struct fixture *f = *state;
    struct call call;

    ask_the_frozen(f, &call, 200);
    assert_int_equal(call_wait(&call), FSW_STORE_UNREACHABLE);
    each_server(f, server_thaw);
    for (unsigned i = 0; i < LENGTH; i++)
        assert_int_equal(f->back[i], 0xee);
    wait_quick(f);
    assert_int_equal(call.done, 1);
}

static void test_lost_sends_it_back(void **state)
{
    struct fixture *f = *state;
    struct call call;

    ask_the_frozen(f, &call, 0);
    f->store->ops->lost(f->store, 0, 0);
    assert_int_equal(call_wait(&call), FSW_STORE_UNREACHABLE);
    each_server(f, server_thaw);
    wait_quick(f);
    assert_int_equal(call.done, 1);
}

static void test_close_answers_it_once(void **state)
{
    struct fixture *f = *state;
    struct call call;

    ask_the_frozen(f, &call, 0);
    fixture_close(f);
    assert_int_equal(call.done, 1);
    assert_int_equal(call.request.result, FSW_STORE_UNREACHABLE);
}

static void test_what_is_not_there_is_gone(void **state)
{
    struct fixture *f = *state;
    struct call call;

    prepare(f, &call, UINT32_MAX, 0);
    call_get(f->store, &call, 0);
    assert_int_equal(call_wait(&call), FSW_STORE_GONE);
    wait_quick(f);
    place_spoil_sentinel(&f->place, &f->device, 0);
    prepare(f, &call, UINT32_MAX, 300);
    call_get(f->store, &call, 0);
    assert_int_equal(call_wait(&call), FSW_STORE_UNREACHABLE);
    wait_quick(f);
}

/* Nobody looks at a connection that is lent to nobody: its end is found by who wants it next. */
static void test_server_comes_back(void **state)
{
    struct fixture *f = *state;
    struct call call;

    each_server(f, server_kill);
    prepare(f, &call, f->id, 300);
    call_get(f->store, &call, 0);
    assert_int_equal(call_wait(&call), FSW_STORE_UNREACHABLE);
    each_server(f, server_restart);
    put(f);
    wait_quick(f);
}

/* ---- several at once ---- */

struct reader {
    pthread_t thread;
    struct fsw_store *store;
    uint64_t id;
    const uint8_t *bytes;
    atomic_bool *over;
    unsigned wrong;
    atomic_uint rounds, here;
};

static void *read_on(void *opaque)
{
    struct reader *reader = opaque;
    uint8_t back[LENGTH];
    struct call call;

    for (; !*reader->over; reader->rounds++) {
        call_prepare(&call, FSW_STORE_GET, reader->id, back, 0, LENGTH, 0);
        call_get(reader->store, &call, reader->rounds % 2 ? 0 : MOMENT_NS / 4);
        reader->wrong += call_wait(&call) != FSW_STORE_OK || call.done != 1;
        reader->wrong += memcmp(back, reader->bytes, LENGTH) != 0;
        reader->here += pthread_equal(call.by, pthread_self()) != 0;
    }
    return NULL;
}

/* Gets that are submitted, and connections that are cut, where the server can do that. */
static void disturb(struct fixture *f, unsigned turn)
{
    struct call call;

    for (unsigned copy = 0; copy < f->place.copies; copy++)
        if (f->place.servers[copy].kind == SERVER_REDIS && turn % 4 == 0)
            server_ask(&f->place.servers[copy], "CLIENT KILL TYPE normal");
    for (unsigned i = 0; i < 50; i++) {
        prepare(f, &call, f->id, 0);
        call_submit(f->store, &call);
        assert_got(f, &call);
    }
}

/* Each has read in both ways, and some answer was read by who asked. */
static int all_have_read(struct reader *readers, unsigned count)
{
    unsigned here = 0;

    for (unsigned i = 0; i < count; i++) {
        if (readers[i].rounds < 2)
            return 0;
        here += readers[i].here;
    }
    return here > 0;
}

static void test_readers_at_once(void **state)
{
    enum { N = 4 };
    struct fixture *f = *state;
    struct reader readers[N];
    atomic_bool over = false;
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    for (unsigned i = 0; i < N; i++) {
        readers[i] =
            (struct reader){.store = f->store, .id = f->id, .bytes = f->bytes, .over = &over};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]), 0);
    }
    for (unsigned turn = 0; turn < 12 || (!all_have_read(readers, N) && fsw_now_ns() < end); turn++)
        disturb(f, turn);
    over = true;
    assert_true(all_have_read(readers, N));
    for (unsigned i = 0; i < N; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].wrong, 0);
    }
    wait_quick(f);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_health_counts_it, setup),
        FIXTURE_TEST(test_patience_ends_and_the_get_goes_on, setup),
        FIXTURE_TEST(test_late_answer_leaves_the_bytes_alone, setup),
        FIXTURE_TEST(test_lost_sends_it_back, setup),
        FIXTURE_TEST(test_close_answers_it_once, setup),
        FIXTURE_TEST(test_what_is_not_there_is_gone, setup),
        FIXTURE_TEST(test_server_comes_back, setup),
        FIXTURE_TEST(test_readers_at_once, setup),
    };

    place_choose(&chosen, argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
