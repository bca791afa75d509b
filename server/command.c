/*
 * command.c: the table of commands, and what each does. Words and errors are redis's where redis
 * has the command, so that clients written for it understand.
 */
#include "server/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/parse.h"
#include "server/glob.h"
#include "server/info.h"

static const char syntax_error[] = "ERR syntax error";
static const char not_an_integer[] = "ERR value is not an integer or out of range";

static bool is_word(const struct fsw_value *value, const char *word)
{
    return value->length == strlen(word) && strcasecmp(value->bytes, word) == 0;
}

static struct fsw_value *lookup(struct fsw_session *session, const struct fsw_value *key)
{
    struct fsw_server_counters *counters = &session->server->counters;
    struct fsw_value *value = fsw_keyspace_get(session->server->keyspace, key->bytes, key->length);

    if (value != NULL)
        counters->keyspace_hits++;
    else
        counters->keyspace_misses++;
    return value;
}

/* ---- the connection ---- */

static void run_ping(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply)
{
    if (request->count > 2)
        fsw_reply_error(reply, "ERR wrong number of arguments for 'ping' command");
    else if (request->count == 2)
        fsw_reply_value(reply, request->argument[1], 0, request->argument[1]->length);
    else
        fsw_reply_status(reply, "PONG");
}

static void run_echo(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply)
{
    fsw_reply_value(reply, request->argument[1], 0, request->argument[1]->length);
}

static void run_quit(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply)
{
    session->closing = true;
    fsw_reply_status(reply, "OK");
}

static void run_select(struct fsw_session *session, struct fsw_request *request,
                       struct fsw_reply *reply)
{
    int64_t index;

    if (fsw_parse_i64(request->argument[1]->bytes, INT64_MIN, INT64_MAX, &index) < 0)
        fsw_reply_error(reply, "%s", not_an_integer);
    else if (index != 0)
        fsw_reply_error(reply, "ERR DB index is out of range");
    else
        fsw_reply_status(reply, "OK");
}

/* Takes as long for a wrong password as for the right one. */
static bool is_password(const char *password, const struct fsw_value *tried)
{
    size_t length = strlen(password);
    unsigned char differs = length != tried->length;

    for (size_t i = 0; i < tried->length; i++)
        differs |= (unsigned char)(tried->bytes[i] ^ password[length > 0 ? i % length : 0]);
    return differs == 0;
}

static void run_auth(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply)
{
    const char *password = session->server->password;

    if (request->count > 3) {
        fsw_reply_error(reply, "%s", syntax_error);
    } else if (password == NULL) {
        fsw_reply_error(reply, "ERR AUTH <password> called without any password configured");
    } else if ((request->count == 2 || is_word(request->argument[1], "default")) &&
               is_password(password, request->argument[request->count - 1])) {
        session->welcome = true;
        fsw_reply_status(reply, "OK");
    } else {
        session->server->counters.auth_failures++;
        fsw_reply_error(reply, "WRONGPASS invalid username-password pair or user is disabled.");
    }
}

/* CLIENT ID, and CLIENT KILL ID id: a swap host that had to connect anew kills its old connection
 * first, so that no put that is still under way there lands after what it does now. */
static void run_client(struct fsw_session *session, struct fsw_request *request,
                       struct fsw_reply *reply)
{
    struct fsw_server *server = session->server;
    uint64_t id;

    if (request->count == 2 && is_word(request->argument[1], "ID")) {
        fsw_reply_integer(reply, (int64_t)session->id);
    } else if (request->count != 4 || !is_word(request->argument[1], "KILL") ||
               !is_word(request->argument[2], "ID")) {
        fsw_reply_error(reply, "ERR only CLIENT ID and CLIENT KILL ID id are known here");
    } else if (fsw_parse_u64(request->argument[3]->bytes, 1, INT64_MAX, &id) < 0) {
        fsw_reply_error(reply, "ERR client-id should be greater than 0");
    } else {
        bool kills = id != session->id && server->kill != NULL && server->kill(server, id);
        fsw_reply_integer(reply, kills);
    }
}

/* ---- values ---- */

/* SET key value [NX|XX] */
static void run_set(struct fsw_session *session, struct fsw_request *request,
                    struct fsw_reply *reply)
{
    struct fsw_server *server = session->server;
    const struct fsw_value *key = request->argument[1];
    bool nx = request->count == 4 && is_word(request->argument[3], "NX");
    bool xx = request->count == 4 && is_word(request->argument[3], "XX");

