/*
 * test_late.c: the server's connections over a device whose publishes, or whose store, are held up:
 * what a connection had on its way when it was fenced, or when its client went, undoes nothing; a
 * read that is sent again finds its fetch. And for which CPUs connections wait between rounds.
 */
#include "rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/nbd/bytes.h"
#include "client/nbd/conn.h"
#include "common/clock.h"

#define PAGE FSW_PAGE_SIZE
#define AT 5u

static struct fsw_nbd nbd;
static struct rig rig;

/* ---- a publish that is held up ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum fsw_hook at;
    int armed, held;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void hold(enum fsw_hook at, void *opaque)
{
    pthread_mutex_lock(&gate.lock);
    if (gate.armed && at == gate.at) {
        gate.armed = 0;
        gate.held = 1;
        pthread_cond_broadcast(&gate.changed);
        while (gate.held)
            pthread_cond_wait(&gate.changed, &gate.lock);
    }
    pthread_mutex_unlock(&gate.lock);
}

static void gate_arm(enum fsw_hook at)
{
    pthread_mutex_lock(&gate.lock);
    gate.at = at;
    gate.armed = 1;
    pthread_mutex_unlock(&gate.lock);
}

static void gate_wait_held(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60;
    pthread_mutex_lock(&gate.lock);
    while (!gate.held)
        assert_int_equal(pthread_cond_timedwait(&gate.changed, &gate.lock, &until), 0);
    pthread_mutex_unlock(&gate.lock);
}

static void gate_open(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.held = 0;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

/* ---- a client ---- */

/* The other end of a socket that the server was handed. */
static int hand_over(void)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(fsw_conn_start(&nbd, pair[1], FSW_CONN_HANDED, NULL), 0);
    return pair[0];
}

/* A client by TCP, in the transmission phase; the server's end. */
static int dial(int *ret_server)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    static const char hello[] = "\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0";
    socklen_t length = sizeof at;
    char greeting[18 + 10];
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &length), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    struct sockaddr_storage address = {0};
    length = sizeof address;
    int server = accept(listener, (struct sockaddr *)&address, &length);
    close(listener);
    *ret_server = server;
    assert_int_equal(fsw_conn_start(&nbd, server, FSW_CONN_TCP, &address), 0);
    assert_int_equal(send(fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    assert_int_equal(recv(fd, greeting, sizeof greeting, MSG_WAITALL), sizeof greeting);
    return fd;
}

static void put_request(char *bytes, uint16_t type, uint64_t page, uint64_t cookie)
{
    fsw_put32(bytes, 0x25609513);
    fsw_put16(bytes + 4, 0);
    fsw_put16(bytes + 6, type);
    fsw_put64(bytes + 8, cookie);
    fsw_put64(bytes + 16, page * PAGE);
    fsw_put32(bytes + 24, PAGE);
}

static void send_reads(int fd, uint64_t page, uint32_t count)
{
    char bytes[FSW_WIRE_REQUEST_BYTES];

    put_request(bytes, FSW_WIRE_READ, page, page);
    fsw_put32(bytes + 24, count * PAGE);
    assert_int_equal(send(fd, bytes, sizeof bytes, MSG_NOSIGNAL), sizeof bytes);
}

static void send_read(int fd, uint64_t page)
{
    send_reads(fd, page, 1);
}

/* And DISC behind it. */
static void send_last_write(int fd, int disc, enum rig_kind kind, uint64_t seed)
{
    char bytes[2 * FSW_WIRE_REQUEST_BYTES + PAGE];
    size_t length = sizeof bytes - (disc ? 0 : FSW_WIRE_REQUEST_BYTES);

    put_request(bytes, FSW_WIRE_WRITE, AT, seed);
    rig_fill(bytes + FSW_WIRE_REQUEST_BYTES, kind, seed);
    put_request(bytes + FSW_WIRE_REQUEST_BYTES + PAGE, FSW_WIRE_DISCONNECT, 0, 0);
    assert_int_equal(send(fd, bytes, length, MSG_NOSIGNAL), length);
}

static void send_write(int fd, enum rig_kind kind, uint64_t seed)
{
    send_last_write(fd, 0, kind, seed);
}

/* 1: an answer without error; 0: the connection ended. */
static int answered(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    char bytes[FSW_WIRE_REPLY_BYTES];

    assert_int_equal(poll(&wait, 1, 60000), 1);
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_WAITALL);
    if (n <= 0)
        return 0;
    assert_int_equal(n, sizeof bytes);
    assert_int_equal(fsw_get32(bytes + 4), 0);
    return 1;
}

