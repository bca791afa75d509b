/*
 * test_store_mirror.c: two copies: one of two servers is killed, frozen, emptied, full, forgetful or
 * lies, and nobody notices but health. Each test has two servers of its own.
 *     test_store_mirror redis|farswapd BINARY [unix]
 */
#include "test_store_mirrored.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/store/keys.h"
#include "client/store/mirror.h"
#include "common/clock.h"

static void forget_at(struct fixture *f, unsigned copy, uint64_t id)
{
    char key[FSW_KEY_TEXT];

    fsw_key_segment(key, &f->device, id);
    assert_int_equal(server_ask(&f->place.servers[copy], "UNLINK %s", key), 1);
}

static int has(struct fixture *f, unsigned copy, uint64_t id)
{
    char key[FSW_KEY_TEXT];

    fsw_key_segment(key, &f->device, id);
    return (int)server_ask(&f->place.servers[copy], "EXISTS %s", key);
}

/* A drop is answered when one of the two is slow, and is on its way there. */
static void wait_dropped(struct fixture *f, uint64_t id)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    while (has(f, 0, id) + has(f, 1, id) > 0)
        assert_true(fsw_now_ns() < end);
}

/* ---- both are there ---- */

static void test_both_have_it_and_both_are_asked(void **state)
{
    struct fixture *f = *state;
    uint32_t answered, seen = 0;
    unsigned ms, dropped = 0;

    for (uint64_t id = 0; dropped < 10; id++) {
        assert_true(id < 1000);
        mirrored_puts(f, id, id + 1, 3);
        assert_int_equal(has(f, 0, id) + has(f, 1, id), 2);
        assert_int_equal(mirrored_get(f, id, 0, &answered, &ms), FSW_STORE_OK);
        seen |= answered;
        int both = fixture_health(f).up == 3; /* or one was slow, and is left out */
        assert_int_equal(do_drop(f->store, id), FSW_STORE_OK);
        if (both)
            wait_dropped(f, id);
        dropped += (unsigned)both;
    }
    assert_int_equal(seen, 3);
}

static void test_a_copy_can_be_put_later(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mirrored_put(f, 1, 1), 1);
    assert_int_equal(has(f, 0, 1), 1);
    assert_int_equal(has(f, 1, 1), 0);
    assert_int_equal(mirrored_put(f, 1, 2), 2);
    assert_int_equal(has(f, 1, 1), 1);
}

static void test_gone_if_both_say_so(void **state)
{
    struct fixture *f = *state;
    uint32_t answered;
    unsigned ms;

    for (unsigned first = 0; first < 2; first++) {
        uint64_t id = 10 + first;

        mirrored_puts(f, id, id + 1, 3);
        forget_at(f, first, id);
        assert_int_equal(mirrored_get(f, id, 0, &answered, &ms), FSW_STORE_OK);
        assert_int_equal(answered, 2 - first);
        assert_int_equal(mirrored_get(f, id, 1u << first, &answered, &ms), FSW_STORE_GONE);
        forget_at(f, !first, id);
        assert_int_equal(mirrored_get(f, id, 0, &answered, &ms), FSW_STORE_GONE);
    }
}

/* While one that may have it does not answer, nothing is gone. */
static void test_gone_needs_both_to_answer(void **state)
{
    struct fixture *f = *state;
    struct call get;
    uint8_t back[PLACE_OBJECT];

    mirrored_puts(f, 1, 1 + 1, 3);
    forget_at(f, 1, 1);
    server_kill(&f->place.servers[0]);
    mirrored_wait_up(f, 2);
    call_prepare(&get, FSW_STORE_GET, 1, back, 0, PLACE_OBJECT, 600);
    call_submit(f->store, &get);
    assert_int_equal(call_wait(&get), FSW_STORE_UNREACHABLE);
    call_kept_deadline(&get); /* that it came soon after it, test_deadlines_without_both shows */
}

/* ---- one is not ---- */

static void one_is_away(struct fixture *f, unsigned away)
{
    uint32_t other = 2u >> away;

    server_kill(&f->place.servers[away]);
    mirrored_wait_up(f, other);
    mirrored_reads(f, 0, 20, other, 100);
    mirrored_puts(f, 20, 40, other);
    mirrored_reads(f, 20, 40, other, 100);
    for (uint64_t id = 0; id < 5; id++)
        assert_int_equal(do_drop(f->store, id), FSW_STORE_OK);
}

