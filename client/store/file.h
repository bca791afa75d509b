/*
 * file.h: a store in a file, a slot a row: to spill to a local disk.
 *
 *     submit() ─┬─ gets ──────────▶ readers ─┐
 *               └─ puts and drops ▶ writers ─┴─▶ slots.c ══ disk       minder: deadlines, reopening
 *
 * Threads of its own and not libuv's pool, which is one a process: a disk that hangs would hold up
 * every other store with it. Each worker has a buffer, so a request that is given up at its deadline
 * leaves nothing behind: its I/O goes on in the worker's memory.
 *
 *   F1  A request is in exactly one place: a list, or one worker.
 *   F2  At most one worker writes to a row. So the drop of an abandoned put, and the next put to that
 *       row, wait until it can no longer land (quarantine); over the death of a process the file's
 *       lock does that (slots.h, S3).
 *   F3  No I/O before the file is open, is ours, and is locked.
 *
 * One lock, for the lists and the workers' states; it is not held during I/O or done().
 */
#ifndef FSW_STORE_FILE_H
#define FSW_STORE_FILE_H

#include <pthread.h>

#include "client/store/known.h"
#include "client/store/report.h"
#include "client/store/requests.h"
#include "client/store/slots.h"

/* Reads at once: what an SSD wants to be busy. Writes at once: one is being written while the next is
 * being copied. */
#define FILE_READERS 8u
#define FILE_WRITERS 2u
#define FILE_WORKERS (FILE_READERS + FILE_WRITERS)

struct file_store;

struct file_worker {
    struct file_store *store;
    pthread_t thread;
    unsigned writes; /* 1: puts and drops */
    unsigned busy;   /* row is being worked on */
    unsigned keeps;  /* the request's bytes are being read: not now */
    uint32_t row;
    struct fsw_store_request *request; /* NULL while busy: given up */
    void *buffer;
};

struct file_store {
    struct fsw_store base;
    char *path;
    struct fsw_store_identity identity;
    int direct; /* 0: tests of file systems without direct I/O */
    struct slots slots;
    struct known known;
    struct report report;

    pthread_mutex_t lock;
    pthread_cond_t gets_wake, puts_wake, minder_wake;
    struct fsw_requests gets, puts, resting;
    unsigned open, stopping, started;
    unsigned replants;             /* lost() was called, */
    uint64_t replant_as;           /* with this sentinel */
    struct fsw_requests sent_back; /* by it: gets that are to end */
    unsigned minding;              /* the minder looks every FILE_SWEEP_MS by itself */
    struct file_worker workers[FILE_WORKERS];
    unsigned threads; /* workers that run */
    pthread_t minder;
};

/* A worker's thread: ends when the store is stopping. */
void *file_worker_run(void *worker);

/* path: absolute. Copies it; opens nothing. 0, -EINVAL with one line in err, or -ENOMEM. */
int file_store_new(const char *path, struct fsw_store **ret_store, struct fsw_error *err);

#endif
