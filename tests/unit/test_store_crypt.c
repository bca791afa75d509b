/*
 * test_store_crypt.c: whoever has what is stored, or the wire, reads nothing; and whatever he puts
 * in its place is noticed.
 *     test_store_crypt PLACE        (see test_store_place.h)
 */
#include "test_store_place.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/store/crypt.h"
#include "common/clock.h"

static struct place place;

#define PLANTED "the launch code is 1-2-3-4-5"

struct fixture {
    struct fsw_device_id device;
    struct fsw_store *store;
    uint8_t bytes[FSW_SEGMENT_BYTES], others[FSW_SEGMENT_BYTES];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    place.encrypts = 1;
    f->device = device_random();
    f->store = place_started(&place, &f->device);
    *state = f;
    return 0;
}

static int setup_plain(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    place.encrypts = 0;
    f->device = device_random();
    f->store = place_started(&place, &f->device);
    place.encrypts = 1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    f->store->ops->close(f->store);
    free(f);
    return 0;
}

/* ---- what can be read ---- */

/* One after the other, at every place an object can begin. */
static void put_planted(struct fixture *f, unsigned count)
{
    for (uint64_t id = 1; id <= count; id++) {
        segment_fill(f->store, f->bytes, FSW_SEGMENT_BYTES, id);
        for (uint32_t at = 40 + (uint32_t)id; at + 400 < FSW_SEGMENT_BYTES; at += PLACE_OBJECT)
            memcpy(f->bytes + at, PLANTED, sizeof PLANTED - 1);
        assert_int_equal(do_put(f->store, id, f->bytes, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    }
}

static int contains(const void *bytes, size_t length)
{
    return memmem(bytes, length, PLANTED, sizeof PLANTED - 1) != NULL;
}

static int planted_is_stored(struct fixture *f, unsigned count)
{
    for (uint64_t id = 1; id <= count; id++)
        if (contains(f->others, place_look(&place, 0, &f->device, id, f->others)))
            return 1;
    return 0;
}

static void test_what_is_stored_is_unreadable(void **state)
{
    struct fixture *f = *state;

    put_planted(f, 20);
    assert_int_equal(planted_is_stored(f, 20), 0);
}

/* The search does find it where nothing is encrypted. */
static void test_plaintext_is_readable(void **state)
{
    struct fixture *f = *state;

    put_planted(f, 20);
    assert_int_equal(planted_is_stored(f, 20), 1);
}

/* ---- the wire ---- */

/* Between store and server: passes everything on, and keeps a copy. */
struct tap {
    pthread_t thread;
    int listener, ends[2];
    char *seen;
    size_t length;
    FILE *copy;
};

static int dial_server(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", place.servers[0].socket);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        abort();
    return fd;
}

/* One connection's two directions; the listener, or `ends`, is the end of it. */
#define TAP_MOST 16
struct tapped {
    struct pollfd fds[2 + 2 * TAP_MOST];
    unsigned count;
};

static void tap_accept(struct tap *tap, struct tapped *tapped)
{
    if (tapped->count + 2 > 2 + 2 * TAP_MOST)
        abort();
    tapped->fds[tapped->count++] =
        (struct pollfd){.fd = accept(tap->listener, NULL, NULL), .events = POLLIN};
    tapped->fds[tapped->count++] = (struct pollfd){.fd = dial_server(), .events = POLLIN};
}

static void tap_pass(struct tap *tap, struct tapped *tapped, unsigned i)
{
    static char bytes[65536];
    struct pollfd *from = &tapped->fds[i], *to = &tapped->fds[i ^ 1];
    ssize_t n = recv(from->fd, bytes, sizeof bytes, 0);

    if (n <= 0) {
        shutdown(to->fd, SHUT_WR);
        from->events = 0;
        from->fd = ~from->fd; /* polled no more */
        return;
    }
    fwrite(bytes, 1, (size_t)n, tap->copy);
    for (ssize_t done = 0; done < n;) {
        ssize_t sent =
            send(to->fd < 0 ? ~to->fd : to->fd, bytes + done, (size_t)(n - done), MSG_NOSIGNAL);
        if (sent < 0)
            return;
        done += sent;
    }
}

static void *tap_run(void *opaque)
{
    struct tap *tap = opaque;
    struct tapped tapped = {
        .fds = {{.fd = tap->ends[0], .events = POLLIN}, {.fd = tap->listener, .events = POLLIN}},
        .count = 2};

    while (poll(tapped.fds, tapped.count, -1) >= 0 && tapped.fds[0].revents == 0) {
        for (unsigned i = 2; i < tapped.count; i++)
            if (tapped.fds[i].revents != 0)
                tap_pass(tap, &tapped, i);
        if (tapped.fds[1].revents != 0)
            tap_accept(tap, &tapped);
    }
    for (unsigned i = 2; i < tapped.count; i++)
        close(tapped.fds[i].fd < 0 ? ~tapped.fds[i].fd : tapped.fds[i].fd);
    return NULL;
}

/* A store whose server is reached through the tap. */
static struct fsw_store *tap_open(struct tap *tap, const char *crypt)
{
    char uri[64];
    int port;

    tap->listener = listen_on(&port);
    tap->copy = open_memstream(&tap->seen, &tap->length);
    assert_int_equal(pipe(tap->ends), 0);
    assert_int_equal(pthread_create(&tap->thread, NULL, tap_run, tap), 0);
    snprintf(uri, sizeof uri, "%sresp://127.0.0.1:%d", crypt, port);
    return store_open(uri, NULL);
}

static void tap_close(struct tap *tap)
{
    close(tap->ends[1]);
    pthread_join(tap->thread, NULL);
    close(tap->ends[0]);
    close(tap->listener);
    fclose(tap->copy);
}

static int planted_is_sent(const char *crypt)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct tap tap;
    int found;

    f->device = device_random();
    f->store = tap_open(&tap, crypt);
    store_start(f->store, &f->device);
    put_planted(f, 20);
    for (uint64_t id = 1; id <= 20; id++)
        assert_int_equal(do_get(f->store, id, f->others, 0, FSW_SEGMENT_BYTES, LONG_MS),
                         FSW_STORE_OK);
    assert_true(contains(f->others, FSW_SEGMENT_BYTES));
    f->store->ops->close(f->store);
    tap_close(&tap);
    assert_true(tap.length > 40 * FSW_SEGMENT_BYTES);
    found = contains(tap.seen, tap.length);
    free(tap.seen);
    free(f);
    return found;
}

static void test_the_wire_is_unreadable(void **state)
{
    assert_int_equal(planted_is_sent("crypt+"), 0);
    assert_int_equal(planted_is_sent(""), 1);
}

/* ---- what is put in its place ---- */

#define LENGTH (20 * PLACE_OBJECT)

static void test_flipped_bytes_are_noticed(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_put(f->store, 1, LENGTH), FSW_STORE_OK);
    assert_int_equal(place_look(&place, 0, &f->device, 1, f->bytes), LENGTH);
    for (uint32_t at = 0; at < LENGTH; at += 37) {
        uint32_t object = at / PLACE_OBJECT * PLACE_OBJECT;

        f->bytes[at] ^= 0x80;
        place_forge(&place, 0, &f->device, 1, f->bytes, LENGTH);
        f->bytes[at] ^= 0x80;
        assert_int_equal(segment_get(f->store, 1, object, PLACE_OBJECT, LONG_MS),
                         FSW_STORE_CORRUPT);
        object = (object + PLACE_OBJECT) % LENGTH;
        assert_int_equal(segment_get(f->store, 1, object, PLACE_OBJECT, LONG_MS), FSW_STORE_OK);
    }
    place_forge(&place, 0, &f->device, 1, f->bytes, LENGTH);
    assert_int_equal(segment_get(f->store, 1, 0, LENGTH, LONG_MS), FSW_STORE_OK);
}

