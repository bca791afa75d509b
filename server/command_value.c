/*
 * command_value.c: values and keys.
 */
#include <stdio.h>
#include <stdlib.h>

#include "server/commands.h"
#include "server/glob.h"

/* The device whose key that is was heard of, whatever became of the command. */
static void note_contact(struct fsw_session *session, const struct fsw_value *key)
{
    struct fsw_devices *devices = fsw_keyspace_devices(session->server->keyspace);

    fsw_devices_contact(devices, fsw_devices_of_key(devices, key->bytes, key->length, false),
                        session->host);
}

static struct fsw_value *lookup(struct fsw_session *session, const struct fsw_value *key)
{
    struct fsw_server_counters *counters = &session->server->counters;
    struct fsw_value *value = fsw_keyspace_get(session->server->keyspace, key->bytes, key->length);

    note_contact(session, key);
    if (value != NULL)
        counters->keyspace_hits++;
    else
        counters->keyspace_misses++;
    return value;
}

void fsw_refuse_memory(struct fsw_server *server, struct fsw_reply *reply)
{
    if (fsw_keyspace_vault(server->keyspace)->shut) {
        server->counters.refused_for_host++;
        fsw_reply_error(reply, "OOM this donor's host is short of memory; what is here stays");
    } else {
        server->hits.of[FSW_LIMIT_MEMORY]++;
        fsw_reply_error(reply, "OOM command not allowed when used memory > 'maxmemory'.");
    }
}

/* ---- values ---- */

/* SET key value [NX|XX] */
void fsw_run_set(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
{
    struct fsw_server *server = session->server;
    const struct fsw_value *key = request->argument[1];
    bool nx = request->count == 4 && fsw_is_word(request->argument[3], "NX");
    bool xx = request->count == 4 && fsw_is_word(request->argument[3], "XX");

    if (request->count > 3 && !nx && !xx) {
        fsw_reply_error(reply, FSW_SYNTAX_ERROR);
        return;
    }
    if (nx || xx) {
        bool there = fsw_keyspace_get(server->keyspace, key->bytes, key->length) != NULL;
        if (there == nx) {
            fsw_reply_nil(reply);
            return;
        }
    }
    int r = fsw_keyspace_set(server->keyspace, key->bytes, key->length, request->argument[2]);
    note_contact(session, key);
    switch (r) {
    case 0:
        fsw_reply_status(reply, "OK");
        break;
    case -ENAMETOOLONG:
        server->hits.of[FSW_LIMIT_KEY]++;
        fsw_reply_error(reply, "ERR key is too long: %u bytes, at most %d are allowed",
                        (unsigned)key->length, FSW_MAX_KEY);
        break;
    default:
        fsw_refuse_memory(server, reply);
    }
}

void fsw_run_get(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
{
    struct fsw_value *value = lookup(session, request->argument[1]);

    if (value == NULL)
        fsw_reply_nil(reply);
    else
        fsw_reply_value(reply, value, 0, value->length);
}

void fsw_run_strlen(struct fsw_session *session, struct fsw_request *request,
                    struct fsw_reply *reply)
{
    struct fsw_value *value = lookup(session, request->argument[1]);

    fsw_reply_integer(reply, value != NULL ? value->length : 0);
}

/* GETRANGE key first last, both included, negative ones from the end. */
void fsw_run_getrange(struct fsw_session *session, struct fsw_request *request,
                      struct fsw_reply *reply)
{
    int64_t first, last, length;
    struct fsw_value *value;

    if (fsw_argument_i64(request->argument[2], &first) < 0 ||
        fsw_argument_i64(request->argument[3], &last) < 0) {
        fsw_reply_error(reply, FSW_NOT_AN_INTEGER);
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

/* DEL and UNLINK: the memory goes back to the system later, in both (fsw_vault_tidy). */
void fsw_run_del(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
{
    int64_t deleted = 0;

    note_contact(session, request->argument[1]);
    for (uint32_t i = 1; i < request->count; i++)
        deleted += fsw_keyspace_del(session->server->keyspace, request->argument[i]->bytes,
                                    request->argument[i]->length);
    fsw_reply_integer(reply, deleted);
}

void fsw_run_exists(struct fsw_session *session, struct fsw_request *request,
                    struct fsw_reply *reply)
{
    int64_t there = 0;

    for (uint32_t i = 1; i < request->count; i++)
        there += lookup(session, request->argument[i]) != NULL;
    fsw_reply_integer(reply, there);
}

void fsw_run_dbsize(struct fsw_session *session, struct fsw_request *request,
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
    if (fsw_argument_u64(request->argument[1], 0, UINT64_MAX, &scan->cursor) < 0)
        return "ERR invalid cursor";
    scan->count = 10;
    for (uint32_t i = 2; i < request->count; i += 2) {
        if (i + 1 == request->count)
            return FSW_SYNTAX_ERROR;
        if (fsw_is_word(request->argument[i], "MATCH"))
            scan->match = request->argument[i + 1];
        else if (!fsw_is_word(request->argument[i], "COUNT"))
            return FSW_SYNTAX_ERROR;
        else if (fsw_argument_u64(request->argument[i + 1], 1, UINT64_MAX, &scan->count) < 0)
            return FSW_NOT_AN_INTEGER;
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

void fsw_run_scan(struct fsw_session *session, struct fsw_request *request, struct fsw_reply *reply)
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
