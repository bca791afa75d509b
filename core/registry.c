/*
 * registry.c: the files that name images, and their locks. Files are "key=value" lines.
 */
#include "core/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/parse.h"
#include "common/shm.h"
#include "core/crash.h"
#include "core/predecessors.h"

#define RECORD_BYTES 2048
static const char *run_dir(void)
{
    const char *dir = secure_getenv("FARSWAP_RUNDIR");
    return dir != NULL && *dir != '\0' ? dir : "/run/farswap";
}

const char *fsw_registry_state_dir(void)
{
    const char *dir = secure_getenv("FARSWAP_STATEDIR");
    return dir != NULL && *dir != '\0' ? dir : "/var/lib/farswap";
}

static void image_path(const char *name, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s.image", run_dir(), name);
}

static void state_path(const char *name, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s", fsw_registry_state_dir(), name);
}

char *fsw_device_id_format(const struct fsw_device_id *device, char *text)
{
    for (unsigned i = 0; i < sizeof device->bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", device->bytes[i]);
    return text;
}

int fsw_device_id_parse(const char *text, struct fsw_device_id *ret_device)
{
    if (strlen(text) != FSW_DEVICE_ID_TEXT - 1)
        return -EINVAL;
    for (unsigned i = 0; i < sizeof ret_device->bytes; i++) {
        unsigned byte;
        int end = 0;
        if (sscanf(text + 2 * i, "%2x%n", &byte, &end) != 1 || end != 2)
            return -EINVAL;
        ret_device->bytes[i] = (uint8_t)byte;
    }
    return 0;
}

/* By errno. */
static int cannot_open(const char *path, struct fsw_error *err)
{
    return fsw_error(err, -errno, "%s: %s%s", path, strerror(errno),
                     errno == EACCES || errno == EPERM
                         ? " (run as root, or set FARSWAP_RUNDIR and FARSWAP_STATEDIR)"
                         : "");
}

static int make_dir(const char *path, mode_t mode, struct fsw_error *err)
{
    return mkdir(path, mode) < 0 && errno != EEXIST ? cannot_open(path, err) : 0;
}

/* A `list` in passing tests a lock by taking it for a moment: try for 200 ms. */
static int lock_soon(int fd)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};

    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK || tries == 20)
            return -1;
        nanosleep(&pause, NULL);
        errno = EWOULDBLOCK;
    }
    return 0;
}

static int being_served(const char *name, const char *path, int code, struct fsw_error *err)
{
    if (code == -EINTR)
        return fsw_error(err, code, "interrupted while waiting for %s", path);
    return fsw_error(err, code, "device %s is being served: %s is locked by another process", name,
                     path);
}

/* The file may lie in tmpfs, which the kernel swaps out, to the very device that this is about: what
 * is read when the lock comes free stays in memory from before on. (Else nobody takes over under
 * pressure: tried.) Opened on its own: a mapping of the locked descriptor would keep the lock. */
static void *pin(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return NULL;
    void *page = mmap(NULL, RECORD_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED)
        return NULL;
    mlock(page, RECORD_BYTES); /* may not be allowed, and fails on an empty file */
    return page;
}

static void unpin(void *page)
{
    if (page != NULL)
        munmap(page, RECORD_BYTES);
}

/* Locks the file that bears the name now: whoever destroys an image unlinks its file while we wait.
 * Who has waited keeps it in memory for good. */
static int lock_name(const char *name, int wait, int *ret_fd, struct fsw_error *err)
{
    char path[PATH_MAX];
    struct stat by_fd, by_name;

    int r = make_dir(run_dir(), 0700, err);
    if (r < 0)
        return r;
    image_path(name, path);
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return cannot_open(path, err);
        void *page = wait ? pin(path) : NULL;
        if ((wait ? flock(fd, LOCK_EX) : lock_soon(fd)) < 0) {
            int code = errno == EWOULDBLOCK ? -EBUSY : -errno;
            unpin(page);
            close(fd);
            return being_served(name, path, code, err);
        }
        if (fstat(fd, &by_fd) == 0 && stat(path, &by_name) == 0 && by_fd.st_ino == by_name.st_ino) {
            *ret_fd = fd;
            return 0;
        }
        unpin(page);
        close(fd);
    }
}

int fsw_registry_lock(const char *name, int *ret_fd, struct fsw_error *err)
{
    return lock_name(name, 0, ret_fd, err);
}

int fsw_registry_wait(const char *name, int *ret_fd, struct fsw_error *err)
{
    return lock_name(name, 1, ret_fd, err);
}

