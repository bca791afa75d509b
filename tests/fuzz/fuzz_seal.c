/*
 * fuzz_seal.c: libFuzzer against what a store answers where encryption opens it.
 *
 * The input is what comes back: by its first byte as it is, or laid over a segment that was put. It
 * begins at an offset that the input chooses. Whatever opens must be what was put there.
 */
#include <stdlib.h>
#include <string.h>

#include "client/store/seal.h"

#define OBJECT_UNITS 3u
#define OBJECT ((1 + OBJECT_UNITS) * FSW_SEAL_BYTES)
#define OBJECTS 16u
#define LENGTH (OBJECTS * OBJECT)

static uint8_t plain[LENGTH], closed[LENGTH];

static struct seal *set_up(void)
{
    static const struct fsw_device_id device = {"fuzz"};
    static const uint8_t key[FSW_STORE_KEY_BYTES] = "key";
    struct seal *seal = seal_new(&device, key);

    for (unsigned i = 0; i < LENGTH; i++)
        plain[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < OBJECTS; i++)
        fsw_seal_write(plain + i * OBJECT, OBJECT_UNITS);
    memcpy(closed, plain, LENGTH);
    if (seal == NULL || seal_close(seal, 1, closed, LENGTH) < 0)
        abort();
    return seal;
}

/* Every object that opened lies where it was put, and is the same. */
static void prove(const uint8_t *bytes, uint32_t offset, uint32_t length, int r)
{
    uint32_t at = 0;

    while (length - at >= FSW_SEAL_BYTES && fsw_seal_units(bytes + at) != 0) {
        if (fsw_seal_units(bytes + at) != OBJECT_UNITS || (offset + at) % OBJECT != 0 ||
            length - at < OBJECT || offset + at + OBJECT > LENGTH ||
            memcmp(bytes + at, plain + offset + at, OBJECT) != 0)
            abort();
        at += OBJECT;
    }
    if (length > 0 && (r == 0) != (at > 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static struct seal *seal;

    if (seal == NULL)
        seal = set_up();
    if (size < 2 || size > LENGTH)
        return 0;
    int laid_over = input[0] & 1;
    uint32_t length = (uint32_t)size - 2, offset = input[1] % OBJECTS * OBJECT;
    if (laid_over && length > LENGTH - offset)
        length = LENGTH - offset;
    uint8_t *bytes = malloc(length + 1); /* its own, so that a step beyond it is seen */
    for (uint32_t i = 0; i < length; i++)
        bytes[i] = laid_over ? input[2 + i] ^ closed[offset + i] : input[2 + i];
    prove(bytes, offset, length, seal_open(seal, 1, offset, bytes, length));
    free(bytes);
    return 0;
}
