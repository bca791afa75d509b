/*
 * reply.c: the one file that writes RESP.
 */
#include "server/reply.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fsw_reply_clear(struct fsw_reply *reply)
{
    for (size_t i = 0; i < reply->pieces; i++)
        fsw_value_release(reply->piece[i].value);
    free(reply->piece);
    free(reply->text);
    *reply = (struct fsw_reply){0};
}

/* Makes room for `more` elements of `size` after the `used` ones. */
static void *make_room(struct fsw_reply *reply, void *array, size_t size, size_t used, size_t more,
                       size_t *room)
{
    size_t wanted = *room > 0 ? *room : 256 / size;
    void *grown;

    if (used + more <= *room)
        return array;
    while (wanted < used + more)
        wanted *= 2;
    grown = realloc(array, wanted * size);
    if (grown == NULL) {
        reply->failed = true;
        return array;
    }
    *room = wanted;
    return grown;
}

static struct fsw_reply_piece *add_piece(struct fsw_reply *reply)
{
    reply->piece =
        make_room(reply, reply->piece, sizeof *reply->piece, reply->pieces, 1, &reply->piece_room);
    return reply->failed ? NULL : &reply->piece[reply->pieces++];
}

static void add_text(struct fsw_reply *reply, const char *bytes, size_t length)
{
    struct fsw_reply_piece *last = reply->pieces > 0 ? &reply->piece[reply->pieces - 1] : NULL;

    if (reply->failed || length == 0)
        return;
    reply->text = make_room(reply, reply->text, 1, reply->text_length, length, &reply->text_room);
    if (last == NULL || last->value != NULL) {
        last = add_piece(reply);
        if (last != NULL)
            *last = (struct fsw_reply_piece){.offset = reply->text_length};
    }
    if (reply->failed)
        return;
    memcpy(reply->text + reply->text_length, bytes, length);
    reply->text_length += length;
    last->length += length;
    reply->bytes += length;
}

/* One line that begins with a RESP type and a number. */
static void add_number(struct fsw_reply *reply, char type, int64_t number)
{
    char line[32];
    int length = snprintf(line, sizeof line, "%c%lld\r\n", type, (long long)number);

    add_text(reply, line, (size_t)length);
}

void fsw_reply_status(struct fsw_reply *reply, const char *text)
{
    add_text(reply, "+", 1);
    add_text(reply, text, strlen(text));
    add_text(reply, "\r\n", 2);
}

void fsw_reply_error(struct fsw_reply *reply, const char *format, ...)
{
    char line[256];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *p = line; *p != '\0'; p++)
        if (*p == '\r' || *p == '\n')
            *p = ' ';
    add_text(reply, "-", 1);
    add_text(reply, line, strlen(line));
    add_text(reply, "\r\n", 2);
}

void fsw_reply_integer(struct fsw_reply *reply, int64_t value)
{
    add_number(reply, ':', value);
}

void fsw_reply_nil(struct fsw_reply *reply)
{
    if (reply->resp3)
        add_text(reply, "_\r\n", 3);
    else
        add_text(reply, "$-1\r\n", 5);
}

void fsw_reply_bulk(struct fsw_reply *reply, const char *bytes, size_t length)
{
    add_number(reply, '$', (int64_t)length);
    add_text(reply, bytes, length);
    add_text(reply, "\r\n", 2);
}

void fsw_reply_text(struct fsw_reply *reply, const char *text)
{
    fsw_reply_bulk(reply, text, strlen(text));
}

void fsw_reply_value(struct fsw_reply *reply, struct fsw_value *value, size_t offset, size_t length)
{
    struct fsw_reply_piece *piece;

    if (length < FSW_REPLY_COPIES) {
        fsw_reply_bulk(reply, value->bytes + offset, length);
        return;
    }
    add_number(reply, '$', (int64_t)length);
    piece = add_piece(reply);
    if (piece == NULL)
        return;
    *piece = (struct fsw_reply_piece){fsw_value_hold(value), offset, length};
    reply->bytes += length;
    add_text(reply, "\r\n", 2);
}

void fsw_reply_array(struct fsw_reply *reply, size_t elements)
{
    add_number(reply, '*', (int64_t)elements);
}

void fsw_reply_set(struct fsw_reply *reply, size_t elements)
{
    add_number(reply, reply->resp3 ? '~' : '*', (int64_t)elements);
}

void fsw_reply_map(struct fsw_reply *reply, size_t pairs)
{
    if (reply->resp3)
        add_number(reply, '%', (int64_t)pairs);
    else
        add_number(reply, '*', (int64_t)pairs * 2);
}

void fsw_reply_verbatim(struct fsw_reply *reply, const char *bytes, size_t length)
{
    if (!reply->resp3) {
        fsw_reply_bulk(reply, bytes, length);
        return;
    }
    add_number(reply, '=', (int64_t)length + 4);
    add_text(reply, "txt:", 4);
    add_text(reply, bytes, length);
    add_text(reply, "\r\n", 2);
}

struct iovec fsw_reply_piece(const struct fsw_reply *reply, size_t i)
{
    const struct fsw_reply_piece *piece = &reply->piece[i];
    char *base = piece->value != NULL ? piece->value->bytes : reply->text;

    return (struct iovec){base + piece->offset, piece->length};
}
