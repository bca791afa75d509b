/*
 * device.h: the engine's verbs. Pages in, pages out.
 *
 * A device is an image in shared memory plus the process that serves it. Any number of threads may
 * call the verbs at once, at any offset and length inside the device; every single page changes
 * atomically (a read sees a page's old or new content, never a mix), a request of several pages as
 * a whole does not, as on a disk.
 *
 * Errors of the verbs: -EIO (a page is damaged, its store lost it, or, for a write of part of it,
 * did not answer in time), -ENOSPC (memory= is used up and nothing could be moved
 * to the store within write_wait=), -EINVAL (outside the device).
 * A write that fails leaves pages old or new, each whole.
 *
 * Verbs never allocate (a reader of zstd objects makes a context where none is idle, a few times).
 * read() may wait for the store as long as the store is away; the others wait at most
 * fsw_device_write_wait() a page.
 */
#ifndef FARSWAP_DEVICE_H
#define FARSWAP_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "farswap/error.h"
#include "farswap/params.h"
#include "farswap/stats.h"
#include "farswap/store.h"

struct fsw_device;

enum fsw_open { FSW_OPEN_NEW_OR_EXISTING, FSW_OPEN_NEW, FSW_OPEN_EXISTING };

/* Makes the image of params->name, or goes on with the one that is there: recovery, milliseconds for
 * each GiB of pages, so that every page that was acknowledged is there again, however its last
 * server ended. Starts no thread and may be called before a fork: the child goes on with it.
 *
 * store: where pages overflow to, opened and probed but not started, or NULL; from success on the
 * device owns it. wait 1: waits for as long as another process serves the device, which is what a
 * spare does. It should have touched and locked all that it needs before.
 *
 * A new image takes all of params, which fsw_params_check has found to be right. For one that is
 * there size= is not needed, or the same; so is overflow=, but it must be given if the image has a
 * store; what `farswap set` changes (steer.h) changes if it was given (fsw_params_given).
 * Nothing of what is refused is touched:
 *   -EEXIST   FSW_OPEN_NEW, and there is an image (the line says how to destroy it)
 *   -ENOENT   FSW_OPEN_EXISTING, and there is none
 *   -EBUSY    another process serves it; -EINTR: a signal came while waiting
 *   -EINVAL   params are wrong, or contradict the image
 *   -ENOTSUP  the image is of another layout; -EUCLEAN: its superblock is damaged
 *   -EPERM    this host destroys or hides shared memory; -ENOMEM */
int fsw_device_open(const struct fsw_params *params, enum fsw_open how, int wait,
                    struct fsw_store *store, struct fsw_device **ret_device, struct fsw_error *err);

/* Before waiting: what fsw_device_open would say to the image of that name as far as it can be told
 * while another process serves it (its layout, contradictions). 0 also if there is none. */
int fsw_device_could_open(const struct fsw_params *params, struct fsw_error *err);

/* Completes params by what the image of that name says, if there is one, wherever nothing was given:
 * so name= alone is enough to go on with it. 1: there is one; 0: there is none, or it can't be read,
 * and params are as they were. The image is not locked, so fsw_device_open has the last word.
 * -ENOTSUP and -EUCLEAN as there; -EINVAL or other: the file with the store's password can't be
 * read. */
int fsw_device_complete_params(struct fsw_params *params, struct fsw_error *err);

/* 1: the image was there before. Then *ret_lost (may be NULL) says how many words of it recovery
 * found to be damaged: each costs a page, or the pages of a leaf, which read as -EIO. */
int fsw_device_is_recovered(const struct fsw_device *device, uint64_t *ret_lost);

/* Starts the device's threads (and the store's). After any fork, once. */
int fsw_device_start(struct fsw_device *device, struct fsw_error *err);

/* Ends the threads, closes the store, and lets go of the image, which stays, with all pages. No
 * verb may be running. */
void fsw_device_close(struct fsw_device *device);

/* Closes a device that was opened and never served, for a start that failed later on: an image that
 * was made for it goes, one that was there before stays. */
void fsw_device_discard_image(struct fsw_device *device);

/* 1 if another process has the image mapped, such as a forked child. */
int fsw_device_is_shared(const struct fsw_device *device);

/* Takes the image out of the process's mlockall, so that its memory can be given back while it
 * stays locked by SHM_LOCK. After every mlockall that comes after the open. */
int fsw_device_after_mlockall(struct fsw_device *device);

/* 0 if SHM_LOCK was refused: the kernel may then swap the pool out, onto itself in the end. */
int fsw_device_memory_locked(const struct fsw_device *device);

uint64_t fsw_device_size(const struct fsw_device *device);
const struct fsw_device_id *fsw_device_id(const struct fsw_device *device);

int fsw_device_read(struct fsw_device *device, void *bytes, uint64_t offset, uint64_t length);
int fsw_device_write(struct fsw_device *device, const void *bytes, uint64_t offset,
                     uint64_t length);

/* The range reads as zeroes afterwards. Whole pages are freed. */
int fsw_device_zero(struct fsw_device *device, uint64_t offset, uint64_t length);

