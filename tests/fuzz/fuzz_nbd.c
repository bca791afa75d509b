/*
 * fuzz_nbd.c: libFuzzer against farswap-nbd's parsers: the handshake and the requests.
 *
 * The first bytes of an input choose which of the two, and how the rest is cut into pieces. Of the
 * handshake they also choose what is exported, up to the longest name and description, and whether
 * the rest is the stream itself or options that are framed here, so that what is in them is reached.
 * The stream goes through a parser once whole and once in pieces; what was found must be the same,
 * what is used must never be more than there is, and answers must fit. Answers of the handshake must
 * be replies that a client can read, with all of what it asked for and nothing else's.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/nbd/bytes.h"
#include "client/nbd/shake.h"
#include "client/nbd/wire.h"
#include "farswap/params.h"

#define LONGEST (1u << 16)
#define SIZE (1u << 20)
#define REPLY_MAGIC 0x3e889045565a9ull
#define REPLY_HEAD 20u
enum { OPT_EXPORT_NAME = 1, OPT_ABORT = 2, OPT_LIST = 3, OPT_INFO = 6, OPT_GO = 7 };
enum { REP_ACK = 1, REP_SERVER = 2, REP_INFO = 3 };
enum { INFO_EXPORT = 0, INFO_DESCRIPTION = 2, INFO_BLOCK_SIZE = 3 };

static void check(int holds)
{
    if (!holds)
        abort();
}

/* What a parser found, as text to compare. */
struct trace {
    char *text;
    size_t length;
    FILE *out;
};

/* One step at the bytes: >0 something was found, 0 more is needed, <0 the end. */
typedef int (*step)(void *parser, const char *bytes, size_t length, size_t *used, FILE *out);

static int step_wire(void *parser, const char *bytes, size_t length, size_t *used, FILE *out)
{
    struct fsw_wire_request request;
    int found = fsw_wire_next(parser, bytes, length, used, &request);

    if (found == FSW_WIRE_REQUEST || found == FSW_WIRE_LARGE)
        fprintf(out, "%d %u %u %u %llu %llu %u\n", found, request.flags, request.type,
                request.length, (unsigned long long)request.cookie,
                (unsigned long long)request.offset, request.error);
    if (found == FSW_WIRE_REQUEST && request.payload != NULL)
        fwrite(request.payload, 1, request.length, out);
    return found;
}

/* ---- what a client sees of the handshake ---- */

/* Which infos an answer had, a bit each. */
static unsigned check_info(const struct fsw_shake *shake, const char *data, size_t length)
{
    unsigned kind = length >= 2 ? fsw_get16(data) : 99;

    if (kind == INFO_EXPORT)
        check(length == 12 && fsw_get64(data + 2) == SIZE && fsw_get16(data + 10) & 1);
    else if (kind == INFO_BLOCK_SIZE)
        check(length == 14 && fsw_get32(data + 6) == FSW_PAGE_SIZE &&
              fsw_get32(data + 10) == FSW_WIRE_PAYLOAD_MAX);
    else
        check(kind == INFO_DESCRIPTION && shake->description != NULL &&
              length == 2 + strlen(shake->description) &&
              memcmp(data + 2, shake->description, length - 2) == 0);
    return 1u << kind;
}

static void check_server(const struct fsw_shake *shake, const char *data, size_t length)
{
    size_t name = strlen(shake->name);

    check(length == 4 + name && fsw_get32(data) == name &&
          memcmp(data + 4, shake->name, name) == 0);
}

/* The replies to one option: the last is an ACK, with all that belongs to it, or an error alone. */
static void check_replies(const struct fsw_shake *shake, const char *at, size_t left, int found)
{
    uint32_t option = fsw_get32(at + 8), type = 0;
    unsigned infos = 0, servers = 0, wanted = shake->description != NULL ? 13 : 9;

    while (left > 0) {
        check(type == 0 || type == REP_SERVER || type == REP_INFO);
        check(left >= REPLY_HEAD && fsw_get64(at) == REPLY_MAGIC && fsw_get32(at + 8) == option);
        uint32_t length = fsw_get32(at + 16);
        type = fsw_get32(at + 12);
        check(length <= left - REPLY_HEAD);
        if (type == REP_INFO)
            infos |= check_info(shake, at + REPLY_HEAD, length);
        else if (type == REP_SERVER)
            check_server(shake, at + REPLY_HEAD, length), servers++;
        else
            check(type == REP_ACK ? length == 0 : type >> 31 && infos == 0 && servers == 0);
        at += REPLY_HEAD + length;
        left -= REPLY_HEAD + length;
    }
    int is_ack = type == REP_ACK;
    check(is_ack || type >> 31);
    check(infos == (is_ack && (option == OPT_INFO || option == OPT_GO) ? wanted : 0));
    check(servers == (is_ack && option == OPT_LIST));
    check((found == FSW_SHAKE_GO) == (is_ack && option == OPT_GO));
    check((found == FSW_SHAKE_END) == (option == OPT_ABORT && is_ack));
}

