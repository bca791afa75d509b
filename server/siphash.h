/*
 * siphash.h: SipHash-2-4, a hash with a secret key (Aumasson and Bernstein, 2012).
 *
 * Peers choose the keys that we put into a table. With a hash that they can compute they could put
 * them all into one bucket; with this one and a random key they can't.
 */
#ifndef FSW_SERVER_SIPHASH_H
#define FSW_SERVER_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct fsw_siphash_key {
    uint64_t k[2];
};

/* Neither blocks nor allocates. The result is the same on every byte order. */
uint64_t fsw_siphash(const struct fsw_siphash_key *key, const void *bytes, size_t length);

#endif
