/* test_wire.c: requests from bytes, the handshake, and the arena, without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/nbd/arena.h"
#include "client/nbd/bytes.h"
#include "client/nbd/shake.h"
#include "client/nbd/wire.h"

#define SIZE (1ull << 30)

/* ---- requests ---- */

static char *put_request(char *at, uint16_t flags, uint16_t type, uint64_t cookie, uint64_t offset,
                         uint32_t length)
{
    fsw_put32(at, 0x25609513);
    fsw_put16(at + 4, flags);
    fsw_put16(at + 6, type);
    fsw_put64(at + 8, cookie);
    fsw_put64(at + 16, offset);
    fsw_put32(at + 24, length);
    return at + FSW_WIRE_REQUEST_BYTES;
}

static void requests_are_found_whatever_the_pieces(void **state)
{
    char bytes[400], *end = bytes, payload[100];
    memset(payload, 'x', sizeof payload);
    end = put_request(end, 0, FSW_WIRE_READ, 1, 4096, 8192);
    end = put_request(end, FSW_WIRE_FUA, FSW_WIRE_WRITE, 2, 17, sizeof payload);
    memcpy(end, payload, sizeof payload);
    end += sizeof payload;
    end = put_request(end, 0, FSW_WIRE_FLUSH, 3, 0, 0);
    end =
        put_request(end, FSW_WIRE_NO_HOLE | FSW_WIRE_FAST_ZERO, FSW_WIRE_WRITE_ZEROES, 4, 0, 4096);
    end = put_request(end, 0, FSW_WIRE_DISCONNECT, 5, 0, 0);

    for (size_t piece = 1; piece <= (size_t)(end - bytes); piece++) {
        struct fsw_wire wire = {.size = SIZE};
        struct fsw_wire_request request;
        uint64_t next = 1;
        size_t used;
        for (char *at = bytes, *known = bytes; known < end;) {
            known = known + piece < end ? known + piece : end;
            int found;
            while ((found = fsw_wire_next(&wire, at, (size_t)(known - at), &used, &request)) ==
                   FSW_WIRE_REQUEST) {
                assert_true(request.cookie == next++);
                assert_int_equal(request.error, 0);
                if (request.type == FSW_WIRE_WRITE)
                    assert_memory_equal(request.payload, payload, sizeof payload);
                at += used;
            }
            assert_int_equal(found, FSW_WIRE_MORE);
            at += used;
        }
        assert_int_equal(next, 6);
    }
}

static void what_cannot_be_done_is_refused_with_a_reason(void **state)
{
    static const struct {
        uint16_t flags, type;
        uint64_t offset;
        uint32_t length, error;
    } cases[] = {
        {0, FSW_WIRE_READ, SIZE - 4096, 4096, 0},
        {0, FSW_WIRE_READ, SIZE - 4095, 4096, FSW_WIRE_EINVAL},
        {0, FSW_WIRE_READ, UINT64_MAX, 1, FSW_WIRE_EINVAL},
        {0, FSW_WIRE_READ, 0, 0, FSW_WIRE_EINVAL},
        {0, FSW_WIRE_READ, 0, FSW_WIRE_PAYLOAD_MAX, 0},
        {0, FSW_WIRE_READ, 0, FSW_WIRE_PAYLOAD_MAX + 1, FSW_WIRE_EINVAL},
        {FSW_WIRE_NO_HOLE, FSW_WIRE_READ, 0, 1, FSW_WIRE_EINVAL},
        {1 << 5, FSW_WIRE_TRIM, 0, 1, FSW_WIRE_EINVAL},
        {FSW_WIRE_FUA, FSW_WIRE_TRIM, 0, 1u << 30, 0},
        {0, FSW_WIRE_TRIM, 1, 1u << 30, FSW_WIRE_EINVAL},
        {0, FSW_WIRE_WRITE_ZEROES, 1, 1u << 30, FSW_WIRE_ENOSPC},
        {0, FSW_WIRE_FLUSH, 0, 1, FSW_WIRE_EINVAL},
        {0, FSW_WIRE_CACHE, 0, 4096, 0},
        {0, 7, 0, 4096, FSW_WIRE_EINVAL}, /* BLOCK_STATUS was not negotiated */
        {0, 65535, 0, 0, FSW_WIRE_EINVAL},
    };
    char bytes[FSW_WIRE_REQUEST_BYTES];
    struct fsw_wire_request request;
    size_t used;

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fsw_wire wire = {.size = SIZE};
        put_request(bytes, cases[i].flags, cases[i].type, i, cases[i].offset, cases[i].length);
        assert_int_equal(fsw_wire_next(&wire, bytes, sizeof bytes, &used, &request),
                         FSW_WIRE_REQUEST);
        assert_int_equal(request.error, cases[i].error);
        assert_int_equal(used, sizeof bytes);
    }
    bytes[0] ^= 1;
    struct fsw_wire wire = {.size = SIZE};
    assert_int_equal(fsw_wire_next(&wire, bytes, sizeof bytes, &used, &request), -EPROTO);
}