/* The whole pages inside the range are freed and read as zeroes; parts of pages stay as they are.
 */
int fsw_device_discard(struct fsw_device *device, uint64_t offset, uint64_t length);

/* A write is answered only when its page is in the image: there is nothing to wait for. */
int fsw_device_flush(struct fsw_device *device);

/* ---- requests, for front doors that own their socket ---- */

enum fsw_verb { FSW_READ, FSW_WRITE, FSW_ZERO, FSW_DISCARD, FSW_FLUSH };

/* Result -EAGAIN instead of waiting for the store or for space. Of a request of several pages some
 * may have taken effect; it is not counted, and can be asked again, as a whole. */
#define FSW_IO_NOWAIT 1u
/* With it, for reads: waits for the store all the same, but no longer than this. What was asked for goes
 * on, and a read that comes to wait joins it. */
#define FSW_IO_BRIEFLY 8u
#define FSW_IO_WAITED 16u /* set where it did */
#define FSW_BRIEFLY_NS 100000ull
/* On this thread alone, however large: for one who knows that waking others costs more. */
#define FSW_IO_ALONE 4u
/* Set by fsw_device_read_pages: all of the content is from after the fetch. */
#define FSW_IO_FRESH 2u

/* Who asks, where that can end: a mutation of a peer that is gone is not published (-ECANCELED,
 * counted as late_writes). Looked at with the entry's lock bit held, so nothing comes between the
 * look and the publish: once `gone` is set, whoever asks later has the last word. */
struct fsw_peer {
    _Atomic int gone;           /* set by anybody, for good */
    _Atomic uint64_t looked_at; /* CLOCK_MONOTONIC_COARSE ns; after 250 ms, asked again */
    int (*is_gone)(struct fsw_peer *peer); /* 1: gone. From any thread, at once; may not lock */
};

struct fsw_io {
    enum fsw_verb verb;
    unsigned flags;
    int result;  /* what the verb returned */
    void *bytes; /* READ: where to; WRITE: what */
    uint64_t offset, length;
    uint64_t deadline;               /* mutations wait until then (CLOCK_MONOTONIC ns) at most, and for
                              room no longer than write_wait= a page; 0: fsw_device_write_wait() a page */
    uint64_t started;                /* when it arrived (CLOCK_MONOTONIC ns), for the histograms; 0:
                              the verb sets it when it is first asked */
    struct fsw_peer *peer;           /* NULL: nobody who could be gone */
    void (*done)(struct fsw_io *io); /* fsw_device_begin only */
    uint64_t work[12];               /* the device's, from begin to done */
};

/* Nanoseconds that a mutation waits for each page at most: write_wait=, and FSW_WRITE_WAIT_NS at
 * least, since a write of part of a page may have to wait for the store. */
uint64_t fsw_device_write_wait(const struct fsw_device *device);

/* One request, as by its verb, on this thread and, if it is large, on idle ones of the device's. */
void fsw_device_do(struct fsw_device *device, struct fsw_io *io);

/* A hint, for one who has several at hand: this request is the next. What its first page is made of
 * comes into the CPU's cache, while the one before it is done. Uses verb and offset. */
void fsw_device_expect(struct fsw_device *device, const struct fsw_io *io);

/* The same of the request after the next: what fsw_device_expect will look at comes. Uses offset. */
void fsw_device_expect_later(struct fsw_device *device, const struct fsw_io *io);

/* Many requests at once, in any order, on this thread and on idle ones of the device's. Requests
 * that overlap may take effect in either order. Returns when all are done. */
void fsw_device_batch(struct fsw_device *device, struct fsw_io *ios, unsigned count);

/* 1 if the request is worth more than one thread. */
int fsw_device_is_large(const struct fsw_io *io);

/* Leaves a request to idle threads of the device's and returns. io->done is called when it has
 * ended, by the thread that ended it, which must not be kept waiting there. Idle threads may be
 * none: who began a request calls fsw_device_help before he goes to sleep. */
void fsw_device_begin(struct fsw_device *device, struct fsw_io *io);

/* Works on a request that was begun, for as long as there are parts of it that nobody has taken. 0:
 * there were none. Only by the thread that began it, until it has seen that it ended. */
int fsw_device_help(struct fsw_device *device, struct fsw_io *io);

/* Reads of whole pages, FSW_FETCH_BATCH of them at most taken together, that may wait: those in the
 * store are fetched in one batch. Not counted as requests: fsw_device_count does, once they ended. */
#define FSW_FETCH_BATCH 16u
void fsw_device_read_pages(struct fsw_device *device, struct fsw_io *ios, unsigned count);
void fsw_device_count(struct fsw_device *device, const struct fsw_io *io);

/* A front door refused by itself what no device could do. (What the engine refuses it counts.) */
void fsw_device_count_invalid(struct fsw_device *device);

/* All values of fsw_stat_table now. */
void fsw_device_stats(struct fsw_device *device, uint64_t values[FSW_STAT_COUNT]);

#endif
