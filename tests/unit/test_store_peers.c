/*
 * test_store_peers.c: peers that are no store: one accepts and never answers, others answer
 * garbage. The store must not crash, must not take much memory, must keep deadlines, and must never
 * call a garbled answer a success.
 */
#include "test_store_server.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"

/* After a deadline. Who does not keep it waits 3 s and more, each time; a machine that stands still, now and
 * then. */
#define GRACE_NS (2 * FSW_NS_PER_S)

/* What the peer sends to whoever has sent it something, again and again. */
struct peer {
    int listener, port;
    pthread_t thread;
    const char *answer; /* NULL: nothing */
    size_t length;
    atomic_uint accepted;
    atomic_bool stop;
    uint8_t back[4096];
};

/* One connection at a time: hears something, answers 64 times, closes. */
static void serve(struct peer *peer, int fd)
{
    struct timeval patience = {.tv_usec = 200000};
    char heard[4096];

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (recv(fd, heard, sizeof heard, 0) <= 0)
        return;
    for (unsigned i = 0; i < 64 && !peer->stop; i++)
        if (send(fd, peer->answer, peer->length, MSG_NOSIGNAL) < 0)
            return;
}

static void *play(void *opaque)
{
    struct peer *peer = opaque;
    int held[256];
    unsigned n = 0;

    while (!peer->stop) {
        int fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            break;
        peer->accepted++;
        if (peer->answer == NULL && n < 256) {
            held[n++] = fd;
            continue;
        }
        serve(peer, fd);
        close(fd);
    }
    while (n > 0)
        close(held[--n]);
    return NULL;
}

static void peer_start(struct peer *peer, const char *answer, size_t length)
{
    memset(peer, 0, sizeof *peer);
    peer->listener = listen_on(&peer->port);
    peer->answer = answer;
    peer->length = length;
    assert_int_equal(pthread_create(&peer->thread, NULL, play, peer), 0);
}

static void peer_stop(struct peer *peer)
{
    peer->stop = true;
    shutdown(peer->listener, SHUT_RDWR);
    pthread_join(peer->thread, NULL);
    close(peer->listener);
}

static struct fsw_store *store_to(const struct peer *peer)
{
    char uri[64];

    snprintf(uri, sizeof uri, "resp://127.0.0.1:%d", peer->port);
    return store_open(uri, NULL);
}

/* A peer that says it has stored something can't be told from one that has. */
static int may_succeed(const struct peer *peer, enum fsw_store_verb verb)
{
    return verb == FSW_STORE_PUT && peer->answer != NULL && strncmp(peer->answer, "+OK", 3) == 0;
}

/* Verbs of each kind with a deadline; none may come back as a success or a loss. 1: nor late. */
static int try_once(struct peer *peer, unsigned deadline_ms)
{
    struct fsw_device_id device = device_random();
    struct fsw_store *store = store_to(peer);
    struct call calls[6];
    struct fsw_error err;
    int kept = 1;

    assert_int_equal(store_start_as(store, &device, 0, &err), 0);
    for (unsigned i = 0; i < 6; i++) {
        call_prepare(&calls[i], (enum fsw_store_verb)(i % 3), i, peer->back, 0, 1000, deadline_ms);
        call_submit(store, &calls[i]);
    }
    for (unsigned i = 0; i < 6; i++) {
        enum fsw_store_result result = call_wait(&calls[i]);

        if (!may_succeed(peer, calls[i].request.verb))
            assert_int_not_equal(result, FSW_STORE_OK);
        assert_int_not_equal(result, FSW_STORE_GONE);
        if (result == FSW_STORE_UNREACHABLE)
            kept &= calls[i].finished_ns < calls[i].request.deadline + GRACE_NS;
    }
    store->ops->close(store);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(calls[i].done, 1);
    return kept;
}

static void try_all(struct peer *peer, unsigned deadline_ms)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    while (!try_once(peer, deadline_ms))
        assert_true(fsw_now_ns() < end);
}

static void test_never_answers(void **state)
{
    struct fsw_error err = {""};
    struct fsw_store *store;
    struct peer peer;

    peer_start(&peer, NULL, 0);
    try_all(&peer, 400);
    store = store_to(&peer);
    assert_int_equal(store->ops->probe(store, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "no answer within 3 s"));
    store->ops->close(store);
    peer_stop(&peer);
}

/* A peer that does not answer the greeting is left and tried again. */
static void test_never_answers_is_tried_again(void **state)
{
    struct fsw_device_id device = device_random();
    struct fsw_store *store;
    struct fsw_error err;
    struct peer peer;
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    peer_start(&peer, NULL, 0);
    store = store_to(&peer);
    assert_int_equal(store_start_as(store, &device, 0, &err), 0);
    while (peer.accepted < 4 && fsw_now_ns() < end)
        usleep(10000);
    assert_true(peer.accepted >= 4); /* two lanes, twice */
    store->ops->close(store);
    peer_stop(&peer);
}

