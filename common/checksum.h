/*
 * checksum.h: 32 bits that tell a page from a damaged one (XXH3, by way of libxxhash).
 */
#ifndef FSW_CHECKSUM_H
#define FSW_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint32_t fsw_checksum(const void *bytes, size_t length, uint64_t seed);

#endif