static int has_ended(struct rig *unused, void *opaque)
{
    return atomic_load(&nbd.handed) == NULL;
}

static void hang_up(int fd)
{
    close(fd);
    rig_wait(&rig, has_ended, NULL);
}

static int all_have_ended(struct rig *unused, void *opaque)
{
    unsigned busy = 0;

    pthread_mutex_lock(&nbd.lock);
    for (unsigned i = 0; i < FSW_CONNS; i++)
        busy += nbd.conns[i] != NULL && nbd.conns[i]->state != FSW_CONN_FREE;
    pthread_mutex_unlock(&nbd.lock);
    return busy == 0;
}

static int was_late(struct rig *unused, void *opaque)
{
    return rig_stat(&rig, FSW_STAT_LATE_WRITES) == *(uint64_t *)opaque;
}

/* ---- the tests ---- */

/* The old connection stands before its publish; the new one is served, and writes. */
static void what_a_fenced_connection_had_on_its_way_undoes_nothing(void **state)
{
    for (uint64_t turn = 1; turn <= 20; turn++) {
        uint64_t late = rig_stat(&rig, FSW_STAT_LATE_WRITES);
        int old = hand_over();
        gate_arm(FSW_HOOK_PUBLISH);
        send_write(old, RIG_TEXT, turn);
        gate_wait_held();
        int new = hand_over();
        send_write(new, RIG_HALF, turn);
        assert_true(answered(new));
        gate_open();
        assert_false(answered(old));
        rig_wait(&rig, was_late, &(uint64_t){late + 1});
        rig_expect_page(&rig, AT, RIG_HALF, turn);
        close(old);
        hang_up(new);
    }
}

/* The client goes while its write is held up for longer than a look lasts. */
static void what_a_client_sent_before_it_went_is_dropped_after_a_stall(void **state)
{
    uint64_t late = rig_stat(&rig, FSW_STAT_LATE_WRITES);
    int fd = hand_over();

    assert_int_equal(rig_write_page(&rig, AT, RIG_HALF, 1), 0);
    gate_arm(FSW_HOOK_PUBLISH);
    send_write(fd, RIG_TEXT, 2);
    gate_wait_held();
    close(fd);
    gate_open();
    rig_wait(&rig, has_ended, NULL);
    rig_expect_page(&rig, AT, RIG_HALF, 1);
    assert_int_equal(rig_stat(&rig, FSW_STAT_LATE_WRITES), late + 1);
}

/* It answered a moment ago; what was read since then is looked at all the same, since it may have been
 * on its way for long. */
static void what_a_client_sent_before_it_went_is_dropped_at_once(void **state)
{
    uint64_t late = rig_stat(&rig, FSW_STAT_LATE_WRITES);
    int fd = hand_over();

    send_write(fd, RIG_HALF, 4);
    assert_true(answered(fd));
    gate_arm(FSW_HOOK_PUBLISH);
    send_write(fd, RIG_TEXT, 5);
    gate_wait_held();
    close(fd);
    gate_open();
    rig_wait(&rig, has_ended, NULL);
    rig_expect_page(&rig, AT, RIG_HALF, 4);
    assert_int_equal(rig_stat(&rig, FSW_STAT_LATE_WRITES), late + 1);
}

/* By TCP a client that has gone looks like one that has half closed; one that said goodbye is no such. */
static void over_tcp_only_who_said_goodbye_is_waited_for(void **state)
{
    for (int disc = 0; disc < 2; disc++) {
        uint64_t late = rig_stat(&rig, FSW_STAT_LATE_WRITES);
        int server, fd = dial(&server);
        assert_int_equal(rig_write_page(&rig, AT, RIG_HALF, 6), 0);
        gate_arm(FSW_HOOK_PUBLISH);
        send_last_write(fd, disc, RIG_TEXT, 7);
        gate_wait_held();
        shutdown(fd, SHUT_WR);
        struct pollfd end = {.fd = server, .events = POLLRDHUP};
        assert_int_equal(poll(&end, 1, 60000), 1); /* and that has arrived */
        gate_open();
        assert_int_equal(answered(fd), disc);
        close(fd);
        rig_wait(&rig, all_have_ended, NULL);
        rig_expect_page(&rig, AT, disc ? RIG_TEXT : RIG_HALF, disc ? 7 : 6);
        assert_int_equal(rig_stat(&rig, FSW_STAT_LATE_WRITES), late + !disc);
    }
}

static int option_of(int fd, int level, int name)
{
    int value = 0;
    socklen_t length = sizeof value;

    assert_int_equal(getsockopt(fd, level, name, &value, &length), 0);
    return value;
}

