/*
 * sight.c: /sys/block/nbdN, /proc/swaps, /proc/PID/fd.
 *
 * Who holds a flock is found by the descriptors of processes, not by /proc/locks alone: that names
 * the file by a device number which is not stat's on every file system. A descriptor's fdinfo has a
 * line "lock:" only if it holds one; a spare that waits has the file open, too, but no such line.
 */
#include "client/attach/sight.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"

void fsw_run_path(const char *name, const char *suffix, char path[PATH_MAX])
{
    const char *dir = secure_getenv("FARSWAP_RUNDIR");

    snprintf(path, PATH_MAX, "%s/%s.%s", dir != NULL && *dir != '\0' ? dir : "/run/farswap", name,
             suffix);
}

/* The first line of a small file, without its newline: its length, or negative errno. */
static int read_line(const char *path, char *text, size_t size)
{
    FSW_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

    if (n < 0)
        return -errno;
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return (int)strlen(text);
}

static int backend_fits(const char *wanted, const char *found)
{
    size_t length = strlen(wanted);

    return length > 0 && wanted[length - 1] == ':' ? strncmp(wanted, found, length) == 0
                                                   : strcmp(wanted, found) == 0;
}

int fsw_sight_device(const char *backend, char ret_backend[FSW_BACKEND_MAX])
{
    DIR *blocks = opendir("/sys/block");
    struct dirent *entry;
    int found = -1;

    while (blocks != NULL && found < 0 && (entry = readdir(blocks)) != NULL) {
        char path[PATH_MAX], text[FSW_BACKEND_MAX];
        if (strncmp(entry->d_name, "nbd", 3) != 0 || !isdigit((unsigned char)entry->d_name[3]))
            continue;
        snprintf(path, sizeof path, "/sys/block/%s/backend", entry->d_name);
        if (read_line(path, text, sizeof text) <= 0 || !backend_fits(backend, text))
            continue;
        found = atoi(entry->d_name + 3);
        if (ret_backend != NULL)
            memcpy(ret_backend, text, sizeof text);
    }
    if (blocks != NULL)
        closedir(blocks);
    return found;
}

uint64_t fsw_sight_size(int index)
{
    char path[64], text[32];

    snprintf(path, sizeof path, "/sys/block/nbd%d/size", index);
    return read_line(path, text, sizeof text) > 0 ? strtoull(text, NULL, 10) * 512 : 0;
}

/* nbd1 and nbd1p2, but not nbd12. */
static int is_of_device(const char *path, int index)
{
    char device[32];
    int length = snprintf(device, sizeof device, "/dev/nbd%d", index);

    return strncmp(path, device, (size_t)length) == 0 && !isdigit((unsigned char)path[length]);
}

int fsw_sight_is_swap(int index)
{
    char line[512];
    int found = 0;
    FILE *swaps = fopen("/proc/swaps", "re");

    while (swaps != NULL && !found && fgets(line, sizeof line, swaps) != NULL)
        found = is_of_device(line, index);
    if (swaps != NULL)
        fclose(swaps);
    return found;
}

/* Where it, or a part of it, is mounted. */
static int is_mounted(int index, char where[128])
{
    char line[1024], device[256];
    int found = 0;
    FILE *mounts = fopen("/proc/self/mounts", "re");

    while (mounts != NULL && !found && fgets(line, sizeof line, mounts) != NULL)
        found = sscanf(line, "%255s %127s", device, where) == 2 && is_of_device(device, index);
    if (mounts != NULL)
        fclose(mounts);
    return found;
}

/* ---- descriptors of other processes ---- */

/* Calls each for every descriptor of every other process that is open on path, until it returns 1.
 * By the links' text: to stat them could wait for a file system that is away. */
