/*
 * slots.c: a file of slots: its header, its slots, its holes.
 */
#include "client/store/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "client/store/keys.h"
#include "common/cleanup.h"
#include "common/parse.h"

#define ROOM_LEAST (1u << 20)

/* What a header says. */
struct header {
    struct fsw_device_id device;
    uint64_t sentinel;
};

/* ---- whole reads and writes ---- */

/* How much there was, or negative errno. Bytes beyond the file's end are zeroes, as in a hole. */
static int64_t read_some(const struct slots *slots, void *buffer, uint32_t length, uint64_t at)
{
    uint32_t done = 0;

    while (done < length) {
        ssize_t n = pread(slots->fd, (char *)buffer + done, length - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (uint32_t)n;
    }
    memset((char *)buffer + done, 0, length - done);
    return done;
}

static int read_all(const struct slots *slots, void *buffer, uint32_t length, uint64_t at)
{
    int64_t r = read_some(slots, buffer, length, at);

    return r < 0 ? (int)r : 0;
}

/* Through the page cache a write has only begun: it counts when it is on the disk, and the cache
 * would take the memory that the put was to free. */
static int write_back(const struct slots *slots, uint32_t length, uint64_t at)
{
    if (slots->direct)
        return 0;
    if (sync_file_range(slots->fd, (off_t)at, length,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                            SYNC_FILE_RANGE_WAIT_AFTER) < 0)
        return -errno;
    posix_fadvise(slots->fd, (off_t)at, length, POSIX_FADV_DONTNEED);
    return 0;
}

static int write_all(const struct slots *slots, const void *buffer, uint32_t length, uint64_t at)
{
    uint32_t done = 0;

    while (done < length) {
        ssize_t n =
            pwrite(slots->fd, (const char *)buffer + done, length - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ENOSPC;
        done += (uint32_t)n;
    }
    return write_back(slots, length, at);
}

/* ---- the file ---- */

static int check_kind(int fd, const char *path, struct fsw_error *err)
{
    struct statfs fs;
    struct stat stat;

    if (fstat(fd, &stat) < 0 || fstatfs(fd, &fs) < 0)
        return fsw_error(err, -errno, "file:%s: %s", path, strerror(errno));
    if (!S_ISREG(stat.st_mode) && !S_ISDIR(stat.st_mode))
        return fsw_error(err, -EINVAL, "file:%s is not a regular file", path);
    if ((unsigned long)fs.f_type == TMPFS_MAGIC || (unsigned long)fs.f_type == RAMFS_MAGIC)
        return fsw_error(err, -EINVAL,
                         "file:%s is on a file system in memory: pages that go there free none; "
                         "name a file on a disk",
                         path);
    return 0;
}

static int check_room(int fd, const char *path, struct fsw_error *err)
{
    struct statfs fs;
    char text[FSW_SIZE_TEXT];

    if (fstatfs(fd, &fs) < 0)
        return fsw_error(err, -errno, "file:%s: %s", path, strerror(errno));
    uint64_t room = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    if (room >= ROOM_LEAST)
        return 0;
    return fsw_error(err, -ENOSPC,
                     "file:%s: its file system has no room (%s left): make some, or name a file "
                     "on another",
                     path, fsw_format_size(room, text));
}

/* Why a file that begins like this can't be the device's: 0, or an error. NULL device: any's. */
static int check_header(const void *block, const char *path, const struct fsw_device_id *device,
                        struct header *header, struct fsw_error *err)
{
    enum slot_header what = slot_header_read(block, &header->device, &header->sentinel);
    char id[FSW_DEVICE_ID_TEXT];

    if (what == SLOT_HEADER_FOREIGN || what == SLOT_HEADER_BLANK)
        return fsw_error(err, -EINVAL,
                         "file:%s is there, and not farswap's: name a file that does not exist yet",
                         path);
    if (what == SLOT_HEADER_DAMAGED)
        return fsw_error(err, -EUCLEAN, "file:%s: its header is damaged: delete it", path);
    if (device == NULL || memcmp(&header->device, device, sizeof *device) == 0)
        return 0;
    fsw_device_id_text(&header->device, id);
    return fsw_error(
        err, -EEXIST,
        "file:%s belongs to another device (id %s): name another file, or destroy that "
        "device; if it is gone for good, delete the file",
        path, id);
}

/* -ENOENT: the file is empty. */
static int read_header(const struct slots *slots, struct header *header, const char *path,
                       const struct fsw_device_id *device, struct fsw_error *err)
{
    FSW_CLEANUP_FREE void *buffer = slots_buffer();
    struct stat stat;
    int r = buffer == NULL ? -ENOMEM : fstat(slots->fd, &stat) < 0 ? -errno : 0;

    if (r == 0 && stat.st_size == 0)
        return -ENOENT;
    if (r == 0)
        r = read_all(slots, buffer, SLOTS_BLOCK, 0);
    if (r < 0)
        return fsw_error(err, r, "file:%s: %s", path, strerror(-r));
    return check_header(buffer, path, device, header, err);
}

static int write_header(const struct slots *slots)
{
    FSW_CLEANUP_FREE void *buffer = slots_buffer();
    int r;

    if (buffer == NULL)
        return -ENOMEM;
    slot_header_write(buffer, &slots->device, slots->sentinel);
    r = write_all(slots, buffer, SLOTS_BLOCK, 0);
    if (r == 0 && fdatasync(slots->fd) < 0)
        r = -errno;
    return r;
}

static int open_file(const char *path, int flags, struct fsw_error *err)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);

    if (fd >= 0)
        return fd;
    return fsw_error(err, -errno, "file:%s: %s%s", path, strerror(errno),
                     errno == ELOOP ? " (it is a symbolic link: name the file itself)" : "");
}

