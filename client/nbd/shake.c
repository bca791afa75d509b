/*
 * shake.c: the handshake.
 *
 *      server   "NBDMAGIC" "IHAVEOPT" flags:2
 *      client   flags:4
 *      client   "IHAVEOPT" option:4 length:4 data                      any number of times
 *      server   magic:8 option:4 type:4 length:4 data                  replies, the last an ACK or error
 */
#include "client/nbd/shake.h"

#include <errno.h>
#include <string.h>

#include "client/nbd/bytes.h"
#include "client/nbd/wire.h"
#include "farswap/params.h"

#define REPLY_MAGIC 0x3e889045565a9ull
#define OPTION_MAGIC "IHAVEOPT"
#define OPTION_BYTES 16u
#define REPLY_BYTES 20u
#define EXPORT_NAME_ZEROES 124u

enum { FIXED_NEWSTYLE = 1, NO_ZEROES = 2 };

enum option {
    OPT_EXPORT_NAME = 1,
    OPT_ABORT = 2,
    OPT_LIST = 3,
    OPT_INFO = 6,
    OPT_GO = 7,
};

enum reply {
    REP_ACK = 1,
    REP_SERVER = 2,
    REP_INFO = 3,
    REP_ERR_UNSUP = 0x80000001u,
    REP_ERR_INVALID = 0x80000003u,
    REP_ERR_UNKNOWN = 0x80000006u,
    REP_ERR_TOO_BIG = 0x80000009u,
};

enum { INFO_EXPORT = 0, INFO_DESCRIPTION = 2, INFO_BLOCK_SIZE = 3 };

struct answer {
    char *out;
    size_t length;
    uint32_t option;
};

static void put_bytes(struct answer *answer, const void *bytes, size_t length)
{
    memcpy(answer->out + answer->length, bytes, length);
    answer->length += length;
}

static void put_reply(struct answer *answer, uint32_t type, const void *data, size_t length)
{
    char head[REPLY_BYTES];

    fsw_put64(head, REPLY_MAGIC);
    fsw_put32(head + 8, answer->option);
    fsw_put32(head + 12, type);
    fsw_put32(head + 16, (uint32_t)length);
    put_bytes(answer, head, sizeof head);
    put_bytes(answer, data, length);
}

static int say(struct answer *answer, uint32_t type, const char *text)
{
    put_reply(answer, type, text, strlen(text));
    return FSW_SHAKE_NEXT;
}

static uint16_t export_flags(const struct fsw_shake *shake)
{
    return (uint16_t)(FSW_SHAKE_HAS_FLAGS | FSW_SHAKE_SEND_FLUSH | FSW_SHAKE_SEND_FUA |
                      FSW_SHAKE_SEND_TRIM | FSW_SHAKE_SEND_WRITE_ZEROES | FSW_SHAKE_SEND_CACHE |
                      FSW_SHAKE_SEND_FAST_ZERO | (shake->multi_conn ? FSW_SHAKE_MULTI_CONN : 0));
}

static int is_ours(const struct fsw_shake *shake, const char *name, size_t length)
{
    return length == 0 || (length == strlen(shake->name) && memcmp(name, shake->name, length) == 0);
}

/* ---- options ---- */

static int export_name(const struct fsw_shake *shake, const char *data, size_t length,
                       struct answer *answer)
{
    char export[10 + EXPORT_NAME_ZEROES] = {0};

    if (!is_ours(shake, data, length))
        return -ENOENT; /* this option has no error reply */
    fsw_put64(export, shake->size);
    fsw_put16(export + 8, export_flags(shake));
    put_bytes(answer, export, shake->no_zeroes ? 10 : sizeof export);
    return FSW_SHAKE_GO;
}

static int list(const struct fsw_shake *shake, size_t length, struct answer *answer)
{
    char server[4 + FSW_NAME_MAX];
    size_t name = strnlen(shake->name, FSW_NAME_MAX);

    if (length != 0)
        return say(answer, REP_ERR_INVALID, "LIST takes no data");
    fsw_put32(server, (uint32_t)name);
    memcpy(server + 4, shake->name, name);
    put_reply(answer, REP_SERVER, server, 4 + name);
    put_reply(answer, REP_ACK, "", 0);
    return FSW_SHAKE_NEXT;
}

static void describe(const struct fsw_shake *shake, struct answer *answer)
{
    char text[2 + FSW_SHAKE_DESCRIPTION];
    size_t length = strnlen(shake->description, FSW_SHAKE_DESCRIPTION);

    fsw_put16(text, INFO_DESCRIPTION);
    memcpy(text + 2, shake->description, length);
    put_reply(answer, REP_INFO, text, 2 + length);
}

