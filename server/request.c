/*
 * request.c: a gate in front of hiredis's redisReader, which does the parsing.
 *
 * The reader was made for clients, which trust their server: it allocates what an array's header
 * announces, buffers a bulk string of any announced length, and waits for the end of a line for
 * ever. So the gate hands it one header line or one bulk string at a time, after a look at the
 * header:
 *
 *     line ---'*3'---> reader makes the request      (createArray)
 *          ---'$5'---> the next 5 + 2 bytes go to the reader uninspected, which
 *                      makes an argument             (createString)
 *          ---'$65520'---> the next 65520 bytes go straight to a slot of the vault; the reader
 *                      is given an empty string to make an argument of
 *          ---other, between requests---> an inline request; the reader never sees it
 *          ---other, inside one---> protocol error
 *
 * Since the reader never gets a byte of the next request, it never moves bytes to the front of its
 * buffer, and a pipeline of any length costs it nothing. A large value is copied once on its way:
 * from what was read into the slot that the keyspace will hold. When the vault has no room for it,
 * it is read all the same, to nowhere, so that the request can be answered.
 *
 * Invariants:
 *  1. between requests the reader's buffer is empty;
 *  2. line_length < the limit of a line of that kind, so no peer can make us wait for a line's end;
 *  3. the sum of a request's announced lengths stays below FSW_MAX_REQUEST.
 */
#include "server/request.h"

#include <ctype.h>
#include <errno.h>
#include <hiredis/read.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/parse.h"

/* The reader keeps its empty buffer up to this size, else it is freed at the next request. Small
 * arguments are all that comes there. */
#define READER_KEEPS (16 * 1024)
/* Above this an argument goes to the vault. No stranger's does. */
#define SMALL_BYTES 1024
_Static_assert(SMALL_BYTES >= FSW_MAX_STRANGER_VALUE, "strangers take nothing from the vault");

struct fsw_parser {
    redisReader *reader;
    struct fsw_limit_hits *hits;
    struct fsw_vault *vault;
    const char *lent;
    size_t lent_length;
    size_t bulk_left;        /* bytes that go to the reader uninspected, CR LF included */
    size_t large_length;     /* 0, or of the argument that goes to the vault */
    size_t large_done;       /* of it, CR LF included */
    struct fsw_value *large; /* NULL before its first byte, and when there is no room */
    bool large_refused;
    char large_end[2];
    size_t request_bytes; /* announced in this request so far */
    bool in_request;
    bool stranger;
    int error; /* 0, -EPROTO, -ENOMEM */
    char error_text[128];
    size_t line_length;
    char line[FSW_MAX_INLINE];
};

static int fail(struct fsw_parser *parser, int error, const char *text)
{
    snprintf(parser->error_text, sizeof parser->error_text, "%s", text);
    return parser->error = error;
}

/* ---- what the reader builds ---- */

static struct fsw_request *request_new(size_t count)
{
    struct fsw_request *request = calloc(1, sizeof *request + count * sizeof request->argument[0]);

    if (request != NULL)
        request->count = (uint32_t)count;
    return request;
}

void fsw_request_free(struct fsw_request *request)
{
    if (request == NULL)
        return;
    for (uint32_t i = 0; i < request->count; i++)
        fsw_value_release(request->argument[i]);
    free(request);
}

static void *create_array(const redisReadTask *task, int elements)
{
    return task->parent == NULL ? request_new((size_t)elements) : NULL;
}

/* The large argument that is complete, or its excuse; else NULL. */
static struct fsw_value *take_large(struct fsw_parser *parser, struct fsw_request *request)
{
    struct fsw_value *value = parser->large;

    if (parser->large_refused) {
        request->refused = true;
        value = fsw_value_new(0);
    }
    parser->large = NULL;
    parser->large_refused = false;
    parser->large_length = parser->large_done = 0;
    return value;
}

static struct fsw_value *copy_small(const char *bytes, size_t length)
{
    struct fsw_value *value = fsw_value_new(length);

    if (value != NULL)
        memcpy(value->bytes, bytes, length);
    return value;
}

