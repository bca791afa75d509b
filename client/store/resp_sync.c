/*
 * resp_sync.c: the verbs a person waits for: probe, list, forget. Each makes a blocking connection
 * of its own, so they work before start() and beside it, and in any thread.
 *
 * SIGPIPE is kept from the caller while hiredis writes.
 */
#include <errno.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "client/store/resp.h"

#define PATIENCE_S 3

/* Keys looked at by one SCAN, and so dropped by one UNLINK, give or take. */
#define SCAN_COUNT "1000"

struct sync {
    const struct resp_store *store;
    redisContext *context;
    struct fsw_error *err;
    unsigned local;  /* 1: nothing that goes there leaves this host */
    sigset_t before; /* the caller's signal mask */
};

/* ---- SIGPIPE ---- */

static void keep_sigpipe(struct sync *sync)
{
    sigset_t pipe;

    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &sync->before);
}

static void release_sigpipe(struct sync *sync)
{
    sigset_t pipe;

    if (sigismember(&sync->before, SIGPIPE))
        return;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    while (sigtimedwait(&pipe, NULL, &(struct timespec){0}) > 0)
        ;
    pthread_sigmask(SIG_SETMASK, &sync->before, NULL);
}

/* ---- errors for people ---- */

/* hiredis leaves the cause in errno, in words, or both. */
static int context_error(const redisContext *context, char *why, size_t size)
{
    int code = context == NULL ? ENOMEM : context->err == REDIS_ERR_IO ? errno : EIO;

    if (code == EAGAIN || code == EINPROGRESS || code == ETIMEDOUT) {
        code = ETIMEDOUT;
        snprintf(why, size, "no answer within %d s", PATIENCE_S);
    } else if (code == EIO) {
        snprintf(why, size, "%s", context->errstr);
    } else {
        snprintf(why, size, "%s", strerror(code));
    }
    return code > 0 ? -code : -EIO;
}

static int unreachable(struct sync *sync)
{
    char why[160];
    int r = context_error(sync->context, why, sizeof why);

    return fsw_error(sync->err, r,
                     "the store at %s can't be reached: %s; start farswapd there (or Redis), or "
                     "name another with overflow=",
                     sync->store->address.text, why);
}

/* The store answered with an error. */
static int said_no(struct sync *sync, const redisReply *reply)
{
    const char *where = sync->store->address.text;

    if (strncmp(reply->str, "NOAUTH", 6) == 0)
        return fsw_error(sync->err, -EACCES,
                         "the store at %s wants a password: give it with overflow-password=+FILE",
                         where);
    if (strncmp(reply->str, "LOADING", 7) == 0)
        return fsw_error(sync->err, -EAGAIN, "the store at %s is still loading; try again later",
                         where);
    return fsw_error(sync->err, -EIO, "the store at %s answers: %s", where, reply->str);
}

/* ---- one connection ---- */

static redisContext *connect_place(const union fsw_sockaddr *place)
{
    struct timeval patience = {.tv_sec = PATIENCE_S};
    char host[FSW_HOST_TEXT];
    int port;

    if (place->any.sa_family == AF_UNIX)
        return redisConnectUnixWithTimeout(place->path.sun_path, patience);
    fsw_place_text(place, host, &port);
    return redisConnectWithTimeout(host, port, patience);
}

static int connect_any(struct sync *sync)
{
    struct fsw_address address = sync->store->address;
    int r = address.count == 0 ? fsw_address_resolve(&address, sync->err) : 0;

    if (r < 0)
        return r;
    sync->local = address.local;
    for (unsigned i = 0; i < address.count; i++) {
        if (sync->context != NULL)
            redisFree(sync->context);
        sync->context = connect_place(&address.places[i]);
        if (sync->context != NULL && sync->context->err == 0)
            return 0;
    }
    return unreachable(sync);
}

/* A command by words. *ret_reply is NULL on failure; the caller frees it. */
static int command(struct sync *sync, int count, const char **words, const size_t *lengths,
                   redisReply **ret_reply)
{
    redisReply *reply = redisCommandArgv(sync->context, count, words, lengths);
    int r = 0;

    *ret_reply = NULL;
    if (reply == NULL)
        return unreachable(sync);
    if (reply->type == REDIS_REPLY_ERROR) {
        r = said_no(sync, reply);
        freeReplyObject(reply);
        return r;
    }
    *ret_reply = reply;
    return 0;
}

