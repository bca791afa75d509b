/*
 * teststore_segments.c: an array of all segments by id (the engine counts ids up from 1, so it is
 * dense), and one of the rows' owners. What is stored where seals are wanted is scrambled.
 */
#include "teststore_segments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"

enum life { NEVER, PUTTING, ENDED, DROPPING, DROPPED };

static void __attribute__((noreturn))
broken(const char *rule, const struct fsw_store_request *request)
{
    fprintf(stderr, "the engine broke the store's contract: %s (verb %d, id %llu, row %u, %u+%u)\n",
            rule, (int)request->verb, (unsigned long long)request->id, request->row,
            request->offset, request->length);
    abort();
}

static void *grown(void *array, size_t size, uint64_t from, uint64_t to)
{
    char *bigger = realloc(array, to * size);
    if (bigger == NULL)
        abort();
    memset(bigger + from * size, 0, (to - from) * size);
    return bigger;
}

struct segment *segments_at(struct segments *segments, uint64_t id)
{
    if (id >= segments->room) {
        uint64_t room = id * 2 + 64;
        segments->all = grown(segments->all, sizeof segments->all[0], segments->room, room);
        segments->room = room;
    }
    return &segments->all[id];
}

static uint64_t *owner_of(struct segments *segments, uint32_t row)
{
    if (row >= segments->row_room) {
        uint32_t room = row * 2 + 64;
        segments->row_owner =
            grown(segments->row_owner, sizeof segments->row_owner[0], segments->row_room, room);
        segments->row_room = room;
    }
    return &segments->row_owner[row];
}

/* ---- seals ---- */

/* 1 if there are none, or if they lead from the begin to `to`. */
static int seals_lead_to(struct segments *segments, const char *bytes, uint32_t length, uint32_t to)
{
    uint32_t at = 0;

    while (segments->seals && at < to) {
        if (length - at < FSW_SEAL_BYTES || fsw_seal_units(bytes + at) == 0)
            return 0;
        at += FSW_SEAL_BYTES + fsw_seal_units(bytes + at) * FSW_SEAL_BYTES;
        if (at > length)
            return 0;
    }
    return !segments->seals || at == to;
}

/* There and back. No substitute for encryption. */
static void scramble(char *bytes, uint32_t length, uint64_t id)
{
    for (uint32_t i = 0; i < length; i++)
        bytes[i] ^= (char)(id * 0x9e3779b1u + i * 31 + 1);
}

/* As a store with seals does: objects that are not whole are nothing. */
static void cut_off(struct fsw_store_request *request)
{
    char *bytes = request->bytes;
    uint32_t at = 0, length = request->length, object;

    while (length - at >= FSW_SEAL_BYTES) {
        object = FSW_SEAL_BYTES + fsw_seal_units(bytes + at) * FSW_SEAL_BYTES;
        if (object == FSW_SEAL_BYTES || object > length - at)
            break;
        at += object;
    }
    memset(bytes + at, 0, length - at < FSW_SEAL_BYTES ? length - at : FSW_SEAL_BYTES);
    if (length - at > FSW_SEAL_BYTES)
        memset(bytes + at + FSW_SEAL_BYTES, 0xa5, length - at - FSW_SEAL_BYTES);
}

static void copy_range(struct segments *segments, struct segment *segment,
                       struct fsw_store_request *request)
{
    if (segments->seals)
        scramble(segment->bytes, segment->length, request->id);
    memcpy(request->bytes, segment->bytes + request->offset, request->length);
    if (!segments->seals)
        return;
    scramble(segment->bytes, segment->length, request->id);
    cut_off(request);
}

/* ---- what the engine may ask ---- */

static void asked_put(struct segments *segments, struct fsw_store_request *request)
{
    struct segment *segment = segments_at(segments, request->id);
    uint64_t *owner = owner_of(segments, request->row);

    if (request->id == 0 || request->row == 0)
        broken("id and row begin at 1", request);
    if (request->length == 0 || request->length > FSW_SEGMENT_BYTES)
        broken("a segment has 1 to 65,520 bytes", request);
    uint32_t checksum = fsw_checksum(request->bytes, request->length, 0);
    if (segment->life != NEVER && (segment->life != ENDED || segment->checksum != checksum))
        broken("an id is put once (S1)", request);
    if (*owner != 0 && *owner != request->id)
        broken("the row belongs to another segment (S2)", request);
    if (!seals_lead_to(segments, request->bytes, request->length, request->length))
        broken("the seals of a segment lead from its begin to its end (S6)", request);
    *owner = request->id;
    segment->life = PUTTING;
    segment->row = request->row;
    segment->length = request->length;
    segment->checksum = checksum;
}

