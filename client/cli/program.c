/*
 * program.c: posix_spawn, and what is printed into a pipe or a log.
 */
#include "client/cli/program.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

#define RUN_S 60
#define KEPT_FD 3

extern char **environ;

/* ---- where they are ---- */

/* PATH as a user's may lack the folders of mkswap and modprobe. */
static int look_in_path(const char *name, char path[PATH_MAX])
{
    const char *folders = getenv("PATH");
    char all[8192];

    snprintf(all, sizeof all, "%s:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
             folders != NULL ? folders : "");
    for (char *rest = all, *folder; (folder = strsep(&rest, ":")) != NULL;) {
        snprintf(path, PATH_MAX, "%s/%s", folder, name);
        if (folder[0] == '/' && access(path, X_OK) == 0)
            return 1;
    }
    return 0;
}

int program_find(const char *name, const char *room, char path[PATH_MAX], struct fsw_error *err)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) {
        *slash = '\0';
        if (snprintf(path, PATH_MAX, "%s/%s", self, name) < PATH_MAX && access(path, X_OK) == 0)
            return 0;
        if (snprintf(path, PATH_MAX, "%s/../%s/%s", self, room, name) < PATH_MAX &&
            access(path, X_OK) == 0)
            return 0;
    }
    if (look_in_path(name, path))
        return 0;
    return fsw_error(err, -ENOENT, "%s is neither beside this program (%s) nor in PATH: install it",
                     name, self);
}

/* ---- to the end ---- */

/* Signals as a fresh process has them. */
static int spawn(const char *path, char *const argv[], posix_spawn_file_actions_t *files, short how,
                 pid_t *ret_pid)
{
    posix_spawnattr_t attributes;
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes,
                             (short)(how | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF));
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    int r = posix_spawn(ret_pid, path, files, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    return -r;
}

static int spawn_into(const char *path, char *const argv[], int output, pid_t *ret_pid)
{
    posix_spawn_file_actions_t files;

    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, output, STDERR_FILENO);
    int r = spawn(path, argv, &files, 0, ret_pid);
    posix_spawn_file_actions_destroy(&files);
    return r;
}

/* All that comes until the end of the pipe; what does not fit is read and dropped. 0: in time. */
static int drain(int fd, char output[PROGRAM_OUTPUT])
{
    uint64_t deadline = fsw_now_ns() + RUN_S * FSW_NS_PER_S;
    char block[512];
    size_t used = 0;
    ssize_t n = 1;

    while (n > 0 && fsw_now_ns() < deadline) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, 1000) <= 0)
            continue;
        n = read(fd, block, sizeof block);
        for (ssize_t i = 0; i < n && used < PROGRAM_OUTPUT - 1; i++)
            output[used++] = block[i];
    }
    while (used > 0 && output[used - 1] == '\n')
        used--;
    output[used] = '\0';
    return n <= 0 ? 0 : -ETIMEDOUT;
}

int program_run(char *const argv[], char output[PROGRAM_OUTPUT])
{
    char path[PATH_MAX];
    int ends[2], status = 0;
    pid_t pid;

    output[0] = '\0';
    if (strchr(argv[0], '/') != NULL)
        snprintf(path, sizeof path, "%s", argv[0]);
    else if (!look_in_path(argv[0], path))
        return -ENOENT;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    int r = spawn_into(path, argv, ends[1], &pid);
    close(ends[1]);
    if (r == 0) {
        r = drain(ends[0], output);
        if (r < 0)
            kill(pid, SIGKILL);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    close(ends[0]);
    return r < 0 ? r : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int program_must(char *const argv[], char output[PROGRAM_OUTPUT], struct fsw_error *err)
{
    int r = program_run(argv, output);

    if (r == 0)
        return 0;
    if (r == -ENOENT)
        return fsw_error(err, r, "there is no %s: install it (util-linux)", argv[0]);
    if (r < 0)
        return fsw_error(err, r, "%s: %s", argv[0], strerror(-r));
    const char *last = strrchr(output, '\n');
    return fsw_error(err, -EIO, "%s ended with %d: %s", argv[0], r,
                     last != NULL ? last + 1 : output);
}

/* ---- for as long as it lives ---- */

int program_start(const char *path, char *const argv[], const char *log, int keep_fd,
                  pid_t *ret_pid, struct fsw_error *err)
{
    posix_spawn_file_actions_t files;

    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log,
                                     O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    if (keep_fd >= 0)
        posix_spawn_file_actions_adddup2(&files, keep_fd, KEPT_FD);
    posix_spawn_file_actions_addclosefrom_np(&files, keep_fd >= 0 ? KEPT_FD + 1 : KEPT_FD);
    int r = spawn(path, argv, &files, POSIX_SPAWN_SETSID, ret_pid);
    posix_spawn_file_actions_destroy(&files);
    return r < 0 ? fsw_error(err, r, "starting %s with its log in %s: %s", path, log, strerror(-r))
                 : 0;
}

/* Its descriptor of that file, or -1. */
static int find_open(pid_t pid, const char *path)
{
    char folder[64], link[PATH_MAX], target[PATH_MAX];
    struct dirent *entry;
    int found = -1;

    snprintf(folder, sizeof folder, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(folder);
    while (dir != NULL && found < 0 && (entry = readdir(dir)) != NULL) {
        snprintf(link, sizeof link, "%s/%s", folder, entry->d_name);
        ssize_t n = readlink(link, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = '\0';
        if (strcmp(target, path) == 0)
            found = atoi(entry->d_name);
    }
    if (dir != NULL)
        closedir(dir);
    return found;
}

int program_borrow(pid_t pid, const char *path)
{
    int pidfd = pidfd_open(pid, 0), theirs = find_open(pid, path), fd = -1;

    if (pidfd < 0)
        return -errno;
    if (theirs >= 0)
        fd = pidfd_getfd(pidfd, theirs, 0);
    int error = theirs < 0 ? ENOENT : errno;
    close(pidfd);
    return fd < 0 ? -error : fd;
}

void program_kill_holders(const char *path)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int pid = atoi(entry->d_name);
        if (pid > 0 && pid != getpid() && find_open(pid, path) >= 0)
            kill(pid, SIGKILL);
    }
    if (dir != NULL)
        closedir(dir);
}

int program_ended(pid_t pid)
{
    return pid > 0 && waitpid(pid, NULL, WNOHANG) == pid;
}

void program_log_tail(const char *log, char text[256])
{
    char line[256];
    FILE *file = fopen(log, "re");

    snprintf(text, 256, "it said nothing (%s)", log);
    if (file == NULL)
        return;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0')
            memcpy(text, line, sizeof line);
    }
    fclose(file);
}
