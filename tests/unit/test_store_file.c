/*
 * test_store_file.c: what a file store does on a real file system that is small, full, frozen, or
 * not its own. The file system is an ext4 on a loop device, in a mount namespace of the test's own.
 */
#include "test_store_disk.h"
#include "test_store_place.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "client/store/file.h"
#include "common/clock.h"

#define SKIPPED 77

static struct place place; /* its folder; "disk" in it is the mounted file system */
static char disk[96], path[128];

struct fixture {
    struct fsw_device_id device;
    struct fsw_store *store;
};

/* ---- the disk ---- */

static void make_disk(void)
{
    snprintf(disk, sizeof disk, "%s/disk", place.servers[0].dir);
    snprintf(path, sizeof path, "%s/overflow", disk);
    disk_make(disk);
}

static uint64_t blocks(void)
{
    struct stat stat_of;

    assert_int_equal(stat(path, &stat_of), 0);
    return (uint64_t)stat_of.st_blocks * 512;
}

/* ---- fixtures ---- */

static struct fsw_store *open_path(void)
{
    char uri[160];

    snprintf(uri, sizeof uri, "file:%s", path);
    return store_open(uri, NULL);
}

static int setup_idle(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->device = device_random();
    f->store = open_path();
    *state = f;
    return 0;
}

static int setup(void **state)
{
    struct fixture *f;

    setup_idle(state);
    f = *state;
    store_start(f->store, &f->device);
    wait_connected(f->store, 1);
    return 0;
}

static int setup_buffered(void **state)
{
    struct fixture *f;

    setup_idle(state);
    f = *state;
    ((struct file_store *)f->store)->direct = 0;
    store_start(f->store, &f->device);
    return 0;
}

static void close_store(struct fixture *f)
{
    if (f->store != NULL)
        f->store->ops->close(f->store);
    f->store = NULL;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    disk_thaw();
    close_store(f);
    unlink(path);
    free(f);
    return 0;
}

static void assert_says(struct fsw_store *store, const char *part)
{
    struct fsw_store_health health;

    store->ops->health(store, &health);
    if (strstr(health.last_error, part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", health.last_error, part);
}

static void flip(off_t at)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    char byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static off_t slot_of(uint64_t id)
{
    return (off_t)(id % 65536 + 1) * SLOTS_BYTES;
}

/* ---- the file ---- */

static void test_is_private_and_direct(void **state)
{
    struct fixture *f = *state;
    struct stat stat_of;

    assert_int_equal(stat(path, &stat_of), 0);
    assert_int_equal(stat_of.st_mode & 07777, 0600);
    assert_int_equal(((struct file_store *)f->store)->slots.direct, 1);
}

static void test_an_empty_file_becomes_private(void **state)
{
    struct fixture *f = *state;
    struct stat stat_of;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

    fchmod(fd, 0666);
    close(fd);
    store_start(f->store, &f->device);
    assert_int_equal(stat(path, &stat_of), 0);
    assert_int_equal(stat_of.st_mode & 07777, 0600);
}

static void refuses(struct fixture *f, int code, const char *says)
{
    struct fsw_error err = {""};
    int r = f->store->ops->probe(f->store, &err);

    if (r == 0)
        r = store_start_as(f->store, &f->device, 0, &err);
    if (r != code || strstr(err.text, says) == NULL)
        fail_msg("%d \"%s\" is not %d \"%s\"", r, err.text, code, says);
    assert_null(strchr(err.text, '\n'));
    assert_non_null(strstr(err.text, path));
}

static void write_file(const void *bytes, size_t length)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_int_equal(write(fd, bytes, length), length);
    close(fd);
}

static void test_a_foreign_file_is_left_alone(void **state)
{
    char back[11];
    int fd;

    write_file("my letters", 11);
    refuses(*state, -EINVAL, "not farswap's");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, back, sizeof back), 11);
    assert_string_equal(back, "my letters");
    close(fd);
}

