/*
 * object.h: one page's compressed bytes with the header that proves them.
 *
 *      0        4         8        10      11     12 ...
 *      page     checksum  length   codec   dict   payload, padded with zeroes to a unit
 *
 * The checksum is of the uncompressed page, seeded with the device id and every other header field:
 * bytes of another device, another page, another codec, or a damaged header can't pass. The same
 * bytes lie in the pool, in a segment and in a store; an object is never changed, only replaced.
 */
#ifndef FSW_OBJECT_H
#define FSW_OBJECT_H

#include <stddef.h>
#include <stdint.h>

#include "core/codec/codec.h"
#include "core/entry.h"
#include "farswap/params.h"
#include "farswap/store.h"

struct fsw_object_header {
    uint32_t page;
    uint32_t checksum;
    uint16_t length; /* of the payload, exact: 1..4096 */
    uint8_t codec;
    uint8_t dictionary; /* 0: none */
};

#define FSW_OBJECT_HEADER 12u
/* A raw page: the largest there is, and a multiple of a unit. */
#define FSW_OBJECT_MAX (((FSW_OBJECT_HEADER + FSW_PAGE_SIZE) + FSW_UNIT - 1) / FSW_UNIT * FSW_UNIT)
#define FSW_OBJECT_UNITS_MAX (FSW_OBJECT_MAX / FSW_UNIT)
#define FSW_OBJECT_UNITS_MIN 2u /* header and eight bytes */

/* Compressed pages longer than this are kept raw: what they save is not worth the decompression at
 * every read (zsmalloc's huge_class_size is 3264, since no class beyond shares a zspage; ours all
 * do). Measured with `bench/classes --thresholds` on pages of five programs, lz4: the pool is 0.45 %
 * larger with 3072, 0.03 % with 3328, and 0.02 % smaller with 4080, which 0.15 % of the pages would be
 * decompressed for. With zstd all from 3328 on are the same. */
#define FSW_HUGE_THRESHOLD 3584u

uint64_t fsw_object_seed(const struct fsw_device_id *device);

/* The two halves of making an object in `object` (FSW_OBJECT_MAX bytes); between them its length is
 * known and its place can be found. Neither blocks nor allocates.
 *
 * pack: compresses with codec, or keeps the page raw where that does not pay. state: of the codec's
 * state_new. Returns the length in units. FSW_OBJECT_UNITS_MAX means huge: then only the header is
 * made, and the page itself is the payload. pack_same: for a page that is one 64-bit word. */
unsigned fsw_object_pack(const void *page, const struct fsw_codec *codec, uint8_t codec_id,
                         int level, void *state, void *object);
unsigned fsw_object_pack_same(const void *page, void *object);

/* seal: page number and checksum. The object is whole, and never changes again. */
void fsw_object_seal(uint64_t seed, uint32_t page_number, const void *page, void *object);

/* Checks everything and decompresses. -EIO: damaged, or not that page's object; the buffer may then
 * hold anything. */
int fsw_object_open(uint64_t seed, uint32_t page_number, const void *object, unsigned units,
                    void *page);

/* The same for a huge object whose payload was read into the page already. */
int fsw_object_open_huge(uint64_t seed, uint32_t page_number, const void *header, const void *page);

#endif
