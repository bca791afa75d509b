/*
 * store.h: the second tier, as the engine sees it. A few verbs on immutable segments.
 *
 * A segment is up to FSW_SEGMENT_BYTES bytes under a 64-bit id that its device never uses twice.
 * It is put once, read in ranges, dropped once, and never overwritten: a copy is there or missing,
 * but never stale. (memcached's extstore has the same shape for a disk.)
 *
 * Verbs are asynchronous. The caller owns a struct fsw_store_request and the bytes it points at;
 * from submit() until done() they belong to the store. done() is called exactly once for every
 * submitted request, also when the store is closed, on a thread of the store's, several at once if it
 * has several (or, for a store that can answer at once, inside submit()): it must neither block nor
 * submit() while holding a lock that a submitter holds.
 *
 * A segment is objects, one behind the other, and what is got of it is whole objects: most stores
 * don't look, but one that encrypts does so object by object. Such a store says with `seal` that it
 * wants FSW_SEAL_BYTES before each object; the caller fills them with fsw_seal_write(), and from the
 * submit of a PUT on, the segment's bytes are the store's to change. A GET begins with a seal, and
 * gets seal and object; if it asks for more, the objects that are whole in the range follow, each
 * behind its seal, until the end or a seal of 0 units.
 *
 * What a result means to the engine:
 *   FSW_STORE_OK           done; `copies` says which copies were acknowledged (PUT), or which one
 *                          answered (GET); bit 0: the first
 *   FSW_STORE_GONE         GET only: the store answered, still shows this device's sentinel, and
 *                          does not have that segment. The page is lost to that store. Of several
 *                          copies: that is so of each that was asked for.
 *   FSW_STORE_FULL         PUT only: no room now. Nothing was stored.
 *   FSW_STORE_UNREACHABLE  no answer until the deadline. A PUT may or may not have landed: its id
 *                          is burnt, drop it. A GET may be tried again.
 *   FSW_STORE_CORRUPT      the answer does not fit the request (length, type), or is not what was
 *                          put (a store with seals proves that).
 *   FSW_STORE_REFUSED      the store answered an error that trying again will not mend (rights).
 */
#ifndef FARSWAP_STORE_H
#define FARSWAP_STORE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "farswap/error.h"

/* On Redis 7.0.15 a value of this size costs 0.13 % overhead, one of 65,536 bytes 25 %. */
#define FSW_SEGMENT_BYTES 65520u

/* The most copies that a store keeps of each segment. */
#define FSW_COPIES_MAX 2u

/* The device's identity: random, made with its image, in every key at the store. */
struct fsw_device_id {
    uint8_t bytes[16];
};
/* Lower-case hex with its NUL. */
#define FSW_DEVICE_ID_TEXT 33

/* What a store has to know of the device it works for. All of it is made with the device's image,
 * and stays as long as that, but for the sentinels (lost()); the key is nowhere else. */
#define FSW_STORE_KEY_BYTES 32u
#define FSW_GONE_MOST 16u
struct fsw_store_identity {
    struct fsw_device_id device;
    uint64_t sentinel[FSW_COPIES_MAX]; /* of each copy; not 0 */
    uint32_t planted; /* which copies have acknowledged a put of this device before */
    int recovered;    /* 1: the device was there before, and somebody may need its local pages: no
                        state of the store makes start() fail; it is tried again, and health tells */
    uint8_t key[FSW_STORE_KEY_BYTES];
    /* Devices of the same name that are gone: what is theirs is nobody's. A store with one place for
     * one device takes that over from them, and from nobody else. */
    struct fsw_device_id gone[FSW_GONE_MOST];
    unsigned gone_count;
};

/* Before each object, where a store wants it: how many 16 bytes the object has, and room for what
 * the store adds. */
#define FSW_SEAL_BYTES 16u

static inline void fsw_seal_write(void *seal, unsigned units)
{
    memset(seal, 0, FSW_SEAL_BYTES);
    ((uint8_t *)seal)[0] = (uint8_t)units;
    ((uint8_t *)seal)[1] = (uint8_t)(units >> 8);
}

static inline unsigned fsw_seal_units(const void *seal)
{
    return ((const uint8_t *)seal)[0] | (unsigned)((const uint8_t *)seal)[1] << 8;
}

enum fsw_store_verb { FSW_STORE_PUT, FSW_STORE_GET, FSW_STORE_DROP };

enum fsw_store_result {
    FSW_STORE_OK = 0,
    FSW_STORE_GONE,
    FSW_STORE_FULL,
    FSW_STORE_UNREACHABLE,
    FSW_STORE_CORRUPT,
    FSW_STORE_REFUSED,
};

/* Stores that are wrapped around another stand in front of done(), each at its own place. */
struct fsw_store_request;
enum fsw_outer { FSW_OUTER_CRYPT, FSW_OUTER_MIRROR, FSW_OUTER_COUNT };
struct fsw_store_outer {
    void (*done)(struct fsw_store_request *request);
    void *owner;
    uint64_t kept[2];
};

