/*
 * test_store_nbd.c: what is an NBD export's own: its server killed and started again, its size, whose it
 * is, and how it is named.
 *     test_store_nbd NBDKIT
 */
#include "test_store_server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/store/nbd.h"
#include "client/store/store_open.h"
#include "common/clock.h"

static const char *nbdkit;

struct fixture {
    struct server server;
    struct fsw_device_id device;
    struct fsw_store *store;
    char uri[160];
};

static void make_export(const struct fixture *f, unsigned slots)
{
    char path[128];

    snprintf(path, sizeof path, "%s/exports/x", f->server.dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)SLOTS_BYTES * (slots + 1)), 0);
    close(fd);
}

/* One export, of so many slots. */
static struct fixture *fixture(const char *memory, unsigned slots, int over_unix)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->server = (struct server){
        .kind = SERVER_NBDKIT, .binary = nbdkit, .over_unix = over_unix, .memory = memory};
    f->device = device_random();
    server_start(&f->server);
    make_export(f, slots);
    if (over_unix)
        snprintf(f->uri, sizeof f->uri, "nbd+unix:///x?socket=%s", f->server.socket);
    else
        snprintf(f->uri, sizeof f->uri, "nbd://127.0.0.1:%d/x", f->server.port);
    return f;
}

static int setup(void **state)
{
    struct fixture *f = *state = fixture(NULL, 1000, 1);

    f->store = store_open(f->uri, NULL);
    store_start(f->store, &f->device);
    return 0;
}

static int setup_tcp(void **state)
{
    struct fixture *f = *state = fixture(NULL, 1000, 0);

    f->store = store_open(f->uri, NULL);
    store_start(f->store, &f->device);
    return 0;
}

static int setup_memory(void **state)
{
    struct fixture *f = *state = fixture("1G", 1000, 1);

    f->store = store_open(f->uri, NULL);
    store_start(f->store, &f->device);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->store != NULL)
        f->store->ops->close(f->store);
    server_stop(&f->server);
    free(f);
    return 0;
}

static int put(struct fsw_store *store, uint64_t id)
{
    char bytes[5000];

    fill_segment(bytes, sizeof bytes, id);
    return (int)do_put(store, id, bytes, sizeof bytes);
}

/* -1: OK, and not what was put. */
static int get(struct fsw_store *store, uint64_t id, unsigned deadline_ms)
{
    char bytes[5000], back[5000];
    int r = (int)do_get(store, id, back, 0, sizeof back, deadline_ms);

    fill_segment(bytes, sizeof bytes, id);
    return r == FSW_STORE_OK && memcmp(bytes, back, sizeof back) != 0 ? -1 : r;
}

struct load {
    struct fsw_store *store;
    atomic_uint stop, wrong, done;
};

static void *work(void *opaque)
{
    struct load *load = opaque;

    for (uint64_t id = 0; !load->stop; id = (id + 1) % 500) {
        int r = get(load->store, id, 0);
        load->wrong += r != FSW_STORE_OK;
        load->done++;
    }
    return NULL;
}

static void killed_and_started_again_it_loses_nothing(void **state)
{
    struct fixture *f = *state;
    struct fsw_store_health health;
    pthread_t threads[4];
    struct load load = {.store = f->store};

    for (uint64_t id = 0; id < 500; id++)
        assert_int_equal(put(f->store, id), FSW_STORE_OK);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &load), 0);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t end = fsw_now_ns() + PATIENCE_NS;
        server_kill(&f->server);
        unsigned done = load.done; /* but for those that were answered before */
        server_restart(&f->server);
        while (load.done < done + 100 && fsw_now_ns() < end)
            usleep(2000);
        assert_true(load.done >= done + 100);
    }
    load.stop = 1;
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(load.wrong, 0);
    f->store->ops->health(f->store, &health);
    assert_true(health.reconnects >= 3);
    assert_int_equal(health.emptied, 0);
    assert_int_equal(put(f->store, 600), FSW_STORE_OK);
}