    if (request->count > 3 && !nx && !xx) {
        fsw_reply_error(reply, "%s", syntax_error);
        return;
    }
    if (nx || xx) {
        bool there = fsw_keyspace_get(server->keyspace, key->bytes, key->length) != NULL;
        if (there == nx) {
            fsw_reply_nil(reply);
            return;
        }
    }
    switch (fsw_keyspace_set(server->keyspace, key->bytes, key->length, request->argument[2])) {
    case 0:
        fsw_reply_status(reply, "OK");
        break;
    case -ENAMETOOLONG:
        server->hits.of[FSW_LIMIT_KEY]++;
        fsw_reply_error(reply, "ERR key is too long: %u bytes, at most %d are allowed",
                        (unsigned)key->length, FSW_MAX_KEY);
        break;
    default:
        server->hits.of[FSW_LIMIT_MEMORY]++;
        fsw_reply_error(reply, "OOM command not allowed when used memory > 'maxmemory'.");
    }
}

static void run_get(struct fsw_session *session, struct fsw_request *request,
                    struct fsw_reply *reply)
{
    struct fsw_value *value = lookup(session, request->argument[1]);

    if (value == NULL)
        fsw_reply_nil(reply);
    else
        fsw_reply_value(reply, value, 0, value->length);
}

/* GETRANGE key first last, both included, negative ones from the end. */
static void run_getrange(struct fsw_session *session, struct fsw_request *request,
                         struct fsw_reply *reply)
{
    int64_t first, last, length;
    struct fsw_value *value;

    if (fsw_parse_i64(request->argument[2]->bytes, INT64_MIN, INT64_MAX, &first) < 0 ||
        fsw_parse_i64(request->argument[3]->bytes, INT64_MIN, INT64_MAX, &last) < 0) {
        fsw_reply_error(reply, "%s", not_an_integer);
        return;
    }
    value = lookup(session, request->argument[1]);
    length = value != NULL ? value->length : 0;
    if (first < 0)
        first = first + length > 0 ? first + length : 0;
    if (last < 0)
        last += length;
    if (last >= length)
        last = length - 1;
    if (value == NULL || first > last)
        fsw_reply_text(reply, "");
    else
        fsw_reply_value(reply, value, (size_t)first, (size_t)(last - first + 1));
}

/* DEL and UNLINK: freeing a value is one free(), so there is nothing to do later. */
static void run_del(struct fsw_session *session, struct fsw_request *request,
                    struct fsw_reply *reply)
{
    int64_t deleted = 0;

    for (uint32_t i = 1; i < request->count; i++)
        deleted += fsw_keyspace_del(session->server->keyspace, request->argument[i]->bytes,
                                    request->argument[i]->length);
    fsw_reply_integer(reply, deleted);
}

static void run_exists(struct fsw_session *session, struct fsw_request *request,
                       struct fsw_reply *reply)
{
    int64_t there = 0;

    for (uint32_t i = 1; i < request->count; i++)
        there += lookup(session, request->argument[i]) != NULL;
    fsw_reply_integer(reply, there);
}

static void run_dbsize(struct fsw_session *session, struct fsw_request *request,
                       struct fsw_reply *reply)
{
    fsw_reply_integer(reply, (int64_t)fsw_keyspace_count(session->server->keyspace));
}

/* ---- SCAN ---- */

struct scan {
    uint64_t cursor, count;
    const struct fsw_value *match; /* NULL: all */
    uint64_t seen;                 /* keys shown, matching or not */
    struct scan_key {
        const char *key;
        size_t length;
    } * key; /* the matching ones */
    size_t keys, room;
    bool failed;
};

static void scan_add(const char *key, size_t key_length, void *opaque)
{
    struct scan *scan = opaque;

    scan->seen++;
    if (scan->match != NULL &&
        !fsw_glob_match(scan->match->bytes, scan->match->length, key, key_length))
        return;
    if (scan->keys == scan->room) {
        size_t room = scan->room > 0 ? scan->room * 2 : 16;
        void *grown = realloc(scan->key, room * sizeof *scan->key);
        if (grown == NULL) {
            scan->failed = true;
            return;
        }
        scan->key = grown;
        scan->room = room;
    }
    scan->key[scan->keys++] = (struct scan_key){key, key_length};
}

/* NULL, or the error. */
static const char *scan_options(const struct fsw_request *request, struct scan *scan)
{
    if (fsw_parse_u64(request->argument[1]->bytes, 0, UINT64_MAX, &scan->cursor) < 0)
        return "ERR invalid cursor";
    scan->count = 10;
    for (uint32_t i = 2; i < request->count; i += 2) {
        if (i + 1 == request->count)
            return syntax_error;
        if (is_word(request->argument[i], "MATCH"))
            scan->match = request->argument[i + 1];
        else if (!is_word(request->argument[i], "COUNT"))
            return syntax_error;
        else if (fsw_parse_u64(request->argument[i + 1]->bytes, 1, UINT64_MAX, &scan->count) < 0)
            return not_an_integer;
    }
    return NULL;
}

