/*
 * test_pace.c: when a connection waits between rounds, and when it must not, with clients whose time is
 * counted instead of spent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/nbd/pace.h"

/* ns that the server spends for a round and for each request in it. */
#define ROUND_NS 1500u
#define REQUEST_NS 2500u
/* Now and then the server has lost its CPU for a while. */
#define LOST_EVERY 1000u
#define LOST_NS 200000u

/* A client that keeps `depth` requests under way. */
struct client {
    unsigned depth;
    uint64_t request;   /* ns to send one */
    uint64_t answers;   /* ns to take what came together */
    int together;       /* sends nothing before all its requests were answered */
    unsigned has, sent; /* requests: to send; in the socket */
    uint64_t free_at;   /* when it can begin to send the next */
    int sending;        /* of those that go together, some are still to be sent */
};

struct run {
    uint64_t now;
    uint64_t requests;
    unsigned waits, rounds;
};

static void send_until(struct client *client, uint64_t now)
{
    if (client->has == client->depth)
        client->sending = 1;
    if (client->together && !client->sending)
        return;
    while (client->has > 0 && client->free_at + client->request <= now) {
        client->free_at += client->request;
        client->has--;
        client->sent++;
    }
    if (client->has == 0)
        client->sending = 0;
}

static void take_answers(struct client *client, unsigned count, uint64_t now)
{
    if (client->free_at < now)
        client->free_at = now;
    client->free_at += client->answers;
    client->has += count;
}

/* So many more requests; without `pace` nobody ever waits. */
static void serve(struct client *client, struct fsw_pace *pace, uint64_t requests, struct run *run)
{
    uint64_t until = run->requests + requests;

    if (client->has + client->sent < client->depth)
        client->has = client->depth - client->sent;
    while (run->requests < until) {
        send_until(client, run->now);
        unsigned round = client->sent;
        if (round == 0) {
            run->now = client->free_at + client->request;
            continue;
        }
        if (run->rounds % LOST_EVERY == 0)
            run->now += LOST_NS;
        send_until(client, run->now);
        round = client->sent;
        uint64_t came = run->now;
        client->sent = 0;
        run->now += ROUND_NS + round * REQUEST_NS;
        if (pace != NULL) {
            fsw_pace_note(pace, round, came);
            if (fsw_pace_wait(pace)) {
                run->now += FSW_PACE_NS;
                run->waits++;
            }
        }
        send_until(client, run->now);
        take_answers(client, round, run->now);
        run->requests += round;
        run->rounds++;
    }
}

static const struct client deep = {.depth = 32, .request = 3500, .answers = 1000};
static const struct client shallow = {.depth = 2, .request = 3500, .answers = 1000};
static const struct client synchronous = {.depth = 20, .request = 3500, .together = 1};
static const struct client middling = {
    .depth = 8, .answers = 20000, .together = 1}; /* sent with one call */

#define MANY_REQUESTS 400000u

/* The same requests with and without. */
static void serve_both(const struct client *kind, struct fsw_pace *pace, struct run *paced,
                       struct run *plain)
{
    struct client one = *kind, other = *kind;

    fsw_pace_init(pace);
    serve(&one, pace, MANY_REQUESTS, paced);
    serve(&other, NULL, MANY_REQUESTS, plain);
}

static void waits_where_that_is_quicker(void **state)
{
    struct fsw_pace pace;
    struct run paced = {0}, plain = {0};

    serve_both(&deep, &pace, &paced, &plain);
    assert_int_equal(pace.waits, 1);
    assert_true(paced.now < plain.now - plain.now / 20);
    assert_true(paced.rounds < plain.rounds / 2);
}

static void leaves_a_client_alone_that_has_few_under_way(void **state)
{
    struct fsw_pace pace;

    for (unsigned depth = 1; depth < FSW_PACE_MANY; depth++) {
        struct client client = deep;
        struct run run = {0};
        client.depth = depth;
        fsw_pace_init(&pace);
        serve(&client, &pace, MANY_REQUESTS, &run);
        assert_int_equal(run.waits, 0);
    }
}

/* It has many, and only ever waits for us. What trials cost it is little. */
static void finds_out_that_waiting_is_in_vain(void **state)
{
    struct fsw_pace pace;
    struct run paced = {0}, plain = {0};

    serve_both(&synchronous, &pace, &paced, &plain);
    assert_true(paced.waits > 0);
    assert_int_equal(pace.waits, 0);
    assert_true(paced.now < plain.now + plain.now / 50);
}

static void stops_as_soon_as_few_are_under_way(void **state)
{
    struct fsw_pace pace;
    struct client first = deep, then = shallow;
    struct run run = {0};

    fsw_pace_init(&pace);
    while (run.requests < MANY_REQUESTS && (!pace.waits || pace.trial > 0))
        serve(&first, &pace, 1, &run);
    assert_int_equal(pace.waits, 1);
    run.waits = 0;
    serve(&then, &pace, 1000, &run);
    assert_int_equal(pace.waits, 0);
    assert_true(run.waits <= FSW_PACE_LEAN_MOST + 1);
    run.waits = 0; /* and for good: that there were many once is forgotten */
    serve(&then, &pace, MANY_REQUESTS, &run);
    assert_int_equal(run.waits, 0);
}