static void *create_string(const redisReadTask *task, char *bytes, size_t length)
{
    struct fsw_parser *parser = task->privdata;
    struct fsw_request *request;
    struct fsw_value *value;

    if (task->parent == NULL || task->type != REDIS_REPLY_STRING)
        return NULL;
    if (memcmp(bytes + length, "\r\n", 2) != 0) {
        fail(parser, -EPROTO, "bulk without CR LF at its end");
        return NULL;
    }
    request = task->parent->obj;
    value = parser->large_length > 0 ? take_large(parser, request) : copy_small(bytes, length);
    request->argument[task->idx] = value;
    return value;
}

static void *create_integer(const redisReadTask *task, long long value)
{
    return NULL;
}

static void *create_nil(const redisReadTask *task)
{
    return NULL;
}

static void free_object(void *object)
{
    fsw_request_free(object);
}

/* NULL makes the reader fail. The gate lets nothing through that these refuse, but for the CR LF.
 */
static redisReplyObjectFunctions builder = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
    .freeObject = free_object,
};

/* ---- the parser ---- */

int fsw_parser_new(struct fsw_limit_hits *hits, struct fsw_vault *vault,
                   struct fsw_parser **ret_parser)
{
    struct fsw_parser *parser = calloc(1, sizeof *parser);

    if (parser == NULL)
        return -ENOMEM;
    parser->reader = redisReaderCreateWithFunctions(&builder);
    if (parser->reader == NULL) {
        free(parser);
        return -ENOMEM;
    }
    parser->reader->maxbuf = READER_KEEPS;
    parser->reader->privdata = parser; /* its own macro casts a pointer to int */
    parser->hits = hits;
    parser->vault = vault;
    parser->stranger = true;
    *ret_parser = parser;
    return 0;
}

void fsw_parser_free(struct fsw_parser *parser)
{
    if (parser == NULL)
        return;
    redisReaderFree(parser->reader);
    fsw_value_release(parser->large);
    free(parser);
}

bool fsw_parser_is_inside(const struct fsw_parser *parser)
{
    return parser->in_request || parser->line_length > 0;
}

void fsw_parser_set_stranger(struct fsw_parser *parser, bool stranger)
{
    parser->stranger = stranger;
}

void fsw_parser_lend(struct fsw_parser *parser, const char *bytes, size_t length)
{
    parser->lent = bytes;
    parser->lent_length = length;
}

size_t fsw_parser_lent(const struct fsw_parser *parser, const char **ret_bytes)
{
    *ret_bytes = parser->lent;
    return parser->lent_length;
}

const char *fsw_parser_error(const struct fsw_parser *parser)
{
    return parser->error_text;
}

static int fail_at_limit(struct fsw_parser *parser, enum fsw_limit limit, const char *text)
{
    parser->hits->of[limit]++;
    return fail(parser, -EPROTO, text);
}

static int feed(struct fsw_parser *parser, const char *bytes, size_t length)
{
    if (redisReaderFeed(parser->reader, bytes, length) != REDIS_OK)
        return fail(parser, -ENOMEM, "out of memory");
    return 0;
}

/* The header line, with the end that take_line cut off. */
static int feed_line(struct fsw_parser *parser)
{
    memcpy(parser->line + parser->line_length, "\r\n", 2);
    return feed(parser, parser->line, parser->line_length + 2);
}

/* 1 when the reader has a request complete. */
static int take_from_reader(struct fsw_parser *parser, struct fsw_request **ret_request)
{
    void *reply;

    if (redisReaderGetReply(parser->reader, &reply) != REDIS_OK) {
        bool no_memory = parser->reader->err == REDIS_ERR_OOM;
        if (parser->error == 0)
            fail(parser, no_memory ? -ENOMEM : -EPROTO, parser->reader->errstr);
        return parser->error;
    }
    if (reply == NULL)
        return 0;
    parser->in_request = false;
    *ret_request = reply;
    return 1;
}

/* "*3" */
static int begin_request(struct fsw_parser *parser, const char *digits,
                         struct fsw_request **ret_request)
{
    enum fsw_limit limit = parser->stranger ? FSW_LIMIT_STRANGER_ARGUMENTS : FSW_LIMIT_ARGUMENTS;
    uint64_t max = parser->stranger ? FSW_MAX_STRANGER_ARGUMENTS : FSW_MAX_ARGUMENTS;
    uint64_t count;