static void test_one_is_killed(void **state)
{
    struct fixture *f = *state;

    mirrored_puts(f, 0, 20, 3);
    one_is_away(f, 0);
    server_restart(&f->place.servers[0]);
    mirrored_wait_up(f, 3);
    mirrored_puts(f, 40, 50, 3);
}

/* It was slow, and has come back since: health says so, though nobody asks for anything. */
static void test_one_that_is_back_is_up(void **state)
{
    struct fixture *f = *state;
    struct mirror_store *store = (struct mirror_store *)f->store;

    mirror_was_slow(store, 1);
    server_kill(&f->place.servers[1]);
    mirrored_wait_up(f, 1);
    server_restart(&f->place.servers[1]);
    mirrored_wait_up(f, 3);
}

static void test_the_other_is_killed(void **state)
{
    struct fixture *f = *state;

    mirrored_puts(f, 0, 20, 3);
    one_is_away(f, 1);
    server_restart(&f->place.servers[1]);
    mirrored_wait_up(f, 3);
    mirrored_puts(f, 40, 50, 3);
}

/* Killed under load: what is in flight goes to the other. */
static void test_killed_with_gets_in_flight(void **state)
{
    enum { N = 200 };
    struct fixture *f = *state;
    struct call *gets = calloc(N, sizeof *gets);
    uint8_t *back = malloc(N * PLACE_OBJECT), expected[PLACE_OBJECT];

    mirrored_puts(f, 0, 20, 3);
    server_freeze(&f->place.servers[0]);
    for (unsigned i = 0; i < N; i++) {
        call_prepare(&gets[i], FSW_STORE_GET, i % 20, back + i * PLACE_OBJECT, 0, PLACE_OBJECT, 0);
        call_submit(f->store, &gets[i]);
    }
    server_kill(&f->place.servers[0]);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(call_wait(&gets[i]), FSW_STORE_OK);
        segment_fill(f->store, expected, PLACE_OBJECT, i % 20);
        assert_memory_equal(back + i * PLACE_OBJECT, expected, PLACE_OBJECT);
        assert_int_equal(gets[i].request.copies, 2);
    }
    free(gets);
    free(back);
}

/* Freezes one, and does what then has to wait for it: again, until that took no longer. */
static void freeze_until_quick(struct fixture *f, unsigned copy, void (*act)(struct fixture *f),
                               unsigned most_ms)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS, start, took;

    for (uint64_t id = 10000;; id += 1000) {
        server_freeze(&f->place.servers[copy]);
        start = fsw_now_ns();
        act(f);
        took = (fsw_now_ns() - start) / FSW_NS_PER_MS;
        if (took <= most_ms)
            return;
        if (fsw_now_ns() > end)
            fail_msg("it takes %u ms, not %u at most", (unsigned)took, most_ms);
        server_thaw(&f->place.servers[copy]);
        mirrored_wait_up(f, 3);
    }
}

/* So many puts that wait for nobody, of segments from id on. A canary does wait, and what a machine that stands
 * still holds up; but not a dozen one after the other. */
static void puts_are_quick(struct fixture *f, uint64_t id, unsigned count, uint32_t copies)
{
    unsigned slow = 0;

    for (unsigned quick = 0; quick < count; id++) {
        uint64_t start = fsw_now_ns();
        assert_int_equal(mirrored_put(f, id, 0), copies);
        int was_quick = fsw_now_ns() - start <= 100 * FSW_NS_PER_MS;
        quick += (unsigned)was_quick;
        slow = was_quick ? 0 : slow + 1;
        assert_true(slow < 12);
    }
}

static void first_reads(struct fixture *f)
{
    uint32_t answered;
    unsigned ms;

    for (uint64_t id = 0; id < 2; id++)
        assert_int_equal(mirrored_get(f, id, 0, &answered, &ms), FSW_STORE_OK);
}

/* It accepts and says nothing: the first wait for it, and nobody after them. */
static void test_one_is_frozen(void **state)
{
    struct fixture *f = *state;

    mirrored_puts(f, 0, 20, 3);
    freeze_until_quick(f, 0, first_reads, 600);
    mirrored_wait_up(f, 2);
    mirrored_reads(f, 0, 20, 2, 100);
    puts_are_quick(f, 20, 20, 2);
    server_thaw(&f->place.servers[0]);
    mirrored_wait_up(f, 3); /* though nobody asks it anything */
    mirrored_puts(f, 5000, 5000 + 1, 3);
}

static void first_put(struct fixture *f)
{
    uint64_t start = fsw_now_ns();

    assert_int_equal(mirrored_put(f, 1, 0), 1);
    assert_true(fsw_now_ns() - start >= 400 * FSW_NS_PER_MS);
}

