/*
 * test_store_place.h: where a store's segments go in a test: any of the real ones, by words.
 *
 *     [crypt] [mirror] redis BINARY [unix] | farswapd BINARY [unix] | file | nbdkit BINARY [unix]
 *
 * A mirror is of two that are alike: two servers, two files, two exports of one nbdkit, which are files,
 * too.
 *
 * And segments as the engine packs them, which every store takes: objects of PLACE_OBJECT bytes with
 * their seal, where the store wants one; the last one is shorter, or a little longer.
 */
#ifndef FSW_TEST_STORE_PLACE_H
#define FSW_TEST_STORE_PLACE_H

#include "test_store_server.h"

#define PLACE_OBJECT 400u

struct place {
    int encrypts, is_file; /* is_file: in files of slots, also if an nbdkit serves them */
    int is_nbd;
    unsigned copies;          /* 2: a mirror */
    struct server servers[2]; /* of a file: only the first one's directory */
};

/* From main's arguments. Exits with usage. */
void place_choose(struct place *place, int argc, char **argv);
void place_start(struct place *place);
void place_stop(struct place *place);

/* Fails the test if it can't. */
struct fsw_store *place_open(struct place *place, const struct fsw_device_id *device);
struct fsw_store *place_started(struct place *place, const struct fsw_device_id *device);

/* Of one store. */
void place_uri(struct place *place, unsigned copy, const struct fsw_device_id *device,
               char uri[160]);
/* The device's file there. */
void place_path(const struct place *place, unsigned copy, const struct fsw_device_id *device,
                char path[128]);

/* The device's sentinel is not there any more, or (other) is another's; segments stay. */
void place_spoil_sentinel(struct place *place, const struct fsw_device_id *device, int other);

/* The bytes of a stored segment, as somebody finds them there who has no key: how many. And puts
 * others in their place. bytes: FSW_SEGMENT_BYTES. */
uint32_t place_look(struct place *place, unsigned copy, const struct fsw_device_id *device,
                    uint64_t id, void *bytes);
void place_forge(struct place *place, unsigned copy, const struct fsw_device_id *device,
                 uint64_t id, const void *bytes, uint32_t length);

/* A segment that only this id has. */
void segment_fill(const struct fsw_store *store, void *bytes, uint32_t length, uint64_t id);

/* Puts that segment. */
enum fsw_store_result segment_put(struct fsw_store *store, uint64_t id, uint32_t length);

/* Gets a range that begins with an object: the result, or -1 if it is OK and the content wrong. */
int segment_get(struct fsw_store *store, uint64_t id, uint32_t offset, uint32_t length,
                unsigned deadline_ms);

#endif