    if (fsw_parse_u64(digits, 0, UINT64_MAX, &count) < 0)
        return fail(parser, -EPROTO, "invalid multibulk length");
    if (count > max)
        return fail_at_limit(parser, limit, "too many arguments");
    if (count == 0)
        return 0; /* "*0" asks for nothing and gets nothing */
    parser->in_request = true;
    parser->request_bytes = 0;
    int r = feed_line(parser);
    return r < 0 ? r : take_from_reader(parser, ret_request);
}

/* "$5" */
static int begin_bulk(struct fsw_parser *parser, const char *digits)
{
    uint64_t length;

    if (fsw_parse_u64(digits, 0, UINT64_MAX, &length) < 0)
        return fail(parser, -EPROTO, "invalid bulk length");
    if (parser->stranger && length > FSW_MAX_STRANGER_VALUE)
        return fail_at_limit(parser, FSW_LIMIT_STRANGER_VALUE, "unauthenticated bulk length");
    if (length > FSW_MAX_VALUE)
        return fail_at_limit(parser, FSW_LIMIT_VALUE, "invalid bulk length: value too large");
    parser->request_bytes += length;
    if (parser->request_bytes > FSW_MAX_REQUEST)
        return fail_at_limit(parser, FSW_LIMIT_REQUEST, "request too large");
    if (length > SMALL_BYTES) {
        parser->large_length = length;
        parser->large_done = 0;
        return 0;
    }
    parser->bulk_left = length + 2;
    return feed_line(parser);
}

/* A line in the middle of an array. */
static int inner_line(struct fsw_parser *parser)
{
    char text[64];

    if (parser->line[0] == '$')
        return begin_bulk(parser, parser->line + 1);
    if (parser->line[0] == '*')
        return fail_at_limit(parser, FSW_LIMIT_NESTING, "nested array");
    snprintf(text, sizeof text, "expected '$', got '%c'",
             isprint((unsigned char)parser->line[0]) ? parser->line[0] : '?');
    return fail(parser, -EPROTO, text);
}

/* ---- inline ---- */

/* A word's end; *p is left at its begin, and at '\0' if there is no more. */
static char *next_word(char **p)
{
    char *end;

    while (**p == ' ' || **p == '\t')
        (*p)++;
    for (end = *p; *end != '\0' && *end != ' ' && *end != '\t'; end++)
        ;
    return end;
}

/* Printable, and begins with a word of letters: "Host: x" of a browser that was sent here is not
 * a command, and neither is the rest of what it may carry ("POST / HTTP/1.1" comes before it). */
