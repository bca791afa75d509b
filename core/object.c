/*
 * object.c: a page packed and sealed into an object, and opened with every check there is.
 */
#include "core/object.h"

#include <errno.h>
#include <string.h>

#include "common/checksum.h"

_Static_assert(sizeof(struct fsw_object_header) == FSW_OBJECT_HEADER, "header has no holes");
_Static_assert(FSW_OBJECT_UNITS_MAX <= FSW_LENGTH_MASK, "an entry can hold every length");

uint64_t fsw_object_seed(const struct fsw_device_id *device)
{
    uint64_t halves[2];
    memcpy(halves, device->bytes, sizeof halves);
    return halves[0] ^ halves[1] * 0x9e3779b97f4a7c15ull;
}

static uint32_t checksum(uint64_t seed, const struct fsw_object_header *header, const void *page)
{
    uint64_t fields = (uint64_t)header->page << 32 | (uint32_t)header->length << 16 |
                      (uint32_t)header->codec << 8 | header->dictionary;
    return fsw_checksum(page, FSW_PAGE_SIZE, seed ^ fields * 0xc2b2ae3d27d4eb4full);
}

/* Header and padding around a payload that is there. */
static unsigned wrap(size_t length, uint8_t codec_id, void *object)
{
    struct fsw_object_header header = {.length = (uint16_t)length, .codec = codec_id};
    size_t used = FSW_OBJECT_HEADER + length;
    unsigned units = (unsigned)((used + FSW_UNIT - 1) / FSW_UNIT);

    memcpy(object, &header, FSW_OBJECT_HEADER);
    memset((char *)object + used, 0, units * FSW_UNIT - used);
    return units;
}

/* Raw, without the zero tail if that saves a unit. */
static unsigned pack_raw(const void *page, size_t length, void *object)
{
    char *payload = (char *)object + FSW_OBJECT_HEADER;

    if (FSW_OBJECT_HEADER + length > FSW_OBJECT_MAX - FSW_UNIT) /* huge: not copied twice */
        return wrap(FSW_PAGE_SIZE, FSW_CODEC_RAW, object);
    return wrap(fsw_codec_raw.compress(NULL, 0, page, length, payload, length), FSW_CODEC_RAW,
                object);
}

unsigned fsw_object_pack(const void *page, const struct fsw_codec *codec, uint8_t codec_id,
                         int level, void *state, void *object)
{
    char *payload = (char *)object + FSW_OBJECT_HEADER;
    size_t length = fsw_without_tail(page), packed = 0;

    if (codec_id != FSW_CODEC_RAW && !fsw_looks_random(page, length))
        packed = codec->compress(state, level, page, length, payload, FSW_HUGE_THRESHOLD);
    return packed != 0 ? wrap(packed, codec_id, object) : pack_raw(page, length, object);
}

unsigned fsw_object_pack_same(const void *page, void *object)
{
    memcpy((char *)object + FSW_OBJECT_HEADER, page, sizeof(uint64_t));
    return wrap(sizeof(uint64_t), FSW_CODEC_SAME, object);
}

void fsw_object_seal(uint64_t seed, uint32_t page_number, const void *page, void *object)
{
    struct fsw_object_header header;

    memcpy(&header, object, FSW_OBJECT_HEADER);
    header.page = page_number;
    header.checksum = checksum(seed, &header, page);
    memcpy(object, &header, FSW_OBJECT_HEADER);
}

int fsw_object_open_huge(uint64_t seed, uint32_t page_number, const void *bytes, const void *page)
{
    struct fsw_object_header header;

    memcpy(&header, bytes, FSW_OBJECT_HEADER);
    if (header.page != page_number || header.length != FSW_PAGE_SIZE ||
        header.codec != FSW_CODEC_RAW || header.dictionary != 0)
        return -EIO;
    return checksum(seed, &header, page) == header.checksum ? 0 : -EIO;
}

int fsw_object_open(uint64_t seed, uint32_t page_number, const void *object, unsigned units,
                    void *page)
{
    struct fsw_object_header header;
    if (units < FSW_OBJECT_UNITS_MIN)
        return -EIO;
    memcpy(&header, object, FSW_OBJECT_HEADER);

    size_t used = FSW_OBJECT_HEADER + header.length;
    const struct fsw_codec *codec = fsw_codec_by_id(header.codec);

    if (codec == NULL || header.page != page_number || header.dictionary != 0 ||
        header.length == 0 || (used + FSW_UNIT - 1) / FSW_UNIT != units)
        return -EIO;
    int r = codec->decompress((const char *)object + FSW_OBJECT_HEADER, header.length, page);
    if (r < 0)
        return r;
    return checksum(seed, &header, page) == header.checksum ? 0 : -EIO;
}
