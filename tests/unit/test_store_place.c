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

void place_choose(struct place *place, int argc, char **argv)
{
    memset(place, 0, sizeof *place);
    place->is_file = argc == 2 && strcmp(argv[1], "file") == 0;
    if (!place->is_file)
        server_choose(&place->server, argc, argv);
}

void place_start(struct place *place)
{
    if (place->is_file)
        server_directory(&place->server);
    else
        server_start(&place->server);
}

void place_stop(struct place *place)
{
    server_stop(&place->server);
}

void place_path(const struct place *place, const struct fsw_device_id *device, char path[128])
{
    char id[FSW_DEVICE_ID_TEXT];

    fsw_device_id_text(device, id);
    snprintf(path, 128, "%s/%s", place->server.dir, id);
}

struct fsw_store *place_open(struct place *place, const struct fsw_device_id *device)
{
    char path[128], uri[160];

    if (!place->is_file)
        return store_open(server_uri(&place->server), place->server.password);
    place_path(place, device, path);
    snprintf(uri, sizeof uri, "file:%s", path);
    return store_open(uri, NULL);
}

struct fsw_store *place_started(struct place *place, const struct fsw_device_id *device)
{
    struct fsw_store *store = place_open(place, device);

    store_start(store, device);
    return store;
}

/* In the header of a file of slots: magic, device id, sentinel. */
static void spoil_file(const struct place *place, const struct fsw_device_id *device)
{
    char path[128], sentinel[8] = "another";
    int fd;

    place_path(place, device, path);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, sentinel, sizeof sentinel, 32), sizeof sentinel);
    close(fd);
}

void place_spoil_sentinel(struct place *place, const struct fsw_device_id *device, int other)
{
    char sentinel[FSW_KEY_TEXT];

    fsw_key_sentinel(sentinel, device);
    if (place->is_file)
        spoil_file(place, device);
    else if (other)
        freeReplyObject(server_command(&place->server, "SET %s other", sentinel));
    else
        server_ask(&place->server, "UNLINK %s", sentinel);
}

/* ---- segments ---- */

void segment_fill(void *bytes, uint32_t length, uint64_t id)
{
    fill_segment(bytes, length, id);
}

enum fsw_store_result segment_put(struct fsw_store *store, uint64_t id, uint32_t length)
{
    uint8_t *bytes = malloc(length);
    enum fsw_store_result result;

    segment_fill(bytes, length, id);
    result = do_put(store, id, bytes, length);
    free(bytes);
    return result;
}

int segment_get(struct fsw_store *store, uint64_t id, uint32_t offset, uint32_t length,
                unsigned deadline_ms)
{
    uint8_t *bytes = malloc(offset + length), *back = malloc(length + 1);
    int result;

    segment_fill(bytes, offset + length, id);
    memset(back, 0xee, length + 1);
    result = (int)do_get(store, id, back, offset, length, deadline_ms);
    if (back[length] != 0xee ||
        (result == FSW_STORE_OK && memcmp(back, bytes + offset, length) != 0))
        result = -1;
    free(bytes);
    free(back);
    return result;
}
