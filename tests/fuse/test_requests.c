/*
 * test_requests.c: farswap-fuse's threads against a kernel that is a test: requests go in at the other
 * end of a socket that keeps messages apart, well-formed, cut short, and at random.
 *
 * What must hold of every one: at most one answer, with its number, as long as it says; none for
 * those that want none; and the server lives.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/fuse/knobs.h"
#include "client/fuse/serve.h"
#include "client/fuse/tree.h"
#include "tests/unit/rig.h"

#define SIZE (16ull << 20)
#define ANSWER_MAX (sizeof(struct fuse_out_header) + FSW_FUSE_DATA_MAX)

static struct rig rig;
static struct fsw_server server;
static int kernel; /* our end */
static uint64_t next_unique = 2;
static _Alignas(8) char answer[ANSWER_MAX + 1];

static int pair(int *ret_kernel)
{
    int ends[2], bytes = 1 << 20;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    for (int i = 0; i < 2; i++) {
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
        setsockopt(ends[i], SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
    *ret_kernel = ends[0];
    return ends[1];
}

static int set_up(void **state)
{
    struct fsw_mount mount = {.count = 1};

    rig_open(&rig, &(struct rig_options){.size = SIZE, .memory = 32ull << 20});
    mount.fds[0] = pair(&kernel);
    assert_int_equal(fsw_server_prepare(&server, &mount), 0);
    assert_int_equal(fsw_server_start(&server, rig.device, NULL), 0);
    return 0;
}

/* The end of the socket is to the server what the end of its mount is. */
static int tear_down(void **state)
{
    close(kernel);
    fsw_server_wait(&server);
    rig_close(&rig);
    return 0;
}

static uint64_t ask_at(int fd, uint32_t opcode, uint64_t node, const void *argument, size_t bytes)
{
    static char request[FSW_FUSE_REQUEST_MAX];
    struct fuse_in_header in = {.len = (uint32_t)(sizeof in + bytes),
                                .opcode = opcode,
                                .unique = next_unique,
                                .nodeid = node};

    next_unique += 2;
    memcpy(request, &in, sizeof in);
    if (bytes > 0)
        memcpy(request + sizeof in, argument, bytes);
    assert_int_equal(write(fd, request, sizeof in + bytes), sizeof in + bytes);
    return in.unique;
}

/* 0: none came. */
static size_t hear(int fd, uint64_t unique, int milliseconds)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    struct fuse_out_header out;

    if (poll(&ready, 1, milliseconds) != 1)
        return 0;
    ssize_t n = read(fd, answer, sizeof answer);
    assert_true(n >= (ssize_t)sizeof out);
    memcpy(&out, answer, sizeof out);
    assert_int_equal(out.len, n);
    assert_int_equal(out.unique, unique);
    assert_true(out.error <= 0 && out.error > -512);
    if (out.error != 0)
        assert_int_equal(n, sizeof out);
    return (size_t)n;
}

/* The error, or 0 with the answer's body in `body`, which must have that length. */
static int ask(uint32_t opcode, uint64_t node, const void *argument, size_t bytes, void *body,
               size_t body_bytes)
{
    struct fuse_out_header out;
    uint64_t unique = ask_at(kernel, opcode, node, argument, bytes);
    size_t n = hear(kernel, unique, 60000);

    assert_true(n > 0);
    memcpy(&out, answer, sizeof out);
    if (out.error != 0)
        return out.error;
    assert_int_equal(n - sizeof out, body_bytes);
    if (body != NULL)
        memcpy(body, answer + sizeof out, body_bytes);
    return 0;
}

static int write_at(uint64_t node, uint64_t offset, const void *bytes, uint32_t length)
{
    static char argument[sizeof(struct fuse_write_in) + FSW_FUSE_DATA_MAX];
    struct fuse_write_in in = {.offset = offset, .size = length};
    struct fuse_write_out out;

    memcpy(argument, &in, sizeof in);
    memcpy(argument + sizeof in, bytes, length);
    int r = ask(FUSE_WRITE, node, argument, sizeof in + length, &out, sizeof out);
    return r < 0 ? r : (int)out.size;
}

static int read_at(uint64_t node, uint64_t offset, void *bytes, uint32_t length, size_t expected)
{
    struct fuse_read_in in = {.offset = offset, .size = length};
    return ask(FUSE_READ, node, &in, sizeof in, bytes, expected);
}

static void a_page_comes_back(void **state)
{
    char page[FSW_PAGE_SIZE], back[FSW_PAGE_SIZE];

    rig_fill(page, RIG_HALF, 1);
    assert_int_equal(write_at(FSW_NODE_DISK, 5 * FSW_PAGE_SIZE, page, sizeof page), sizeof page);
    assert_int_equal(read_at(FSW_NODE_DISK, 5 * FSW_PAGE_SIZE, back, sizeof back, sizeof back), 0);
    assert_memory_equal(page, back, sizeof page);
    rig_expect_page(&rig, 5, RIG_HALF, 1);
}

static void the_largest_requests_come_back(void **state)
{
    static char bytes[FSW_FUSE_DATA_MAX], back[FSW_FUSE_DATA_MAX];

    for (unsigned at = 0; at < sizeof bytes; at += FSW_PAGE_SIZE)
        rig_fill(bytes + at, RIG_TEXT, at);
    assert_int_equal(write_at(FSW_NODE_DISK, 7, bytes, sizeof bytes), sizeof bytes);
    assert_int_equal(read_at(FSW_NODE_DISK, 7, back, sizeof back, sizeof back), 0);
    assert_memory_equal(bytes, back, sizeof bytes);
}

static void the_end_is_the_end(void **state)
{
    char page[FSW_PAGE_SIZE] = {1};

    assert_int_equal(read_at(FSW_NODE_DISK, SIZE - 10, page, sizeof page, 10), 0);
    assert_int_equal(read_at(FSW_NODE_DISK, SIZE, page, sizeof page, 0), 0);
    assert_int_equal(read_at(FSW_NODE_DISK, UINT64_MAX - 5, page, sizeof page, 0), 0);
    assert_int_equal(write_at(FSW_NODE_DISK, SIZE - 10, page, sizeof page), 10);
    assert_int_equal(write_at(FSW_NODE_DISK, SIZE, page, sizeof page), -ENOSPC);
    assert_int_equal(write_at(FSW_NODE_DISK, UINT64_MAX, page, sizeof page), -ENOSPC);
    assert_int_equal(rig_stat(&rig, FSW_STAT_INVALID_IO), 2);
    assert_int_equal(rig_stat(&rig, FSW_STAT_FAILED_WRITES), 0);
}

static int fallocate_at(uint64_t node, uint32_t mode, uint64_t offset, uint64_t length)
{
    struct fuse_fallocate_in in = {.offset = offset, .length = length, .mode = mode};
    return ask(FUSE_FALLOCATE, node, &in, sizeof in, NULL, 0);
}

static void holes_and_zeroes(void **state)
{
    const uint32_t keep = FALLOC_FL_KEEP_SIZE;
    char zeroes[FSW_PAGE_SIZE] = {0}, page[FSW_PAGE_SIZE];

    for (uint64_t number = 0; number < 3; number++)
        rig_write_page(&rig, number, RIG_HALF, number);
    assert_int_equal(fallocate_at(FSW_NODE_DISK, FALLOC_FL_PUNCH_HOLE | keep, 0, FSW_PAGE_SIZE), 0);
    assert_int_equal(fallocate_at(FSW_NODE_DISK, FALLOC_FL_PUNCH_HOLE | keep, FSW_PAGE_SIZE, 100),
                     0);
    assert_int_equal(fallocate_at(FSW_NODE_DISK, FALLOC_FL_ZERO_RANGE | keep, 2 * FSW_PAGE_SIZE, 5),
                     0);
    assert_int_equal(read_at(FSW_NODE_DISK, 0, page, sizeof page, sizeof page), 0);
    assert_memory_equal(page, zeroes, sizeof page);
    assert_int_equal(read_at(FSW_NODE_DISK, FSW_PAGE_SIZE, page, sizeof page, sizeof page), 0);
    assert_memory_equal(page, zeroes, 100);
    rig_fill(zeroes, RIG_HALF, 1);
    assert_memory_equal(page + 100, zeroes + 100, sizeof page - 100);
    assert_int_equal(rig_stat(&rig, FSW_STAT_DISCARDS), 1);
    assert_int_equal(rig_stat(&rig, FSW_STAT_ZEROES), 2);

    assert_int_equal(fallocate_at(FSW_NODE_DISK, 0, 0, SIZE), 0);
    assert_int_equal(fallocate_at(FSW_NODE_DISK, FALLOC_FL_PUNCH_HOLE | keep, 0, SIZE + 1), -EFBIG);
    assert_int_equal(fallocate_at(FSW_NODE_DISK, FALLOC_FL_COLLAPSE_RANGE, 0, FSW_PAGE_SIZE),
                     -EOPNOTSUPP);
    assert_int_equal(fallocate_at(FSW_NODE_KNOBS, FALLOC_FL_PUNCH_HOLE | keep, 0, 1), -EOPNOTSUPP);
}

/* What is asked again (FUSE_NOTIFY_RESEND) has the highest bit of its number set. */
static void a_request_that_is_sent_again_is_answered_under_its_number(void **state)
{
    struct fuse_attr_out out;
    uint64_t before = next_unique;

    next_unique |= 1ull << 63;
    assert_int_equal(ask(FUSE_GETATTR, FSW_NODE_DISK, NULL, 0, &out, sizeof out), 0);
    assert_int_equal(out.attr.size, SIZE);
    next_unique = before + 2;
}

static void the_folder_lists_every_file_once(void **state)
{
    struct fuse_read_in in = {.size = 200}; /* a few names at a time */
    unsigned found = 0;

    for (;;) {
        uint64_t unique = ask_at(kernel, FUSE_READDIR, FSW_NODE_ROOT, &in, sizeof in);
        size_t n = hear(kernel, unique, 60000), at = sizeof(struct fuse_out_header);
        assert_true(n >= at && n - at <= in.size);
        if (n == at)
            break;
        while (at < n) {
            struct fuse_dirent entry;
            memcpy(&entry, answer + at, FUSE_NAME_OFFSET);
            at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
            in.offset = entry.off;
            found++;
        }
        assert_int_equal(at, n);
    }
    assert_int_equal(found, 3 + fsw_knob_count); /* ".", "..", "disk" */
}

static void what_is_unknown_is_refused(void **state)
{
    char name[] = "nothing", unterminated[] = {'d', 'i', 's', 'k'};

    assert_int_equal(ask(FUSE_LOOKUP, FSW_NODE_ROOT, name, sizeof name, NULL, 0), -ENOENT);
    assert_int_equal(ask(FUSE_LOOKUP, FSW_NODE_ROOT, unterminated, 4, NULL, 0), -ENOENT);
    assert_int_equal(ask(FUSE_LOOKUP, FSW_NODE_DISK, "disk", 5, NULL, 0), -ENOENT);
    assert_int_equal(ask(FUSE_GETATTR, 0, NULL, 0, NULL, 0), -ESTALE);
    assert_int_equal(ask(FUSE_GETATTR, 1000, NULL, 0, NULL, 0), -ESTALE);
    assert_int_equal(ask(FUSE_INTERRUPT, 0, NULL, 0, NULL, 0), -ENOSYS);
    assert_int_equal(ask(FUSE_MKDIR, FSW_NODE_ROOT, name, sizeof name, NULL, 0), -ENOSYS);
    assert_int_equal(ask(9999, 0, NULL, 0, NULL, 0), -ENOSYS);
    assert_int_equal(read_at(1000, 0, NULL, 1, 0), -ESTALE);
    assert_int_equal(read_at(UINT64_MAX, 0, NULL, 1, 0), -ESTALE);
    assert_int_equal(write_at(FSW_NODE_ROOT, 0, name, 1), -ESTALE);
    assert_int_equal(write_at(FSW_NODE_KNOBS, 4, "1", 1), -EINVAL);
}

static void writes_that_claim_more_than_came_are_refused(void **state)
{
    struct fuse_write_in in = {.size = FSW_FUSE_DATA_MAX};
    struct fuse_read_in read = {.size = FSW_FUSE_DATA_MAX + 1};

    assert_int_equal(ask(FUSE_WRITE, FSW_NODE_DISK, &in, sizeof in, NULL, 0), -EINVAL);
    assert_int_equal(ask(FUSE_WRITE, FSW_NODE_DISK, &in, sizeof in - 1, NULL, 0), -EINVAL);
    assert_int_equal(ask(FUSE_WRITE, FSW_NODE_KNOBS + 2, &in, sizeof in, NULL, 0), -EINVAL);
    assert_int_equal(ask(FUSE_READ, FSW_NODE_DISK, &read, sizeof read, NULL, 0), -EINVAL);
    read.size = UINT32_MAX;
    assert_int_equal(ask(FUSE_READ, FSW_NODE_DISK, &read, sizeof read, NULL, 0), -EINVAL);
}

static int wants_none(uint32_t opcode)
{
    return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET;
}

/* Compacting, alone of all, takes long, and is no matter of form. */
static int is_slow(uint32_t opcode, uint64_t node)
{
    return opcode == FUSE_WRITE && node >= FSW_NODE_KNOBS &&
           node - FSW_NODE_KNOBS < fsw_knob_count &&
           strcmp(fsw_knobs[node - FSW_NODE_KNOBS].name, "compact") == 0;
}

static void anything_is_answered_once(void **state)
{
    static char argument[FSW_FUSE_DATA_MAX / 2];
    uint64_t random = rig_seed();

    for (unsigned turn = 0; turn < 20000; turn++) {
        uint32_t opcode = (uint32_t)rig_below(&random, 52);
        uint64_t node = rig_below(&random, FSW_NODE_KNOBS + fsw_knob_count + 2);
        size_t bytes = rig_below(&random, 4) > 0 ? rig_below(&random, 130)
                                                 : rig_below(&random, sizeof argument);
        if (is_slow(opcode, node))
            continue;
        for (size_t i = 0; i < (bytes < 128 ? bytes : 128); i++) /* small numbers are often right */
            argument[i] = rig_below(&random, 3) > 0 ? 0 : (char)rig_random(&random);
        uint64_t unique = ask_at(kernel, opcode, node, argument, bytes);
        if (!wants_none(opcode))
            assert_true(hear(kernel, unique, 60000) > 0);
    }
    assert_int_equal(hear(kernel, 0, 0), 0);
    a_page_comes_back(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
RIG_MAIN(TEST(a_page_comes_back), TEST(the_largest_requests_come_back), TEST(the_end_is_the_end),
         TEST(holes_and_zeroes), TEST(a_request_that_is_sent_again_is_answered_under_its_number),
         TEST(the_folder_lists_every_file_once), TEST(what_is_unknown_is_refused),
         TEST(writes_that_claim_more_than_came_are_refused), TEST(anything_is_answered_once))
