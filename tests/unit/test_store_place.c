/*
 * test_store_place.c: where a store's segments go in a test.
 */
#include "test_store_place.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after the headers it needs */
#include <cmocka.h>

#include "client/store/keys.h"
#include "client/store/slots.h"

/* 1 if the next argument is that word; it is taken. */
static int take_word(int *argc, char ***argv, const char *word)
{
    if (*argc < 2 || strcmp((*argv)[1], word) != 0)
        return 0;
    --*argc;
    ++*argv;
    return 1;
}

void place_choose(struct place *place, int argc, char **argv)
{
    memset(place, 0, sizeof *place);
    place->encrypts = take_word(&argc, &argv, "crypt");
    place->copies = take_word(&argc, &argv, "mirror") ? 2 : 1;
    place->is_file = argc == 2 && strcmp(argv[1], "file") == 0;
    if (place->is_file)
        return;
    server_choose(&place->servers[0], argc, argv);
    place->servers[1] = place->servers[0];
    place->is_file = place->is_nbd = place->servers[0].kind == SERVER_NBDKIT;
}

void place_start(struct place *place)
{
    if (place->is_nbd)
        server_start(&place->servers[0]);
    else if (place->is_file)
        server_directory(&place->servers[0]);
    for (unsigned copy = 0; !place->is_file && copy < place->copies; copy++)
        server_start(&place->servers[copy]);
}

void place_stop(struct place *place)
{
    for (unsigned copy = 2; copy-- > 0;) /* the second's janitor holds the first's pipe */
        server_stop(&place->servers[copy]);
}

void place_path(const struct place *place, unsigned copy, const struct fsw_device_id *device,
                char path[128])
{
    char id[FSW_DEVICE_ID_TEXT];

    fsw_device_id_text(device, id);
    snprintf(path, 128, "%s/%s%s.%u", place->servers[0].dir, place->is_nbd ? "exports/" : "", id,
             copy);
}

/* Sparse, and as large as rows of tests are high. */
static void export_uri(struct place *place, const char *path, char uri[160])
{
    const char *name = strrchr(path, '/') + 1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)SLOTS_BYTES * 65600), 0);
    close(fd);
    if (place->servers[0].over_unix)
        snprintf(uri, 160, "nbd+unix:///%s?socket=%s", name, place->servers[0].socket);
    else
        snprintf(uri, 160, "nbd://127.0.0.1:%d/%s", place->servers[0].port, name);
}

void place_uri(struct place *place, unsigned copy, const struct fsw_device_id *device,
               char uri[160])
{
    char path[128];

    place_path(place, copy, device, path);
    if (place->is_nbd)
        export_uri(place, path, uri);
    else if (place->is_file)
        snprintf(uri, 160, "file:%s", path);
    else
        snprintf(uri, 160, "%s", server_uri(&place->servers[copy]));
}

struct fsw_store *place_open(struct place *place, const struct fsw_device_id *device)
{
    char uris[2][160], text[400];

    for (unsigned copy = 0; copy < place->copies; copy++)
        place_uri(place, copy, device, uris[copy]);
    snprintf(text, sizeof text, "%s%s%s%s", place->encrypts ? "crypt+" : "", uris[0],
             place->copies > 1 ? " " : "", place->copies > 1 ? uris[1] : "");
    return store_open(text, place->servers[0].password);
}

struct fsw_store *place_started(struct place *place, const struct fsw_device_id *device)
{
    struct fsw_store *store = place_open(place, device);

    store_start(store, device);
    return store;
}

/* In the header of a file of slots: magic, device id, sentinel. */
static void spoil_file(const char *path)
{
    char sentinel[8] = "another";
    int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, sentinel, sizeof sentinel, 32), sizeof sentinel);
    close(fd);
}

void place_spoil_sentinel(struct place *place, const struct fsw_device_id *device, int other)
{
    char sentinel[FSW_KEY_TEXT], path[128];

    fsw_key_sentinel(sentinel, device);
    for (unsigned copy = 0; copy < place->copies; copy++) {
        place_path(place, copy, device, path);
        if (place->is_file)
            spoil_file(path);
        else if (other)
            freeReplyObject(server_command(&place->servers[copy], "SET %s other", sentinel));
        else
            server_ask(&place->servers[copy], "UNLINK %s", sentinel);
    }
}