static void test_puts_don_t_wait_for_a_frozen_one(void **state)
{
    struct fixture *f = *state;

    freeze_until_quick(f, 1, first_put, 900);
    puts_are_quick(f, 2, 1, 1);
}

/* Both were away when it was asked of the first one, and that stays away. */
static void test_a_get_turns_to_the_one_that_is_back(void **state)
{
    struct fixture *f = *state;
    struct mirror_store *store = (struct mirror_store *)f->store;
    struct call get;
    uint8_t back[PLACE_OBJECT];

    mirrored_puts(f, 0, 1, 3);
    freeReplyObject(server_command(&f->place.servers[1], "SAVE"));
    store->try_ns = 20 * PATIENCE_NS;
    for (unsigned copy = 0; copy < 2; copy++)
        server_kill(&f->place.servers[copy]);
    mirrored_wait_up(f, 0);
    call_prepare(&get, FSW_STORE_GET, 0, back, 0, PLACE_OBJECT, LONG_MS);
    call_submit(f->store, &get);
    server_restart(&f->place.servers[1]);
    assert_int_equal(call_wait(&get), FSW_STORE_OK);
    assert_int_equal(get.request.copies, 2);
}

static void test_one_was_emptied(void **state)
{
    struct fixture *f = *state;
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    mirrored_puts(f, 0, 20, 3);
    freeReplyObject(server_command(&f->place.servers[0], "FLUSHALL"));
    for (mirrored_reads(f, 0, 20, 2, 700); fixture_health(f).emptied != 1;
         mirrored_reads(f, 0, 20, 2, 700)) { /* it was too slow to say anything, and left out */
        assert_true(fsw_now_ns() < end);
        mirrored_wait_up(f, 3);
    }
    assert_int_equal(fixture_health(f).up & 1,
                     1); /* it was slow to say nothing, and is not suspect */
    mirrored_reads(f, 0, 20, 2, 100);
    assert_non_null(strstr(fixture_health(f).last_error, "emptied"));
    mirrored_puts(f, 20, 40, 3);
    mirrored_reads(f, 20, 40, 0, 100);
}

static void test_one_is_full(void **state)
{
    struct fixture *f = *state;
    uint64_t id = 0, end = fsw_now_ns() + PATIENCE_NS;

    while (strstr(fixture_health(f).copy[0].last_error, "OOM") == NULL) {
        assert_true(id < 5000 && fsw_now_ns() < end);
        id += mirrored_put(f, id, 0) == 3; /* or one was slow */
    }
    assert_in_range(id, 100, 4000); /* a sanitized farswapd takes more of it for itself */
    mirrored_puts(f, id, id + 2, 2);
    mirrored_reads(f, 0, id + 2, 0, 200);
}

static void test_one_answers_nonsense(void **state)
{
    struct fixture *f = *state;
    uint32_t answered;
    unsigned ms;

    mirrored_puts(f, 2, 4, 3);
    for (uint64_t id = 2; id < 4; id++) {
        place_forge(&f->place, id % 2, &f->device, id, "short", 5);
        assert_int_equal(mirrored_get(f, id, 0, &answered, &ms), FSW_STORE_OK);
        assert_int_equal(answered, id % 2 ? 1 : 2);
    }
    place_forge(&f->place, 0, &f->device, 3, "short", 5);
    assert_int_equal(mirrored_get(f, 3, 0, &answered, &ms), FSW_STORE_CORRUPT);
}

/* Encrypted, a lie is told from the truth, and the other copy is asked. */
static void test_one_lies(void **state)
{
    struct fixture *f = *state;
    uint32_t answered;
    unsigned ms;

    mirrored_puts(f, 2, 4, 3);
    for (uint64_t id = 2; id < 4; id++) {
        assert_int_equal(place_look(&f->place, id % 2, &f->device, id, f->bytes), MIRRORED_LENGTH);
        f->bytes[100] ^= 1;
        place_forge(&f->place, id % 2, &f->device, id, f->bytes, MIRRORED_LENGTH);
        for (unsigned tries = 0; fixture_health(f).copy[id % 2].lies == 0; tries++) {
            assert_true(tries < 100);
            mirrored_wait_up(f, 3); /* it is asked first, but where it was slow */
            assert_int_equal(mirrored_get(f, id, 0, &answered, &ms), FSW_STORE_OK);
            assert_int_equal(answered, id % 2 ? 1 : 2);
        }
    }
    assert_int_equal(place_look(&f->place, 1, &f->device, 3, f->bytes), MIRRORED_LENGTH);
    assert_int_equal(mirrored_get(f, 3, 2, &answered, &ms), FSW_STORE_CORRUPT);
    place_forge(&f->place, 0, &f->device, 3, f->bytes, MIRRORED_LENGTH);
    assert_int_equal(mirrored_get(f, 3, 0, &answered, &ms), FSW_STORE_CORRUPT);
    assert_true(fixture_health(f).errors >= 4);
    assert_int_equal(fixture_health(f).copy[0].lies, 2);
    assert_int_equal(fixture_health(f).copy[1].lies, 3);
    assert_int_equal(fixture_health(f).lies, 5);
}