static void the_payload_of_a_refused_write_is_skipped(void **state)
{
    enum { LENGTH = 300000 };
    char *bytes = calloc(1, LENGTH + 2 * FSW_WIRE_REQUEST_BYTES), *at;
    struct fsw_wire wire = {.size = SIZE};
    struct fsw_wire_request request;
    size_t used;

    put_request(bytes, 0, FSW_WIRE_WRITE, 1, SIZE, LENGTH);
    put_request(bytes + FSW_WIRE_REQUEST_BYTES + LENGTH, 0, FSW_WIRE_FLUSH, 2, 0, 0);
    assert_int_equal(fsw_wire_next(&wire, bytes, FSW_WIRE_REQUEST_BYTES, &used, &request),
                     FSW_WIRE_MORE); /* no answer while the client sends */
    assert_int_equal(used, FSW_WIRE_REQUEST_BYTES);
    at = bytes + used;
    assert_int_equal(fsw_wire_next(&wire, at, 1000, &used, &request), FSW_WIRE_MORE);
    assert_int_equal(used, 1000);
    at += used;
    size_t rest = LENGTH - 1000 + FSW_WIRE_REQUEST_BYTES;
    assert_int_equal(fsw_wire_next(&wire, at, rest, &used, &request), FSW_WIRE_REQUEST);
    assert_int_equal(request.cookie, 1);
    assert_int_equal(request.error, FSW_WIRE_ENOSPC);
    assert_int_equal(used, LENGTH - 1000);
    assert_int_equal(fsw_wire_next(&wire, at + used, rest - used, &used, &request),
                     FSW_WIRE_REQUEST);
    assert_int_equal(request.cookie, 2);
    assert_int_equal(request.error, 0);
    free(bytes);
}

static void what_is_found_without_an_error_is_found_again(void **state)
{
    static char bytes[FSW_WIRE_REQUEST_BYTES + 100];
    struct fsw_wire wire = {.size = SIZE};
    const struct {
        uint16_t type;
        uint32_t length;
        int found;
    } cases[] = {
        {FSW_WIRE_READ, 4096, FSW_WIRE_REQUEST},
        {FSW_WIRE_WRITE, 100, FSW_WIRE_REQUEST},
        {FSW_WIRE_WRITE, FSW_WIRE_SMALL_MAX + 1, FSW_WIRE_LARGE},
    };

    for (unsigned i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        struct fsw_wire_request request;
        size_t used;
        put_request(bytes, 0, cases[i / 2].type, i / 2, 8192, cases[i / 2].length);
        assert_int_equal(fsw_wire_next(&wire, bytes, sizeof bytes, &used, &request),
                         cases[i / 2].found);
        assert_int_equal(request.cookie, i / 2);
        assert_int_equal(request.error, 0);
        assert_true(wire.size == SIZE && wire.skip == 0 && !wire.refused);
    }
}

static void what_comes_next_is_seen_when_its_header_is_there(void **state)
{
    char bytes[FSW_WIRE_REQUEST_BYTES];
    struct fsw_wire_request next;

    put_request(bytes, 0, FSW_WIRE_WRITE, 1, 12345, 4096);
    assert_int_equal(fsw_wire_peek(bytes, sizeof bytes - 1, &next), 0);
    assert_int_equal(fsw_wire_peek(bytes, sizeof bytes, &next), 1);
    assert_int_equal(next.type, FSW_WIRE_WRITE);
    assert_int_equal(next.offset, 12345);
    assert_int_equal(next.length, 4096);
    bytes[0]++;
    assert_int_equal(fsw_wire_peek(bytes, sizeof bytes, &next), 0);
}

