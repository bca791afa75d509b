/*
 * zstd.c: the one file that knows zstd.h. Denser than lz4 and slower: 18 µs a page at level 1 and 5
 * µs back, where lz4 takes 6 and 2.
 *
 * Frames carry neither magic number nor content size nor checksum (an object's header has all
 * that): six bytes less a page. The zero tail is left out, as with lz4.
 *
 * All that it works with lies in memory of our own, as large as the largest page could need, touched
 * when it is made: zstd by itself allocates at the first page, and again when many small ones in a
 * row make it think that its tables are too large.
 *
 * Decompression needs 94 KiB, too. The process has a set of readers, made ahead, of which a thread
 * borrows one for a few microseconds.
 */
#define ZSTD_STATIC_LINKING_ONLY /* magicless format; contexts in our own memory */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/cleanup.h"
#include "core/codec/codec.h"
#include "farswap/params.h"

#define READERS_MAX 256u

static void *touched(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);

    if (memory != NULL)
        memset(memory, 0, bytes);
    return memory;
}

/* ---- readers ---- */

struct reader {
    _Alignas(64) _Atomic int busy;
    ZSTD_DCtx *context; /* its memory; NULL: there is none */
};

static struct reader readers[READERS_MAX];
static _Atomic unsigned reader_count; /* the first so many have a context */
static _Atomic int crowded;           /* somebody found all of them busy, ever */
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static int add_reader(void)
{
    unsigned last = atomic_load(&reader_count);
    void *memory = touched(ZSTD_estimateDCtxSize());

    if (memory == NULL)
        return -ENOMEM;
    ZSTD_DCtx *context = ZSTD_initStaticDCtx(memory, ZSTD_estimateDCtxSize());
    ZSTD_DCtx_setParameter(context, ZSTD_d_format, ZSTD_f_zstd1_magicless);
    readers[last].context = context;
    atomic_store(&reader_count, last + 1);
    return 0;
}

/* The last one, which nobody finds any more; whoever has it gives it back within a page. */
static void remove_reader(void)
{
    unsigned last = atomic_load(&reader_count) - 1;
    int idle = 0;

    atomic_store(&reader_count, last);
    while (!atomic_compare_exchange_weak(&readers[last].busy, &idle, 1)) {
        idle = 0;
        sched_yield();
    }
    free(readers[last].context);
    readers[last].context = NULL;
    atomic_store(&readers[last].busy, 0);
}

static int set_readers(unsigned most, int in_use)
{
    unsigned wanted = !in_use && !atomic_load(&crowded) ? 1
                      : most < READERS_MAX              ? most
                                                        : READERS_MAX;
    int r = 0;
    FSW_LOCK_SCOPE(&making);

    while (r == 0 && atomic_load(&reader_count) < wanted)
        r = add_reader();
    while (atomic_load(&reader_count) > wanted)
        remove_reader();
    return r;
}

static struct reader *try_borrow(void)
{
    unsigned count = atomic_load_explicit(&reader_count, memory_order_acquire);

    for (unsigned i = 0; i < count; i++) {
        int idle = 0;
        if (!atomic_compare_exchange_strong(&readers[i].busy, &idle, 1))
            continue;
        if (readers[i].context != NULL)
            return &readers[i];
        atomic_store(&readers[i].busy, 0); /* it went while we looked */
    }
    return NULL;
}

static struct reader *borrow(void)
{
    struct reader *reader;

    while ((reader = try_borrow()) == NULL) {
        if (atomic_load(&reader_count) == 0) /* who serves nobody has made none ahead */
            set_readers(1, 0);
        else if (!atomic_load(&crowded))
            atomic_store(&crowded, 1);
        sched_yield();
    }
    return reader;
}

/* ---- the codec ---- */

/* Of pages of all lengths: fewer bytes may mean larger tables. */
static size_t memory_needed(int level)
{
    size_t most = 0;

    for (unsigned length = 8; length <= FSW_PAGE_SIZE; length *= 2) {
        size_t needed = ZSTD_estimateCCtxSize_usingCParams(ZSTD_getCParams(level, length, 0));
        most = needed > most ? needed : most;
    }
    return most;
}

static void *state_new(int level)
{
    size_t bytes = memory_needed(level);
    void *memory = touched(bytes);

    if (memory == NULL)
        return NULL;
    ZSTD_CCtx *context = ZSTD_initStaticCCtx(memory, bytes);
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 0);
    ZSTD_CCtx_setParameter(context, ZSTD_c_format, ZSTD_f_zstd1_magicless);
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
    return context;
}

static size_t compress(void *state, int level, const void *page, size_t length, void *bytes,
                       size_t capacity)
{
    ZSTD_CCtx_setParameter(state, ZSTD_c_compressionLevel, level);
    size_t n = ZSTD_compress2(state, bytes, capacity, page, length);
    return ZSTD_isError(n) ? 0 : n;
}

static int decompress(const void *bytes, size_t length, void *page)
{
    struct reader *reader = borrow();
    size_t n = ZSTD_decompressDCtx(reader->context, page, FSW_PAGE_SIZE, bytes, length);

    atomic_store(&reader->busy, 0);
    return fsw_fill_tail(page, ZSTD_isError(n) ? -1 : (long)n);
}

const struct fsw_codec fsw_codec_zstd = {
    .name = "zstd",
    .level_min = -7,
    .level_max = 19,
    .level_default = 1,
    .state_new = state_new,
    .state_free = free,
    .set_readers = set_readers,
    .compress = compress,
    .decompress = decompress,
};
