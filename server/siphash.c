/*
 * siphash.c: written from the paper's definition: a state of four words, two rounds a word of
 * input, four to finish. Its test vector is in tests/unit/test_farswapd_keyspace.c.
 */
#include "server/siphash.h"

#include <endian.h>
#include <string.h>

static inline uint64_t rotate(uint64_t word, unsigned by)
{
    return word << by | word >> (64 - by);
}

static inline void rounds(uint64_t v[4], unsigned count)
{
    while (count-- > 0) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

static inline void absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
}

uint64_t fsw_siphash(const struct fsw_siphash_key *key, const void *bytes, size_t length)
{
    uint64_t v[4] = {
        key->k[0] ^ 0x736f6d6570736575,
        key->k[1] ^ 0x646f72616e646f6d,
        key->k[0] ^ 0x6c7967656e657261,
        key->k[1] ^ 0x7465646279746573,
    };
    const char *p = bytes;
    uint64_t word;

    for (size_t left = length; left >= 8; left -= 8, p += 8) {
        memcpy(&word, p, 8);
        absorb(v, le64toh(word));
    }
    word = 0;
    memcpy(&word, p, length % 8);
    absorb(v, le64toh(word) | (uint64_t)length << 56);
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
