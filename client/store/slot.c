/*
 * slot.c: what a place of slots looks like, byte by byte.
 */
#include "client/store/slot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/checksum.h"

#define SLOTS_MAGIC "farswap slots 1" /* with its NUL: 16 bytes */

struct header {
    char magic[16];
    struct fsw_device_id device;
    uint64_t sentinel; /* 0: none */
    uint32_t slot_bytes;
    uint32_t check; /* of all before it */
};

struct head {
    uint64_t id;
    uint32_t length; /* 0: empty */
    uint32_t check;
};
_Static_assert(sizeof(struct head) == SLOTS_HEAD, "a slot's head");

void *slots_buffer(void)
{
    void *buffer = aligned_alloc(SLOTS_BLOCK, SLOTS_BYTES);

    if (buffer != NULL)
        memset(buffer, 0, SLOTS_BYTES);
    return buffer;
}

static uint32_t header_sum(const struct header *header)
{
    return fsw_checksum(header, offsetof(struct header, check), 0);
}

void slot_header_write(void *block, const struct fsw_device_id *device, uint64_t sentinel)
{
    struct header header = {
        .magic = SLOTS_MAGIC, .device = *device, .sentinel = sentinel, .slot_bytes = SLOTS_BYTES};

    header.check = header_sum(&header);
    memset(block, 0, SLOTS_BLOCK);
    memcpy(block, &header, sizeof header);
}

enum slot_header slot_header_read(const void *block, struct fsw_device_id *ret_device,
                                  uint64_t *ret_sentinel)
{
    static const struct header blank;
    struct header header;

    memcpy(&header, block, sizeof header);
    *ret_device = header.device;
    *ret_sentinel = header.sentinel;
    if (memcmp(&header, &blank, sizeof blank) == 0)
        return SLOT_HEADER_BLANK;
    if (memcmp(header.magic, SLOTS_MAGIC, sizeof header.magic) != 0)
        return SLOT_HEADER_FOREIGN;
    return header.check == header_sum(&header) && header.slot_bytes == SLOTS_BYTES
               ? SLOT_HEADER_FITS
               : SLOT_HEADER_DAMAGED;
}

static uint32_t head_sum(const struct fsw_device_id *device, uint32_t row, const struct head *head)
{
    struct {
        struct fsw_device_id device;
        uint64_t id;
        uint32_t row, length;
    } all = {*device, head->id, row, head->length};

    return fsw_checksum(&all, sizeof all, 0);
}

void slot_head_write(void *to, const struct fsw_device_id *device, uint32_t row, uint64_t id,
                     uint32_t length)
{
    struct head head = {.id = id, .length = length};

    head.check = head_sum(device, row, &head);
    memcpy(to, &head, sizeof head);
}

int64_t slot_head_read(const void *from, const struct fsw_device_id *device, uint32_t row,
                       uint64_t *ret_id)
{
    struct head head;

    memcpy(&head, from, sizeof head);
    *ret_id = head.id;
    if (head.id == 0 && head.length == 0 && head.check == 0)
        return -ENOENT; /* a hole */
    if (head.length == 0 || head.length > FSW_SEGMENT_BYTES ||
        head.check != head_sum(device, row, &head))
        return -EUCLEAN;
    return (int64_t)head.length;
}

int64_t slot_head_check(const void *from, const struct fsw_device_id *device, uint32_t row,
                        uint64_t id)
{
    uint64_t there;
    int64_t length = slot_head_read(from, device, row, &there);

    return length > 0 && there != id ? -ENOENT : length;
}

int slot_device_is_gone(const struct fsw_device_id *device,
                        const struct fsw_store_identity *identity)
{
    for (unsigned i = 0; i < identity->gone_count; i++)
        if (memcmp(device, &identity->gone[i], sizeof *device) == 0)
            return 1;
    return 0;
}
