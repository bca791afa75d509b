/*
 * test_farswapd_request.c: the donor's parser: the same requests however the bytes arrive, and an
 * end to everything that is not one.
 */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "server/request.h"

static struct fsw_limit_hits hits;

static struct fsw_parser *make_parser(bool stranger)
{
    struct fsw_parser *parser;

    assert_int_equal(fsw_parser_new(&hits, NULL, &parser), 0);
    fsw_parser_set_stranger(parser, stranger);
    return parser;
}

/* Writes a request as text, so that sequences of them can be compared: "count:len=bytes,..." */
static void describe(const struct fsw_request *request, FILE *out)
{
    fprintf(out, "%u:", request->count);
    for (uint32_t i = 0; i < request->count; i++) {
        fprintf(out, "%u=", request->argument[i]->length);
        fwrite(request->argument[i]->bytes, 1, request->argument[i]->length, out);
        assert_int_equal(request->argument[i]->bytes[request->argument[i]->length], '\0');
        fputc(',', out);
    }
    fputc('\n', out);
}

/* Lends one piece (a copy of exactly its size, so that ASan sees who reads beyond) and describes
 * what comes out. */
static int parse_piece(struct fsw_parser *parser, const char *bytes, size_t length, FILE *out)
{
    struct fsw_request *request;
    char *copy = malloc(length > 0 ? length : 1);
    int r;

    memcpy(copy, bytes, length);
    fsw_parser_lend(parser, copy, length);
    while ((r = fsw_parser_next(parser, &request)) > 0) {
        describe(request, out);
        fsw_request_free(request);
    }
    free(copy);
    return r;
}

/* The requests of a stream that arrives cut at `first` and `second`; the caller frees. */
static char *parse_cut(const char *bytes, size_t length, size_t first, size_t second, int *ret_r)
{
    struct fsw_parser *parser = make_parser(false);
    char *text = NULL;
    size_t text_length = 0;
    FILE *out = open_memstream(&text, &text_length);
    int r = parse_piece(parser, bytes, first, out);

    if (r == 0)
        r = parse_piece(parser, bytes + first, second - first, out);
    if (r == 0)
        r = parse_piece(parser, bytes + second, length - second, out);
    fclose(out);
    fsw_parser_free(parser);
    assert_int_equal(fsw_value_cost_of_all(), 0);
    *ret_r = r;
    return text;
}

static const char stream[] = "*1\r\n$4\r\nPING\r\n"
                             "*3\r\n$3\r\nSET\r\n$5\r\nkey\r\n\r\n$6\r\n*2\r\n$1\r\n"
                             "ping\r\n"
                             "\r\n"
                             "*0\r\n"
                             "  set  a\tb \n"
                             "*2\r\n$3\r\nGET\r\n$0\r\n\r\n"
                             "*4\r\n$8\r\nGETRANGE\r\n$1\r\nk\r\n$1\r\n0\r\n$2\r\n-1\r\n";
static const char stream_means[] = "1:4=PING,\n"
                                   "3:3=SET,5=key\r\n,6=*2\r\n$1,\n"
                                   "1:4=ping,\n"
                                   "3:3=set,1=a,1=b,\n"
                                   "2:3=GET,0=,\n"
                                   "4:8=GETRANGE,1=k,1=0,2=-1,\n";

static void test_every_split_gives_the_same_requests(void **unused)
{
    size_t length = sizeof stream - 1;

    for (size_t first = 0; first <= length; first++) {
        for (size_t second = first; second <= length; second++) {
            int r;
            char *text = parse_cut(stream, length, first, second, &r);
            assert_int_equal(r, 0);
            assert_string_equal(text, stream_means);
            free(text);
        }
    }
}

static void test_a_byte_at_a_time(void **unused)
{
    struct fsw_parser *parser = make_parser(false);
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    for (size_t i = 0; i < sizeof stream - 1; i++)
        assert_int_equal(parse_piece(parser, stream + i, 1, out), 0);
    fclose(out);
    assert_string_equal(text, stream_means);
    free(text);
    fsw_parser_free(parser);
}

/* Who stops in the middle of a batch finds the rest where it was. */
static void test_the_rest_can_be_lent_again(void **unused)
{
    struct fsw_parser *parser = make_parser(false);
    struct fsw_request *request;
    size_t length = sizeof stream - 1;
    const char *left;
    char *text = NULL;
    size_t text_length;
    FILE *out = open_memstream(&text, &text_length);

    fsw_parser_lend(parser, stream, length);
    while (fsw_parser_next(parser, &request) > 0) {
        describe(request, out);
        fsw_request_free(request);
        length = fsw_parser_lent(parser, &left);
        fsw_parser_lend(parser, left, length);
    }
    assert_int_equal(fsw_parser_lent(parser, &left), 0);
    fclose(out);
    assert_string_equal(text, stream_means);
    free(text);
    fsw_parser_free(parser);
}

