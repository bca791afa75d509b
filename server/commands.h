/*
 * commands.h: what the files of commands share; command.c has the table.
 *
 * Each run_ function appends exactly one reply. Words and errors are redis's where redis has the
 * command, so that clients written for it understand.
 */
#ifndef FSW_SERVER_COMMANDS_H
#define FSW_SERVER_COMMANDS_H

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "common/parse.h"
#include "server/reply.h"
#include "server/request.h"
#include "server/server.h"

#define FSW_SYNTAX_ERROR "ERR syntax error"
#define FSW_NOT_AN_INTEGER "ERR value is not an integer or out of range"

/* No number has more digits, and no longer argument a NUL behind it. */
#define FSW_NUMBER_DIGITS 32

static inline bool fsw_is_word(const struct fsw_value *value, const char *word)
{
    return value->length == strlen(word) && strcasecmp(value->bytes, word) == 0;
}

static inline int fsw_argument_i64(const struct fsw_value *value, int64_t *ret_number)
{
    return value->length > FSW_NUMBER_DIGITS
               ? -EINVAL
               : fsw_parse_i64(value->bytes, INT64_MIN, INT64_MAX, ret_number);
}

static inline int fsw_argument_u64(const struct fsw_value *value, uint64_t min, uint64_t max,
                                   uint64_t *ret_number)
{
    return value->length > FSW_NUMBER_DIGITS ? -EINVAL
                                             : fsw_parse_u64(value->bytes, min, max, ret_number);
}

typedef void fsw_command(struct fsw_session *session, struct fsw_request *request,
                         struct fsw_reply *reply);

/* command_value.c */
fsw_command fsw_run_get, fsw_run_getrange, fsw_run_strlen, fsw_run_set, fsw_run_del, fsw_run_exists,
    fsw_run_dbsize, fsw_run_scan;
/* command_session.c */
fsw_command fsw_run_ping, fsw_run_echo, fsw_run_quit, fsw_run_select, fsw_run_auth, fsw_run_hello,
    fsw_run_client, fsw_run_wait;
/* command_donor.c */
fsw_command fsw_run_info, fsw_run_config, fsw_run_flushall, fsw_run_devices, fsw_run_forget;

/* The admin, or "-NOPERM ..." and false. */
bool fsw_check_admin(const struct fsw_session *session, struct fsw_reply *reply);

/* "-OOM ..." with the reason, counted. */
void fsw_refuse_memory(struct fsw_server *server, struct fsw_reply *reply);

#endif