/* EXPORT_NAME's answer has no head. */
static void check_answer(const struct fsw_shake *shake, const char *out, size_t length, int found)
{
    if (length == 0)
        return;
    if (found == FSW_SHAKE_GO && (length == 10 || length == 134))
        check(fsw_get64(out) == SIZE && (length == 10) == (shake->no_zeroes != 0));
    else
        check_replies(shake, out, length, found);
}

static int step_shake(void *parser, const char *bytes, size_t length, size_t *used, FILE *out)
{
    char answer[FSW_SHAKE_OUT];
    size_t answer_length;
    int found = fsw_shake_next(parser, bytes, length, used, answer, &answer_length);

    check(answer_length <= sizeof answer);
    if (found >= 0)
        check_answer(parser, answer, answer_length, found);
    fwrite(answer, 1, answer_length, out);
    return found == FSW_SHAKE_GO || found == FSW_SHAKE_END ? -1 : found;
}

/* ---- an input ---- */

/* An option with its head. INFO and GO are asked for by the export's own name where `which` says so,
 * which nobody guesses: the data follow as what is wanted of it. */
static void frame_one(FILE *out, unsigned which, const uint8_t *data, size_t length,
                      const char *name)
{
    char head[16] = "IHAVEOPT", number[4];
    size_t own = which >= 10 ? 4 + strlen(name) : 0;

    fsw_put32(head + 8, which >= 10 ? which - 10 + OPT_INFO : which);
    fsw_put32(head + 12, (uint32_t)(own + length));
    fwrite(head, sizeof head, 1, out);
    if (own > 0) {
        fsw_put32(number, (uint32_t)strlen(name));
        fwrite(number, sizeof number, 1, out);
        fputs(name, out);
    }
    fwrite(data, length, 1, out);
}

/* Flags, then options: of the input each has a byte that says which, and one for the length of its
 * data. Freed by the caller. */
static char *frame(const uint8_t *bytes, size_t length, const char *name, size_t *ret_length)
{
    char *text;
    FILE *out = open_memstream(&text, ret_length);

    fwrite("\0\0\0\1", 4, 1, out);
    while (length >= 2) {
        size_t data = bytes[1] < length - 2 ? bytes[1] : length - 2;
        frame_one(out, bytes[0] % 12, bytes + 2, data, name);
        bytes += 2 + data;
        length -= 2 + data;
    }
    fclose(out);
    return text;
}

/* What is exported: short, or as long as it may be; described or not. */
static struct fsw_shake exported(unsigned choice)
{
    static char name[FSW_NAME_MAX + 1], description[FSW_SHAKE_DESCRIPTION + 1];

    memset(name, 'n', FSW_NAME_MAX);
    memset(description, 'd', FSW_SHAKE_DESCRIPTION);
    return (struct fsw_shake){.name = choice & 1 ? name : "far",
                              .size = SIZE,
                              .description = choice & 2   ? description
                                             : choice & 4 ? "farswap-1"
                                                          : NULL};
}

static void feed(step next, void *parser, const char *bytes, size_t length, const uint8_t *cut,
                 struct trace *trace)
{
    size_t at = 0, known = 0, used, piece = 0;
    int found = 0;

    trace->out = open_memstream(&trace->text, &trace->length);
    while (found >= 0 && known < length) {
        known += cut == NULL ? length : 1u + cut[piece++ % 4];
        known = known < length ? known : length;
        do {
            found = next(parser, bytes + at, known - at, &used, trace->out);
            check(used <= known - at);
            at += used;
        } while (found > 0);
    }
    fprintf(trace->out, "end %d\n", found < 0 ? found : 0);
    fclose(trace->out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct trace whole, cut;

    if (length < 5 || length > LONGEST)
        return 0;
    int is_wire = bytes[0] & 1, is_framed = !is_wire && bytes[0] & 2;
    size_t stream_length = length - 5;
    const char *name = exported(bytes[0] >> 2).name;
    char *framed = is_framed ? frame(bytes + 5, length - 5, name, &stream_length) : NULL;
    const char *stream = is_framed ? framed : (const char *)bytes + 5;
    for (int pass = 0; pass < 2; pass++) {
        struct fsw_wire wire = {.size = SIZE};
        struct fsw_shake shake = exported(bytes[0] >> 2);
        feed(is_wire ? step_wire : step_shake, is_wire ? (void *)&wire : (void *)&shake, stream,
             stream_length, pass == 0 ? NULL : bytes + 1, pass == 0 ? &whole : &cut);
    }
    check(whole.length == cut.length && memcmp(whole.text, cut.text, whole.length) == 0);
    free(framed);
    free(whole.text);
    free(cut.text);
    return 0;
}