/* Nobody else has it, and nobody else will read it. */
static int take_file(const struct slots *slots, const char *path, struct fsw_error *err)
{
    int r = check_kind(slots->fd, path, err);

    if (r < 0)
        return r;
    if (flock(slots->fd, LOCK_EX | LOCK_NB) < 0)
        return fsw_error(err, errno == EWOULDBLOCK ? -EBUSY : -errno, "file:%s: %s", path,
                         errno == EWOULDBLOCK ? "another process holds it" : strerror(errno));
    return 0;
}

int slots_plant(struct slots *slots, uint64_t sentinel)
{
    atomic_store(&slots->sentinel, sentinel);
    return write_header(slots);
}

/* Direct I/O, if the file system takes it: only a read tells. */
static void try_direct(struct slots *slots)
{
    FSW_CLEANUP_FREE void *buffer = slots_buffer();
    int flags = fcntl(slots->fd, F_GETFL);

    if (buffer == NULL || fcntl(slots->fd, F_SETFL, flags | O_DIRECT) < 0)
        return;
    if (pread(slots->fd, buffer, SLOTS_BLOCK, 0) < 0)
        fcntl(slots->fd, F_SETFL, flags);
    else
        slots->direct = 1;
}

/* The header as it has to be from now on. */
static int settle_header(struct slots *slots, const char *path,
                         const struct fsw_store_identity *identity, int *ret_emptied,
                         struct fsw_error *err)
{
    struct header header = {.sentinel = 0};
    int r = read_header(slots, &header, path, &slots->device, err);

    if (r == -EEXIST && slot_device_is_gone(&header.device, identity))
        r = ftruncate(slots->fd, 0) < 0
                ? fsw_error(err, -errno, "file:%s: %s", path, strerror(errno))
                : -ENOENT;
    if (r < 0 && r != -ENOENT)
        return r;
    if (r == 0 && header.sentinel == slots->sentinel)
        return 0;
    *ret_emptied = identity->planted != 0;
    if (identity->planted)
        slots->sentinel = 0;
    if (fchmod(slots->fd, 0600) < 0)
        return fsw_error(err, -errno, "file:%s: %s", path, strerror(errno));
    r = write_header(slots);
    return r == 0 ? 0 : fsw_error(err, r, "file:%s: %s", path, strerror(-r));
}

int slots_open(struct slots *slots, const char *path, const struct fsw_store_identity *identity,
               int direct, int *ret_emptied, struct fsw_error *err)
{
    *slots = (struct slots){.device = identity->device, .sentinel = identity->sentinel[0]};
    *ret_emptied = 0;
    slots->fd = open_file(path, O_RDWR | O_CREAT, err);
    if (slots->fd < 0)
        return slots->fd;
    int r = take_file(slots, path, err);
    if (r == 0 && direct)
        try_direct(slots);
    if (r == 0)
        r = settle_header(slots, path, identity, ret_emptied, err);
    if (r < 0)
        slots_close(slots);
    return r;
}

void slots_close(struct slots *slots)
{
    if (slots->fd >= 0)
        close(slots->fd);
    slots->fd = -1;
}