static void a_put_while_it_is_away_is_unreachable_and_lands_later(void **state)
{
    struct fixture *f = *state;
    char bytes[5000];

    assert_int_equal(put(f->store, 1), FSW_STORE_OK);
    server_kill(&f->server);
    struct call call;
    fill_segment(bytes, sizeof bytes, 2);
    call_prepare(&call, FSW_STORE_PUT, 2, bytes, 0, sizeof bytes, 300);
    call_submit(f->store, &call);
    assert_int_equal(call_wait(&call), FSW_STORE_UNREACHABLE);
    call_prepare(&call, FSW_STORE_PUT, 3, bytes, 0, sizeof bytes, 0);
    call_submit(f->store, &call);
    server_restart(&f->server);
    assert_int_equal(call_wait(&call), FSW_STORE_OK);
    assert_int_equal(get(f->store, 1, LONG_MS), FSW_STORE_OK);
    assert_int_equal(get(f->store, 2, LONG_MS), FSW_STORE_GONE);
}

/* N2 of nbd.h: ends not before 2 s after the next connection, which was made after `since`. */
#define QUARANTINE_NS (2 * FSW_NS_PER_S)
#define SAME_ROW 65536u /* added to an id */

static void begin_put(struct fsw_store *store, struct call *call, uint64_t id, char *bytes,
                      unsigned deadline_ms)
{
    fill_segment(bytes, 5000, id);
    call_prepare(call, FSW_STORE_PUT, id, bytes, 0, 5000, deadline_ms);
    call_submit(store, call);
}

/* Bytes that a loopback port's connections have sent there and that have not been taken, by the kernel's
 * table: on their way, and where they wait for a server that stands still. */
static unsigned long under_way_to(int port, int arrived)
{
    FILE *table = fopen("/proc/net/tcp", "re");
    unsigned long sent, waiting, sum = 0;
    unsigned here, peer;
    char line[256];

    assert_non_null(table);
    while (fgets(line, sizeof line, table) != NULL)
        if (sscanf(line, " %*u: %*x:%x %*x:%x %*x %lx:%lx", &here, &peer, &sent, &waiting) == 4)
            sum += arrived ? ((int)here == port) * waiting : ((int)peer == port) * sent;
    fclose(table);
    return sum;
}

/* A put that is under way when its server is killed, which stands still: again, if it was given up before
 * it was sent. */
static void lose_a_put(struct fixture *f, uint64_t id, char *bytes)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    struct call lost;

    server_freeze(&f->server);
    do {
        assert_true(fsw_now_ns() < end);
        begin_put(f->store, &lost, id, bytes, 300);
        assert_int_equal(call_wait(&lost), FSW_STORE_UNREACHABLE);
    } while (under_way_to(f->server.port, 1) < 5000);
    server_kill(&f->server);
    wait_connected(f->store, 0);
}

/* 1: another row's put did not wait behind it, as it may seem where the store's thread stood still. */
static int a_lost_put_holds_its_row_alone(struct fixture *f, uint64_t id)
{
    struct call held, other;
    char bytes[3][5000];

    lose_a_put(f, id, bytes[0]);
    begin_put(f->store, &held, id + SAME_ROW, bytes[1], 0);
    begin_put(f->store, &other, id + 1, bytes[2], 0);
    uint64_t since = fsw_now_ns();
    server_restart(&f->server);
    assert_int_equal(call_wait(&other), FSW_STORE_OK);
    assert_int_equal(call_wait(&held), FSW_STORE_OK);
    assert_true(held.finished_ns >= since + QUARANTINE_NS);
    assert_int_equal(get(f->store, id + SAME_ROW, LONG_MS), FSW_STORE_OK);
    return other.finished_ns < held.finished_ns;
}

