/*
 * registry.h: from a device's name to its image, and who may serve it.
 *
 *      /run/farswap/NAME.image    its shared memory id and device id; its flock is the right to
 *                                 serve
 *      /var/lib/farswap/NAME      device id and stores, which survive a reboot; the image does not
 *
 * FARSWAP_RUNDIR and FARSWAP_STATEDIR name other folders (tests; a user without /run). A flock ends
 * when the last thread of its last process is gone: unlike a pid file it can't lie.
 */
#ifndef FSW_REGISTRY_H
#define FSW_REGISTRY_H

#include <limits.h>

#include "core/image.h"
#include "farswap/record.h"

/* Locks NAME for serving or destroying and opens its file, which is empty if it is new. -EBUSY: a
 * server holds it. The descriptor is the lock: it survives fork, and closing it lets go. */
int fsw_registry_lock(const char *name, int *ret_fd, struct fsw_error *err);

/* The same for a spare: waits for as long as others hold the lock. -EINTR: a signal came. */
int fsw_registry_wait(const char *name, int *ret_fd, struct fsw_error *err);

/* Lets go of the lock; a name that nothing was written to is free again. */
void fsw_registry_unlock(const char *name, int fd);

/* Reads what fd (of fsw_registry_lock) or the name says. -ENOENT: no image. */
int fsw_registry_read(const char *name, int fd, struct fsw_record *ret_record,
                      struct fsw_error *err);

/* Attaches the image that a record names. -ENOENT: its memory is gone, and the number perhaps
 * another's by now; else as fsw_image_attach. Whoever wants to write removes what a maker did not
 * live to finish: then it is gone, too. */
int fsw_registry_attach(const struct fsw_record *record, int writable, struct fsw_image *ret_image,
                        struct fsw_error *err);

/* Writes both files, where they do not say that already. The image's file first: an image must never be
 * without a name. What the other said of an earlier device stays (predecessors.h). */
int fsw_registry_write(int fd, const struct fsw_record *record, struct fsw_error *err);

/* The folder of the second file, and what a file there says (file: NAME): -ENOENT. */
const char *fsw_registry_state_dir(void);
int fsw_registry_read_state(const char *file, struct fsw_record *ret_record);

/* Removes both files; the caller holds the lock. */
void fsw_registry_remove(const char *name);

/* Calls each for every registered image, in order of name, then for orphans (images in shared
 * memory without a file; their name comes from the superblock and shmid says which). each returns 0
 * to go on. */
int fsw_registry_list(int (*each)(const struct fsw_record *record, int orphan, void *opaque),
                      void *opaque, struct fsw_error *err);

/* Text of a device id, FSW_DEVICE_ID_TEXT bytes. */
char *fsw_device_id_format(const struct fsw_device_id *device, char *text);
int fsw_device_id_parse(const char *text, struct fsw_device_id *ret_device);

#endif