void fsw_registry_unlock(const char *name, int fd)
{
    char path[PATH_MAX];
    struct stat file;

    image_path(name, path);
    if (fstat(fd, &file) == 0 && file.st_size == 0)
        unlink(path);
    close(fd);
}

static void read_line(struct fsw_record *record, char *line)
{
    char *value = strchr(line, '=');

    if (value == NULL)
        return;
    *value++ = '\0';
    if (strcmp(line, "shmid") == 0)
        record->shmid = atoi(value);
    else if (strcmp(line, "device") == 0)
        fsw_device_id_parse(value, &record->device);
    else if (strcmp(line, "overflow") == 0)
        snprintf(record->overflow, sizeof record->overflow, "%s", value);
    else if (strcmp(line, "overflow-password-file") == 0)
        snprintf(record->overflow_password_file, sizeof record->overflow_password_file, "%s",
                 value);
    else if (strcmp(line, "overflow-plaintext") == 0)
        fsw_parse_bool(value, &record->overflow_plaintext);
}

/* Whole small file into text; its length, or a negative errno. */
static ssize_t read_file(int fd, char text[RECORD_BYTES])
{
    ssize_t n = pread(fd, text, RECORD_BYTES - 1, 0);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    return n;
}

static void read_lines(struct fsw_record *record, char *text)
{
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        read_line(record, line);
}

int fsw_registry_read_state(const char *file, struct fsw_record *ret_record)
{
    char path[PATH_MAX], text[RECORD_BYTES];

    memset(ret_record, 0, sizeof *ret_record);
    snprintf(ret_record->name, sizeof ret_record->name, "%.*s", FSW_NAME_MAX, file);
    ret_record->shmid = -1;
    state_path(file, path);
    FSW_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || read_file(fd, text) <= 0)
        return -ENOENT;
    read_lines(ret_record, text);
    return 0;
}

int fsw_registry_read(const char *name, int fd, struct fsw_record *ret_record,
                      struct fsw_error *err)
{
    char path[PATH_MAX], text[RECORD_BYTES];
    FSW_CLEANUP_CLOSE int own = -1;

    memset(ret_record, 0, sizeof *ret_record);
    snprintf(ret_record->name, sizeof ret_record->name, "%s", name);
    ret_record->shmid = -1;
    image_path(name, path);
    if (fd < 0) {
        fd = own = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0)
            ret_record->served = 1;
    }
    ssize_t n = fd < 0 ? -errno : read_file(fd, text);
    if (n > 0)
        read_lines(ret_record, text);
    if (n == -EACCES) {
        errno = EACCES;
        return cannot_open(path, err);
    }
    if (n <= 0 || ret_record->shmid < 0)
        return fsw_error(err, -ENOENT, "there is no device named %s (`farswap list` shows all)",
                         name);
    return 0;
}

/* Who may write has the lock: then nobody makes it, and others only look at it, for moments. */
static enum fsw_image_remains remains_of(const struct fsw_record *record, int writable)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    enum fsw_image_remains remains = fsw_image_remains(record->shmid, &record->device);

    for (int tries = 0; writable && remains == FSW_IMAGE_BEING_MADE && tries < 500; tries++) {
        nanosleep(&pause, NULL);
        remains = fsw_image_remains(record->shmid, &record->device);
    }
    return remains;
}

int fsw_registry_attach(const struct fsw_record *record, int writable, struct fsw_image *ret_image,
                        struct fsw_error *err)
{
    int r = fsw_image_attach(ret_image, record->shmid, writable, err);

    enum fsw_image_remains remains = r == -EINVAL ? remains_of(record, writable) : FSW_IMAGE_NONE;

    if (remains == FSW_IMAGE_LOST_ITS_MAGIC || remains == FSW_IMAGE_BEING_MADE)
        return fsw_error(err, -EUCLEAN, FSW_IMAGE_DAMAGED);
    if (remains == FSW_IMAGE_UNFINISHED && writable)
        fsw_shm_unlink(record->shmid);

    if (r == 0 && memcmp(&ret_image->super->device, &record->device, sizeof record->device) != 0) {
        fsw_image_detach(ret_image);
        r = fsw_error(err, -EINVAL, "shared memory %d is another device's", record->shmid);
    }
    return r == -EINVAL || r == -EIDRM ? -ENOENT : r;
}