static int authenticate(struct sync *sync)
{
    const char *words[] = {"AUTH", sync->store->password};
    redisReply *reply;
    int r = 0;

    if (sync->store->password == NULL)
        return 0;
    reply = redisCommandArgv(sync->context, 2, words, NULL);
    if (reply == NULL)
        return unreachable(sync);
    if (reply->type == REDIS_REPLY_ERROR)
        r = fsw_error(sync->err, -EACCES, "the store at %s does not take the password: %s",
                      sync->store->address.text, reply->str);
    freeReplyObject(reply);
    return r;
}

static void sync_close(struct sync *sync)
{
    if (sync->context != NULL)
        redisFree(sync->context);
    release_sigpipe(sync);
}

/* 0, or an error with nothing left open. */
static int sync_open(struct sync *sync, struct fsw_store *base, struct fsw_error *err)
{
    int r;

    *sync = (struct sync){.store = (struct resp_store *)base, .err = err};
    keep_sigpipe(sync);
    r = connect_any(sync);
    if (r == 0 &&
        redisSetTimeout(sync->context, (struct timeval){.tv_sec = PATIENCE_S}) != REDIS_OK)
        r = unreachable(sync);
    if (r == 0)
        r = authenticate(sync);
    if (r < 0)
        sync_close(sync);
    return r;
}

/* ---- probe ---- */

/* The value of "name:value\r\n" in an INFO text; empty if it is not there. */
static void info_value(const char *info, const char *name, char *value, size_t size)
{
    const char *at = strstr(info, name);
    size_t length;

    *value = '\0';
    if (at == NULL)
        return;
    at += strlen(name);
    length = strcspn(at, "\r\n");
    snprintf(value, size, "%.*s", (int)length, at);
}

/* The policy, and a warning of what is no reason to refuse. */
static int check_memory(struct sync *sync)
{
    const char *words[] = {"INFO", "memory"};
    const char *where = sync->store->address.text;
    redisReply *reply;
    char policy[40], most[40];
    int r = command(sync, 2, words, NULL, &reply);

    if (r < 0)
        return r;
    const char *info = reply->type == REDIS_REPLY_STRING ? reply->str : "";
    info_value(info, "maxmemory_policy:", policy, sizeof policy);
    info_value(info, "maxmemory:", most, sizeof most);
    freeReplyObject(reply);
    if (strcmp(most, "0") == 0)
        fsw_error_add(
            sync->err,
            "the store at %s has no maxmemory: it takes all of its host's memory until the "
            "kernel kills it, with all pages that are there; on it: redis-cli CONFIG SET "
            "maxmemory SIZE",
            where);
    if (policy[0] == '\0')
        return fsw_error(
            sync->err, -EINVAL,
            "the store at %s does not say its maxmemory_policy in INFO memory; it must "
            "be noeviction",
            where);
    if (strcmp(policy, "noeviction") != 0)
        return fsw_error(
            sync->err, -EINVAL,
            "the store at %s has maxmemory-policy %s: it would drop swapped pages when "
            "it is full; on it: redis-cli CONFIG SET maxmemory-policy noeviction",
            where, policy);
    return 0;
}

int resp_sync_probe(struct fsw_store *base, struct fsw_error *err)
{
    const char *words[] = {"PING"};
    struct sync sync;
    redisReply *reply;
    int r = sync_open(&sync, base, err);

    if (r < 0)
        return r;
    r = command(&sync, 1, words, NULL, &reply);
    if (r == 0) {
        freeReplyObject(reply);
        r = check_memory(&sync);
    }
    if (r == 0 && sync.store->password != NULL && !sync.local)
        fsw_error_add(
            err,
            "the password goes to %s as it is, and whoever can listen on the way can use it: "
            "keep to a network of your own, or a tunnel",
            sync.store->address.text);
    sync_close(&sync);
    return r;
}

/* ---- list and forget ---- */

/* A reply of SCAN: [cursor, [key, …]]. */
static int is_scan(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
           reply->element[0]->type == REDIS_REPLY_STRING && reply->element[0]->len < 32 &&
           reply->element[1]->type == REDIS_REPLY_ARRAY;
}

/* What is done with each page of keys: 0 to go on. */
typedef int (*page_fn)(struct sync *sync, const redisReply *keys, void *opaque);