static void a_large_write_is_found_by_its_header(void **state)
{
    char bytes[FSW_WIRE_REQUEST_BYTES];
    struct fsw_wire wire = {.size = SIZE};
    struct fsw_wire_request request;
    size_t used;

    put_request(bytes, 0, FSW_WIRE_WRITE, 1, 0, FSW_WIRE_SMALL_MAX + 1);
    assert_int_equal(fsw_wire_next(&wire, bytes, sizeof bytes, &used, &request), FSW_WIRE_LARGE);
    assert_int_equal(used, sizeof bytes);
    put_request(bytes, 0, FSW_WIRE_WRITE, 1, 0, FSW_WIRE_SMALL_MAX);
    assert_int_equal(fsw_wire_next(&wire, bytes, sizeof bytes, &used, &request), FSW_WIRE_MORE);
    assert_int_equal(used, 0);
}

static void results_become_numbers_that_nbd_knows(void **state)
{
    assert_int_equal(fsw_wire_error_of(0), 0);
    assert_int_equal(fsw_wire_error_of(-ENOSPC), FSW_WIRE_ENOSPC);
    assert_int_equal(fsw_wire_error_of(-EINVAL), FSW_WIRE_EINVAL);
    assert_int_equal(fsw_wire_error_of(-EUCLEAN), FSW_WIRE_EIO);
    char bytes[FSW_WIRE_REPLY_BYTES];
    fsw_wire_reply(bytes, 0x0102030405060708, FSW_WIRE_EIO);
    assert_memory_equal(bytes, "\x67\x44\x66\x98\0\0\0\x05\1\2\3\4\5\6\7\x08", sizeof bytes);
}

/* ---- the handshake ---- */

struct talk {
    struct fsw_shake shake;
    char bytes[8192], out[FSW_SHAKE_OUT];
    size_t length, out_length;
};

static void talk_begin(struct talk *talk, uint32_t flags)
{
    size_t used;
    char bytes[4];

    memset(talk, 0, sizeof *talk);
    talk->shake = (struct fsw_shake){.name = "far", .size = SIZE, .multi_conn = 1};
    fsw_put32(bytes, flags);
    assert_int_equal(fsw_shake_next(&talk->shake, bytes, 4, &used, talk->out, &talk->out_length),
                     FSW_SHAKE_NEXT);
    assert_int_equal(used, 4);
}

/* Sends an option, in pieces of one byte: what came of it. */
static int option(struct talk *talk, uint32_t number, const void *data, uint32_t length)
{
    size_t used, at = 0;
    int found = FSW_SHAKE_MORE;

    memcpy(talk->bytes, "IHAVEOPT", 8);
    fsw_put32(talk->bytes + 8, number);
    fsw_put32(talk->bytes + 12, length);
    if (length <= 64)
        memcpy(talk->bytes + 16, data, length);
    for (size_t known = 1; found == FSW_SHAKE_MORE && known <= 16 + length; known++) {
        found = fsw_shake_next(&talk->shake, talk->bytes + at, known - at, &used, talk->out,
                               &talk->out_length);
        at += used;
        assert_true(talk->out_length <= FSW_SHAKE_OUT);
    }
    return found;
}

static uint32_t reply_type(const struct talk *talk, size_t at)
{
    assert_true(fsw_get64(talk->out + at) == 0x3e889045565a9);
    return fsw_get32(talk->out + at + 12);
}

static size_t go_data(char *data, const char *name)
{
    uint32_t length = (uint32_t)strlen(name);

    fsw_put32(data, length);
    memcpy(data + 4, name, length);
    fsw_put16(data + 4 + length, 1);
    fsw_put16(data + 6 + length, 3);
    return 8 + length;
}