static void a_put_that_was_under_way_holds_its_row(void **state)
{
    struct fixture *f = *state;
    uint64_t id = 2, end = fsw_now_ns() + PATIENCE_NS;

    assert_int_equal(put(f->store, 1), FSW_STORE_OK);
    for (; !a_lost_put_holds_its_row_alone(f, id); id += 2)
        assert_true(fsw_now_ns() < end);
}

/* By then the rows may be another's. */
static void what_is_under_way_at_a_close_does_not_arrive_later(void **state)
{
    enum { PUTS = 8 };
    static char bytes[PUTS][FSW_SEGMENT_BYTES];
    struct fixture *f = *state;
    struct call puts[PUTS];
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    assert_int_equal(put(f->store, 1), FSW_STORE_OK);
    server_freeze(&f->server);
    for (unsigned i = 0; i < PUTS; i++) {
        call_prepare(&puts[i], FSW_STORE_PUT, 2 + i, bytes[i], 0, sizeof bytes[i], 0);
        call_submit(f->store, &puts[i]);
    }
    while (under_way_to(f->server.port, 0) == 0 && fsw_now_ns() < end)
        usleep(2000);
    assert_true(under_way_to(f->server.port, 0) > 0);
    f->store->ops->close(f->store);
    f->store = NULL;
    for (unsigned i = 0; i < PUTS; i++)
        assert_int_equal(call_wait(&puts[i]), FSW_STORE_UNREACHABLE);
    assert_int_equal(under_way_to(f->server.port, 0), 0);
}

/* What the one before had under way nobody knows. */
static void the_next_process_writes_nothing_at_first(void **state)
{
    struct fixture *f = *state;
    char bytes[5000];
    struct call call;

    assert_int_equal(put(f->store, 1), FSW_STORE_OK);
    f->store->ops->close(f->store);
    f->store = store_open(f->uri, NULL);
    uint64_t since = fsw_now_ns();
    assert_int_equal(store_start_as(f->store, &f->device, 1, NULL), 0);
    begin_put(f->store, &call, 2, bytes, 0);
    assert_int_equal(get(f->store, 1, LONG_MS), FSW_STORE_OK);
    assert_int_equal(call_wait(&call), FSW_STORE_OK);
    assert_true(call.finished_ns >= since + QUARANTINE_NS);
}

/* Once it is connected, it knows. */
static void wait_emptied(struct fsw_store *store)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    struct fsw_store_health health;

    do
        store->ops->health(store, &health);
    while (!health.emptied && fsw_now_ns() < end && usleep(1000) == 0);
    assert_int_equal(health.emptied, 1);
}

/* One in memory that is started again is empty: nobody says that anything is gone. */
static void emptied_it_is_unreachable(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put(f->store, 1), FSW_STORE_OK);
    f->store->ops->close(f->store);
    server_kill(&f->server);
    server_restart(&f->server);
    f->store = store_open(f->uri, NULL);
    assert_int_equal(store_start_as(f->store, &f->device, 1, NULL), 0);
    assert_int_equal(get(f->store, 1, 500), FSW_STORE_UNREACHABLE);
    wait_emptied(f->store);
    f->store->ops->lost(f->store, 1, SENTINEL + 1);
    assert_int_equal(get(f->store, 1, LONG_MS), FSW_STORE_GONE);
}

/* The same while this process, which began with a new device, goes on. And what was declared lost can be
 * emptied once more. */
static void emptied_meanwhile_it_is_unreachable(void **state)
{
    struct fixture *f = *state;

    for (uint64_t id = 1; id <= 2; id++) {
        assert_int_equal(put(f->store, id), FSW_STORE_OK);
        server_kill(&f->server);
        server_restart(&f->server);
        assert_int_equal(get(f->store, id, 1000), FSW_STORE_UNREACHABLE);
        wait_emptied(f->store);
        f->store->ops->lost(f->store, 1, SENTINEL + id);
        assert_int_equal(get(f->store, id, LONG_MS), FSW_STORE_GONE);
    }
}