/* INFO and GO: name length:4, name, count:2, wanted infos:2 each. We send all that we have. */
static int info(const struct fsw_shake *shake, const char *data, size_t length,
                struct answer *answer)
{
    char export[12], sizes[14];
    size_t name = length >= 6 ? fsw_get32(data) : 0;

    if (length < 6 || name > length - 6 ||
        length - 6 - name != 2 * (size_t)fsw_get16(data + 4 + name))
        return say(answer, REP_ERR_INVALID, "the lengths in this option contradict each other");
    if (!is_ours(shake, data + 4, name))
        return say(answer, REP_ERR_UNKNOWN, "there is no export of that name");
    fsw_put16(export, INFO_EXPORT);
    fsw_put64(export + 2, shake->size);
    fsw_put16(export + 10, export_flags(shake));
    put_reply(answer, REP_INFO, export, sizeof export);
    fsw_put16(sizes, INFO_BLOCK_SIZE);
    fsw_put32(sizes + 2, 1);
    fsw_put32(sizes + 6, FSW_PAGE_SIZE);
    fsw_put32(sizes + 10, FSW_WIRE_PAYLOAD_MAX);
    put_reply(answer, REP_INFO, sizes, sizeof sizes);
    if (shake->description != NULL)
        describe(shake, answer);
    put_reply(answer, REP_ACK, "", 0);
    return answer->option == OPT_GO ? FSW_SHAKE_GO : FSW_SHAKE_NEXT;
}

static int answer_option(const struct fsw_shake *shake, const char *data, size_t length,
                         struct answer *answer)
{
    switch (answer->option) {
    case OPT_EXPORT_NAME:
        return export_name(shake, data, length, answer);
    case OPT_ABORT:
        put_reply(answer, REP_ACK, "", 0);
        return FSW_SHAKE_END;
    case OPT_LIST:
        return list(shake, length, answer);
    case OPT_INFO:
    case OPT_GO:
        return info(shake, data, length, answer);
    default:
        return say(answer, REP_ERR_UNSUP, "");
    }
}

/* ---- the stream ---- */

void fsw_shake_greet(char *out)
{
    memcpy(out, "NBDMAGIC" OPTION_MAGIC, 16);
    fsw_put16(out + 16, FIXED_NEWSTYLE | NO_ZEROES);
}

static int take_flags(struct fsw_shake *shake, const char *bytes, size_t length, size_t *used)
{
    if (length < 4)
        return FSW_SHAKE_MORE;
    uint32_t flags = fsw_get32(bytes);
    if (flags & ~(uint32_t)(FIXED_NEWSTYLE | NO_ZEROES))
        return -EPROTO;
    *used = 4;
    shake->greeted = 1;
    shake->no_zeroes = flags & NO_ZEROES;
    return FSW_SHAKE_NEXT;
}

static int take_option(struct fsw_shake *shake, const char *bytes, size_t length, size_t *used,
                       struct answer *answer)
{
    if (length < OPTION_BYTES)
        return FSW_SHAKE_MORE;
    uint32_t data = fsw_get32(bytes + 12);
    answer->option = fsw_get32(bytes + 8);
    if (memcmp(bytes, OPTION_MAGIC, 8) != 0)
        return -EPROTO;
    if (data > FSW_SHAKE_DATA_MAX && answer->option == OPT_EXPORT_NAME)
        return -EPROTO;
    if (data <= FSW_SHAKE_DATA_MAX && length - OPTION_BYTES < data)
        return FSW_SHAKE_MORE;
    if (++shake->options > FSW_SHAKE_OPTIONS_MAX)
        return -EPROTO;
    *used += OPTION_BYTES;
    if (data > FSW_SHAKE_DATA_MAX) {
        shake->skip = data;
        return say(answer, REP_ERR_TOO_BIG, "this option is longer than any that we know");
    }
    *used += data;
    return answer_option(shake, bytes + OPTION_BYTES, data, answer);
}

int fsw_shake_next(struct fsw_shake *shake, const char *bytes, size_t length, size_t *ret_used,
                   char *out, size_t *ret_out)
{
    struct answer answer = {.out = out};
    size_t skipped = shake->skip < length ? (size_t)shake->skip : length;
    int r;

    shake->skip -= skipped;
    *ret_used = skipped;
    *ret_out = 0;
    if (shake->skip > 0)
        return FSW_SHAKE_MORE;
    r = shake->greeted ? take_option(shake, bytes + skipped, length - skipped, ret_used, &answer)
                       : take_flags(shake, bytes, length, ret_used);
    *ret_out = answer.length;
    return r;
}