static void go_tells_size_and_blocks_and_begins(void **state)
{
    struct talk talk;
    char data[64];

    for (int i = 0; i < 2; i++) {
        talk_begin(&talk, 3);
        uint32_t length = (uint32_t)go_data(data, i ? "far" : "");
        assert_int_equal(option(&talk, 6, data, length), FSW_SHAKE_NEXT);
        assert_int_equal(option(&talk, 7, data, length), FSW_SHAKE_GO);
        assert_int_equal(reply_type(&talk, 0), 3);
        assert_true(fsw_get64(talk.out + 22) == SIZE);
        assert_int_equal(fsw_get16(talk.out + 30) & FSW_SHAKE_MULTI_CONN, FSW_SHAKE_MULTI_CONN);
        assert_int_equal(reply_type(&talk, 32), 3);
        assert_int_equal(fsw_get32(talk.out + 54), 1);
        assert_int_equal(fsw_get32(talk.out + 58), 4096);
        assert_int_equal(reply_type(&talk, talk.out_length - 20), 1);
    }
}

static void other_names_and_crooked_lengths_are_refused(void **state)
{
    struct talk talk;
    char data[64];

    talk_begin(&talk, 3);
    uint32_t length = (uint32_t)go_data(data, "near");
    assert_int_equal(option(&talk, 7, data, length), FSW_SHAKE_NEXT);
    assert_int_equal(reply_type(&talk, 0), 0x80000006);
    for (uint32_t wrong = 0; wrong < length; wrong++) {
        assert_int_equal(option(&talk, 7, data, wrong), FSW_SHAKE_NEXT);
        assert_int_equal(reply_type(&talk, 0), 0x80000003);
    }
    fsw_put32(data, UINT32_MAX);
    assert_int_equal(option(&talk, 7, data, length), FSW_SHAKE_NEXT);
    assert_int_equal(reply_type(&talk, 0), 0x80000003);
}

static void the_old_way_in_still_works(void **state)
{
    struct talk talk;

    talk_begin(&talk, 1);
    assert_int_equal(option(&talk, 1, "far", 3), FSW_SHAKE_GO);
    assert_int_equal(talk.out_length, 134);
    talk_begin(&talk, 3);
    assert_int_equal(option(&talk, 1, "", 0), FSW_SHAKE_GO);
    assert_int_equal(talk.out_length, 10);
    assert_true(fsw_get64(talk.out) == SIZE);
    talk_begin(&talk, 3);
    assert_int_equal(option(&talk, 1, "near", 4), -ENOENT);
}

static void options_we_do_not_have_are_refused_politely(void **state)
{
    static const uint32_t numbers[] = {4, 5, 8, 9, 10, 11, 12, 4000000000};
    struct talk talk;

    talk_begin(&talk, 3);
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        assert_int_equal(option(&talk, numbers[i], "abc", 3), FSW_SHAKE_NEXT);
        assert_int_equal(reply_type(&talk, 0), 0x80000001);
    }
    assert_int_equal(option(&talk, 3, "", 0), FSW_SHAKE_NEXT);
    assert_int_equal(reply_type(&talk, 0), 2);
    assert_memory_equal(talk.out + 20, "\0\0\0\3far", 7);
    assert_int_equal(option(&talk, 3, "x", 1), FSW_SHAKE_NEXT);
    assert_int_equal(reply_type(&talk, 0), 0x80000003);
    assert_int_equal(option(&talk, 2, "", 0), FSW_SHAKE_END);
    assert_int_equal(reply_type(&talk, 0), 1);
}

static void long_options_are_skipped_and_endless_ones_end(void **state)
{
    struct talk talk;
    size_t used;
    char data[64];

    talk_begin(&talk, 3);
    assert_int_equal(option(&talk, 8, "", 1000000), FSW_SHAKE_NEXT);
    assert_int_equal(reply_type(&talk, 0), 0x80000009);
    for (unsigned i = 0; i < 250; i++) {
        assert_int_equal(
            fsw_shake_next(&talk.shake, talk.bytes, 4000, &used, talk.out, &talk.out_length),
            FSW_SHAKE_MORE);
        assert_int_equal(used, 4000);
    }
    assert_int_equal(option(&talk, 7, data, (uint32_t)go_data(data, "")), FSW_SHAKE_GO);
    int r = FSW_SHAKE_NEXT;
    for (unsigned i = 0; r == FSW_SHAKE_NEXT && i <= FSW_SHAKE_OPTIONS_MAX; i++)
        r = option(&talk, 3, "", 0);
    assert_int_equal(r, -EPROTO);
    talk_begin(&talk, 3);
    talk.shake.greeted = 0;
    fsw_put32(talk.bytes, 4);
    assert_int_equal(fsw_shake_next(&talk.shake, talk.bytes, 4, &used, talk.out, &talk.out_length),
                     -EPROTO);
}