/* Every one ends in -EPROTO, with the words that the peer will see. */
static void test_garbage_is_refused(void **unused)
{
    static const struct {
        const char *bytes, *error;
    } cases[] = {
        {"*1000000000\r\n", "too many arguments"},
        {"*18446744073709551616\r\n", "invalid multibulk length"},
        {"*1025\r\n", "too many arguments"},
        {"*-1\r\n", "invalid multibulk length"},
        {"*\r\n", "invalid multibulk length"},
        {"*1x\r\n", "invalid multibulk length"},
        {"* 1\r\n", "invalid multibulk length"},
        {"*1\n", "header line without CR"},
        {"*00000000000000000000000000000000001\r\n", "header line too long"},
        {"*1\r\n$9999999999\r\n", "value too large"},
        {"*1\r\n$65537\r\n", "value too large"},
        {"*1\r\n$-1\r\n", "invalid bulk length"},
        {"*1\r\n$9223372036854775807\r\n", "value too large"},
        {"*1\r\n$18446744073709551615\r\n", "value too large"},
        {"*1\r\n$99999999999999999999\r\n", "invalid bulk length"},
        {"*1\r\n$\r\n", "invalid bulk length"},
        {"*1\r\n*1\r\n", "nested array"},
        {"*1\r\n:1\r\n", "expected '$', got ':'"},
        {"*1\r\n+OK\r\n", "expected '$', got '+'"},
        {"*1\r\n\r\n", "expected '$', got '?'"},
        {"*1\r\nPING\r\n", "expected '$', got 'P'"},
        {"*1\r\n$4\r\nPINGxx", "bulk without CR LF"},
        {"*2\r\n$4\r\nPING\n\n", "bulk without CR LF"},
        {"$4\r\nPING\r\n", "expected '*' or an inline command"},
        {"+PING\r\n", "expected '*' or an inline command"},
        {"\x16\x03\x01\n", "expected '*' or an inline command"},
        {"PING\x01\r\n", "expected '*' or an inline command"},
        {"Host: example.com\r\n", "expected '*' or an inline command"},
        {"POST / HTTP/1.1\r\n", "expected '*' or an inline command"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fsw_parser *parser = make_parser(false);
        FILE *out = fopen("/dev/null", "w");
        int r = parse_piece(parser, cases[i].bytes, strlen(cases[i].bytes), out);
        if (r != -EPROTO || strstr(fsw_parser_error(parser), cases[i].error) == NULL)
            fail_msg("%s gives %d, %s", cases[i].bytes, r, fsw_parser_error(parser));
        assert_int_equal(parse_piece(parser, "PING\r\n", 6, out), -EPROTO); /* for good */
        fclose(out);
        fsw_parser_free(parser);
        assert_int_equal(fsw_value_cost_of_all(), 0);
    }
}

/* Lends `count` times the same bytes. */
static int parse_many(struct fsw_parser *parser, const char *bytes, size_t count)
{
    FILE *out = fopen("/dev/null", "w");
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++)
        r = parse_piece(parser, bytes, strlen(bytes), out);
    fclose(out);
    return r;
}

static void test_lines_without_an_end_are_refused(void **unused)
{
    static const struct {
        const char *begin;
        size_t room;
    } cases[] = {{"*", FSW_MAX_HEADER}, {"*1\r\n$", FSW_MAX_HEADER}, {"p", FSW_MAX_INLINE}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fsw_parser *parser = make_parser(false);
        assert_int_equal(parse_many(parser, cases[i].begin, 1), 0);
        assert_int_equal(parse_many(parser, "1", cases[i].room - 2), 0);
        assert_int_equal(parse_many(parser, "1", 1), -EPROTO);
        fsw_parser_free(parser);
    }
}

/* An announcement alone costs next to nothing: the values come when the bytes do. */
static void test_announcing_allocates_nothing(void **unused)
{
    struct fsw_parser *parser = make_parser(false);
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;

    assert_int_equal(parse_many(parser, "*1024\r\n$65536\r\n", 1), 0);
    assert_true(mallinfo2().uordblks + mallinfo2().hblkhd - before < 32 * 1024);
    fsw_parser_free(parser);
}

static void test_a_request_has_a_limit_as_a_whole(void **unused)
{
    struct fsw_parser *parser = make_parser(false);
    char *value = malloc(FSW_MAX_VALUE + 3);
    uint64_t before = hits.of[FSW_LIMIT_REQUEST];

    memset(value, 'v', FSW_MAX_VALUE);
    memcpy(value + FSW_MAX_VALUE, "\r\n", 3);
    assert_int_equal(parse_many(parser, "*6\r\n", 1), 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(parse_many(parser, "$65536\r\n", 1), 0);
        assert_int_equal(parse_many(parser, value, 1), 0);
    }
    assert_int_equal(parse_many(parser, "$0\r\n\r\n", 1), 0);
    assert_int_equal(parse_many(parser, "$1\r\n", 1), -EPROTO);
    assert_int_equal(hits.of[FSW_LIMIT_REQUEST], before + 1);
    free(value);
    fsw_parser_free(parser);
    assert_int_equal(fsw_value_cost_of_all(), 0);
}

static void test_strangers_get_less(void **unused)
{
    static const char *const too_much[] = {"*9\r\n", "*1\r\n$1025\r\n"};

    for (unsigned i = 0; i < 2; i++) {
        struct fsw_parser *parser = make_parser(true);
        assert_int_equal(parse_many(parser, too_much[i], 1), -EPROTO);
        fsw_parser_free(parser);
        parser = make_parser(false);
        assert_int_equal(parse_many(parser, too_much[i], 1), 0);
        fsw_parser_free(parser);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split_gives_the_same_requests),
        cmocka_unit_test(test_a_byte_at_a_time),
        cmocka_unit_test(test_the_rest_can_be_lent_again),
        cmocka_unit_test(test_garbage_is_refused),
        cmocka_unit_test(test_lines_without_an_end_are_refused),
        cmocka_unit_test(test_announcing_allocates_nothing),
        cmocka_unit_test(test_a_request_has_a_limit_as_a_whole),
        cmocka_unit_test(test_strangers_get_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