static const struct {
    const char *name, *answer;
} garbage[] = {
    {"one answer too many, a status", "+OK\r\n+OK\r\n+OK\r\n+OK\r\n"},
    {"numbers", ":1\r\n:2\r\n:-3\r\n"},
    {"nothing there", "$-1\r\n"},
    {"empty strings", "$0\r\n\r\n"},
    {"a string that never ends",
     "$2000000000\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
    {"a line that never ends",
     "+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
    {"an array", "*2\r\n+OK\r\n+OK\r\n"},
    {"a huge array", "*1000000000\r\n"},
    {"arrays in arrays", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"},
    {"negative lengths", "$-7\r\n*-7\r\n"},
    {"http", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>"},
    {"unknown errors", "-WHAT ever\r\n"},
    {"an error without words", "-\r\n"},
    {"a short range", "+OK\r\n$3\r\nabc\r\n"},
};

static void test_garbage(void **state)
{
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        struct peer peer;

        print_message("  %s\n", garbage[i].name);
        peer_start(&peer, garbage[i].answer, strlen(garbage[i].answer));
        try_all(&peer, 150);
        peer_stop(&peer);
    }
}

static void test_random_bytes(void **state)
{
    char bytes[2048];

    for (unsigned i = 0; i < 5; i++) {
        struct peer peer;

        assert_int_equal(getrandom(bytes, sizeof bytes, 0), sizeof bytes);
        bytes[0] = "+-:$*"[i];
        peer_start(&peer, bytes, sizeof bytes);
        try_all(&peer, 100);
        peer_stop(&peer);
    }
}

/* A megabyte of one answer: the reader gives up at the size of a segment. */
static void test_endless_answer_takes_no_memory(void **state)
{
    static char flood[1 << 20];
    struct fsw_store_health health;
    struct fsw_device_id device = device_random();
    struct fsw_store *store;
    struct fsw_error err;
    struct peer peer;
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    memset(flood, 'x', sizeof flood);
    memcpy(flood, "$500000000\r\n", 12);
    peer_start(&peer, flood, sizeof flood);
    store = store_to(&peer);
    assert_int_equal(store_start_as(store, &device, 0, &err), 0);
    do {
        usleep(1000);
        store->ops->health(store, &health);
    } while (strstr(health.last_error, "longer than anything") == NULL && fsw_now_ns() < end);
    assert_non_null(strstr(health.last_error, "longer than anything"));
    assert_true(health.bytes_in < (uint64_t)peer.accepted
                                      << 19); /* of 64 MB that were on offer, each time */
    store->ops->close(store);
    peer_stop(&peer);
}

/* ---- a peer that greets as it should ---- */

/* Whatever a connection says: what a store that knows our device would answer. */
static void answer(const struct peer *peer, int fd)
{
    char heard[4096], sentinel[40];
    ssize_t n = recv(fd, heard, sizeof heard - 1, MSG_DONTWAIT);
    const char *says = sentinel;

    if (n <= 0)
        return;
    heard[n] = '\0';
    snprintf(sentinel, sizeof sentinel, "$16\r\n%016llx\r\n", SENTINEL);
    if (strstr(heard, "GETRANGE") != NULL)
        says = peer->answer;
    else if (strstr(heard, "SET") != NULL)
        says = "+OK\r\n";
    send(fd, says, strlen(says), MSG_NOSIGNAL);
}

static void *play_friend(void *opaque)
{
    struct peer *peer = opaque;
    struct pollfd fds[64] = {{.fd = peer->listener, .events = POLLIN}};
    unsigned n = 1;

    while (!peer->stop && poll(fds, n, 100) >= 0) {
        for (unsigned i = 1; i < n; i++) {
            if (fds[i].revents & POLLIN)
                answer(peer, fds[i].fd);
            if (fds[i].revents & (POLLHUP | POLLERR))
                fds[i].events = 0, close(fds[i].fd), fds[i].fd = -1;
        }
        if (fds[0].revents & POLLIN && n < 64) {
            fds[n++] = (struct pollfd){.fd = accept(peer->listener, NULL, NULL),
                                       .events = POLLIN | POLLRDHUP};
            peer->accepted++;
        }
    }
    while (n > 1)
        close(fds[--n].fd);
    return NULL;
}

/* Gets whose caller waits, of one who is no use just then. */
static void test_garbage_to_who_waits(void **state)
{
    static const char *const answers[] = {
        "$3\r\nabc\r\n$3\r\nabc\r\n",
        "*2\r\n+OK\r\n+OK\r\n",
        ":7\r\n",
        "HTTP/1.1\r\n",
        "$-1\r\n",
        "-ERR what\r\n",
        "$1000\r\nxxx",
        "$3\r\nabc\r\n",
    };

    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        struct peer peer = {.answer = answers[i]};
        struct fsw_device_id device = device_random();
        struct fsw_store *store;
        struct fsw_error err;

        peer.listener = listen_on(&peer.port);
        assert_int_equal(pthread_create(&peer.thread, NULL, play_friend, &peer), 0);
        store = store_to(&peer);
        assert_int_equal(store_start_as(store, &device, 0, &err), 0);
        wait_connected(store, 1);
        int gone = answers[i][1] == '-';
        uint64_t end = fsw_now_ns() + PATIENCE_NS;
        /* until there are three connections, one of them to be lent */
        for (unsigned turn = 0; turn < 8 || (peer.accepted < 3 && fsw_now_ns() < end); turn++) {
            struct call call;
            call_prepare(&call, FSW_STORE_GET, 1, peer.back, 0, 1000, gone ? LONG_MS : 40);
            call_get(store, &call, 0);
            assert_int_not_equal(call_wait(&call), FSW_STORE_OK);
            assert_int_equal(call.request.result == FSW_STORE_GONE, gone);
            assert_int_equal(call.done, 1);
        }
        assert_true(peer.accepted >= 3);
        store->ops->close(store);
        peer_stop(&peer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_answers),
        cmocka_unit_test(test_never_answers_is_tried_again),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_garbage_to_who_waits),
        cmocka_unit_test(test_endless_answer_takes_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