static int open_slot(const struct place *place, unsigned copy, const struct fsw_device_id *device,
                     uint64_t id, off_t *ret_at)
{
    char path[128];
    int fd;

    place_path(place, copy, device, path);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    *ret_at = (off_t)(id % 65536 + 1) * SLOTS_BYTES;
    return fd;
}

static uint32_t look_into_file(const struct place *place, unsigned copy,
                               const struct fsw_device_id *device, uint64_t id, void *bytes)
{
    uint32_t head[4];
    off_t at;
    int fd = open_slot(place, copy, device, id, &at);

    assert_int_equal(pread(fd, head, sizeof head, at), sizeof head);
    if (head[2] > 0)
        assert_int_equal(pread(fd, bytes, head[2], at + SLOTS_HEAD), head[2]);
    close(fd);
    return head[2];
}

uint32_t place_look(struct place *place, unsigned copy, const struct fsw_device_id *device,
                    uint64_t id, void *bytes)
{
    char key[FSW_KEY_TEXT];
    redisReply *reply;
    uint32_t length;

    if (place->is_file)
        return look_into_file(place, copy, device, id, bytes);
    fsw_key_segment(key, device, id);
    reply = server_command(&place->servers[copy], "GETRANGE %s 0 -1", key);
    assert_int_equal(reply->type, REDIS_REPLY_STRING);
    length = (uint32_t)reply->len;
    memcpy(bytes, reply->str, length);
    freeReplyObject(reply);
    return length;
}

static void forge_at_server(struct server *server, const struct fsw_device_id *device, uint64_t id,
                            const void *bytes, uint32_t length)
{
    char key[FSW_KEY_TEXT];
    const char *words[3] = {"SET", key, bytes};
    size_t lengths[3] = {3, fsw_key_segment(key, device, id), length};
    redisContext *context = server_connect(server);
    redisReply *reply = redisCommandArgv(context, 3, words, lengths);

    assert_non_null(reply);
    assert_int_equal(reply->type, REDIS_REPLY_STATUS);
    freeReplyObject(reply);
    redisFree(context);
}

void place_forge(struct place *place, unsigned copy, const struct fsw_device_id *device,
                 uint64_t id, const void *bytes, uint32_t length)
{
    off_t at;
    int fd;

    if (!place->is_file) {
        forge_at_server(&place->servers[copy], device, id, bytes, length);
        return;
    }
    fd = open_slot(place, copy, device, id, &at);
    assert_int_equal(pwrite(fd, bytes, length, at + SLOTS_HEAD), length);
    close(fd);
}

/* ---- segments ---- */

void segment_fill(const struct fsw_store *store, void *bytes, uint32_t length, uint64_t id)
{
    uint32_t object;

    fill_segment(bytes, length, id);
    for (uint32_t at = 0; store->seal != 0 && at < length; at += object) {
        object = length - at;
        if (object >= PLACE_OBJECT + 2 * FSW_SEAL_BYTES)
            object = PLACE_OBJECT;
        fsw_seal_write((char *)bytes + at, object / FSW_SEAL_BYTES - 1);
    }
}

enum fsw_store_result segment_put(struct fsw_store *store, uint64_t id, uint32_t length)
{
    uint8_t *bytes = malloc(length);
    enum fsw_store_result result;

    segment_fill(store, bytes, length, id);
    result = do_put(store, id, bytes, length);
    free(bytes);
    return result;
}

int segment_get(struct fsw_store *store, uint64_t id, uint32_t offset, uint32_t length,
                unsigned deadline_ms)
{
    uint8_t *bytes = malloc(offset + length), *back = malloc(length + 1);
    int result;

    segment_fill(store, bytes, offset + length, id);
    memset(back, 0xee, length + 1);
    result = (int)do_get(store, id, back, offset, length, deadline_ms);
    if (back[length] != 0xee ||
        (result == FSW_STORE_OK && memcmp(back, bytes + offset, length) != 0))
        result = -1;
    free(bytes);
    free(back);
    return result;
}