static void scan_reply(const struct scan *scan, struct fsw_reply *reply)
{
    char cursor[24];

    snprintf(cursor, sizeof cursor, "%llu", (unsigned long long)scan->cursor);
    fsw_reply_array(reply, 2);
    fsw_reply_text(reply, cursor);
    fsw_reply_array(reply, scan->keys);
    for (size_t i = 0; i < scan->keys; i++)
        fsw_reply_bulk(reply, scan->key[i].key, scan->key[i].length);
}

static void run_scan(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply)
{
    struct scan scan = {0};
    const char *error = scan_options(request, &scan);

    if (error != NULL) {
        fsw_reply_error(reply, "%s", error);
        return;
    }
    if (scan.count > FSW_MAX_SCAN) {
        scan.count = FSW_MAX_SCAN;
        session->server->hits.of[FSW_LIMIT_SCAN]++;
    }
    /* An emptied table has many empty buckets: not more than ten of them a key asked for. */
    for (uint64_t steps = scan.count * 10; steps > 0 && scan.seen < scan.count; steps--) {
        scan.cursor = fsw_keyspace_scan(session->server->keyspace, scan.cursor, scan_add, &scan);
        if (scan.cursor == 0)
            break;
    }
    if (scan.failed)
        fsw_reply_error(reply, "ERR out of memory");
    else
        scan_reply(&scan, reply);
    free(scan.key);
}

/* ---- about ourselves ---- */

static void run_info(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply)
{
    fsw_info(session->server, request, reply);
}

static bool any_matches(const struct fsw_request *request, const char *name)
{
    for (uint32_t i = 2; i < request->count; i++)
        if (fsw_glob_match(request->argument[i]->bytes, request->argument[i]->length, name,
                           strlen(name)))
            return true;
    return false;
}

/* CONFIG GET pattern...: what tools ask for. Options are set at the start only. */
static void run_config(struct fsw_session *session, struct fsw_request *request,
                       struct fsw_reply *reply)
{
    char limit[24];
    const char *const config[][2] = {
        {"maxmemory", limit}, {"maxmemory-policy", "noeviction"},
        {"save", ""},         {"appendonly", "no"},
        {"databases", "1"},
    };
    const size_t configs = sizeof config / sizeof config[0];
    size_t matching = 0;

    if (!is_word(request->argument[1], "GET") || request->count < 3) {
        fsw_reply_error(reply, "ERR only CONFIG GET pattern [pattern ...] is known here");
        return;
    }
    snprintf(limit, sizeof limit, "%llu",
             (unsigned long long)fsw_keyspace_limit(session->server->keyspace));
    for (size_t i = 0; i < configs; i++)
        matching += any_matches(request, config[i][0]);
    fsw_reply_array(reply, matching * 2);
    for (size_t i = 0; i < configs; i++) {
        if (!any_matches(request, config[i][0]))
            continue;
        fsw_reply_text(reply, config[i][0]);
        fsw_reply_text(reply, config[i][1]);
    }
}

static void run_command(struct fsw_session *session, struct fsw_request *request,
                        struct fsw_reply *reply);

/* ---- the table ---- */

enum { READS = 1, WRITES = 2, STRANGER = 4 /* also before AUTH */ };