/* ---- one from the start ---- */

/* A device must come up again without the donor that is lost for good. */
static void test_one_is_enough_to_begin(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err = {""};

    mirrored_puts(f, 0, 10, 3);
    f->store->ops->close(f->store);
    server_kill(&f->place.servers[0]);
    f->store = place_open(&f->place, &f->device);
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    while (f->store->ops->probe(f->store, &err) != 0 && fsw_now_ns() < end)
        err.text[0] = '\0'; /* the other said nothing for 3 s */
    assert_non_null(strstr(err.text, "one copy only"));
    assert_non_null(strstr(err.text, "can't be reached"));
    assert_int_equal(store_start_as(f->store, &f->device, 3, &err), 0);
    mirrored_wait_up(f, 2);
    mirrored_reads(f, 0, 10, 2, 100);
    server_kill(&f->place.servers[1]);
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
    uint64_t count, end = fsw_now_ns() + PATIENCE_NS;
    unsigned seen[4] = {0};
    struct fsw_error err = {""};

    assert_int_equal(mirrored_put(f, 1, 1), 1);
    assert_int_equal(mirrored_put(f, 2, 2), 2);
    mirrored_puts(f, 3, 3 + 1, 3);
    assert_int_equal(PATIENTLY(f->store->ops->list(f->store, &f->device, see, seen, &err)), 0);
    assert_true(seen[0] == 0 && seen[1] > 0 && seen[2] > 0 && seen[3] > 0);
    assert_int_equal(f->store->ops->forget(f->store, &f->device, &count, &err), 0);
    assert_int_equal(count, 2);
    for (uint64_t id = 1; id < 4; id++)
        assert_int_equal(has(f, 0, id) + has(f, 1, id), 0);
    mirrored_puts(f, 5, 5 + 1, 3);
    server_kill(&f->place.servers[0]);
    do
        assert_true(f->store->ops->forget(f->store, &f->device, &count, &err) < 0);
    while (has(f, 1, 5) != 0 && fsw_now_ns() < end);
    assert_int_equal(has(f, 1, 5), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_both_have_it_and_both_are_asked, mirrored_setup),
        FIXTURE_TEST(test_a_copy_can_be_put_later, mirrored_setup),
        FIXTURE_TEST(test_gone_if_both_say_so, mirrored_setup),
        FIXTURE_TEST(test_gone_needs_both_to_answer, mirrored_setup),
        FIXTURE_TEST(test_one_is_killed, mirrored_setup),
        FIXTURE_TEST(test_one_that_is_back_is_up, mirrored_setup),
        FIXTURE_TEST(test_the_other_is_killed, mirrored_setup),
        FIXTURE_TEST(test_killed_with_gets_in_flight, mirrored_setup),
        FIXTURE_TEST(test_one_is_frozen, mirrored_setup),
        FIXTURE_TEST(test_puts_don_t_wait_for_a_frozen_one, mirrored_setup),
        FIXTURE_TEST(test_one_answers_nonsense, mirrored_setup),
        FIXTURE_TEST(test_one_lies, mirrored_setup_encrypted),
        FIXTURE_TEST(test_one_is_full, mirrored_setup_small),
        FIXTURE_TEST(test_one_is_enough_to_begin, mirrored_setup),
        FIXTURE_TEST(test_list_and_forget, mirrored_setup),
    };
    /* farswapd's FLUSHALL is not for everybody */
    const struct CMUnitTest redis_tests[] = {
        FIXTURE_TEST(test_one_was_emptied, mirrored_setup),
        FIXTURE_TEST(test_a_get_turns_to_the_one_that_is_back, mirrored_setup),
    };
    int failed;

    mirrored_choose(argc, argv);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (mirrored_kind() == SERVER_REDIS)
        failed += cmocka_run_group_tests(redis_tests, NULL, NULL);
    return failed;
}
