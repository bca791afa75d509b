/*
 * segment.c: a whole segment, got from the store and looked through: for the threads that rewrite
 * (clean.c) or copy (repair.c) what is there already. Both can wait.
 *
 *      object | object | object ...                 or, at a store with seals (farswap/store.h)
 *      seal object | seal object | seal object ...
 *
 * Nothing says where an object begins but the ones before it: their headers, or their seals.
 */
#include <semaphore.h>
#include <string.h>

#include "core/engine.h"

static void answered(struct fsw_store_request *request)
{
    sem_post(request->owner);
}

void fsw_segment_ask(struct fsw_device *device, struct fsw_store_request *const *requests,
                     unsigned count)
{
    sem_t semaphore;

    sem_init(&semaphore, 0, 0);
    for (unsigned i = 0; i < count; i++) {
        requests[i]->done = answered;
        requests[i]->owner = &semaphore;
    }
    device->store->ops->submit(device->store, requests, count);
    for (unsigned i = 0; i < count; i++)
        while (sem_wait(&semaphore) < 0) /* EINTR */
            ;
    sem_destroy(&semaphore);
}

int fsw_segment_next(const struct fsw_device *device, const char *bytes, uint32_t length,
                     unsigned *at, struct fsw_segment_object *ret_object)
{
    struct fsw_object_header header;
    unsigned end = length / FSW_UNIT, offset = *at + device->seal;

    if (offset + FSW_OBJECT_UNITS_MIN > end)
        return 0;
    memcpy(&header, bytes + offset * FSW_UNIT, FSW_OBJECT_HEADER);
    unsigned units = device->seal != 0
                         ? fsw_seal_units(bytes + *at * FSW_UNIT)
                         : (FSW_OBJECT_HEADER + header.length + FSW_UNIT - 1) / FSW_UNIT;
    if (units < FSW_OBJECT_UNITS_MIN || units > FSW_OBJECT_UNITS_MAX || offset + units > end)
        return 0;
    *ret_object = (struct fsw_segment_object){
        .bytes = bytes + offset * FSW_UNIT, .page = header.page, .offset = offset, .units = units};
    *at = offset + units;
    return 1;
}

int fsw_segment_object_is_whole(const struct fsw_device *device,
                                const struct fsw_segment_object *object)
{
    char page[FSW_PAGE_SIZE];

    return fsw_object_open(device->seed, object->page, object->bytes, object->units, page) == 0;
}