static void test_exchanged_segments_are_noticed(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_put(f->store, 1, LENGTH), FSW_STORE_OK);
    assert_int_equal(segment_put(f->store, 2, LENGTH), FSW_STORE_OK);
    place_look(&place, 0, &f->device, 1, f->bytes);
    place_look(&place, 0, &f->device, 2, f->others);
    place_forge(&place, 0, &f->device, 1, f->others, LENGTH);
    place_forge(&place, 0, &f->device, 2, f->bytes, LENGTH);
    for (uint32_t at = 0; at < LENGTH; at += PLACE_OBJECT)
        for (uint64_t id = 1; id <= 2; id++)
            assert_int_equal(segment_get(f->store, id, at, PLACE_OBJECT, LONG_MS),
                             FSW_STORE_CORRUPT);
}

/* The row, and so the slot, is used again: who kept what was there before can put it back. */
static void test_a_replayed_segment_is_noticed(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_put(f->store, 1, LENGTH), FSW_STORE_OK);
    place_look(&place, 0, &f->device, 1, f->bytes);
    assert_int_equal(do_drop(f->store, 1), FSW_STORE_OK);
    assert_int_equal(segment_put(f->store, 1 + 65536, LENGTH), FSW_STORE_OK);
    place_forge(&place, 0, &f->device, 1 + 65536, f->bytes, LENGTH);
    assert_int_equal(segment_get(f->store, 1 + 65536, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_CORRUPT);
}