/* Rounds that are not lean, and none so large that a trial began for its sake. */
static void finds_out_that_waiting_has_come_to_be_in_vain(void **state)
{
    struct fsw_pace pace;
    struct client first = deep, then = middling, other = middling;
    struct run run = {0}, plain = {0};

    fsw_pace_init(&pace);
    serve(&first, &pace, 10 * MANY_REQUESTS, &run);
    while (run.requests < 11 * MANY_REQUESTS && (!pace.waits || pace.trial > 0 || pace.most > 0))
        serve(&first, &pace, 1, &run);
    assert_int_equal(pace.waits, 1);
    assert_int_equal(pace.most, 0); /* a trial has just ended */
    uint64_t began = plain.now = then.free_at = other.free_at = run.now;
    serve(&then, &pace, MANY_REQUESTS, &run);
    serve(&other, NULL, MANY_REQUESTS, &plain);
    assert_int_equal(pace.waits, 0);
    assert_true(run.now - began < plain.now - began + (plain.now - began) / 8);
    run.waits = 0; /* and for good */
    serve(&then, &pace, MANY_REQUESTS, &run);
    assert_int_equal(run.waits, 0);
}

static void waits_after_no_round_that_had_many(void **state)
{
    struct fsw_pace pace;

    fsw_pace_init(&pace);
    pace.waits = 1;
    for (unsigned requests = FSW_PACE_FEW; requests < 2 * FSW_PACE_MANY; requests++) {
        fsw_pace_note(&pace, requests, requests);
        assert_int_equal(fsw_pace_wait(&pace), requests < FSW_PACE_MANY);
    }
}

static void only_lean_rounds_in_a_row_end_it(void **state)
{
    struct fsw_pace pace;

    fsw_pace_init(&pace);
    pace.waits = 1;
    for (unsigned i = 1; i < 10 * FSW_PACE_LEAN_MOST; i++) {
        fsw_pace_wait(&pace);
        fsw_pace_note(&pace, i % FSW_PACE_LEAN_MOST == 0 ? FSW_PACE_FEW : 1, i);
        assert_int_equal(pace.waits, 1);
    }
    fsw_pace_wait(&pace);
    fsw_pace_note(&pace, 1, 0);
    assert_int_equal(pace.waits, 0);
}

static void begins_again_when_many_are_under_way_again(void **state)
{
    struct fsw_pace pace;
    struct client client = deep, other = shallow;
    struct run run = {0};

    fsw_pace_init(&pace);
    serve(&client, &pace, MANY_REQUESTS, &run);
    serve(&other, &pace, MANY_REQUESTS, &run);
    assert_int_equal(pace.waits, 0);
    client = deep;
    client.free_at = run.now;
    serve(&client, &pace, MANY_REQUESTS, &run);
    assert_int_equal(pace.waits, 1);
}

/* Rounds that take 20 % more or less by chance, whether somebody waited or not. */
static void chance_seldom_decides(void **state)
{
    struct fsw_pace pace;
    uint64_t now = 0, random = 1;
    unsigned waits = 0;

    fsw_pace_init(&pace);
    for (unsigned i = 0; i < MANY_REQUESTS; i++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        unsigned round = i % 100 == 0 ? FSW_PACE_MANY : FSW_PACE_MANY / 2;
        fsw_pace_note(&pace, round, now);
        now += round * (2400 + (random >> 33) % 1200);
        fsw_pace_wait(&pace);
        waits += pace.waits != 0;
    }
    assert_true(waits < MANY_REQUESTS / 20);
}

static void a_read_that_ends_no_request_is_no_round(void **state)
{
    struct fsw_pace pace;

    fsw_pace_init(&pace);
    fsw_pace_note(&pace, 3, 1000);
    struct fsw_pace before = pace;
    for (unsigned i = 0; i < 100; i++)
        fsw_pace_note(&pace, 0, 2000 + i);
    assert_memory_equal(&pace, &before, sizeof pace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_where_that_is_quicker),
        cmocka_unit_test(leaves_a_client_alone_that_has_few_under_way),
        cmocka_unit_test(finds_out_that_waiting_is_in_vain),
        cmocka_unit_test(stops_as_soon_as_few_are_under_way),
        cmocka_unit_test(finds_out_that_waiting_has_come_to_be_in_vain),
        cmocka_unit_test(waits_after_no_round_that_had_many),
        cmocka_unit_test(only_lean_rounds_in_a_row_end_it),
        cmocka_unit_test(begins_again_when_many_are_under_way_again),
        cmocka_unit_test(chance_seldom_decides),
        cmocka_unit_test(a_read_that_ends_no_request_is_no_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
