/*
 * fuzz_slot.c: libFuzzer against what a file or an export may hold where slots should be (slot.h).
 *
 * The input is a header and a slot's head; by its first byte as they are, or laid over those of a device.
 * What is taken for ours must be what was written there, byte for byte: it has only room for that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/store/slot.h"

static const struct fsw_device_id device = {"fuzz"};
#define ROW 7u
#define ID 0x1234567890ull
#define LENGTH 5000u
#define SENTINEL 0x5e47191eull

/* Input over what was written, in memory that ends where it does. What is missing of it stays. */
static uint8_t *laid(const uint8_t *input, size_t size, const void *written, size_t room, int over)
{
    uint8_t *bytes = malloc(room);

    for (size_t i = 0; i < room; i++)
        bytes[i] =
            (uint8_t)((i < size ? input[i] : 0) ^ (over ? ((const uint8_t *)written)[i] : 0));
    return bytes;
}

static void header(const uint8_t *input, size_t size, int over)
{
    static uint8_t written[SLOTS_BLOCK];
    struct fsw_device_id there;
    uint64_t sentinel;

    slot_header_write(written, &device, SENTINEL);
    uint8_t *block = laid(input, size, written, SLOTS_BLOCK, over);
    enum slot_header what = slot_header_read(block, &there, &sentinel);
    if (what == SLOT_HEADER_FITS) {
        uint8_t again[SLOTS_BLOCK];
        slot_header_write(again, &there, sentinel);
        size_t length =
            16 + sizeof there + sizeof sentinel + 8; /* magic, these, slot size, check */
        if (memcmp(again, block, length) != 0)
            abort();
        if (over && memcmp(&there, &device, sizeof there) == 0 && sentinel == SENTINEL &&
            memcmp(block, written, length) != 0)
            abort();
    }
    free(block);
}

static void head(const uint8_t *input, size_t size, int over)
{
    uint8_t written[SLOTS_HEAD];
    uint64_t id;

    slot_head_write(written, &device, ROW, ID, LENGTH);
    uint8_t *bytes = laid(input, size, written, SLOTS_HEAD, over);
    int64_t length = slot_head_read(bytes, &device, ROW, &id);
    if (length > FSW_SEGMENT_BYTES || length == 0 ||
        (length < 0 && length != -ENOENT && length != -EUCLEAN))
        abort();
    if (length > 0) {
        uint8_t again[SLOTS_HEAD];
        struct fsw_device_id other = {"other"};
        slot_head_write(again, &device, ROW, id, (uint32_t)length);
        if (memcmp(again, bytes, SLOTS_HEAD) != 0 ||
            slot_head_check(bytes, &device, ROW, id) != length ||
            slot_head_check(bytes, &device, ROW, id + 1) != -ENOENT ||
            slot_head_check(bytes, &device, ROW + 1, id) != -EUCLEAN ||
            slot_head_check(bytes, &other, ROW, id) != -EUCLEAN)
            abort();
    }
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < 1)
        return 0;
    header(input + 1, size - 1, input[0] & 1);
    head(input + 1, size - 1, input[0] & 1);
    return 0;
}