static const struct command {
    const char *name;
    int arity; /* with the name; negative: at least */
    unsigned flags;
    int first_key, last_key; /* as COMMAND tells them; -1: the last argument */
    void (*run)(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply);
    const char *summary;
} commands[] = {
    {"get", 2, READS, 1, 1, run_get, "Gives a value."},
    {"getrange", 4, READS, 1, 1, run_getrange, "Gives a range of a value's bytes."},
    {"set", -3, WRITES, 1, 1, run_set, "Puts a value under a key. [NX|XX]"},
    {"unlink", -2, WRITES, 1, -1, run_del, "Drops keys; tells how many were there."},
    {"del", -2, WRITES, 1, -1, run_del, "Drops keys; tells how many were there."},
    {"exists", -2, READS, 1, -1, run_exists, "Tells how many of the keys are there."},
    {"scan", -2, READS, 0, 0, run_scan, "Lists keys, a few a call. [MATCH glob] [COUNT n]"},
    {"dbsize", 1, READS, 0, 0, run_dbsize, "Tells how many keys there are."},
    {"ping", -1, 0, 0, 0, run_ping, "Answers PONG, or the argument."},
    {"echo", 2, 0, 0, 0, run_echo, "Answers the argument."},
    {"auth", -2, STRANGER, 0, 0, run_auth, "Shows the password. [default] password"},
    {"quit", -1, STRANGER, 0, 0, run_quit, "Ends the connection."},
    {"client", -2, 0, 0, 0, run_client, "Tells, or ends, a connection. ID | KILL ID id"},
    {"select", 2, 0, 0, 0, run_select, "Chooses database 0, the only one."},
    {"info", -1, 0, 0, 0, run_info, "Tells how the donor is. [section ...]"},
    {"config", -2, 0, 0, 0, run_config, "Tells how the donor is set. GET pattern ..."},
    {"command", -1, 0, 0, 0, run_command, "Tells what commands there are. [COUNT|DOCS|INFO]"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static const struct command *find_command(const struct fsw_value *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (is_word(name, commands[i].name))
            return &commands[i];
    return NULL;
}

static void describe(const struct command *command, struct fsw_reply *reply)
{
    unsigned access = command->flags & (READS | WRITES);

    fsw_reply_array(reply, 6);
    fsw_reply_text(reply, command->name);
    fsw_reply_integer(reply, command->arity);
    fsw_reply_array(reply, access != 0);
    if (access != 0)
        fsw_reply_status(reply, access == READS ? "readonly" : "write");
    fsw_reply_integer(reply, command->first_key);
    fsw_reply_integer(reply, command->last_key);
    fsw_reply_integer(reply, command->first_key > 0);
}

static void document(const struct command *command, struct fsw_reply *reply)
{
    fsw_reply_text(reply, command->name);
    fsw_reply_array(reply, 4);
    fsw_reply_text(reply, "summary");
    fsw_reply_text(reply, command->summary);
    fsw_reply_text(reply, "group");
    fsw_reply_text(reply, command->first_key > 0 ? "string" : "server");
}

/* COMMAND INFO name...: an element a name, nil for one we don't know. */
static void describe_named(const struct fsw_request *request, struct fsw_reply *reply)
{
    fsw_reply_array(reply, request->count - 2);
    for (uint32_t i = 2; i < request->count; i++) {
        const struct command *command = find_command(request->argument[i]);
        if (command != NULL)
            describe(command, reply);
        else
            fsw_reply_nil(reply);
    }
}

/* COMMAND DOCS name...: a pair for each name that we know. */
static void document_named(const struct fsw_request *request, struct fsw_reply *reply)
{
    size_t known = 0;

    for (uint32_t i = 2; i < request->count; i++)
        known += find_command(request->argument[i]) != NULL;
    fsw_reply_array(reply, known * 2);
    for (uint32_t i = 2; i < request->count; i++) {
        const struct command *command = find_command(request->argument[i]);
        if (command != NULL)
            document(command, reply);
    }
}

static void run_command(struct fsw_session *session, struct fsw_request *request,
                        struct fsw_reply *reply)
{
    const struct fsw_value *what = request->count > 1 ? request->argument[1] : NULL;

    if (what != NULL && is_word(what, "COUNT")) {
        fsw_reply_integer(reply, COMMANDS);
    } else if (what != NULL && is_word(what, "DOCS") && request->count > 2) {
        document_named(request, reply);
    } else if (what != NULL && is_word(what, "DOCS")) {
        fsw_reply_array(reply, COMMANDS * 2);
        for (size_t i = 0; i < COMMANDS; i++)
            document(&commands[i], reply);
    } else if (what != NULL && is_word(what, "INFO") && request->count > 2) {
        describe_named(request, reply);
    } else if (what == NULL || is_word(what, "INFO")) {
        fsw_reply_array(reply, COMMANDS);
        for (size_t i = 0; i < COMMANDS; i++)
            describe(&commands[i], reply);
    } else {
        fsw_reply_error(reply, "ERR only COMMAND [COUNT|DOCS|INFO] is known here");
    }
}

void fsw_command_run(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply)
{
    const struct command *command = find_command(request->argument[0]);
    int count = (int)request->count;

    session->server->counters.total_commands_processed++;
    if (!session->welcome && (command == NULL || !(command->flags & STRANGER))) {
        fsw_reply_error(reply, "NOAUTH Authentication required.");
    } else if (command == NULL) {
        session->server->counters.unknown_commands++;
        fsw_reply_error(reply, "ERR unknown command '%.64s'", request->argument[0]->bytes);
    } else if (command->arity > 0 ? count != command->arity : count < -command->arity) {
        fsw_reply_error(reply, "ERR wrong number of arguments for '%s' command", command->name);
    } else {
        command->run(session, request, reply);
    }
}