static void asked_get(struct segments *segments, struct fsw_store_request *request)
{
    struct segment *segment = segments_at(segments, request->id);

    if (segment->life != ENDED || !segment->acknowledged)
        broken("a get of what was not put, or is dropped (S3)", request);
    if (segment->row != request->row || *owner_of(segments, request->row) != request->id)
        broken("a get with another segment's row (S3)", request);
    if (request->length == 0 || (uint64_t)request->offset + request->length > segment->length)
        broken("a get past the segment's end (S3)", request);
    segment->gets++;
    if (!segments->seals || segment->bytes == NULL || segment->damaged)
        return;
    scramble(segment->bytes, segment->length, request->id);
    if (!seals_lead_to(segments, segment->bytes, segment->length, request->offset))
        broken("a get that does not begin with a seal (S6)", request);
    scramble(segment->bytes, segment->length, request->id);
}

static void asked_drop(struct segments *segments, struct fsw_store_request *request)
{
    struct segment *segment = segments_at(segments, request->id);

    if (segment->life != ENDED)
        broken("a drop of what was not put, or twice (S4)", request);
    if (segment->gets != 0)
        broken("a drop under a get (S4)", request);
    if (segment->row != request->row)
        broken("a drop with another segment's row (S4)", request);
    segment->life = DROPPING;
}

void segments_asked(struct segments *segments, struct fsw_store_request *request)
{
    if (request->verb == FSW_STORE_PUT)
        asked_put(segments, request);
    else if (request->verb == FSW_STORE_GET)
        asked_get(segments, request);
    else
        asked_drop(segments, request);
}

/* ---- answers ---- */

void segments_forget(struct segments *segments, struct segment *segment)
{
    if (segment->bytes != NULL)
        segments->stored--;
    free(segment->bytes);
    segment->bytes = NULL;
}

static void answered_put(struct segments *segments, struct fsw_store_request *request, int lands)
{
    struct segment *segment = segments_at(segments, request->id);

    if (fsw_checksum(request->bytes, request->length, 0) != segment->checksum)
        broken("bytes changed while they were put (S5)", request);
    segment->life = ENDED;
    segment->acknowledged = request->result == FSW_STORE_OK;
    request->copies = segment->acknowledged;
    if (!lands || segment->bytes != NULL)
        return;
    segment->bytes = malloc(request->length);
    memcpy(segment->bytes, request->bytes, request->length);
    segments->stored++;
    if (!segments->seals)
        return;
    scramble(segment->bytes, request->length, request->id);
    scramble(request->bytes, request->length, request->id); /* they were ours to change */
}

static void answered_get(struct segments *segments, struct fsw_store_request *request)
{
    struct segment *segment = segments_at(segments, request->id);

    segment->gets--;
    if (request->result == FSW_STORE_OK && segment->bytes == NULL)
        request->result = FSW_STORE_GONE;
    request->copies = request->result == FSW_STORE_OK;
    if (request->result == FSW_STORE_OK)
        copy_range(segments, segment, request);
    else
        memset(request->bytes, 0xa5, request->length);
}

static void answered_drop(struct segments *segments, struct fsw_store_request *request)
{
    struct segment *segment = segments_at(segments, request->id);

    if (request->result != FSW_STORE_OK) {
        segment->life = ENDED;
        segment->acknowledged = 0;
        return;
    }
    segment->life = DROPPED;
    segments_forget(segments, segment);
    *owner_of(segments, request->row) = 0;
}

void segments_answered(struct segments *segments, struct fsw_store_request *request, int lands)
{
    if (request->verb == FSW_STORE_PUT)
        answered_put(segments, request, lands);
    else if (request->verb == FSW_STORE_GET)
        answered_get(segments, request);
    else
        answered_drop(segments, request);
}

void segments_free(struct segments *segments)
{
    for (uint64_t id = 0; id < segments->room; id++)
        free(segments->all[id].bytes);
    free(segments->all);
    free(segments->row_owner);
}