static int scan_once(struct sync *sync, const char *pattern, char cursor[32], page_fn page,
                     void *opaque)
{
    const char *words[] = {"SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT};
    redisReply *reply;
    int r = command(sync, 6, words, NULL, &reply);

    if (r < 0)
        return r;
    if (!is_scan(reply)) {
        freeReplyObject(reply);
        return fsw_error(sync->err, -EPROTO, "the store at %s does not know SCAN",
                         sync->store->address.text);
    }
    snprintf(cursor, 32, "%s", reply->element[0]->str);
    r = page(sync, reply->element[1], opaque);
    freeReplyObject(reply);
    return r;
}

static int scan(struct sync *sync, const struct fsw_device_id *device, page_fn page, void *opaque)
{
    char pattern[FSW_KEY_TEXT], cursor[32] = "0";
    int r;

    fsw_key_pattern(pattern, device);
    do {
        r = scan_once(sync, pattern, cursor, page, opaque);
    } while (r == 0 && strcmp(cursor, "0") != 0);
    return r;
}

struct listing {
    const struct fsw_device_id *device;
    int (*each)(uint32_t row, uint64_t id, void *opaque);
    void *opaque;
};

static int list_page(struct sync *sync, const redisReply *keys, void *opaque)
{
    const struct listing *listing = opaque;
    int r = 0;

    for (size_t i = 0; i < keys->elements && r == 0; i++) {
        const redisReply *key = keys->element[i];
        uint64_t id;

        if (key->type == REDIS_REPLY_STRING &&
            fsw_key_parse(key->str, key->len, listing->device, &id) == 0)
            r = listing->each(0, id, listing->opaque);
    }
    return r;
}

int resp_sync_list(struct fsw_store *base, const struct fsw_device_id *device,
                   int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                   struct fsw_error *err)
{
    struct listing listing = {device, each, opaque};
    struct sync sync;
    int r = sync_open(&sync, base, err);

    if (r < 0)
        return r;
    r = scan(&sync, device, list_page, &listing);
    sync_close(&sync);
    return r;
}

struct forgetting {
    const struct fsw_device_id *device;
    uint64_t count;
};

/* UNLINK of keys[0..n): how many were there, or negative errno. */
static int64_t unlink_keys(struct sync *sync, const char **words, const size_t *lengths, int count)
{
    redisReply *reply;
    int64_t dropped;
    int r = command(sync, count, words, lengths, &reply);

    if (r < 0)
        return r;
    dropped = reply->type == REDIS_REPLY_INTEGER ? reply->integer : -EPROTO;
    freeReplyObject(reply);
    if (dropped < 0)
        return fsw_error(sync->err, -EPROTO, "the store at %s does not know UNLINK",
                         sync->store->address.text);
    return dropped;
}

/* Segments only: the sentinel goes last, so that a forget that stops half way can be repeated. */
static int forget_page(struct sync *sync, const redisReply *keys, void *opaque)
{
    enum { BATCH = 500 };
    struct forgetting *forgetting = opaque;
    const char *words[1 + BATCH] = {"UNLINK"};
    size_t lengths[1 + BATCH] = {6};
    int count = 1;
    int64_t r;
    uint64_t id;

    for (size_t i = 0; i < keys->elements; i++) {
        const redisReply *key = keys->element[i];

        if (key->type == REDIS_REPLY_STRING &&
            fsw_key_parse(key->str, key->len, forgetting->device, &id) == 0) {
            words[count] = key->str;
            lengths[count++] = key->len;
        }
        if (count == 1 || (count <= BATCH && i + 1 < keys->elements))
            continue;
        r = unlink_keys(sync, words, lengths, count);
        if (r < 0)
            return (int)r;
        forgetting->count += (uint64_t)r;
        count = 1;
    }
    return 0;
}

static int forget_sentinel(struct sync *sync, const struct fsw_device_id *device)
{
    char sentinel[FSW_KEY_TEXT];
    const char *words[] = {"UNLINK", sentinel};
    size_t lengths[] = {6, fsw_key_sentinel(sentinel, device)};
    int64_t r = unlink_keys(sync, words, lengths, 2);

    return r < 0 ? (int)r : 0;
}

int resp_sync_forget(struct fsw_store *base, const struct fsw_device_id *device,
                     uint64_t *ret_count, struct fsw_error *err)
{
    struct forgetting forgetting = {device, 0};
    struct sync sync;
    int r = sync_open(&sync, base, err);

    *ret_count = 0;
    if (r < 0)
        return r;
    r = scan(&sync, device, forget_page, &forgetting);
    if (r == 0)
        r = forget_sentinel(&sync, device);
    *ret_count = forgetting.count;
    sync_close(&sync);
    return r;
}