static void test_another_devices_segment_is_noticed(void **state)
{
    struct fixture *f = *state, *other;

    setup((void **)&other);
    assert_int_equal(segment_put(f->store, 1, LENGTH), FSW_STORE_OK);
    assert_int_equal(segment_put(other->store, 1, LENGTH), FSW_STORE_OK);
    place_look(&place, 0, &f->device, 1, f->bytes);
    place_forge(&place, 0, &other->device, 1, f->bytes, LENGTH);
    assert_int_equal(segment_get(other->store, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_CORRUPT);
    teardown((void **)&other);
}

static void test_moved_objects_are_noticed(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_put(f->store, 1, LENGTH), FSW_STORE_OK);
    place_look(&place, 0, &f->device, 1, f->bytes);
    memmove(f->bytes, f->bytes + 5 * PLACE_OBJECT, PLACE_OBJECT);
    place_forge(&place, 0, &f->device, 1, f->bytes, LENGTH);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_CORRUPT);
    assert_int_equal(segment_get(f->store, 1, 5 * PLACE_OBJECT, PLACE_OBJECT, LONG_MS),
                     FSW_STORE_OK);
}

static void test_lies_are_counted(void **state)
{
    struct fixture *f = *state;
    struct fsw_store_health before, after;

    assert_int_equal(segment_put(f->store, 1, LENGTH), FSW_STORE_OK);
    memset(f->bytes, 0, LENGTH);
    f->store->ops->health(f->store, &before);
    place_forge(&place, 0, &f->device, 1, f->bytes, LENGTH);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_CORRUPT);
    f->store->ops->health(f->store, &after);
    assert_int_equal(after.errors, before.errors + 3);
    assert_int_equal(after.lies, before.lies + 3);
    assert_int_equal(after.copy[0].lies, after.lies);
    assert_non_null(strstr(after.last_error, "not what was put"));
}

/* ---- the key ---- */

static int start_with_key(struct fixture *f, uint8_t first, struct fsw_error *err)
{
    struct fsw_store_identity identity = {
        .device = f->device, .sentinel = {SENTINEL, SENTINEL}, .planted = 1, .key = {first}};

    f->store->ops->close(f->store);
    f->store = place_open(&place, &f->device);
    return f->store->ops->start(f->store, &identity, err);
}

static void test_only_the_key_opens(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err = {""};

    assert_int_equal(start_with_key(f, 1, &err), 0);
    assert_int_equal(segment_put(f->store, 1, LENGTH), FSW_STORE_OK);
    assert_int_equal(start_with_key(f, 2, &err), 0);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_CORRUPT);
    assert_int_equal(start_with_key(f, 1, &err), 0);
    assert_int_equal(segment_get(f->store, 1, 0, LENGTH, LONG_MS), FSW_STORE_OK);
}

/* A segment without seals is the engine's mistake: it is not sent. */
static void test_a_segment_without_seals_is_refused(void **state)
{
    struct fixture *f = *state;

    memset(f->bytes, 0, LENGTH);
    assert_int_equal(do_put(f->store, 1, f->bytes, LENGTH), FSW_STORE_REFUSED);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_stored_is_unreadable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plaintext_is_readable, setup_plain, teardown),
        cmocka_unit_test_setup_teardown(test_flipped_bytes_are_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exchanged_segments_are_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_replayed_segment_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_devices_segment_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_moved_objects_are_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lies_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_the_key_opens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_without_seals_is_refused, setup, teardown),
    };
    const struct CMUnitTest server_tests[] = {
        cmocka_unit_test(test_the_wire_is_unreadable),
    };
    int failed;

    place_choose(&place, argc, argv);
    place_start(&place);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (!place.is_file)
        failed += cmocka_run_group_tests(server_tests, NULL, NULL);
    place_stop(&place);
    return failed;
}
