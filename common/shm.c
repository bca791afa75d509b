/*
 * shm.c: what the kernel's interface leaves to its caller.
 */
#include "common/shm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/parse.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
/* The host's IPC namespace, the one that is never destroyed, has this number on every kernel
 * (PROC_IPC_INIT_INO in its proc_ns.h), also where /proc/1 can't be looked at. */
#define IPC_HOST_INODE 0xEFFFFFFFu

/* ---- hosts that don't keep it ---- */

static int read_number(const char *path, long *ret_value)
{
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return 0;
    int ok = fscanf(file, "%ld", ret_value) == 1;
    fclose(file);
    return ok;
}

/* logind takes the shared memory of a user who logs out, unless it is a system user's. */
static int remove_ipc_applies(void)
{
    char line[256];
    int remove = 1; /* logind's default */

    if (getuid() < 1000 || access("/run/systemd/seats", F_OK) < 0)
        return 0;
    FILE *file = fopen("/etc/systemd/logind.conf", "re");
    if (file == NULL)
        return remove;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "RemoveIPC=", 10) == 0)
            fsw_parse_bool(line + 10, &remove);
    }
    fclose(file);
    return remove;
}

int fsw_shm_check_host(struct fsw_error *err)
{
    struct stat mine;
    long forced = 0;

    if (read_number("/proc/sys/kernel/shm_rmid_forced", &forced) && forced)
        return fsw_error(
            err, -EPERM,
            "kernel.shm_rmid_forced=1 makes this host destroy shared memory with its last "
            "process, and the swapped pages with it: set it to 0 (sysctl -w)");
    if (stat("/proc/self/ns/ipc", &mine) == 0 && mine.st_ino != IPC_HOST_INODE)
        return fsw_error(
            err, -EPERM,
            "this is a private IPC namespace: the image would vanish with it; run in the "
            "host's (docker --ipc=host, Kubernetes hostIPC: true)");
    if (remove_ipc_applies())
        return fsw_error(
            err, -EPERM,
            "logind's RemoveIPC destroys the image when user %u logs out: run as root or "
            "as a system user, or set RemoveIPC=no in /etc/systemd/logind.conf",
            (unsigned)getuid());
    return 0;
}

/* ---- life ---- */

int fsw_shm_create(uint64_t bytes, struct fsw_error *err)
{
    char text[FSW_SIZE_TEXT];
    int shmid = shmget(IPC_PRIVATE, bytes, IPC_CREAT | IPC_EXCL | SHM_NORESERVE | 0600);

    if (shmid >= 0)
        return shmid;
    if (errno == EINVAL || errno == ENOSPC)
        return fsw_error(err, -errno,
                         "this host does not allow %s of shared memory address space: raise "
                         "kernel.shmmax, kernel.shmall or kernel.shmmni (sysctl)",
                         fsw_format_size(bytes, text));
    return fsw_error(err, -errno, "shared memory of %s of address space: %s",
                     fsw_format_size(bytes, text), strerror(errno));
}

int fsw_shm_unlink(int shmid)
{
    return shmctl(shmid, IPC_RMID, NULL) < 0 ? -errno : 0;
}

int fsw_shm_map(int shmid, int writable, void **ret_base, uint64_t *ret_bytes,
                struct fsw_error *err)
{
    struct shmid_ds segment;

    if (shmctl(shmid, IPC_STAT, &segment) < 0)
        return fsw_error(err, -errno, "shared memory %d: %s", shmid, strerror(errno));
    void *base = shmat(shmid, NULL, writable ? 0 : SHM_RDONLY);
    if (base == (void *)-1)
        return fsw_error(err, -errno, "mapping shared memory %d: %s", shmid, strerror(errno));
    munlock(base, segment.shm_segsz);
    madvise(base, segment.shm_segsz, MADV_DONTDUMP);
    madvise(base, segment.shm_segsz, MADV_NOHUGEPAGE);
    *ret_base = base;
    *ret_bytes = segment.shm_segsz;
    return 0;
}

void fsw_shm_unmap(void *base)
{
    shmdt(base);
}

int fsw_shm_attached(int shmid)
{
    struct shmid_ds segment;

    return shmctl(shmid, IPC_STAT, &segment) < 0 ? -errno : (int)segment.shm_nattch;
}