/* Of a device that was there before: its thread asks for the name. */
static void a_name_is_found_later(void **state)
{
    struct fsw_store_options options = {.uri = "", .later = 1};
    struct fixture *f = *state;
    struct fsw_error err = {""};
    char uri[64];

    f->store->ops->close(f->store);
    server_stop(&f->server);
    f->server.over_unix = 0;
    server_start(&f->server);
    make_export(f, 1000);
    snprintf(uri, sizeof uri, "nbd://localhost:%d/x", f->server.port);
    options.uri = uri;
    assert_int_equal(fsw_store_open(&options, &f->store, &err), 0);
    assert_int_equal(store_start_as(f->store, &f->device, 0, &err), 0);
    assert_int_equal(put(f->store, 1), FSW_STORE_OK);
    assert_int_equal(get(f->store, 1, LONG_MS), FSW_STORE_OK);
    f->store->ops->close(f->store);
    options.uri = "nbd://no-such-host.invalid/x";
    assert_int_equal(fsw_store_open(&options, &f->store, &err), 0);
    assert_int_equal(store_start_as(f->store, &f->device, 1, &err), 0);
    assert_int_equal(get(f->store, 1, 300), FSW_STORE_UNREACHABLE);
}

static void past_its_end_it_is_full(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put(f->store, 999), FSW_STORE_OK); /* row 1000 */
    assert_int_equal(put(f->store, 1000), FSW_STORE_FULL);
    assert_int_equal(do_drop(f->store, 1000), FSW_STORE_OK);
    assert_int_equal(get(f->store, 999, LONG_MS), FSW_STORE_OK);
}

static void write_at_begin(struct fixture *f, const char *text)
{
    char path[128];

    snprintf(path, sizeof path, "%s/exports/x", f->server.dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, text, strlen(text), 0), strlen(text));
    close(fd);
}

static void somebody_elses_is_refused(void **state)
{
    struct fixture *f = *state;
    struct fsw_device_id other = device_random();
    struct fsw_error err = {""};

    assert_int_equal(put(f->store, 1), FSW_STORE_OK);
    f->store->ops->close(f->store);
    f->store = store_open(f->uri, NULL);
    assert_int_equal(PATIENTLY(store_start_as(f->store, &other, 0, &err)), -EEXIST);
    assert_non_null(strstr(err.text, "another device"));
    f->store->ops->close(f->store);
    /* but a device of the same name that is gone has nothing any more */
    struct fsw_store_identity identity = {
        .device = other, .sentinel = {SENTINEL}, .gone = {f->device}, .gone_count = 1};
    f->store = store_open(f->uri, NULL);
    assert_int_equal(f->store->ops->start(f->store, &identity, &err), 0);
    assert_int_equal(get(f->store, 1, LONG_MS), FSW_STORE_CORRUPT); /* a head that is not ours */
    assert_int_equal(put(f->store, 1), FSW_STORE_OK);
    assert_int_equal(get(f->store, 1, LONG_MS), FSW_STORE_OK);
    f->store->ops->close(f->store);
    write_at_begin(f, "a file system, perhaps");
    f->store = store_open(f->uri, NULL);
    assert_int_equal(f->store->ops->probe(f->store, &err), -EINVAL);
    assert_non_null(strstr(err.text, "somebody's"));
}

/* What the export's header says. */
static enum slot_header header_of(const struct fixture *f, struct fsw_device_id *device)
{
    char path[128], block[SLOTS_BLOCK];
    uint64_t sentinel;

    snprintf(path, sizeof path, "%s/exports/x", f->server.dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, block, sizeof block, 0), sizeof block);
    close(fd);
    return slot_header_read(block, device, &sentinel);
}

/* Who makes it forget the device before while it is not up yet, as one of two may be late, must not empty
 * what it has by then. */
