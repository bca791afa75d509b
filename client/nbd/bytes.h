/*
 * bytes.h: numbers as NBD writes them, most significant byte first, at any address.
 */
#ifndef FSW_NBD_BYTES_H
#define FSW_NBD_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t fsw_get16(const void *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return be16toh(value);
}

static inline uint32_t fsw_get32(const void *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static inline uint64_t fsw_get64(const void *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

static inline void fsw_put16(void *at, uint16_t value)
{
    value = htobe16(value);
    memcpy(at, &value, sizeof value);
}

static inline void fsw_put32(void *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

static inline void fsw_put64(void *at, uint64_t value)
{
    value = htobe64(value);
    memcpy(at, &value, sizeof value);
}

#endif