int fsw_shm_lock(int shmid)
{
    struct shmid_ds segment;

    if (shmctl(shmid, SHM_LOCK, NULL) == 0)
        return 0;
    int code = -errno;
    return shmctl(shmid, IPC_STAT, &segment) == 0 && segment.shm_perm.mode & SHM_LOCKED ? 0 : code;
}

/* ---- pages ---- */

int fsw_shm_touch(void *at, size_t bytes)
{
    uintptr_t from = (uintptr_t)at & ~(uintptr_t)(FSW_SHM_PAGE - 1);
    uintptr_t to = ((uintptr_t)at + bytes + FSW_SHM_PAGE - 1) & ~(uintptr_t)(FSW_SHM_PAGE - 1);

    while (madvise((void *)from, to - from, MADV_POPULATE_WRITE) < 0) {
        if (errno == EINTR || errno == EAGAIN)
            continue;
        if (errno != EINVAL) /* ENOMEM, EFAULT, EHWPOISON: no page to be had */
            return -ENOMEM;
        /* Kernels before 5.14: a plain touch, at the risk of a SIGBUS. */
        for (volatile char *p = (char *)from; p < (char *)to; p += FSW_SHM_PAGE)
            *p = *p;
        return 0;
    }
    return 0;
}

int fsw_shm_give_back(void *at, size_t bytes)
{
    return madvise(at, bytes, MADV_REMOVE) < 0 ? -errno : 0;
}

/* mincore allocates nothing. */
void fsw_shm_wipe(void *at, uint64_t bytes)
{
    char *from = at;
    unsigned char resident[512];
    const uint64_t step = sizeof resident * FSW_SHM_PAGE;

    for (uint64_t done = 0; done < bytes; done += step) {
        uint64_t part = bytes - done < step ? bytes - done : step;
        if (mincore(from + done, part, resident) < 0)
            continue;
        for (uint64_t i = 0; i * FSW_SHM_PAGE < part; i++)
            if (resident[i] & 1)
                explicit_bzero(from + done + i * FSW_SHM_PAGE, FSW_SHM_PAGE);
    }
}

/* ---- all there are ---- */

struct row {
    int key, shmid;
    unsigned mode, attached, uid;
    unsigned long long bytes, resident;
};

/* Calls each for the rows of /proc/sysvipc/shm. */
static int each_row(int (*each)(const struct row *row, void *opaque), void *opaque)
{
    char line[512];
    int r = 0;
    FILE *file = fopen("/proc/sysvipc/shm", "re");

    if (file == NULL)
        return 0;
    while (r == 0 && fgets(line, sizeof line, file) != NULL) {
        struct row row;
        if (sscanf(line, "%d %d %o %llu %*d %*d %u %u %*u %*u %*u %*u %*u %*u %llu", &row.key,
                   &row.shmid, &row.mode, &row.bytes, &row.attached, &row.uid, &row.resident) == 7)
            r = each(&row, opaque);
    }
    fclose(file);
    return r;
}

struct one {
    int shmid;
    uint64_t resident;
};

static int note_resident(const struct row *row, void *opaque)
{
    struct one *one = opaque;

    if (row->shmid != one->shmid)
        return 0;
    one->resident = row->resident;
    return 1;
}

uint64_t fsw_shm_resident(int shmid)
{
    struct one one = {shmid, 0};

    each_row(note_resident, &one);
    return one.resident;
}

struct mine {
    int (*each)(int shmid, uint64_t bytes, unsigned attached, void *opaque);
    void *opaque;
};

/* With something in RAM: then its first page can be read without touching a new one. */
static int pick_mine(const struct row *row, void *opaque)
{
    const struct mine *mine = opaque;

    if (row->key != 0 || (row->mode & 0777) != 0600 || row->uid != geteuid() || row->resident == 0)
        return 0;
    return mine->each(row->shmid, row->bytes, row->attached, mine->opaque);
}

int fsw_shm_each(int (*each)(int shmid, uint64_t bytes, unsigned attached, void *opaque),
                 void *opaque)
{
    struct mine mine = {each, opaque};

    return each_row(pick_mine, &mine);
}
