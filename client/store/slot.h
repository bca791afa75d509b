/*
 * slot.h: what a place of slots looks like, byte by byte. Pure functions.
 *
 *     0          64 KiB       128 KiB
 *     ┌─────────┬────────────┬────────────┬──
 *     │ header  │ slot 1     │ slot 2     │ …        slot = row; there is no row 0
 *     └─────────┴────────────┴────────────┴──
 *     header   magic, device id, sentinel, check
 *     slot     segment id, length, check (16 bytes), then the segment's bytes; zeroes if empty
 *
 *   S1  A slot whose check fits (it covers device, row, id and length) holds that segment whole: it
 *       is written by one call at a time, and its writer is answered only after that.
 *   S2  The header belongs to one device. A place of another, or of another program, is refused.
 */
#ifndef FSW_STORE_SLOT_H
#define FSW_STORE_SLOT_H

#include <stddef.h>
#include <stdint.h>

#include "farswap/store.h"

#define SLOTS_BLOCK 4096u
#define SLOTS_HEAD 16u /* of a slot, before its segment */
#define SLOTS_BYTES 65536u
_Static_assert(SLOTS_HEAD + FSW_SEGMENT_BYTES <= SLOTS_BYTES, "a segment fits its slot");

static inline uint64_t slot_at(uint32_t row)
{
    return (uint64_t)row * SLOTS_BYTES;
}

static inline uint32_t slot_round_up(uint32_t bytes)
{
    return (bytes + SLOTS_BLOCK - 1) / SLOTS_BLOCK * SLOTS_BLOCK;
}

/* A buffer of SLOTS_BYTES, aligned to SLOTS_BLOCK, touched. NULL: no memory. free() frees it. */
void *slots_buffer(void);

/* The first SLOTS_BLOCK bytes of a place. */
void slot_header_write(void *block, const struct fsw_device_id *device, uint64_t sentinel);

enum slot_header { SLOT_HEADER_BLANK, SLOT_HEADER_FOREIGN, SLOT_HEADER_DAMAGED, SLOT_HEADER_FITS };
enum slot_header slot_header_read(const void *block, struct fsw_device_id *ret_device,
                                  uint64_t *ret_sentinel);

/* The first SLOTS_HEAD bytes of a slot. */
void slot_head_write(void *head, const struct fsw_device_id *device, uint32_t row, uint64_t id,
                     uint32_t length);

/* The length of the segment that it says is there, and its id; -ENOENT: none is; -EUCLEAN: damaged. */
int64_t slot_head_read(const void *head, const struct fsw_device_id *device, uint32_t row,
                       uint64_t *ret_id);

/* The same for one segment: -ENOENT also if another is there. */
int64_t slot_head_check(const void *head, const struct fsw_device_id *device, uint32_t row,
                        uint64_t id);

/* 1 if the device is one of those that are gone. */
int slot_device_is_gone(const struct fsw_device_id *device,
                        const struct fsw_store_identity *identity);

#endif