static bool looks_like_command(const char *line, size_t length)
{
    const char *first = line + strspn(line, " \t");
    size_t word = strspn(first, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");

    for (size_t i = 0; i < length; i++)
        if (!isprint((unsigned char)line[i]) && line[i] != '\t')
            return false;
    return word > 0 && strchr(" \t", first[word]) != NULL && strncasecmp(first, "POST ", 5) != 0;
}

static int inline_request(struct fsw_parser *parser, struct fsw_request **ret_request)
{
    char *p = parser->line, *end;
    size_t count = 0;

    for (end = next_word(&p); end > p; end = next_word(&p), count++)
        p = end;
    if (count == 0)
        return 0; /* an empty line: a person pressed enter */
    if (!looks_like_command(parser->line, strlen(parser->line)))
        return fail(parser, -EPROTO, "expected '*' or an inline command");
    struct fsw_request *request = request_new(count);
    if (request == NULL)
        return fail(parser, -ENOMEM, "out of memory");
    p = parser->line;
    for (size_t i = 0; i < count; i++) {
        end = next_word(&p);
        request->argument[i] = fsw_value_new((size_t)(end - p));
        if (request->argument[i] == NULL) {
            fsw_request_free(request);
            return fail(parser, -ENOMEM, "out of memory");
        }
        memcpy(request->argument[i]->bytes, p, (size_t)(end - p));
        p = end;
    }
    *ret_request = request;
    return 1;
}

/* ---- the gate ---- */

/* Moves lent bytes to the line, up to its end. 1: it is complete. 0: no more bytes. */
static int gather_line(struct fsw_parser *parser)
{
    char first = parser->line_length > 0 ? parser->line[0] : parser->lent[0];
    bool header = parser->in_request || first == '*';
    size_t max = header ? FSW_MAX_HEADER : FSW_MAX_INLINE;
    size_t room = max - parser->line_length;
    size_t n = room < parser->lent_length ? room : parser->lent_length;
    const char *end = memchr(parser->lent, '\n', n);

    if (end != NULL)
        n = (size_t)(end - parser->lent) + 1;
    memcpy(parser->line + parser->line_length, parser->lent, n);
    parser->line_length += n;
    parser->lent += n;
    parser->lent_length -= n;
    if (end != NULL)
        return 1;
    if (parser->line_length < max)
        return 0;
    return header ? fail_at_limit(parser, FSW_LIMIT_HEADER, "header line too long")
                  : fail_at_limit(parser, FSW_LIMIT_INLINE, "too big inline request");
}

/* As gather_line; cuts the line's end off. */
static int take_line(struct fsw_parser *parser)
{
    int r = gather_line(parser);
    size_t end = parser->line_length - 1;

    if (r <= 0)
        return r;
    if (end > 0 && parser->line[end - 1] == '\r')
        end--;
    else if (parser->in_request || parser->line[0] == '*')
        return fail(parser, -EPROTO, "header line without CR");
    if (memchr(parser->line, '\0', end) != NULL)
        return fail(parser, -EPROTO, "NUL in a line");
    parser->line[end] = '\0';
    parser->line_length = end;
    return 1;
}

static int take_bulk(struct fsw_parser *parser, struct fsw_request **ret_request)
{
    size_t n = parser->bulk_left < parser->lent_length ? parser->bulk_left : parser->lent_length;
    int r = feed(parser, parser->lent, n);

    if (r < 0)
        return r;
    parser->lent += n;
    parser->lent_length -= n;
    parser->bulk_left -= n;
    return parser->bulk_left == 0 ? take_from_reader(parser, ret_request) : 0;
}

static void take_lent(struct fsw_parser *parser, size_t length)
{
    parser->lent += length;
    parser->lent_length -= length;
    parser->large_done += length;
}

/* Up to the argument's last byte. Its place is made when the first one comes: to announce costs
 * us nothing. */
static void take_large_bytes(struct fsw_parser *parser)
{
    size_t n = parser->large_length - parser->large_done;

    if (n > parser->lent_length)
        n = parser->lent_length;
    if (parser->large_done == 0) {
        parser->large = parser->vault != NULL
                            ? fsw_vault_take(parser->vault, parser->large_length, false)
                            : fsw_value_new(parser->large_length);
        parser->large_refused = parser->large == NULL;
    }
    if (parser->large != NULL)
        memcpy(parser->large->bytes + parser->large_done, parser->lent, n);
    take_lent(parser, n);
}

/* The bytes of a large argument and the CR LF behind them, which the reader gets with nothing
 * before it. */
static int take_large_bulk(struct fsw_parser *parser, struct fsw_request **ret_request)
{
    const size_t end = parser->large_length + 2;

    if (parser->large_done < parser->large_length)
        take_large_bytes(parser);
    while (parser->lent_length > 0 && parser->large_done < end) {
        parser->large_end[parser->large_done - parser->large_length] = parser->lent[0];
        take_lent(parser, 1);
    }
    if (parser->large_done < end)
        return 0;
    int r = feed(parser, "$0\r\n", 4);
    if (r == 0)
        r = feed(parser, parser->large_end, 2);
    return r < 0 ? r : take_from_reader(parser, ret_request);
}

int fsw_parser_next(struct fsw_parser *parser, struct fsw_request **ret_request)
{
    int r = parser->error;

    while (r == 0 && parser->lent_length > 0) {
        if (parser->bulk_left > 0 || parser->large_length > 0) {
            r = parser->bulk_left > 0 ? take_bulk(parser, ret_request)
                                      : take_large_bulk(parser, ret_request);
            continue;
        }
        r = take_line(parser);
        if (r <= 0)
            continue;
        if (parser->in_request)
            r = inner_line(parser);
        else if (parser->line[0] == '*')
            r = begin_request(parser, parser->line + 1, ret_request);
        else
            r = inline_request(parser, ret_request);
        parser->line_length = 0;
    }
    return r;
}
