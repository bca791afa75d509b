/*
 * reply.h: RESP2 and RESP3 replies, many in a batch, ready for one vectored write.
 *
 * Text is gathered in one growing buffer; values above FSW_REPLY_COPIES bytes are held, not copied.
 * A failed allocation is remembered (failed) and looked at once, by who sends. One thread.
 */
#ifndef FSW_SERVER_REPLY_H
#define FSW_SERVER_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "server/value.h"

/* Below this a copy costs less than one more element of a writev. */
#define FSW_REPLY_COPIES 512

struct fsw_reply_piece {
    struct fsw_value *value; /* held; NULL: a piece of text */
    size_t offset, length;
};

struct fsw_reply {
    char *text;
    size_t text_length, text_room;
    struct fsw_reply_piece *piece;
    size_t pieces, piece_room;
    size_t bytes; /* of all pieces */
    bool failed;
    bool resp3; /* what the peer asked for with HELLO; may change between replies */
};

/* {0} is an empty batch. Frees what it holds and makes it empty. */
void fsw_reply_clear(struct fsw_reply *reply);

void fsw_reply_status(struct fsw_reply *reply, const char *text);
/* text without the '-'; CR and LF in it become spaces. */
void fsw_reply_error(struct fsw_reply *reply, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void fsw_reply_integer(struct fsw_reply *reply, int64_t value);
void fsw_reply_nil(struct fsw_reply *reply);
void fsw_reply_bulk(struct fsw_reply *reply, const char *bytes, size_t length);
void fsw_reply_text(struct fsw_reply *reply, const char *text);
/* length bytes of the value from offset on, which must be in it. */
void fsw_reply_value(struct fsw_reply *reply, struct fsw_value *value, size_t offset,
                     size_t length);
/* The header; the elements follow as replies of their own. */
void fsw_reply_array(struct fsw_reply *reply, size_t elements);
/* The same, for elements without an order, and for pairs of a name and a value: RESP2 has arrays
 * for both. */
void fsw_reply_set(struct fsw_reply *reply, size_t elements);
void fsw_reply_map(struct fsw_reply *reply, size_t pairs);
/* Text for people. */
void fsw_reply_verbatim(struct fsw_reply *reply, const char *bytes, size_t length);

/* Piece i as writev wants it. Good until the reply changes. */
struct iovec fsw_reply_piece(const struct fsw_reply *reply, size_t i);

#endif