/* ---- the arena ---- */

#define BLOCKS 200u

static void blocks_never_overlap_and_all_come_back(void **state)
{
    static struct fsw_arena arena;
    struct {
        char *at;
        size_t length;
    } blocks[BLOCKS] = {{NULL, 0}};
    unsigned seed = 12345;

    assert_int_equal(fsw_arena_init(&arena), 0);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned i = (unsigned)rand_r(&seed) % BLOCKS;
        if (blocks[i].at != NULL) {
            assert_int_equal(blocks[i].at[0], (char)i);
            assert_int_equal(blocks[i].at[blocks[i].length - 1], (char)i);
            fsw_arena_give(&arena, blocks[i].at, blocks[i].length);
            blocks[i].at = NULL;
            continue;
        }
        blocks[i].length = 1 + (size_t)rand_r(&seed) % (1u << rand_r(&seed) % 22);
        blocks[i].at = fsw_arena_take(&arena, blocks[i].length);
        if (blocks[i].at == NULL)
            continue;
        for (unsigned k = 0; k < BLOCKS; k++)
            if (k != i && blocks[k].at != NULL)
                assert_true(blocks[i].at + blocks[i].length <= blocks[k].at ||
                            blocks[k].at + blocks[k].length <= blocks[i].at);
        blocks[i].at[0] = blocks[i].at[blocks[i].length - 1] = (char)i;
        if (round % 500 == 0)
            assert_int_equal(fsw_arena_check(&arena), 0);
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        if (blocks[i].at != NULL)
            fsw_arena_give(&arena, blocks[i].at, blocks[i].length);
    assert_int_equal(arena.used, 0);
    assert_int_equal(fsw_arena_check(&arena), 0);
    for (unsigned i = 0; i < FSW_ARENA_BYTES / FSW_WIRE_PAYLOAD_MAX; i++)
        assert_non_null(fsw_arena_take(&arena, FSW_WIRE_PAYLOAD_MAX));
    assert_null(fsw_arena_take(&arena, 1));
    fsw_arena_deinit(&arena);
}

static void what_was_touched_is_used_again(void **state)
{
    static struct fsw_arena arena;

    assert_int_equal(fsw_arena_init(&arena), 0);
    for (unsigned i = 0; i < 10000; i++) {
        size_t length = 128u << 10;
        char *a = fsw_arena_take(&arena, length), *b = fsw_arena_take(&arena, 4096);
        assert_true(a < arena.base + (1 << 20) && b < arena.base + (1 << 20));
        fsw_arena_give(&arena, a, length);
        fsw_arena_give(&arena, b, 4096);
    }
    fsw_arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_found_whatever_the_pieces),
        cmocka_unit_test(what_cannot_be_done_is_refused_with_a_reason),
        cmocka_unit_test(the_payload_of_a_refused_write_is_skipped),
        cmocka_unit_test(a_large_write_is_found_by_its_header),
        cmocka_unit_test(what_is_found_without_an_error_is_found_again),
        cmocka_unit_test(what_comes_next_is_seen_when_its_header_is_there),
        cmocka_unit_test(results_become_numbers_that_nbd_knows),
        cmocka_unit_test(go_tells_size_and_blocks_and_begins),
        cmocka_unit_test(other_names_and_crooked_lengths_are_refused),
        cmocka_unit_test(the_old_way_in_still_works),
        cmocka_unit_test(options_we_do_not_have_are_refused_politely),
        cmocka_unit_test(long_options_are_skipped_and_endless_ones_end),
        cmocka_unit_test(blocks_never_overlap_and_all_come_back),
        cmocka_unit_test(what_was_touched_is_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
