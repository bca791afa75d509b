/*
 * swap.c: swapon and swapoff, by their system calls: an errno says more than a program's exit code.
 *
 * The kernel makes whoever calls swapoff the first to be killed when memory runs out, but not the last
 * (Linux 6.1 went on to deadlock a guest). So a child does it, and we watch: what is not going to fit is
 * stopped while there is RAM left. Swap is then on again, and nobody was killed.
 */
#include "client/cli/swap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/cli/cgroup.h"
#include "client/cli/program.h"
#include "common/parse.h"

#define LOOK_US 5000
#define SHOW_LOOKS 40 /* a line on the terminal, once in so many looks */

/* RAM that swapoff leaves: this part of all, and no more than that. A host brings back a GB/s at most,
 * a hundredth of which is what may come between two looks. */
#define SPARE_PART 32
#define SPARE_MOST (512ull << 20)

#ifndef SWAP_FLAG_DISCARD
#define SWAP_FLAG_DISCARD 0x10000
#endif

/* ---- on ---- */

/* The mark ends the first page, whatever the host's pages are. */
static int is_marked(const char *device)
{
    char mark[10];
    long page = sysconf(_SC_PAGESIZE);
    int fd = open(device, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return 0;
    int marked = pread(fd, mark, sizeof mark, page - (long)sizeof mark) == sizeof mark &&
                 memcmp(mark, "SWAPSPACE2", sizeof mark) == 0;
    close(fd);
    return marked;
}

int swap_make(const char *device, int stored, struct fsw_error *err)
{
    char path[HOST_BLOCK], output[PROGRAM_OUTPUT];
    char *argv[] = {"mkswap", path, NULL};

    if (stored && !is_marked(device))
        return fsw_error(err, -EEXIST,
                         "it holds pages that are not swap: mkswap would destroy them. If they "
                         "may go, `farswap destroy` it first");
    snprintf(path, sizeof path, "%s", device);
    return program_must(argv, output, err);
}

int swap_on(const char *device, int priority, struct fsw_error *err)
{
    int flags = SWAP_FLAG_DISCARD | SWAP_FLAG_PREFER |
                ((priority << SWAP_FLAG_PRIO_SHIFT) & SWAP_FLAG_PRIO_MASK);

    if (swapon(device, flags) == 0)
        return 0;
    int error = errno;
    const char *hint = error == EPERM    ? " (it needs CAP_SYS_ADMIN in the host's user namespace, "
                                           "and the kernel takes some 30 swaps)"
                       : error == EINVAL ? " (mkswap's mark is not there, or damaged)"
                       : error == ENOMEM ? " (no memory for its tables)"
                                         : "";
    return fsw_error(err, -error, "swapon %s: %s%s", device, strerror(error), hint);
}

/* ---- off ---- */

/* Bytes that would find no place; our own memory that comes free meanwhile is not counted on. */
static uint64_t missing(const struct host_swap *swap, uint64_t *ret_available)
{
    uint64_t elsewhere = host_swap_elsewhere(swap->path);

    *ret_available = 0;
    host_field("/proc/meminfo", "MemAvailable", ret_available);
    uint64_t room = *ret_available + elsewhere;
    return swap->used > room ? swap->used - room : 0;
}

static int refuse_cgroup(const struct cgroup_short *lacks, const char *why, struct fsw_error *err)
{
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT], c[FSW_SIZE_TEXT], others[64] = "";

    if (lacks->others > 0)
        snprintf(others, sizeof others, ", and of %u others", lacks->others);
    return fsw_error(err, -ENOMEM,
                     "%s: %s would come back to a memory cgroup that has room for %s, and the "
                     "kernel would kill its processes. Everything stays up: raise %.300s by %s%s, "
                     "then do it again",
                     why, fsw_format_size(lacks->swapped, a), fsw_format_size(lacks->room, b),
                     lacks->limit, fsw_format_size(lacks->lack, c), others);
}