/* What is on its way when a connection ends is not delivered later, and who is not there is not waited
 * for until the client's kernel has asked again. */
static void tcp_neither_lingers_nor_waits_for_long(void **state)
{
    int server, fd = dial(&server);
    struct linger linger = {0};
    socklen_t length = sizeof linger;

    assert_int_equal(getsockopt(server, SOL_SOCKET, SO_LINGER, &linger, &length), 0);
    assert_true(linger.l_onoff && linger.l_linger == 0);
    assert_in_range(option_of(server, IPPROTO_TCP, TCP_USER_TIMEOUT), 1,
                    nbd.timeout / FSW_NS_PER_MS - 1);
    assert_true(option_of(server, SOL_SOCKET, SO_KEEPALIVE));
    assert_true(option_of(server, IPPROTO_TCP, TCP_KEEPIDLE) * FSW_NS_PER_S < nbd.timeout);
    close(fd);
    rig_wait(&rig, all_have_ended, NULL);
}

/* The lock bit is held from the look on: a newer write waits, and has the last word. */
static void nothing_comes_between_look_and_publish(void **state)
{
    int old = hand_over();

    gate_arm(FSW_HOOK_LOCKED);
    send_write(old, RIG_TEXT, 3);
    gate_wait_held();
    int new = hand_over();
    send_write(new, RIG_HALF, 3);
    struct pollfd wait = {.fd = new, .events = POLLIN};
    assert_int_equal(poll(&wait, 1, 100), 0);
    gate_open();
    assert_true(answered(new));
    rig_expect_page(&rig, AT, RIG_HALF, 3);
    close(old);
    hang_up(new);
}

/* The store is away, and the client asks again on one connection after the other. */
static void a_read_that_is_sent_again_gets_the_answer_of_the_first(void **state)
{
    char got[PAGE], expected[PAGE];
    int fds[10];

    assert_int_equal(rig_write_page(&rig, 9, RIG_TEXT, 9), 0);
    rig_evict_all(&rig);
    rig_evict(&rig, 0);
    teststore_hold(rig.store, TESTSTORE_GETS);
    uint64_t before = teststore_gets(rig.store);
    for (unsigned i = 0; i < 10; i++) {
        fds[i] = hand_over();
        send_read(fds[i], 9);
        teststore_wait_held(rig.store, TESTSTORE_GETS, 1);
        if (i < 9)
            hang_up(fds[i]);
    }
    /* The last one is in the room when the one after it has been answered. */
    assert_int_equal(rig_write_page(&rig, 10, RIG_HALF, 10), 0);
    send_read(fds[9], 10);
    assert_true(answered(fds[9]));
    assert_int_equal(recv(fds[9], got, PAGE, MSG_WAITALL), PAGE);
    teststore_release(rig.store, TESTSTORE_GETS);
    assert_true(answered(fds[9]));
    assert_int_equal(recv(fds[9], got, PAGE, MSG_WAITALL), PAGE);
    rig_fill(expected, RIG_TEXT, 9);
    assert_memory_equal(got, expected, PAGE);
    /* One; or two, if the room's thread came to the store only when the first was answered. */
    assert_in_range(teststore_gets(rig.store) - before, 1, 2);
    hang_up(fds[9]);
}

/* What was written after the first fetch began is what the second read gets. */
static void a_read_that_joins_is_not_older_than_its_question(void **state)
{
    char got[PAGE], expected[PAGE];

    assert_int_equal(rig_write_page(&rig, 11, RIG_TEXT, 11), 0);
    rig_evict_all(&rig);
    rig_evict(&rig, 0);
    teststore_hold(rig.store, TESTSTORE_GETS);
    int fd = hand_over();
    send_read(fd, 11);
    teststore_wait_held(rig.store, TESTSTORE_GETS, 1);
    assert_int_equal(rig_write_page(&rig, 11, RIG_HALF, 12), 0);
    send_read(fd, 11); /* the page is local now: at once */
    assert_true(answered(fd));
    assert_int_equal(recv(fd, got, PAGE, MSG_WAITALL), PAGE);
    rig_fill(expected, RIG_HALF, 12);
    assert_memory_equal(got, expected, PAGE);
    teststore_release(rig.store, TESTSTORE_GETS);
    assert_true(answered(fd));
    assert_int_equal(recv(fd, got, PAGE, MSG_WAITALL), PAGE);
    assert_memory_equal(got, expected, PAGE);
    hang_up(fd);
}

/* Of two pages the first is there and the second away; while the first question waits, the first page
 * is written: who asks then must not get what was read for the one before. */