static void the_one_before_is_forgotten_while_it_is_taken_over(void **state)
{
    struct fixture *f = *state;
    struct fsw_device_id before = f->device, there;
    struct fsw_error err = {""};
    uint64_t count;

    for (uint64_t id = 1; id < 100; id++)
        assert_int_equal(put(f->store, id), FSW_STORE_OK);
    f->store->ops->close(f->store);
    struct fsw_store_identity identity = {
        .device = device_random(), .sentinel = {SENTINEL}, .gone = {before}, .gone_count = 1};
    f->store = store_open(f->uri, NULL);
    ((struct nbd_store *)f->store)->next_try = fsw_now_ns() + FSW_NS_PER_S / 2;
    assert_int_equal(PATIENTLY(f->store->ops->start(f->store, &identity, &err)), 0);
    assert_int_equal(PATIENTLY(f->store->ops->forget(f->store, &before, &count, &err)), 0);
    assert_int_equal(header_of(f, &there), SLOT_HEADER_FITS);
    assert_memory_equal(&there, &identity.device, sizeof there);
    for (uint64_t id = 1; id < 100; id++)
        assert_int_equal(put(f->store, id), FSW_STORE_OK);
    assert_int_equal(PATIENTLY(f->store->ops->forget(f->store, &before, &count, &err)), 0);
    assert_int_equal(count, 0);
    known_clear_all(&((struct nbd_store *)f->store)->known);
    for (uint64_t id = 1; id < 100; id++)
        assert_int_equal(get(f->store, id, LONG_MS), FSW_STORE_OK);
}

static void names_are_read_as_they_are_written(void **state)
{
    struct nbd_export export;
    struct fsw_error err = {""};
    static const char *const wrong[] = {
        "", "/x", "127.0.0.1:0/x", "127.0.0.1:99999", "[::1", "127.0.0.1/a%20b"};
    static const char *const wrong_unix[] = {"", "x?socket=/y", "/x", "/x?socket=y"};

    assert_int_equal(nbd_export_parse_tcp(&export, "127.0.0.1", 0, &err), 0);
    assert_string_equal(export.address.text, "127.0.0.1:10809");
    assert_string_equal(export.name, "");
    assert_int_equal(nbd_export_parse_tcp(&export, "[::1]:5/a/b", 0, &err), 0);
    assert_string_equal(export.address.text, "[::1]:5");
    assert_string_equal(export.name, "a/b");
    assert_int_equal(nbd_export_parse_tcp(&export, "[::1]/", 0, &err), 0);
    assert_string_equal(export.address.text, "[::1]:10809");
    assert_int_equal(nbd_export_parse_unix(&export, "/disk?socket=/run/s", &err), 0);
    assert_string_equal(export.address.text, "/run/s");
    assert_string_equal(export.name, "disk");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_true(nbd_export_parse_tcp(&export, wrong[i], 0, &err) < 0);
    for (size_t i = 0; i < sizeof wrong_unix / sizeof *wrong_unix; i++)
        assert_true(nbd_export_parse_unix(&export, wrong_unix[i], &err) < 0);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(killed_and_started_again_it_loses_nothing),
        TEST(a_put_while_it_is_away_is_unreachable_and_lands_later),
        cmocka_unit_test_setup_teardown(emptied_it_is_unreachable, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(emptied_meanwhile_it_is_unreachable, setup_memory,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_put_that_was_under_way_holds_its_row, setup_tcp,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_under_way_at_a_close_does_not_arrive_later,
                                        setup_tcp, teardown),
        TEST(the_next_process_writes_nothing_at_first),
        TEST(a_name_is_found_later),
        TEST(past_its_end_it_is_full),
        TEST(somebody_elses_is_refused),
        TEST(the_one_before_is_forgotten_while_it_is_taken_over),
        cmocka_unit_test(names_are_read_as_they_are_written),
    };

    if (argc < 2)
        return 2;
    nbdkit = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