struct fsw_store_request {
    /* set by the caller */
    enum fsw_store_verb verb;
    uint32_t row;      /* the segment's row in the device's directory (slot stores use it). DROP:
                        0 if nobody knows it, and then it is in no slot */
    uint64_t id;       /* the segment's id */
    void *bytes;       /* PUT: what to store. GET: where to. DROP: unused */
    uint32_t offset;   /* GET: first byte of the range, within the segment */
    uint32_t length;   /* PUT: 1..FSW_SEGMENT_BYTES. GET: bytes wanted, all within the segment */
    uint32_t copies;   /* which to get from, or to put; 0: all. A store of one looks at none */
    uint64_t deadline; /* CLOCK_MONOTONIC in ns; 0: wait for ever (reads of the default) */
    void (*done)(struct fsw_store_request *request);
    void *owner; /* the caller's, untouched */
    /* set by the store before done(), and `copies` */
    enum fsw_store_result result;
    /* PUT: of `copies`, those that were emptied before (see start()): such a one may come back with
     * what it had, and without this. 0 when it is submitted */
    uint32_t emptied;
    /* the store's, between submit() and done() */
    struct fsw_store_request *next, *prev;
    uint64_t scratch[2];
    struct fsw_store_outer outer[FSW_OUTER_COUNT];
};

/* What of a store's health is one copy's. */
struct fsw_copy_health {
    uint64_t bytes_out, bytes_in;
    uint64_t lies;
    char last_error[160];
};

/* What status and the counters say of a store. Written by value; all may be read at any time. */
struct fsw_store_health {
    int connected;              /* 1: answers now, or one of its copies does */
    uint32_t up;                /* which copies answer now */
    uint32_t emptied;           /* which were emptied, or replaced, since the device's first put */
    uint64_t since;             /* CLOCK_MONOTONIC ns of the last change of `connected` */
    uint64_t puts, gets, drops; /* answered */
    uint64_t bytes_out, bytes_in; /* on the wire, as far as the library under it tells */
    uint64_t reconnects, retries, errors;
    uint64_t lies;        /* gets whose bytes were not what was put: a store with seals knows */
    char last_error[160]; /* of the last failure, for people; "" if none ever */
    struct fsw_copy_health copy[FSW_COPIES_MAX]; /* of each; bytes and lies above are their sums */
};

struct fsw_store;

struct fsw_store_ops {
    const char *scheme; /* "resp" */

    /* Connects, checks that the store can hold segments for good (password, eviction policy),
     * disconnects. Blocks up to a few seconds. For the start of a program, where a person reads
     * the error; starts no thread, so it may be called before a fork. 0 with a line in err, which the
     * caller has emptied: it can, but that should be known. */
    int (*probe)(struct fsw_store *store, struct fsw_error *err);

    /* Starts the store's thread for this device (after any fork). Returns before the first
     * connection is up: requests wait for it.
     * sentinel: a random value. The store keeps it under a name of the device; it tells an emptied
     * store from one that lost a segment. planted 0: no put of this device was ever acknowledged, so
     * it is left there before the first put. planted 1: it is not left there again, and a store that
     * shows none or another was emptied or replaced: what it does not have is unreachable and not
     * gone, and health says so, until lost() is said. */
    int (*start)(struct fsw_store *store, const struct fsw_store_identity *identity,
                 struct fsw_error *err);

    /* Hands over n requests. A DROP is of that id and no other, also where its row has another by now. Never blocks and never fails: failures come through done(). From any
     * thread, after start(). */
    void (*submit)(struct fsw_store *store, struct fsw_store_request *const *requests, size_t n);

    /* submit() of one GET, for a caller who does nothing else until it is answered: the store may send it
     * and read the answer on this thread, until `until` (CLOCK_MONOTONIC in ns; 0: for as long as it
     * thinks right), but for a few ms at most. When this returns, done() was called, on this thread or
     * another, or will be. With no lock that done() takes, and not from done(). All calls have
     * returned before close(). NULL: submit() is all it can do; fsw_store_get() knows. */
    void (*get)(struct fsw_store *store, struct fsw_store_request *request, uint64_t until);

    /* Somebody who knows says that these copies have lost for good all that was put there: they are
     * new ones from now on. This sentinel, which none had before, is left there as soon as they answer,
     * and `emptied` ends; so one that comes back after all is another. Every GET in flight, at any
     * copy, ends with FSW_STORE_UNREACHABLE soon, for its caller to
     * think again, and none that is submitted later; of copies 0 that is all. Never blocks. From any thread, after start(). */
    void (*lost)(struct fsw_store *store, uint32_t copies, uint64_t sentinel);

    /* Every segment that the store has of a device: its id, and its row where the store knows that,
     * else 0. Blocks; not from done(). `each` returns 0 to go on. Of two copies an id may be told
     * twice, and one that does not answer does not keep the other from being told. Works before or
     * after start(). */
    int (*list)(struct fsw_store *store, const struct fsw_device_id *device,
                int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                struct fsw_error *err);

    /* Drops every segment of a device, and its sentinel. Blocks; not from done(). Works before or
     * after start(). *ret_count: segments that were there. */
    int (*forget)(struct fsw_store *store, const struct fsw_device_id *device, uint64_t *ret_count,
                  struct fsw_error *err);

    void (*health)(struct fsw_store *store, struct fsw_store_health *ret_health);

    /* Answers what is in flight with FSW_STORE_UNREACHABLE, ends the thread, frees. Blocks. */
    void (*close)(struct fsw_store *store);
};

/* Every store begins with this. */
struct fsw_store {
    const struct fsw_store_ops *ops;
    unsigned seal;   /* bytes it wants before each object: 0 or FSW_SEAL_BYTES */
    unsigned copies; /* that it keeps of each segment: 1 to FSW_COPIES_MAX */
};

static inline void fsw_store_get(struct fsw_store *store, struct fsw_store_request *request,
                                 uint64_t until)
{
    if (store->ops->get != NULL)
        store->ops->get(store, request, until);
    else
        store->ops->submit(store, &request, 1);
}

#endif
