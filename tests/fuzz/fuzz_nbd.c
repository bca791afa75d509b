/*
 * fuzz_nbd.c: libFuzzer against farswap-nbd's parsers: the handshake and the requests.
 *
 * The first bytes of an input choose which of the two, and how the rest is cut into pieces. The
 * stream goes through a parser once whole and once in pieces; what was found must be the same, what
 * is used must never be more than there is, and answers must fit.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/nbd/shake.h"
#include "client/nbd/wire.h"

#define LONGEST (1u << 16)

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

static int step_shake(void *parser, const char *bytes, size_t length, size_t *used, FILE *out)
{
    char answer[FSW_SHAKE_OUT];
    size_t answer_length;
    int found = fsw_shake_next(parser, bytes, length, used, answer, &answer_length);

    check(answer_length <= sizeof answer);
    fwrite(answer, 1, answer_length, out);
    return found == FSW_SHAKE_GO || found == FSW_SHAKE_END ? -1 : found;
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
    const char *stream = (const char *)bytes + 5;
    for (int pass = 0; pass < 2; pass++) {
        struct fsw_wire wire = {.size = 1 << 20};
        struct fsw_shake shake = {.name = "far", .size = 1 << 20};
        int is_wire = bytes[0] & 1;
        feed(is_wire ? step_wire : step_shake, is_wire ? (void *)&wire : (void *)&shake, stream,
             length - 5, pass == 0 ? NULL : bytes + 1, pass == 0 ? &whole : &cut);
    }
    check(whole.length == cut.length && memcmp(whole.text, cut.text, whole.length) == 0);
    free(whole.text);
    free(cut.text);
    return 0;
}