/* The folder of a path, as something open() takes. */
static int open_folder(const char *path, struct fsw_error *err)
{
    FSW_CLEANUP_FREE char *folder = strdup(path);

    if (folder == NULL)
        return fsw_error(err, -ENOMEM, "no memory");
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        return fsw_error(err, -EINVAL, "file:%s: an absolute path is wanted", path);
    slash[slash == folder] = '\0';
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fsw_error(err, -errno, "file:%s: the folder %s: %s", path, folder, strerror(errno));
    if (faccessat(fd, ".", W_OK, AT_EACCESS) == 0)
        return fd;
    close(fd);
    return fsw_error(err, -EACCES, "file:%s: the folder %s is not ours to write in", path, folder);
}

int slots_probe(const char *path, struct fsw_error *err)
{
    FSW_CLEANUP_CLOSE int folder = open_folder(path, err);
    struct slots slots;
    struct header header;

    if (folder < 0)
        return folder;
    slots.fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (slots.fd < 0 && errno != ENOENT)
        return open_file(path, O_RDWR, err);
    FSW_CLEANUP_CLOSE int fd = slots.fd;
    int r = check_kind(fd < 0 ? folder : fd, path, err);
    if (r == 0 && fd >= 0)
        r = read_header(&slots, &header, path, NULL, err);
    if (r == 0 || r == -ENOENT)
        r = check_room(folder, path, err);
    return r;
}

/* File systems whose blocks are not on this host's disks, or may not be. */
int slots_is_local(const char *path)
{
    static const unsigned long away[] = {
        NFS_SUPER_MAGIC, SMB_SUPER_MAGIC,  CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC, CEPH_SUPER_MAGIC,
        AFS_SUPER_MAGIC, CODA_SUPER_MAGIC, V9FS_MAGIC,       FUSE_SUPER_MAGIC, OCFS2_SUPER_MAGIC,
    };
    FSW_CLEANUP_FREE char *folder = strdup(path);
    struct statfs fs;

    if (folder == NULL)
        return 0;
    for (int r = statfs(folder, &fs); r < 0; r = statfs(folder, &fs)) {
        char *slash = strrchr(folder, '/');
        if (slash == NULL || slash == folder)
            return 1; /* there is no such folder: it is refused later */
        *slash = '\0';
    }
    for (size_t i = 0; i < sizeof away / sizeof *away; i++)
        if ((unsigned long)fs.f_type == away[i])
            return 0;
    return 1;
}

int slots_shows_sentinel(const struct slots *slots, void *buffer)
{
    struct header header;

    if (slots->sentinel == 0 || read_all(slots, buffer, SLOTS_BLOCK, 0) < 0)
        return 0;
    return check_header(buffer, "", &slots->device, &header, NULL) == 0 &&
           header.sentinel == slots->sentinel;
}

/* ---- slots ---- */

int slots_put(const struct slots *slots, uint32_t row, uint64_t id, uint32_t length, void *buffer)
{
    uint32_t used = SLOTS_HEAD + length, all = slot_round_up(used);

    slot_head_write(buffer, &slots->device, row, id, length);
    memset((char *)buffer + used, 0, all - used);
    return write_all(slots, buffer, all, slot_at(row));
}

/* Reads blocks; a slot that is known to hold more was cut with its file. */
static int64_t read_blocks(const struct slots *slots, uint32_t row, int known, uint32_t from,
                           uint32_t to, void *buffer)
{
    int64_t n = read_some(slots, buffer, to - from, slot_at(row) + from);

    return n >= 0 && known && n < to - from ? -ENOENT : n;
}

/* The head is in the slot's first block, which is read first if the range is not near it. */
int slots_get(const struct slots *slots, uint32_t row, uint64_t id, uint32_t *length_known,
              uint32_t offset, uint32_t length, void *buffer, const void **ret_at)
{
    uint32_t begin = SLOTS_HEAD + offset, to = slot_round_up(begin + length);
    uint32_t from = begin / SLOTS_BLOCK * SLOTS_BLOCK;
    int64_t r = *length_known;

    if (r == 0 && from > SLOTS_BLOCK) {
        r = read_blocks(slots, row, 0, 0, SLOTS_BLOCK, buffer);
        if (r >= 0)
            r = slot_head_check(buffer, &slots->device, row, id);
    } else if (r == 0) {
        from = 0;
    }
    if (r < 0)
        return (int)r;
    if (r > 0 && r < offset + length)
        return -ERANGE;
    *length_known = (uint32_t)r;
    r = read_blocks(slots, row, r > 0, from, to, buffer);
    if (r >= 0 && *length_known == 0)
        r = slot_head_check(buffer, &slots->device, row, id);
    if (r < 0)
        return (int)r;
    if (*length_known == 0)
        *length_known = (uint32_t)r;
    *ret_at = (const char *)buffer + begin - from;
    return *length_known < offset + length ? -ERANGE : 0;
}