static void test_another_devices_file_is_refused(void **state)
{
    struct fixture *f = *state, *owner;

    setup((void **)&owner);
    assert_int_equal(segment_put(owner->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    close_store(owner);
    refuses(f, -EEXIST, "belongs to another device");
    free(owner);
}

static void test_a_damaged_header_is_refused(void **state)
{
    struct fixture *f = *state, *owner;

    setup((void **)&owner);
    close_store(owner);
    flip(20);
    refuses(f, -EUCLEAN, "damaged");
    free(owner);
}

static void test_odd_paths_are_refused(void **state)
{
    struct fsw_error err = {""};
    struct fsw_store *store;

    assert_int_equal(symlink("/var/tmp/elsewhere", path), 0);
    refuses(*state, -ELOOP, "symbolic link");
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    refuses(*state, -EISDIR, "");
    rmdir(path);
    assert_int_equal(mknod(path, S_IFIFO | 0600, 0), 0);
    refuses(*state, -EINVAL, "not a regular file");
    unlink(path);
    assert_int_equal(file_store_new("overflow", &store, &err), -EINVAL);
    assert_int_equal(file_store_new("", &store, &err), -EINVAL);
    assert_int_equal(file_store_new("/tmp/", &store, &err), -EINVAL);
    assert_non_null(strstr(err.text, "absolute path"));
}

static void test_a_folder_that_is_not_there(void **state)
{
    struct fsw_error err = {""};
    struct fsw_store *store = store_open("file:/var/tmp/no-such-folder/overflow", NULL);

    assert_int_equal(store->ops->probe(store, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/var/tmp/no-such-folder"));
    store->ops->close(store);
}

/* Pages that go to a file in memory free none. */
static void test_a_file_in_memory_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mount("none", disk, "tmpfs", 0, "size=1m"), 0);
    refuses(f, -EINVAL, "in memory");
    write_file("", 0);
    refuses(f, -EINVAL, "in memory");
    umount(disk);
}

static void test_one_process_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct fsw_store *second = open_path();
    struct call put, hasty;
    uint8_t bytes[PLACE_OBJECT];

    assert_int_equal(segment_put(f->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    store_start(second, &f->device);
    assert_says(second, "another process holds it");
    segment_fill(f->store, bytes, sizeof bytes, 2);
    call_prepare(&put, FSW_STORE_PUT, 2, bytes, 0, sizeof bytes, 0);
    call_submit(second, &put);
    call_prepare(&hasty, FSW_STORE_PUT, 3, bytes, 0, sizeof bytes, 200);
    call_submit(second, &hasty);
    assert_int_equal(call_wait(&hasty), FSW_STORE_UNREACHABLE);
    assert_int_equal(put.done, 0);
    close_store(f);
    wait_connected(second, 1);
    assert_int_equal(call_wait(&put), FSW_STORE_OK);
    assert_int_equal(segment_get(second, 1, 0, PLACE_OBJECT, 5000), FSW_STORE_OK);
    second->ops->close(second);
}

/* ---- slots ---- */

static void test_dropped_slots_are_given_back(void **state)
{
    struct fixture *f = *state;
    uint64_t before = blocks();

    for (uint64_t id = 0; id < 50; id++)
        assert_int_equal(segment_put(f->store, id, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    assert_true(blocks() >= before + 50 * 65536);
    for (uint64_t id = 0; id < 50; id++)
        assert_int_equal(do_drop(f->store, id), FSW_STORE_OK);
    assert_in_range(blocks(), before, before + 8192);
}

static void test_a_damaged_slot_is_corrupt(void **state)
{
    struct fixture *f = *state;

    for (uint64_t id = 1; id < 4; id++)
        assert_int_equal(segment_put(f->store, id, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    close_store(f);
    for (off_t i = 1; i < 4; i++)
        flip(slot_of((uint64_t)i) + 5 * (i - 1));
    f->store = open_path();
    store_start(f->store, &f->device);
    for (uint64_t id = 1; id < 4; id++) {
        assert_int_equal(segment_get(f->store, id, 0, PLACE_OBJECT, 5000), FSW_STORE_CORRUPT);
        assert_int_equal(segment_get(f->store, id, 160 * PLACE_OBJECT, PLACE_OBJECT, 5000),
                         FSW_STORE_CORRUPT);
    }
}

static void copy_slot(uint64_t from, uint64_t to)
{
    static char bytes[SLOTS_BYTES];
    int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_int_equal(pread(fd, bytes, sizeof bytes, slot_of(from)), sizeof bytes);
    assert_int_equal(pwrite(fd, bytes, sizeof bytes, slot_of(to)), sizeof bytes);
    close(fd);
}

/* A slot that was copied over another, or back over its successor, is not what was asked for. */
static void test_exchanged_slots_are_noticed(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_put(f->store, 1, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    assert_int_equal(segment_put(f->store, 2, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    copy_slot(2, 100);
    assert_int_equal(do_drop(f->store, 2), FSW_STORE_OK);
    assert_int_equal(segment_put(f->store, 2 + 65536, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    close_store(f);
    copy_slot(100, 2); /* an old one, replayed */
    copy_slot(2, 1);   /* and in another row */
    f->store = open_path();
    store_start(f->store, &f->device);
    assert_int_equal(segment_get(f->store, 2 + 65536, 0, PLACE_OBJECT, 5000), FSW_STORE_GONE);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, 5000), FSW_STORE_CORRUPT);
}

static void start_again(struct fixture *f, int planted)
{
    struct fsw_error err = {""};

    close_store(f);
    f->store = open_path();
    if (store_start_as(f->store, &f->device, planted, &err) < 0)
        fail_msg("%s", err.text);
}

static void test_the_next_server_goes_on(void **state)
{
    struct fixture *f = *state;

    for (uint64_t id = 0; id < 10; id++)
        assert_int_equal(segment_put(f->store, id, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    start_again(f, 1);
    for (uint64_t id = 0; id < 10; id++)
        assert_int_equal(segment_get(f->store, id, id * 10 * PLACE_OBJECT, PLACE_OBJECT, 5000),
                         FSW_STORE_OK);
    assert_int_equal(segment_get(f->store, 10, 0, PLACE_OBJECT, 5000), FSW_STORE_GONE);
}

/* The file went while no server ran: what it held is not gone, and it can be put to again. */
static void test_a_file_that_was_deleted(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_put(f->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            unlink(path);
        start_again(f, 1);
        assert_says(f->store, "emptied");
        assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, 300), FSW_STORE_UNREACHABLE);
        assert_int_equal(segment_put(f->store, 2 + (uint64_t)i, PLACE_OBJECT), FSW_STORE_OK);
        assert_int_equal(segment_get(f->store, 2, 0, PLACE_OBJECT, 300), FSW_STORE_OK);
    }
}

/* It can't be opened yet, as on a file system that is mounted late. */
static void test_a_file_that_comes_back(void **state)
{
    struct fixture *f = *state;
    char elsewhere[sizeof path + 8];

    assert_int_equal(segment_put(f->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    close_store(f);
    snprintf(elsewhere, sizeof elsewhere, "%s.away", path);
    assert_int_equal(rename(path, elsewhere), 0);
    assert_int_equal(symlink("nowhere", path), 0);
    start_again(f, 1);
    wait_connected(f->store, 0);
    unlink(path);
    assert_int_equal(rename(elsewhere, path), 0);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, 0), FSW_STORE_OK);
}

static void test_a_cut_file_is_not_gone(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_put(f->store, 1, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, 300), FSW_STORE_UNREACHABLE);
    assert_says(f->store, "emptied");
}

/* Where direct I/O is not to be had, all the same; and the page cache does not keep what was put. */
static void test_buffered(void **state)
{
    struct fixture *f = *state;
    unsigned char resident[16];
    int fd;
    void *map;

    for (uint64_t id = 0; id < 20; id++)
        assert_int_equal(segment_put(f->store, id, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    map = mmap(NULL, SLOTS_BYTES, PROT_READ, MAP_SHARED, fd, slot_of(3));
    assert_true(map != MAP_FAILED);
    assert_int_equal(mincore(map, SLOTS_BYTES, resident), 0);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(resident[i] & 1, 0);
    munmap(map, SLOTS_BYTES);
    close(fd);
    for (uint64_t id = 0; id < 20; id++)
        assert_int_equal(segment_get(f->store, id, 0, FSW_SEGMENT_BYTES, 5000), FSW_STORE_OK);
}

/* ---- full ---- */

static uint64_t fill_up(struct fixture *f)
{
    enum fsw_store_result result;
    uint64_t id = 0;

    do
        result = segment_put(f->store, id++, FSW_SEGMENT_BYTES);
    while (result == FSW_STORE_OK && id < 1000);
    assert_int_equal(result, FSW_STORE_FULL);
    return id;
}

static void test_full_stores_nothing(void **state)
{
    struct fixture *f = *state;
    uint64_t id = fill_up(f);

    assert_in_range(id, 100, 256);
    assert_says(f->store, "No space left");
    assert_int_equal(segment_get(f->store, id - 1, 0, PLACE_OBJECT, 5000), FSW_STORE_GONE);
    for (uint64_t i = 0; i + 1 < id; i++)
        assert_int_equal(segment_get(f->store, i, 0, FSW_SEGMENT_BYTES, 5000), FSW_STORE_OK);
    assert_int_equal(do_drop(f->store, 7), FSW_STORE_OK);
    assert_int_equal(do_drop(f->store, 8), FSW_STORE_OK);
    assert_int_equal(segment_put(f->store, id, FSW_SEGMENT_BYTES), FSW_STORE_OK);
}

/* There is room for a slot's head, but not for all of it: what was written must go again. */
static void test_nearly_full_stores_nothing(void **state)
{
    struct fixture *f = *state;
    uint64_t full = fill_up(f), id = full + 1;

    while (segment_put(f->store, id, PLACE_OBJECT) == FSW_STORE_OK)
        id++;
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(do_drop(f->store, id - i), FSW_STORE_OK);
        /* the same row: within the file, where nothing is undone by the file system */
        uint64_t again = id - i + 65536;
        assert_int_equal(segment_put(f->store, again, FSW_SEGMENT_BYTES), FSW_STORE_FULL);
        assert_int_equal(segment_get(f->store, again, 0, PLACE_OBJECT, 5000), FSW_STORE_GONE);
    }
    for (unsigned i = 1; i < 4; i++)
        assert_int_equal(segment_put(f->store, id + 10 + i, PLACE_OBJECT), FSW_STORE_OK);
}

static void test_buffered_full(void **state)
{
    test_full_stores_nothing(state);
}

static void test_no_room_at_all(void **state)
{
    struct fixture *f = *state, *other;
    char elsewhere[sizeof path];
    struct fsw_error err = {""};

    fill_up(f);
    snprintf(elsewhere, sizeof elsewhere, "%s", path);
    snprintf(path, sizeof path, "%s/late", disk);
    setup_idle((void **)&other);
    assert_int_equal(other->store->ops->probe(other->store, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "has no room"));
    close_store(other);
    free(other);
    memcpy(path, elsewhere, sizeof path);
}

/* ---- frozen ---- */

static void test_a_given_up_put_is_quarantined(void **state)
{
    enum { ID = 5, NEXT = ID + 65536 };
    struct fixture *f = *state;
    struct call drop, next;
    static uint8_t bytes[FSW_SEGMENT_BYTES];

    assert_int_equal(segment_put(f->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    disk_freeze(disk);
    segment_fill(f->store, bytes, sizeof bytes, ID);
    call_prepare(&next, FSW_STORE_PUT, ID, bytes, 0, sizeof bytes, 200);
    call_submit(f->store, &next);
    assert_int_equal(call_wait(&next), FSW_STORE_UNREACHABLE);
    call_prepare(&drop, FSW_STORE_DROP, ID, NULL, 0, 0, 200);
    call_submit(f->store, &drop);
    assert_int_equal(call_wait(&drop), FSW_STORE_UNREACHABLE);
    /* reads don't wait behind it, nor do they find it */
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, 5000), FSW_STORE_OK);
    call_prepare(&drop, FSW_STORE_DROP, ID, NULL, 0, 0, 0);
    call_submit(f->store, &drop);
    segment_fill(f->store, bytes, sizeof bytes, NEXT);
    call_prepare(&next, FSW_STORE_PUT, NEXT, bytes, 0, sizeof bytes, 0);
    call_submit(f->store, &next);
    assert_int_equal(drop.done, 0);
    disk_thaw();
    assert_int_equal(call_wait(&drop), FSW_STORE_OK);
    assert_int_equal(call_wait(&next), FSW_STORE_OK);
    assert_true(drop.finished_ns <= next.finished_ns);
    assert_int_equal(segment_get(f->store, NEXT, 0, FSW_SEGMENT_BYTES, 5000), FSW_STORE_OK);
    assert_int_equal(segment_get(f->store, ID, 0, PLACE_OBJECT, 5000), FSW_STORE_GONE);
}

static void test_deadlines_of_a_frozen_disk(void **state)
{
    enum { N = 20 };
    struct fixture *f = *state;
    struct call calls[N];
    static uint8_t bytes[FSW_SEGMENT_BYTES];

    segment_fill(f->store, bytes, sizeof bytes, 1);
    disk_freeze(disk);
    for (unsigned i = 0; i < N; i++) {
        call_prepare(&calls[i], i % 2 ? FSW_STORE_PUT : FSW_STORE_DROP, i, bytes, 0, sizeof bytes,
                     10 + 40 * i);
        call_submit(f->store, &calls[i]);
    }
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(call_wait(&calls[i]), FSW_STORE_UNREACHABLE);
        assert_in_range(calls[i].finished_ns + FSW_NS_PER_MS - calls[i].request.deadline, 0,
                        200 * FSW_NS_PER_MS);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_is_private_and_direct, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_empty_file_becomes_private, setup_idle, teardown),
        cmocka_unit_test_setup_teardown(test_a_foreign_file_is_left_alone, setup_idle, teardown),
        cmocka_unit_test_setup_teardown(test_another_devices_file_is_refused, setup_idle, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_header_is_refused, setup_idle, teardown),
        cmocka_unit_test_setup_teardown(test_odd_paths_are_refused, setup_idle, teardown),
        cmocka_unit_test_setup_teardown(test_a_folder_that_is_not_there, setup_idle, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_in_memory_is_refused, setup_idle, teardown),
        cmocka_unit_test_setup_teardown(test_one_process_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropped_slots_are_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_slot_is_corrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exchanged_slots_are_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_next_server_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_was_deleted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_cut_file_is_not_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_buffered, setup_buffered, teardown),
        cmocka_unit_test_setup_teardown(test_full_stores_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nearly_full_stores_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nearly_full_stores_nothing, setup_buffered, teardown),
        cmocka_unit_test_setup_teardown(test_buffered_full, setup_buffered, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_at_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_given_up_put_is_quarantined, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadlines_of_a_frozen_disk, setup, teardown),
    };
    int failed;

    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        fprintf(stderr, "skipped: no mount namespace: %s\n", strerror(errno));
        return SKIPPED;
    }
    server_directory(&place.servers[0]);
    make_disk();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    umount(disk);
    place_stop(&place);
    return failed;
}