static int refuse(const struct host_swap *swap, int code, const char *why, struct fsw_error *err)
{
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT], c[FSW_SIZE_TEXT];
    uint64_t available, lack = missing(swap, &available);
    struct cgroup_short lacks;

    if (lack == 0 && cgroup_find_short(swap->used, host_swap_elsewhere(swap->path), &lacks))
        return refuse_cgroup(&lacks, why, err);
    fsw_format_size(swap->used, a);
    fsw_format_size(available, b);
    if (lack == 0)
        return fsw_error(err, code,
                         "%s: %s are swapped out, %s of RAM are available, enough by now. "
                         "Everything stays up: do it again",
                         why, a, b);
    return fsw_error(err, code,
                     "%s: %s are swapped out, %s of RAM are available, %s more are needed. "
                     "Everything stays up: free RAM (or add other swap), then do it again",
                     why, a, b, fsw_format_size(lack, c));
}

/* 1: to begin would end in a refusal, or in processes that are killed. */
static int is_hopeless(const struct host_swap *swap)
{
    uint64_t available;
    struct cgroup_short lacks;

    return missing(swap, &available) > 0 ||
           cgroup_find_short(swap->used, host_swap_elsewhere(swap->path), &lacks);
}

/* What is still to come will not fit, and there is hardly any RAM left: whoever went on would meet
 * the kernel's OOM killer, which takes others, too. */
static int runs_short(const char *device)
{
    struct host_swap now;
    uint64_t available, total = 0;

    if (!host_swap_on(device, &now) || missing(&now, &available) == 0)
        return 0;
    host_field("/proc/meminfo", "MemTotal", &total);
    uint64_t spare = total / SPARE_PART;
    return available < (spare < SPARE_MOST ? spare : SPARE_MOST);
}

static void show(const char *device)
{
    char left[FSW_SIZE_TEXT];
    struct host_swap swap;

    if (!host_swap_on(device, &swap))
        return;
    printf("\r\033[Kswapoff %s: %s left", device, fsw_format_size(swap.used, left));
    fflush(stdout);
}

/* ret_stopped: RAM ran short, and the child was ended. */
static int wait_for(pid_t child, const char *device, int *ret_stopped)
{
    int status, terminal = isatty(STDOUT_FILENO);

    *ret_stopped = 0;
    for (unsigned looks = 1; waitpid(child, &status, WNOHANG) == 0; looks++) {
        usleep(LOOK_US);
        if (!*ret_stopped && runs_short(device)) {
            *ret_stopped = 1;
            kill(child, SIGKILL);
        }
        if (terminal && looks % SHOW_LOOKS == 1)
            show(device);
    }
    if (terminal)
        printf("\r\033[K");
    return status;
}

static pid_t begin(const char *device)
{
    fflush(NULL);
    pid_t child = fork();

    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        _exit(swapoff(device) < 0 ? errno : 0);
    }
    return child;
}

/* Ctrl-C ends the child alone: the kernel then leaves swap on, and we say so. */
static int run_child(const char *device, int *ret_status, int *ret_stopped)
{
    void (*interrupt)(int) = signal(SIGINT, SIG_IGN), (*term)(int) = signal(SIGTERM, SIG_IGN);
    pid_t child = begin(device);
    int r = child < 0 ? -errno : 0;

    if (r == 0)
        *ret_status = wait_for(child, device, ret_stopped);
    signal(SIGINT, interrupt);
    signal(SIGTERM, term);
    return r;
}

int swap_off(const struct host_swap *swap, int force, struct fsw_error *err)
{
    struct host_swap now = *swap;
    int status = 0, stopped = 0;

    if (runs_short(swap->path) || (!force && is_hopeless(swap)))
        return refuse(swap, -ENOMEM, "swapoff can't end", err);
    /* We watch it when RAM is short, and must not wait for RAM then. */
    mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
    int r = run_child(swap->path, &status, &stopped);
    munlockall();
    if (r < 0)
        return fsw_error(err, r, "fork: %s", strerror(-r));
    if (!host_swap_on(swap->path, &now))
        return 0;
    if (stopped)
        return refuse(&now, -ENOMEM, "swapoff was stopped before RAM ran out", err);
    if (WIFSIGNALED(status))
        return refuse(&now, -EINTR, "swapoff was interrupted", err);
    int error = WEXITSTATUS(status);
    if (error == EPERM)
        return fsw_error(err, -EPERM, "swapoff %s: it needs CAP_SYS_ADMIN", swap->path);
    return refuse(&now, error == 0 ? -EAGAIN : -error, strerror(error == 0 ? EAGAIN : error), err);
}
