/*
 * rig.h: what the tests of the engine share: a device of their own, contents, and the proof that
 * everything adds up.
 *
 * Each test program lives in a folder of its own (FARSWAP_RUNDIR, FARSWAP_STATEDIR) and under a
 * guardian: a parent process that removes folder and shared memory however the test ended.
 */
#ifndef RIG_H
#define RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/engine.h"
#include "teststore.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define RIG_SLOW 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define RIG_SLOW 1
#endif
#endif
#ifndef RIG_SLOW
#define RIG_SLOW 0
#endif

/* main()'s whole body: runs `tests` under a guardian and returns the exit code. */
int rig_main(int (*tests)(void));

/* RIG_MAIN(cmocka_unit_test(a), cmocka_unit_test(b)) */
#define RIG_MAIN(...)                                                                              \
    static int run_all(void)                                                                       \
    {                                                                                              \
        const struct CMUnitTest all[] = {__VA_ARGS__};                                             \
        return cmocka_run_group_tests(all, NULL, NULL);                                            \
    }                                                                                              \
    int main(void)                                                                                 \
    {                                                                                              \
        return rig_main(run_all);                                                                  \
    }

/* FARSWAP_TEST_SEED, or another one each run; printed. */
uint64_t rig_seed(void);
uint64_t rig_random(uint64_t *state);
uint64_t rig_below(uint64_t *state, uint64_t bound);

/* ---- contents ---- */

enum rig_kind {
    RIG_ZERO,
    RIG_SAME32,
    RIG_SAME64,
    RIG_NEARLY_SAME, /* one byte differs */
    RIG_TEXT,        /* 4:1 or so */
    RIG_HALF,        /* 2:1 */
    RIG_NEARLY_RAW,  /* compresses to more than FSW_HUGE_THRESHOLD */
    RIG_NOISE,
    RIG_KINDS,
};

/* A whole page of that kind; another seed gives other bytes. */
void rig_fill(void *page, enum rig_kind kind, uint64_t seed);

/* ---- a device ---- */

struct rig_options {
    uint64_t size, memory;
    const char *codec; /* NULL: lz4 */
    int with_store, answer_at_once;
    int seals;         /* the store wants them; also if FARSWAP_TEST_SEALS is set */
    uint32_t prefetch; /* as superblock.prefetch */
    uint64_t seed;
};

struct rig {
    struct fsw_device *device;
    struct teststore *store; /* NULL: none */
    uint32_t high;           /* reclaim's own watermark */
};

/* No busy machine makes a write fail: requests wait a minute for the filler (rig_be_patient), and so is
 * write_wait= with a store. */
void rig_open(struct rig *rig, const struct rig_options *options);
/* Writes wait as long as users' do, FSW_WRITE_WAIT_NS. */
void rig_impatient(struct rig *rig);
/* Settles, proves, closes, removes the image. */
void rig_close(struct rig *rig);
/* Closes without a look: for a device that was damaged on purpose. */
void rig_abandon(struct rig *rig);

/* 1: everything that was not used since leaves for the store, at once and as long as it lasts.
 * 0: as reclaim would. */
void rig_evict(struct rig *rig, int on);
/* For a device that is not rig_open()'s, before it is started. */
void rig_be_patient(struct fsw_device *device);
/* Evicts all and waits until no page is left in the pool, and nothing is on its way. */
void rig_evict_all(struct rig *rig);

/* Asks the keeper to compact, now. */
void rig_compact(struct rig *rig);

/* Waits until nothing is on its way and proves that everything adds up: entries against pool, rows,
 * store, frames and counters. */
void rig_prove(struct rig *rig);

uint64_t rig_stat(struct rig *rig, enum fsw_stat stat);
/* Waits until done(rig, opaque); fails the test after a minute. */
void rig_wait(struct rig *rig, int (*done)(struct rig *rig, void *opaque), void *opaque);
fsw_entry *rig_entry(struct rig *rig, uint64_t page);

/* Bytes of the image that are resident, as the kernel counts them. */
uint64_t rig_resident(const struct fsw_image *image);

int rig_write_page(struct rig *rig, uint64_t page, enum rig_kind kind, uint64_t seed);
/* Fails the test unless the page is exactly that. */
void rig_expect_page(struct rig *rig, uint64_t page, enum rig_kind kind, uint64_t seed);

#endif
