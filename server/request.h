/*
 * request.h: from bytes to requests. RESP arrays of bulk strings, and inline lines for people.
 *
 * Bytes are lent to a parser, requests are taken out one by one:
 *
 *     fsw_parser_lend(parser, bytes, length);
 *     while ((r = fsw_parser_next(parser, &request)) > 0) { ...; fsw_request_free(request); }
 *
 * At r == 0 the parser is through with the bytes (what it still needs of them it has copied). Who
 * stops before that asks fsw_parser_lent() for what is left, and lends it again later.
 * One thread a parser. Nothing blocks; next allocates.
 */
#ifndef FSW_SERVER_REQUEST_H
#define FSW_SERVER_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/limits.h"
#include "server/value.h"
#include "server/vault.h"

struct fsw_request {
    uint32_t count; /* of arguments, the command's name being the first; at least 1 */
    bool refused;   /* an argument is empty instead of what was sent: the vault did not take it */
    struct fsw_value *argument[];
};

void fsw_request_free(struct fsw_request *request);

struct fsw_parser;

/* hits: counters of limits, shared by all parsers. vault: where large arguments go, so that a SET
 * need not move them; NULL: the allocator has them all. 0 or -ENOMEM. */
int fsw_parser_new(struct fsw_limit_hits *hits, struct fsw_vault *vault,
                   struct fsw_parser **ret_parser);
void fsw_parser_free(struct fsw_parser *parser);

/* A stranger has not shown a password yet: smaller limits. Parsers begin as strangers. */
void fsw_parser_set_stranger(struct fsw_parser *parser, bool stranger);

/* The bytes must stay until next has returned 0 or less, or lent has been asked. */
void fsw_parser_lend(struct fsw_parser *parser, const char *bytes, size_t length);
size_t fsw_parser_lent(const struct fsw_parser *parser, const char **ret_bytes);

/* Whether it has part of a request. */
bool fsw_parser_is_inside(const struct fsw_parser *parser);

/* 1: *ret_request is the caller's. 0: all bytes are read. -EPROTO: garbage, or more than a limit
 * allows; fsw_parser_error says which, and the parser is of no more use. -ENOMEM: likewise. */
int fsw_parser_next(struct fsw_parser *parser, struct fsw_request **ret_request);
const char *fsw_parser_error(const struct fsw_parser *parser);

#endif