static int each_descriptor(const char *path,
                           int (*each)(pid_t pid, const char *descriptor, void *opaque),
                           void *opaque)
{
    DIR *processes = opendir("/proc");
    struct dirent *process, *entry;
    int done = 0;

    while (processes != NULL && !done && (process = readdir(processes)) != NULL) {
        char folder[288], link[576], target[PATH_MAX];
        pid_t pid = atoi(process->d_name);
        if (pid <= 0 || pid == getpid())
            continue;
        snprintf(folder, sizeof folder, "/proc/%d/fd", pid);
        DIR *descriptors = opendir(folder);
        while (descriptors != NULL && !done && (entry = readdir(descriptors)) != NULL) {
            snprintf(link, sizeof link, "%s/%s", folder, entry->d_name);
            ssize_t n = readlink(link, target, sizeof target - 1);
            if (n > 0 && (size_t)n == strlen(path) && strncmp(target, path, (size_t)n) == 0)
                done = each(pid, entry->d_name, opaque);
        }
        if (descriptors != NULL)
            closedir(descriptors);
    }
    if (processes != NULL)
        closedir(processes);
    return done;
}

static int take_pid(pid_t pid, const char *descriptor, void *opaque)
{
    *(pid_t *)opaque = pid;
    return 1;
}

struct holder {
    pid_t but, pid;
};

static int take_holder(pid_t pid, const char *descriptor, void *opaque)
{
    struct holder *holder = opaque;
    char path[320], line[256];
    int locked = 0;

    if (pid == holder->but)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%s", pid, descriptor);
    FILE *info = fopen(path, "re");
    while (info != NULL && !locked && fgets(line, sizeof line, info) != NULL)
        locked = strncmp(line, "lock:", 5) == 0 && strstr(line, "FLOCK") != NULL &&
                 strstr(line, "WRITE") != NULL;
    if (info != NULL)
        fclose(info);
    if (locked)
        holder->pid = pid;
    return locked;
}

pid_t fsw_sight_holder(const char *name, pid_t but)
{
    struct holder holder = {.but = but};
    char path[PATH_MAX], real[PATH_MAX];

    fsw_run_path(name, "image", path);
    if (realpath(path, real) != NULL)
        each_descriptor(real, take_holder, &holder);
    return holder.pid;
}

/* By a descriptor of the process, looked at again once that is held: a number may have become
 * another's in between. */
int fsw_sight_kill_holder(const char *name, pid_t but)
{
    pid_t pid = fsw_sight_holder(name, but);
    FSW_CLEANUP_CLOSE int process = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

    if (process < 0 || fsw_sight_holder(name, but) != pid)
        return 0;
    return syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0) == 0;
}

void fsw_sight_program(pid_t pid, char text[PATH_MAX])
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    ssize_t n = readlink(path, text, PATH_MAX - 1);
    text[n > 0 ? n : 0] = '\0';
}

/* ---- who uses a device ---- */

static void say_use(int index, char use[FSW_USE_TEXT])
{
    char where[128];

    if (fsw_sight_is_swap(index))
        snprintf(use, FSW_USE_TEXT, "it is swap (swapoff /dev/nbd%d first)", index);
    else if (is_mounted(index, where))
        snprintf(use, FSW_USE_TEXT, "it is mounted on %s", where);
    else
        snprintf(use, FSW_USE_TEXT,
                 "something in the kernel or a process has claimed it (dm, md, a tool)");
}

int fsw_sight_claim(int index, char use[FSW_USE_TEXT])
{
    char path[32];
    pid_t user = 0;

    snprintf(path, sizeof path, "/dev/nbd%d", index);
    int fd = open(path, O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        int code = -errno;
        if (code == -EBUSY)
            say_use(index, use);
        else
            snprintf(use, FSW_USE_TEXT, "%s: %s", path, strerror(-code));
        return code;
    }
    if (each_descriptor(path, take_pid, &user)) {
        char program[PATH_MAX];
        close(fd);
        fsw_sight_program(user, program);
        snprintf(use, FSW_USE_TEXT, "process %d has it open (%.150s)", user, program);
        return -EBUSY;
    }
    return fd;
}
