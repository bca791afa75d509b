/*
 * test_store_file.c: what a file store does with its file on a real file system: whose it is, what is
 * given back, and what was damaged, cut or taken away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test_store_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/store/file.h"

static uint64_t blocks(void)
{
    struct stat stat_of;

    assert_int_equal(stat(disk_path, &stat_of), 0);
    return (uint64_t)stat_of.st_blocks * 512;
}

static void flip(off_t at)
{
    int fd = open(disk_path, O_RDWR | O_CLOEXEC);
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

    assert_int_equal(stat(disk_path, &stat_of), 0);
    assert_int_equal(stat_of.st_mode & 07777, 0600);
    assert_int_equal(((struct file_store *)f->store)->slots.direct, 1);
}

static void test_an_empty_file_becomes_private(void **state)
{
    struct fixture *f = *state;
    struct stat stat_of;
    int fd = open(disk_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

    fchmod(fd, 0666);
    close(fd);
    store_start(f->store, &f->device);
    assert_int_equal(stat(disk_path, &stat_of), 0);
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
    assert_non_null(strstr(err.text, disk_path));
}

static void write_file(const void *bytes, size_t length)
{
    int fd = open(disk_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_int_equal(write(fd, bytes, length), length);
    close(fd);
}

static void test_a_foreign_file_is_left_alone(void **state)
{
    char back[11];
    int fd;

    write_file("my letters", 11);
    refuses(*state, -EINVAL, "not farswap's");
    fd = open(disk_path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, back, sizeof back), 11);
    assert_string_equal(back, "my letters");
    close(fd);
}

static void test_another_devices_file_is_refused(void **state)
{
    struct fixture *f = *state, *owner;

    disk_setup((void **)&owner);
    assert_int_equal(segment_put(owner->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    fixture_close(owner);
    refuses(f, -EEXIST, "belongs to another device");
    fixture_end(owner);
}

static void test_a_damaged_header_is_refused(void **state)
{
    struct fixture *f = *state, *owner;

    disk_setup((void **)&owner);
    fixture_close(owner);
    flip(20);
    refuses(f, -EUCLEAN, "damaged");
    fixture_end(owner);
}

static void test_odd_paths_are_refused(void **state)
{
    struct fsw_error err = {""};
    struct fsw_store *store;

    assert_int_equal(symlink("/var/tmp/elsewhere", disk_path), 0);
    refuses(*state, -ELOOP, "symbolic link");
    unlink(disk_path);
    assert_int_equal(mkdir(disk_path, 0700), 0);
    refuses(*state, -EISDIR, "");
    rmdir(disk_path);
    assert_int_equal(mknod(disk_path, S_IFIFO | 0600, 0), 0);
    refuses(*state, -EINVAL, "not a regular file");
    unlink(disk_path);
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

    assert_int_equal(mount("none", disk_folder, "tmpfs", 0, "size=1m"), 0);
    refuses(f, -EINVAL, "in memory");
    write_file("", 0);
    refuses(f, -EINVAL, "in memory");
    umount(disk_folder);
}

static void test_one_process_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct fsw_store *second = disk_open();
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
    fixture_close(f);
    wait_connected(second, 1);
    assert_int_equal(call_wait(&put), FSW_STORE_OK);
    assert_int_equal(segment_get(second, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_OK);
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
    fixture_close(f);
    for (off_t i = 1; i < 4; i++)
        flip(slot_of((uint64_t)i) + 5 * (i - 1));
    f->store = disk_open();
    store_start(f->store, &f->device);
    for (uint64_t id = 1; id < 4; id++) {
        assert_int_equal(segment_get(f->store, id, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_CORRUPT);
        assert_int_equal(segment_get(f->store, id, 160 * PLACE_OBJECT, PLACE_OBJECT, LONG_MS),
                         FSW_STORE_CORRUPT);
    }
}

static void copy_slot(uint64_t from, uint64_t to)
{
    static char bytes[SLOTS_BYTES];
    int fd = open(disk_path, O_RDWR | O_CLOEXEC);

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
    fixture_close(f);
    copy_slot(100, 2); /* an old one, replayed */
    copy_slot(2, 1);   /* and in another row */
    f->store = disk_open();
    store_start(f->store, &f->device);
    assert_int_equal(segment_get(f->store, 2 + 65536, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_CORRUPT);
}