static void a_read_that_joins_gets_no_page_from_before_its_question(void **state)
{
    char got[2 * PAGE], expected[PAGE];

    assert_int_equal(rig_write_page(&rig, 13, RIG_TEXT, 13), 0);
    rig_evict_all(&rig);
    rig_evict(&rig, 0);
    assert_int_equal(rig_write_page(&rig, 12, RIG_TEXT, 12), 0);
    teststore_hold(rig.store, TESTSTORE_GETS);
    int first = hand_over();
    send_reads(first, 12, 2);
    teststore_wait_held(rig.store, TESTSTORE_GETS, 1);
    assert_int_equal(rig_write_page(&rig, 12, RIG_HALF, 14), 0);
    int second = hand_over();
    send_reads(second, 12, 2);
    send_read(second, 12); /* answered: the one before it is in the room */
    assert_true(answered(second));
    assert_int_equal(recv(second, got, PAGE, MSG_WAITALL), PAGE);
    teststore_release(rig.store, TESTSTORE_GETS);
    assert_true(answered(second));
    assert_int_equal(recv(second, got, sizeof got, MSG_WAITALL), sizeof got);
    rig_fill(expected, RIG_HALF, 14);
    assert_memory_equal(got, expected, PAGE);
    rig_fill(expected, RIG_TEXT, 13);
    assert_memory_equal(got + PAGE, expected, PAGE);
    close(first);
    hang_up(second);
}

/* ---- CPUs for waiting between rounds ---- */

/* And is not counted any more. */
static void wait_until_none_is_served(void)
{
    rig_wait(&rig, all_have_ended, NULL);
    assert_int_equal(atomic_load(&nbd.serving), 0);
}

/* By the pace of a connection that has served one request. */
static unsigned noted_with_cpus(unsigned cpus)
{
    char got[PAGE];

    wait_until_none_is_served();
    nbd.cpus = cpus;
    int fd = hand_over();
    const struct fsw_conn *conn = atomic_load(&nbd.handed);
    send_read(fd, 1);
    assert_true(answered(fd));
    assert_int_equal(recv(fd, got, PAGE, MSG_WAITALL), PAGE);
    hang_up(fd);
    wait_until_none_is_served();
    return conn->pace.requests;
}

static void without_cpus_to_wait_on_nothing_is_tried(void **state)
{
    unsigned cpus = nbd.cpus;

    assert_int_equal(noted_with_cpus(1), 0);
    assert_int_equal(noted_with_cpus(2), 1);
    nbd.cpus = cpus;
}

static void only_cpus_that_we_may_run_on_count(void **state)
{
    struct fsw_nbd other = {.device = rig.device};
    cpu_set_t all, one;

    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    int r = fsw_conns_init(&other, 0);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(r, 0);
    assert_int_equal(other.cpus, 1);
    close(other.notice);
    pthread_mutex_destroy(&other.lock);
}

static int open_all(void **state)
{
    rig_open(&rig, &(struct rig_options){.size = 4 << 20, .memory = 8 << 20, .with_store = 1});
    rig.device->hook = hold;
    nbd = (struct fsw_nbd){.device = rig.device,
                           .name = "late",
                           .size = fsw_device_size(rig.device),
                           .timeout = 120 * FSW_NS_PER_S}; /* none of these runs into it */
    return fsw_room_start(&nbd.room, rig.device) == 0 && fsw_conns_init(&nbd, 3) == 0 ? 0 : -1;
}

static int close_all(void **state)
{
    rig_close(&rig);
    return 0;
}

static int run_all(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_fenced_connection_had_on_its_way_undoes_nothing),
        cmocka_unit_test(what_a_client_sent_before_it_went_is_dropped_after_a_stall),
        cmocka_unit_test(what_a_client_sent_before_it_went_is_dropped_at_once),
        cmocka_unit_test(over_tcp_only_who_said_goodbye_is_waited_for),
        cmocka_unit_test(tcp_neither_lingers_nor_waits_for_long),
        cmocka_unit_test(nothing_comes_between_look_and_publish),
        cmocka_unit_test(a_read_that_is_sent_again_gets_the_answer_of_the_first),
        cmocka_unit_test(a_read_that_joins_is_not_older_than_its_question),
        cmocka_unit_test(a_read_that_joins_gets_no_page_from_before_its_question),
        cmocka_unit_test(without_cpus_to_wait_on_nothing_is_tried),
        cmocka_unit_test(only_cpus_that_we_may_run_on_count),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}

int main(void)
{
    return rig_main(run_all);
}