static int write_all(int fd, const char *text)
{
    size_t length = strlen(text);
    char now[RECORD_BYTES];

    if (read_file(fd, now) >= 0 && strcmp(now, text) == 0)
        return 0;
    if (pwrite(fd, text, length, 0) != (ssize_t)length || ftruncate(fd, (off_t)length) < 0 ||
        fsync(fd) < 0)
        return errno ? -errno : -EIO;
    return 0;
}

int fsw_registry_write(int fd, const struct fsw_record *record, struct fsw_error *err)
{
    char path[PATH_MAX], id[FSW_DEVICE_ID_TEXT], text[RECORD_BYTES];
    const char *template =
        "device=%s\noverflow=%s\noverflow-password-file=%s\noverflow-plaintext=%d\n";

    fsw_device_id_format(&record->device, id);
    int n = snprintf(text, sizeof text, "shmid=%d\n", record->shmid);
    snprintf(text + n, sizeof text - (size_t)n, template, id, record->overflow,
             record->overflow_password_file, record->overflow_plaintext);
    image_path(record->name, path);
    int r = write_all(fd, text);
    if (r < 0)
        return fsw_error(err, r, "%s: %s", path, strerror(-r));
    fsw_crash_point("registry: the image's file is written, not the device's");

    r = make_dir(fsw_registry_state_dir(), 0700, err);
    if (r < 0)
        return r;
    r = fsw_predecessors_keep(record, err);
    if (r < 0)
        return r;
    state_path(record->name, path);
    FSW_CLEANUP_CLOSE int state = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    r = state < 0 ? -errno : write_all(state, text + n);
    if (r < 0)
        return fsw_error(err, r, "%s: %s", path, strerror(-r));
    return 0;
}

void fsw_registry_remove(const char *name)
{
    char path[PATH_MAX];

    state_path(name, path);
    unlink(path);
    image_path(name, path);
    unlink(path);
}

/* "NAME.image" → NAME, or 0. */
static int name_of_file(const char *file, char name[FSW_NAME_MAX + 1])
{
    size_t length = strlen(file);

    if (length <= 6 || length - 6 > FSW_NAME_MAX || strcmp(file + length - 6, ".image") != 0)
        return 0;
    memcpy(name, file, length - 6);
    name[length - 6] = '\0';
    return fsw_name_valid(name);
}

struct known {
    int shmids[1024];
    unsigned count;
};

static int list_files(struct known *known, int (*each)(const struct fsw_record *, int, void *),
                      void *opaque, struct fsw_error *err)
{
    struct dirent **files;
    int n = scandir(run_dir(), &files, NULL, alphasort), r = 0;

    if (n < 0)
        return errno == ENOENT ? 0 : cannot_open(run_dir(), err);
    for (int i = 0; i < n; i++) {
        char name[FSW_NAME_MAX + 1];
        struct fsw_record record;
        if (r == 0 && name_of_file(files[i]->d_name, name) &&
            fsw_registry_read(name, -1, &record, NULL) == 0) {
            if (known->count < sizeof known->shmids / sizeof known->shmids[0])
                known->shmids[known->count++] = record.shmid;
            r = each(&record, 0, opaque);
        }
        free(files[i]);
    }
    free(files);
    return r;
}

static int is_known(const struct known *known, int shmid)
{
    for (unsigned i = 0; i < known->count; i++)
        if (known->shmids[i] == shmid)
            return 1;
    return 0;
}

struct orphans {
    const struct known *known;
    int (*each)(const struct fsw_record *, int, void *);
    void *opaque;
};

/* An image that no file names. Somebody may serve it: registered in another folder. */
static int pick_orphan(int shmid, uint64_t bytes, unsigned attached, void *opaque)
{
    const struct orphans *orphans = opaque;
    struct fsw_record record = {.shmid = shmid, .served = attached > 0};
    struct fsw_image image;

    if (bytes < FSW_SIZE_MIN || is_known(orphans->known, shmid) ||
        fsw_image_attach(&image, shmid, 0, NULL) < 0)
        return 0;
    record.device = image.super->device;
    memcpy(record.name, image.super->name, sizeof record.name);
    memcpy(record.overflow, image.super->overflow, sizeof record.overflow);
    fsw_image_detach(&image);
    return orphans->each(&record, 1, orphans->opaque);
}

int fsw_registry_list(int (*each)(const struct fsw_record *record, int orphan, void *opaque),
                      void *opaque, struct fsw_error *err)
{
    struct known known = {.count = 0};
    int r = list_files(&known, each, opaque, err);

    struct orphans orphans = {&known, each, opaque};
    return r == 0 ? fsw_shm_each(pick_orphan, &orphans) : r;
}
