/*
 * checksum.c: the one file that knows xxhash. XXH3 takes 0.1 to 0.2 µs a page where lz4 takes 1 to
 * 6: a check at every read costs nothing one can measure. On x86 the library picks the widest
 * vectors that the CPU has; all variants give the same sum.
 *
 * libxxhash 0.8.1 returns from its AVX-512 code with the upper halves of the vector registers in use
 * (no VZEROUPPER). From then on every SSE instruction of the thread has to keep them: whole system
 * calls later, the first one in the next request still took as long as a miss of all caches.
 */
#include "common/checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <xxh_x86dispatch.h>

__attribute__((target("avx"))) static void clear_upper_halves(void)
{
    _mm256_zeroupper();
}

static uint32_t sum(const void *bytes, size_t length, uint64_t seed)
{
    uint64_t all = XXH3_64bits_withSeed(bytes, length, seed);

    if (__builtin_cpu_supports("avx"))
        clear_upper_halves();
    return (uint32_t)all;
}
#else
#define XXH_INLINE_ALL
#include <xxhash.h>

static uint32_t sum(const void *bytes, size_t length, uint64_t seed)
{
    return (uint32_t)XXH3_64bits_withSeed(bytes, length, seed);
}
#endif

uint32_t fsw_checksum(const void *bytes, size_t length, uint64_t seed)
{
    return sum(bytes, length, seed);
}
