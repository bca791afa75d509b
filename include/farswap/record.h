/*
 * record.h: what is written down of a device (core/registry.h), and of those before it.
 *
 *      /var/lib/farswap/NAME       the device of that name, and its stores
 *      /var/lib/farswap/NAME@ID    one before it, a predecessor, which no store was made to forget yet
 *
 * A reboot takes the image and leaves the segments. So when a new image of a name is made, what the
 * state file said before stays under another name, until its stores have forgotten that device: at those
 * that the new device uses, too, the engine makes them; at others, a front door.
 */
#ifndef FARSWAP_RECORD_H
#define FARSWAP_RECORD_H

#include "farswap/params.h"
#include "farswap/store.h"

struct fsw_record {
    char name[FSW_NAME_MAX + 1];
    int shmid;
    struct fsw_device_id device;
    char overflow[512];               /* "" without a store */
    char overflow_password_file[512]; /* "" without; a password itself is never written down */
    int overflow_plaintext;
    int served; /* 1: a server holds the lock */
};

/* Calls each for every predecessor of a name, the newest first; it returns 0 to go on, and may say that this
 * one is forgotten. One whose image is still somewhere in memory (an orphan) is none. Reads files. */
void fsw_predecessors_each(const char *name,
                           int (*each)(const struct fsw_record *record, void *opaque),
                           void *opaque);

/* 1: all stores that it has something at are among these (as overflow= is written down). Encrypted or
 * not, a store is the same. */
int fsw_predecessor_is_within(const struct fsw_record *record, const char *overflow);

/* Its stores have forgotten it, or are not asked any more. */
void fsw_predecessors_forgotten(const struct fsw_record *record);

#endif