/* 1 if the slot holds another segment, whole. */
static int is_anothers(const struct slots *slots, uint32_t row, uint64_t id, void *buffer)
{
    uint64_t there;

    return read_all(slots, buffer, SLOTS_BLOCK, slot_at(row)) == 0 &&
           slot_head_read(buffer, &slots->device, row, &there) > 0 && there != id;
}

/* A file system that has no holes at least loses the head. */
int slots_drop(const struct slots *slots, uint32_t row, uint64_t id, int known, void *buffer)
{
    if (!known && is_anothers(slots, row, id, buffer))
        return 0;
    if (fallocate(slots->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)slot_at(row),
                  SLOTS_BYTES) == 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return -errno;
    memset(buffer, 0, SLOTS_BLOCK);
    return write_all(slots, buffer, SLOTS_BLOCK, slot_at(row));
}

/* ---- all of them ---- */

/* The first row at or after `row` whose slot has data; 0: there is none. */
static uint32_t next_row(const struct slots *slots, uint32_t row, uint64_t size)
{
    off_t at = lseek(slots->fd, (off_t)slot_at(row), SEEK_DATA);

    if (at < 0 && errno == ENXIO)
        return 0;
    if (at > (off_t)slot_at(row))
        row = (uint32_t)((uint64_t)at / SLOTS_BYTES);
    return slot_at(row) < size ? row : 0;
}

static int walk(const struct slots *slots, int (*each)(uint32_t row, uint64_t id, void *opaque),
                void *opaque)
{
    FSW_CLEANUP_FREE void *buffer = slots_buffer();
    struct stat stat;
    uint64_t id;
    int r = buffer == NULL ? -ENOMEM : fstat(slots->fd, &stat) < 0 ? -errno : 0;

    for (uint32_t row = 1; r == 0; row++) {
        row = next_row(slots, row, (uint64_t)stat.st_size);
        if (row == 0)
            return 0;
        r = read_all(slots, buffer, SLOTS_BLOCK, slot_at(row));
        if (r == 0 && slot_head_read(buffer, &slots->device, row, &id) > 0)
            r = each(row, id, opaque);
    }
    return r;
}

/* The device's file: 0; 1 if there is none, or it is another's. */
static int open_existing(struct slots *slots, const char *path, const struct fsw_device_id *device,
                         int flags, struct fsw_error *err)
{
    struct header header;

    *slots = (struct slots){.device = *device};
    slots->fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (slots->fd < 0)
        return errno == ENOENT ? 1 : fsw_error(err, -errno, "file:%s: %s", path, strerror(errno));
    int r = read_header(slots, &header, path, device, err);
    if (r == -ENOENT || r == -EEXIST || r == -EINVAL)
        r = 1;
    if (r != 0)
        slots_close(slots);
    return r;
}

int slots_walk(const char *path, const struct fsw_device_id *device,
               int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
               struct fsw_error *err)
{
    struct slots slots;
    int r = open_existing(&slots, path, device, O_RDONLY, err);

    if (r != 0)
        return r < 0 ? r : 0;
    r = walk(&slots, each, opaque);
    slots_close(&slots);
    return r < 0 ? fsw_error(err, r, "file:%s: %s", path, strerror(-r)) : r;
}

int slots_remove(const char *path, const struct fsw_device_id *device, struct fsw_error *err)
{
    struct slots slots;
    int r = open_existing(&slots, path, device, O_RDWR, err);

    if (r != 0)
        return r < 0 ? r : 0;
    r = take_file(&slots, path, err);
    if (r == 0 && (ftruncate(slots.fd, 0) < 0 || unlink(path) < 0))
        r = fsw_error(err, -errno, "file:%s: %s", path, strerror(errno));
    slots_close(&slots);
    return r;
}

int slots_clear(struct slots *slots)
{
    slots->sentinel = 0;
    if (ftruncate(slots->fd, 0) < 0)
        return -errno;
    return write_header(slots);
}