static void start_again(struct fixture *f, int planted)
{
    struct fsw_error err = {""};

    fixture_close(f);
    f->store = disk_open();
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
        assert_int_equal(segment_get(f->store, id, id * 10 * PLACE_OBJECT, PLACE_OBJECT, LONG_MS),
                         FSW_STORE_OK);
    assert_int_equal(segment_get(f->store, 10, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_GONE);
}

/* The file went while no server ran: what it held is not gone, and it can be put to again. */
static void test_a_file_that_was_deleted(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(segment_put(f->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            unlink(disk_path);
        start_again(f, 1);
        assert_says(f->store, "emptied");
        assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, 300), FSW_STORE_UNREACHABLE);
        assert_int_equal(segment_put(f->store, 2 + (uint64_t)i, PLACE_OBJECT), FSW_STORE_OK);
        assert_int_equal(segment_get(f->store, 2, 0, PLACE_OBJECT, LONG_MS), FSW_STORE_OK);
    }
}

/* It can't be opened yet, as on a file system that is mounted late. */
static void test_a_file_that_comes_back(void **state)
{
    struct fixture *f = *state;
    char elsewhere[sizeof disk_path + 8];

    assert_int_equal(segment_put(f->store, 1, PLACE_OBJECT), FSW_STORE_OK);
    fixture_close(f);
    snprintf(elsewhere, sizeof elsewhere, "%s.away", disk_path);
    assert_int_equal(rename(disk_path, elsewhere), 0);
    assert_int_equal(symlink("nowhere", disk_path), 0);
    start_again(f, 1);
    wait_connected(f->store, 0);
    unlink(disk_path);
    assert_int_equal(rename(elsewhere, disk_path), 0);
    assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, 0), FSW_STORE_OK);
}

static void test_a_cut_file_is_not_gone(void **state)
{
    struct fixture *f = *state;
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    assert_int_equal(segment_put(f->store, 1, FSW_SEGMENT_BYTES), FSW_STORE_OK);
    assert_int_equal(truncate(disk_path, 0), 0);
    do /* until it has looked before the deadline */
        assert_int_equal(segment_get(f->store, 1, 0, PLACE_OBJECT, 300), FSW_STORE_UNREACHABLE);
    while (strstr(fixture_health(f).last_error, "emptied") == NULL && fsw_now_ns() < end);
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
    fd = open(disk_path, O_RDONLY | O_CLOEXEC);
    map = mmap(NULL, SLOTS_BYTES, PROT_READ, MAP_SHARED, fd, slot_of(3));
    assert_true(map != MAP_FAILED);
    assert_int_equal(mincore(map, SLOTS_BYTES, resident), 0);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(resident[i] & 1, 0);
    munmap(map, SLOTS_BYTES);
    close(fd);
    for (uint64_t id = 0; id < 20; id++)
        assert_int_equal(segment_get(f->store, id, 0, FSW_SEGMENT_BYTES, LONG_MS), FSW_STORE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DISK_TEST(test_is_private_and_direct, disk_setup),
        DISK_TEST(test_an_empty_file_becomes_private, disk_setup_idle),
        DISK_TEST(test_a_foreign_file_is_left_alone, disk_setup_idle),
        DISK_TEST(test_another_devices_file_is_refused, disk_setup_idle),
        DISK_TEST(test_a_damaged_header_is_refused, disk_setup_idle),
        DISK_TEST(test_odd_paths_are_refused, disk_setup_idle),
        DISK_TEST(test_a_folder_that_is_not_there, disk_setup_idle),
        DISK_TEST(test_a_file_in_memory_is_refused, disk_setup_idle),
        DISK_TEST(test_one_process_at_a_time, disk_setup),
        DISK_TEST(test_dropped_slots_are_given_back, disk_setup),
        DISK_TEST(test_a_damaged_slot_is_corrupt, disk_setup),
        DISK_TEST(test_exchanged_slots_are_noticed, disk_setup),
        DISK_TEST(test_the_next_server_goes_on, disk_setup),
        DISK_TEST(test_a_file_that_was_deleted, disk_setup),
        DISK_TEST(test_a_file_that_comes_back, disk_setup),
        DISK_TEST(test_a_cut_file_is_not_gone, disk_setup),
        DISK_TEST(test_buffered, disk_setup_buffered),
    };

    return disk_run(tests);
}
