/*
 * slots.h: a file of slots (slot.h), as it lies on a disk. Blocking calls; no threads, no requests.
 *
 *   S3  One process at a time writes: it holds the file's flock, which a killed one keeps until its
 *       last write has ended.
 *
 * Errors: 0 or negative errno. All offsets and lengths of I/O are multiples of SLOTS_BLOCK, from
 * buffers that are aligned to it: what direct I/O needs on every disk.
 */
#ifndef FSW_STORE_SLOTS_H
#define FSW_STORE_SLOTS_H

#include <stddef.h>
#include <stdint.h>

#include "client/store/slot.h"

struct slots {
    int fd; /* -1: not open */
    int direct;
    struct fsw_device_id device;
    _Atomic uint64_t sentinel; /* 0: shows none */
};

/* Whether a device could have its slots at path: regular file or none, in a folder that is there,
 * ours to write, on a disk, with room. Changes nothing. One line in err. */
int slots_probe(const char *path, struct fsw_error *err);

/* 0: the file, or the folder for it, is on a file system of another host, as far as its kind tells. */
int slots_is_local(const char *path);

/* Opens, or makes, the device's file, locks it, and makes it 0600. One of a device that is gone
 * (identity->gone) is emptied first. With identity->planted the device has
 * used it before: if it is empty or shows another sentinel, *ret_emptied is 1 and it shows none from
 * now on. Else the sentinel is written. Direct I/O where the file system has it, unless !direct.
 *     -EBUSY   another process holds it (perhaps one that was killed, whose last write hangs)
 *     -EEXIST  it is another device's     -EINVAL  it is no file of slots
 * One line in err. */
int slots_open(struct slots *slots, const char *path, const struct fsw_store_identity *identity,
               int direct, int *ret_emptied, struct fsw_error *err);
void slots_close(struct slots *slots);

/* 1 if the file still begins with the header of slots_open(), sentinel and all. */
int slots_shows_sentinel(const struct slots *slots, void *buffer);

/* From now on the open file shows this sentinel. */
int slots_plant(struct slots *slots, uint64_t sentinel);

/* Stores the segment whose bytes are at buffer + SLOTS_HEAD. The rest of the buffer is overwritten.
 * After an error the slot may hold anything: slots_drop() it. */
int slots_put(const struct slots *slots, uint32_t row, uint64_t id, uint32_t length, void *buffer);

/* Reads a range of the segment; *ret_at: where in the buffer it is. *length_known: the segment's
 * length if the slot is known to hold it; 0: its head is read and compared, and tells. -ENOENT: the
 * slot holds another segment or none. -EUCLEAN: its head is damaged. -ERANGE: the segment ends
 * before the range does. */
int slots_get(const struct slots *slots, uint32_t row, uint64_t id, uint32_t *length_known,
              uint32_t offset, uint32_t length, void *buffer, const void **ret_at);

/* Empties the slot and gives its blocks back, unless it holds another segment whole. known: 1 if it
 * was seen to hold this one. */
int slots_drop(const struct slots *slots, uint32_t row, uint64_t id, int known, void *buffer);

/* Every segment in the file at path, if that is the device's: each(row, id). Without a file, or with
 * another device's, there are none. Stops when `each` returns non-zero, and returns that. */
int slots_walk(const char *path, const struct fsw_device_id *device,
               int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
               struct fsw_error *err);

/* Empties the device's file and removes it. Without one, or with another device's: nothing. -EBUSY:
 * another process holds it. */
int slots_remove(const char *path, const struct fsw_device_id *device, struct fsw_error *err);

/* Empties the file that is open: no segments, no sentinel. */
int slots_clear(struct slots *slots);

#endif
