/*
 * door_fuse.c: farswap-fuse and a loop device.
 *
 * RUNDIR/NAME.door is locked by the farswap-fuse that we start, which inherits the descriptor, and
 * by its servers. So whether one is there, perhaps not ready yet, can be asked after we were
 * killed, and no process number can lie. Nothing looks into the mount before its server holds the
 * image: it would wait for what may never come, and keep a start that failed from being taken away.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/doors.h"
#include "client/cli/program.h"
#include "client/cli/survival.h"
#include "common/cleanup.h"
#include "common/clock.h"

#define START_S 45
#define GONE_S 10
#define PATIENCE_S 2
#define LOOK_US 5000

/* ---- whether one is there ---- */

static int open_claim(const char *device, struct fsw_error *err)
{
    char path[PATH_MAX];

    host_run_path(device, "door", path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 ? fsw_error(err, -errno, "%s: %s", path, strerror(errno)) : fd;
}

/* 1: nobody had it, now it is ours. */
static int take_claim(int claim)
{
    return flock(claim, LOCK_EX | LOCK_NB) == 0;
}

static int is_free(int claim)
{
    if (!take_claim(claim))
        return 0;
    flock(claim, LOCK_UN);
    return 1;
}

static int is_served(const char *device)
{
    struct fsw_record record;

    return fsw_registry_read(device, -1, &record, NULL) == 0 && record.served;
}

/* ---- taking away ---- */

static int detach_loop(const char *block, struct fsw_error *err)
{
    int fd = open(block, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return fsw_error(err, -errno, "%s: %s", block, strerror(errno));
    int r = ioctl(fd, LOOP_CLR_FD, 0) < 0 && errno != ENXIO ? -errno : 0;
    close(fd);
    return r < 0 ? fsw_error(err, r, "detaching %s: %s", block, strerror(-r)) : 0;
}

static int detach_loops(const char *mountpoint, struct fsw_error *err)
{
    uint64_t deadline = fsw_now_ns() + GONE_S * FSW_NS_PER_S;
    char block[HOST_BLOCK];
    struct host_swap swap;

    while (host_loop_over(mountpoint, block)) {
        if (host_swap_on(block, &swap))
            return fsw_error(err, -EBUSY, "%s is still swap", block);
        int r = detach_loop(block, err);
        if (r < 0)
            return r;
        if (fsw_now_ns() > deadline)
            return fsw_error(err, -EBUSY, "%s is in use (mounted, or open) and stays", block);
        usleep(LOOK_US);
    }
    return 0;
}

/* The kernel lets go of the file a moment after the loop device is gone. 1: it was there. */
static int unmount(const char *mountpoint, struct fsw_error *err)
{
    uint64_t deadline = fsw_now_ns() + GONE_S * FSW_NS_PER_S;

    while (umount2(mountpoint, UMOUNT_NOFOLLOW) < 0) {
        if (errno == EINVAL || errno == ENOENT)
            return 0; /* it went by itself */
        if (errno != EBUSY || fsw_now_ns() > deadline)
            return fsw_error(err, -errno, "unmounting %s: %s (`fuser -m %s` shows who uses it)",
                             mountpoint, strerror(errno), mountpoint);
        usleep(LOOK_US);
    }
    return 1;
}

/* 1: there was a mount, and nothing used it: it is unmounted. */
static int take_away(const char *device, struct fsw_error *err)
{
    char mountpoint[512];
    int found = 0, r = 0;

    while (r >= 0 && host_mount_of(device, mountpoint)) {
        r = detach_loops(mountpoint, err);
        if (r == 0)
            r = unmount(mountpoint, err);
        found |= r == 1;
    }
    return r < 0 ? r : found;
}

/* Nothing uses the mount, and it is gone; but a mount namespace that was made meanwhile (a container
 * about to leave its old root) has a copy, and the server serves that. */
static void end_holders(const char *device)
{
    char path[PATH_MAX];

    host_run_path(device, "door", path);
    program_kill_holders(path);
}

/* Its end follows the mount's; the claim is not held by one that was started by hand. A start that
 * has not mounted yet will, and is taken away then. */
static int wait_gone(const char *device, int mounted, int claim, struct fsw_error *err)
{
    uint64_t begin = fsw_now_ns(), deadline = begin + 2 * GONE_S * FSW_NS_PER_S;
    uint64_t patience = begin + PATIENCE_S * FSW_NS_PER_S;
    char log[PATH_MAX];
    int found = 0, ours = mounted;

    while (!is_free(claim) || (mounted && is_served(device))) {
        int r = take_away(device, err);
        if (r < 0)
            return r;
        found = 1;
        ours |= r;
        if (ours && fsw_now_ns() > patience) {
            end_holders(device);
            patience = fsw_now_ns() + FSW_NS_PER_S / 4;
        }
        if (fsw_now_ns() > deadline) {
            host_run_path(device, "log", log);
            return fsw_error(err, -EBUSY, "its farswap-fuse does not end; %s may say why", log);
        }
        usleep(LOOK_US);
    }
    return found;
}

static void remove_files(const char *device)
{
    char path[PATH_MAX];

    host_run_path(device, "mnt", path);
    rmdir(path);
    host_run_path(device, "log", path);
    unlink(path);
    host_run_path(device, "door", path);
    unlink(path);
}

static int down(const char *device, struct fsw_error *err)
{
    FSW_CLEANUP_CLOSE int claim = open_claim(device, err);

    if (claim < 0)
        return claim;
    int mounted = take_away(device, err);
    if (mounted < 0)
        return mounted;
    int ran = wait_gone(device, mounted, claim, err);
    if (ran < 0)
        return ran;
    remove_files(device);
    return mounted || ran;
}

/* ---- making ---- */

static int start_at(const char *mountpoint, const char *device, const struct config *config,
                    int claim, pid_t *ret_pid, struct fsw_error *err)
{
    char path[PATH_MAX], folder[PATH_MAX], log[PATH_MAX], name[FSW_NAME_MAX + 1];
    char *argv[CONFIG_WORDS + 5] = {path, "--supervise", folder, name};

    int r = program_find("farswap-fuse", "fuse", path, err);
    if (r < 0)
        return r;
    snprintf(folder, sizeof folder, "%s", mountpoint);
    snprintf(name, sizeof name, "%s", device);
    host_run_path(device, "log", log);
    for (unsigned i = 0; config != NULL && i < config->count; i++)
        argv[4 + i] = config->words[i];
    return program_start(path, argv, log, claim, ret_pid, err);
}

static int start(const char *device, const struct config *config, int claim, pid_t *ret_pid,
                 struct fsw_error *err)
{
    char mountpoint[PATH_MAX];

    if (is_served(device))
        return fsw_error(err, -EBUSY,
                         "another program serves it (`farswap status %s` shows which): stop that "
                         "first",
                         device);
    host_run_path(device, "mnt", mountpoint);
    if (mkdir(mountpoint, 0700) < 0 && errno != EEXIST)
        return fsw_error(err, -errno, "%s: %s", mountpoint, strerror(errno));
    return start_at(mountpoint, device, config, claim, ret_pid, err);
}

static int failed_to_start(const char *device, struct fsw_error *err)
{
    char log[PATH_MAX], tail[256];
    struct fsw_error ignored;

    host_run_path(device, "log", log);
    program_log_tail(log, tail);
    take_away(device, &ignored);
    return fsw_error(err, -EIO, "it did not start: %s", tail);
}

/* pid: of the one we started, or 0: one of an earlier call, which has the claim. -EAGAIN: that one
 * has ended. */
static int wait_ready(const char *device, pid_t pid, int claim, char mountpoint[512],
                      struct fsw_error *err)
{
    uint64_t deadline = fsw_now_ns() + START_S * FSW_NS_PER_S;
    char disk[600];
    struct stat info;

    while (!host_mount_of(device, mountpoint) || !is_served(device)) {
        if (pid == 0 && is_free(claim))
            return -EAGAIN;
        if (program_ended(pid))
            return failed_to_start(device, err);
        if (fsw_now_ns() > deadline)
            return fsw_error(err, -ETIMEDOUT,
                             "farswap-fuse is not ready after %d s; it goes on trying: do this "
                             "again later, or `farswap down %s`",
                             START_S, device);
        usleep(LOOK_US);
    }
    snprintf(disk, sizeof disk, "%s/disk", mountpoint);
    return stat(disk, &info) < 0 ? failed_to_start(device, err) : 0;
}

/* What a farswap-fuse that died left. */
static int clear_dead(const char *device, struct fsw_error *err)
{
    char mountpoint[512], disk[600];
    struct stat info;

    if (!host_mount_of(device, mountpoint) || is_served(device))
        return 0;
    snprintf(disk, sizeof disk, "%s/disk", mountpoint);
    if (stat(disk, &info) == 0 || errno != ENOTCONN)
        return 0;
    int r = take_away(device, err);
    return r < 0 ? r : 0;
}

/* The one that is there, or one that is started now. */
static int serve_once(const char *device, const struct config *config, int claim,
                      char mountpoint[512], struct fsw_error *err)
{
    pid_t pid = 0;
    int r = 0;

    if (take_claim(claim)) {
        r = clear_dead(device, err);
        if (r == 0 && host_mount_of(device, mountpoint)) { /* somebody started it by hand */
            flock(claim, LOCK_UN);
            return 0;
        }
        if (r == 0)
            r = start(device, config, claim, &pid, err);
    }
    if (r == 0)
        r = wait_ready(device, pid, claim, mountpoint, err);
    if (r == 0 && pid == 0 && config->count > 0)
        door_say(device, "is served already: parameters are as they were (`farswap set` changes "
                         "some)");
    return r;
}

/* One that a `down` was about to end when it was killed may be there still, and go now. */
static int serve(const char *device, const struct config *config, char mountpoint[512],
                 struct fsw_error *err)
{
    FSW_CLEANUP_CLOSE int claim = open_claim(device, err);
    int r = claim < 0 ? claim : -EAGAIN;

    for (int tries = 0; r == -EAGAIN && tries < 2; tries++)
        r = serve_once(device, config, claim, mountpoint, err);
    return r == -EAGAIN ? fsw_error(err, r, "its farswap-fuse ended twice: do this again") : r;
}

/* ---- its supervisor ---- */

static enum survival survival(const char *device, pid_t *ret_server)
{
    struct fsw_record record;
    struct fsw_image image;

    if (fsw_registry_read(device, -1, &record, NULL) < 0 ||
        fsw_registry_attach(&record, 0, &image, NULL) < 0)
        return SURVIVAL_UNKNOWN;
    *ret_server = (pid_t)atomic_load(&image.super->holder);
    fsw_image_detach(&image);
    return survival_of(&record, *ret_server);
}

/* The claim that the server has, or one that nobody has. */
static int borrow_claim(const char *device, pid_t server, struct fsw_error *err)
{
    char path[PATH_MAX], resolved[PATH_MAX];
    int claim = open_claim(device, err);

    if (claim < 0 || take_claim(claim))
        return claim;
    close(claim);
    host_run_path(device, "door", path);
    int r = program_borrow(server, realpath(path, resolved) != NULL ? resolved : path);
    return r < 0 ? fsw_error(err, r, "its server, process %d, can't be taken over: %s", (int)server,
                             strerror(-r))
                 : r;
}

static int wait_watched(const char *device, pid_t pid, struct fsw_error *err)
{
    uint64_t deadline = fsw_now_ns() + START_S * FSW_NS_PER_S;
    char log[PATH_MAX], tail[256];
    pid_t server;

    while (survival_can_be_had(survival(device, &server))) {
        if (program_ended(pid)) {
            host_run_path(device, "log", log);
            program_log_tail(log, tail);
            return fsw_error(err, -EIO, "no other supervisor for its farswap-fuse: %s", tail);
        }
        if (fsw_now_ns() > deadline)
            return fsw_error(err, -ETIMEDOUT, "its new supervisor is not ready after %d s",
                             START_S);
        usleep(LOOK_US);
    }
    return 0;
}

int door_fuse_watch(const char *device, struct fsw_error *err)
{
    char mountpoint[512];
    pid_t server = 0, pid;

    if (!survival_can_be_had(survival(device, &server)) || !host_mount_of(device, mountpoint))
        return 0;
    FSW_CLEANUP_CLOSE int claim = borrow_claim(device, server, err);
    int r = claim < 0 ? claim : start_at(mountpoint, device, NULL, claim, &pid, err);
    if (r == 0)
        r = wait_watched(device, pid, err);
    if (r == 0)
        door_say(device, "its farswap-fuse has a supervisor again");
    return r;
}

/* ---- the whole way ---- */

/* Direct: its pages are kept once, and the kernel needs no memory of its own to write them. */
static int make_loop(const char *mountpoint, char block[HOST_BLOCK], struct fsw_error *err)
{
    char disk[600], output[PROGRAM_OUTPUT];
    char *argv[] = {"losetup", "--find", "--show", "--direct-io=on", "--sector-size=4096",
                    disk,      NULL};

    snprintf(disk, sizeof disk, "%s/disk", mountpoint);
    int r = program_must(argv, output, err);
    if (r == 0 && snprintf(block, HOST_BLOCK, "%s", output) >= HOST_BLOCK)
        r = fsw_error(err, -EIO, "losetup says: %.80s", output);
    return r;
}

static int up(const char *device, const struct config *config, char block[HOST_BLOCK],
              struct fsw_error *err)
{
    char mountpoint[512];
    int r = serve(device, config, mountpoint, err);

    if (r < 0)
        return r;
    door_say(device, "served by farswap-fuse at %s", mountpoint);
    r = door_fuse_watch(device, err);
    if (r < 0)
        return r;
    if (!host_loop_over(mountpoint, block))
        r = make_loop(mountpoint, block, err);
    if (r == 0)
        door_say(device, "%s is over it", block);
    return r;
}

const struct door door_fuse = {.name = "fuse", .up = up, .down = down};
