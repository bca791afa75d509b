/*
 * adopt.c: who serves it stands in the image, who its parent is in /proc, what it has open as well.
 */
#include "client/fuse/adopt.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "common/kernel.h"
#include "common/proc.h"
#include "core/registry.h"

#define PROGRAM "farswap-fuse"

/* ---- processes ---- */

/* 1 and the parent of a living farswap-fuse. */
static int is_ours(pid_t pid, pid_t *ret_parent)
{
    return fsw_proc_is(pid, PROGRAM, ret_parent);
}

/* A supervised server's words are --fuse-fds=N,... --control=N MOUNTPOINT NAME ... */
static int is_spare_of(pid_t pid, const char *mountpoint, const char *name)
{
    char text[4096], words[2 * PATH_MAX];
    size_t n = fsw_proc_words(pid, text, sizeof text);
    size_t length = (size_t)snprintf(words, sizeof words, "%s%c%s", mountpoint, '\0', name) + 1;

    return memmem(text, n, "--fuse-fds=", 11) != NULL && memmem(text, n, words, length) != NULL;
}

struct look {
    const char *mountpoint, *name;
    pid_t server;     /* is no spare */
    int signal;       /* for spares without a supervisor; 0: none */
    pid_t supervisor; /* found */
};

static int look_at(pid_t pid, void *opaque)
{
    struct look *look = opaque;
    pid_t parent, above;

    if (pid == look->server || !is_ours(pid, &parent) ||
        !is_spare_of(pid, look->mountpoint, look->name))
        return 0;
    if (is_ours(parent, &above))
        look->supervisor = parent;
    else if (look->signal != 0)
        kill(pid, look->signal);
    return 0;
}

/* The supervisor of another server for that mount; 0: none. Spares that have none are told to end. */
static pid_t look_at_spares(const char *mountpoint, const char *name, pid_t server, int signal)
{
    struct look look = {.mountpoint = mountpoint, .name = name, .server = server, .signal = signal};

    fsw_proc_each(look_at, &look);
    return look.supervisor;
}

void fsw_adopt_end_spares(const char *mountpoint, const char *name, pid_t server)
{
    look_at_spares(mountpoint, name, server, SIGKILL);
}

/* ---- the server ---- */

/* The mount is there, made by a farswap-fuse for that device. */
static int is_mounted(const char *path, const char *name)
{
    char line[PATH_MAX + 256], source[256], mountpoint[PATH_MAX], wanted[128];
    int found = 0;
    FILE *file = fopen("/proc/self/mounts", "re");

    snprintf(wanted, sizeof wanted, "farswap:%s", name);
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
        found = sscanf(line, "%255s %4095s", source, mountpoint) == 2 &&
                strcmp(source, wanted) == 0 && strcmp(mountpoint, path) == 0;
    if (file != NULL)
        fclose(file);
    return found;
}

/* Its process; 0: nobody serves it. */
static pid_t server_of(const char *name)
{
    struct fsw_record record;
    struct fsw_image image;
    pid_t pid = 0;

    if (fsw_registry_read(name, -1, &record, NULL) < 0 || !record.served ||
        fsw_registry_attach(&record, 0, &image, NULL) < 0)
        return 0;
    pid = (pid_t)atomic_load(&image.super->holder);
    fsw_image_detach(&image);
    return pid;
}

static int copy_descriptors(pid_t pid, int pidfd, struct fsw_mount *mount)
{
    char path[64], link[PATH_MAX], target[64];
    struct dirent *entry;
    int r = 0;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (dir == NULL)
        return -errno;
    while (r == 0 && (entry = readdir(dir)) != NULL) {
        snprintf(link, sizeof link, "%s/%s", path, entry->d_name);
        ssize_t n = readlink(link, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        if (strcmp(target, "/dev/fuse") != 0)
            continue;
        int fd = mount->count < FSW_FUSE_FDS_MAX ? pidfd_getfd(pidfd, atoi(entry->d_name), 0) : -1;
        if (fd < 0)
            r = mount->count < FSW_FUSE_FDS_MAX ? -errno : -EMFILE;
        else
            mount->fds[mount->count++] = fd;
    }
    closedir(dir);
    return r == 0 && mount->count == 0 ? -ENODEV : r;
}

/* Said at INIT, which is long over: what can be known of it now is the version. */
static int kernel_can_resend(void)
{
    return fsw_kernel_is_at_least(6, 9);
}

static int take(pid_t pid, struct fsw_mount *mount, struct fsw_adopted *ret_adopted,
                struct fsw_error *err)
{
    int pidfd = pidfd_open(pid, 0);
    int r = pidfd < 0 ? -errno : copy_descriptors(pid, pidfd, mount);

    if (r == 0) {
        mount->can_resend = kernel_can_resend();
        *ret_adopted = (struct fsw_adopted){.pid = pid, .pidfd = pidfd};
        return 1;
    }
    while (mount->count > 0)
        close(mount->fds[--mount->count]);
    if (pidfd >= 0)
        close(pidfd);
    return fsw_error(err, r, "its server, process %d, can't be taken over: %s%s", (int)pid,
                     strerror(-r), r == -EPERM ? " (it needs CAP_SYS_PTRACE)" : "");
}

int fsw_adopt(const char *mountpoint, const char *name, struct fsw_mount *mount,
              struct fsw_adopted *ret_adopted, struct fsw_error *err)
{
    pid_t pid, parent, above;

    *mount = (struct fsw_mount){.count = 0};
    if (realpath(mountpoint, mount->path) == NULL || !is_mounted(mount->path, name))
        return 0;
    pid = server_of(name);
    if (pid == 0)
        return 0;
    if (!is_ours(pid, &parent))
        return fsw_error(err, -EBUSY, "%s is served by process %d, which is no %s", name, (int)pid,
                         PROGRAM);
    pid_t supervisor = is_ours(parent, &above) ? parent : look_at_spares(mountpoint, name, pid, 0);
    if (supervisor != 0)
        return fsw_error(err, -EBUSY, "%s is served at %s already, supervised by process %d", name,
                         mount->path, (int)supervisor);
    return take(pid, mount, ret_adopted, err);
}
