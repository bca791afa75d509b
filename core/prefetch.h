/*
 * prefetch.h: how much more than one object a get should bring. Policy, and nothing else.
 *
 * Objects that lie beside each other in a segment left together, and tend to come back together. One
 * too many costs some 4 µs (the wire, decryption, a copy), one that is found here saves a get: 60 µs on
 * loopback, and more elsewhere. So prefetching pays from a hit in 16 or so on. Two things are measured:
 *
 *   runs    a get that goes on where a window ends, of which most was read, asks for twice that
 *           window; of which a quarter was read, for as much
 *   share   of all that was prefetched lately, how much was read. It says what a get asks for that
 *           goes on with nothing: from half a window up to a whole one; a quarter; or nothing, and
 *           then one get in 64 is a probe, so that it is noticed when that changes
 *
 * All of it is called under the lock of the windows.
 */
#ifndef FSW_PREFETCH_H
#define FSW_PREFETCH_H

#include <stdint.h>

/* prefetch= as the image has it (superblock.prefetch): these, or bytes. */
#define FSW_PREFETCH_AUTO 0u
#define FSW_PREFETCH_OFF 1u
#define FSW_PREFETCH_BYTES_MIN 4096u
#define FSW_PREFETCH_BYTES_MAX 16384u
/* fetch_timeout= at most: a day. */
#define FSW_FETCH_TIMEOUT_MAX_S 86400u

struct fsw_prefetch {
    uint32_t came, hits; /* objects, lately */
    uint32_t gets;       /* without prefetch, for the probes */
};

/* A window that ends where a get begins. */
struct fsw_prefetch_run {
    uint32_t bytes;
    unsigned objects, taken; /* 0, 0: it is not here yet */
};

/* Bytes that a get should ask for, the object that it is for included; 0: no more than that. Bounds are
 * the caller's. */
uint32_t fsw_prefetch_bytes(struct fsw_prefetch *prefetch, uint32_t word,
                            const struct fsw_prefetch_run *run, uint32_t most);

/* So many objects came that nobody had asked for; one of them was read for the first time. */
void fsw_prefetch_came(struct fsw_prefetch *prefetch, unsigned objects);
void fsw_prefetch_hit(struct fsw_prefetch *prefetch);

#endif
