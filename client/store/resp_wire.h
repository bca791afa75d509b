/*
 * resp_wire.h: what goes over the wire to a RESP server, and what comes back: commands as bytes,
 * replies as verdicts. Parsing is hiredis's; pure functions otherwise, no sockets, no threads.
 */
#ifndef FSW_STORE_RESP_WIRE_H
#define FSW_STORE_RESP_WIRE_H

#include <stddef.h>
#include <hiredis/hiredis.h>

#include "farswap/store.h"

/* One word of a command. */
struct resp_word {
    const char *bytes;
    size_t length;
};

/* What a command of `count` words takes at most, in bytes. */
size_t resp_command_size(const struct resp_word *words, size_t count);

/* Writes the command at `to`, which has room for resp_command_size() bytes, and returns its length.
 * By hand and not by hiredis, which formats into freshly allocated memory only: a put happens when
 * the host is short of just that. */
size_t resp_command_write(char *to, const struct resp_word *words, size_t count);

/* The number in decimal, without a NUL; returns its end. */
#define RESP_NUMBER_TEXT 20
char *resp_number_write(char to[RESP_NUMBER_TEXT], uint64_t number);

/* A parser for the answers to our commands. They are never arrays and never longer than a segment:
 * whatever else a peer sends is an error of the reader, and never a large allocation. NULL: no
 * memory. */
redisReader *resp_reader_new(void);

/* More than this unparsed is nothing that we have asked for. */
#define RESP_UNPARSED_MOST (FSW_SEGMENT_BYTES + 4096u)

/* What an answer means for its request. */
enum resp_verdict {
    RESP_DONE,   /* answered: *ret_result says how */
    RESP_EMPTY,  /* GET: no such key, or an empty range: the sentinel tells which kind of nothing */
    RESP_LATER,  /* try again in a while, same connection */
    RESP_ABSURD, /* no answer to this command: the stream is out of step, don't trust it */
};

enum resp_verdict resp_judge(const struct fsw_store_request *request, const redisReply *reply,
                             enum fsw_store_result *ret_result);

/* The same for an error that came where no request was asked about (AUTH, sentinel): what a PUT
 * would be told. RESP_DONE or RESP_LATER. */
enum resp_verdict resp_judge_refusal(const redisReply *reply, enum fsw_store_result *ret_result);

/* 1 if the reply is a string with these bytes. */
int resp_is_string(const redisReply *reply, const char *bytes, size_t length);

#endif
