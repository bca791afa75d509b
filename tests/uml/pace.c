/*
 * pace: how long a small read of a block device takes, over and over, as swap would feel it.
 *
 *     pace DEVICE OFFSET EVERY_MS STALL_MS FILE
 *
 * Reads the 4 KiB at OFFSET with O_DIRECT, every EVERY_MS, until there is a FILE. Each read that takes
 * STALL_MS or longer is told at once, with the uptime at which it began; at the end all are summed
 * up. Locked in memory, since the device may be the swap. Exit status 1: a read failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"

#define BYTES 4096

static _Alignas(BYTES) unsigned char buffer[BYTES];

struct pace {
    uint64_t reads, stalls, stalled_ns, longest_ns;
};

static uint64_t in_ms(uint64_t ns)
{
    return ns / FSW_NS_PER_MS;
}

static void note(struct pace *pace, uint64_t start, uint64_t stall_ns)
{
    uint64_t took = fsw_now_ns() - start;

    pace->reads++;
    if (took > pace->longest_ns)
        pace->longest_ns = took;
    if (took < stall_ns)
        return;
    pace->stalls++;
    pace->stalled_ns += took;
    printf("stall at %.2f s for %" PRIu64 " ms\n", (double)start / 1e9, in_ms(took));
}

int main(int argc, char **argv)
{
    struct pace pace = {0};

    if (argc != 6) {
        fputs("usage: pace DEVICE OFFSET EVERY_MS STALL_MS FILE\n", stderr);
        return 2;
    }
    off_t offset = strtoll(argv[2], NULL, 0);
    useconds_t every = (useconds_t)strtoul(argv[3], NULL, 0) * 1000;
    uint64_t stall_ns = strtoull(argv[4], NULL, 0) * FSW_NS_PER_MS;
    int fd = open(argv[1], O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0 || mlockall(MCL_CURRENT | MCL_FUTURE) < 0) {
        fprintf(stderr, "pace: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (access(argv[5], F_OK) < 0) {
        uint64_t start = fsw_now_ns();
        if (pread(fd, buffer, BYTES, offset) != BYTES) {
            printf("a read failed: %s\n", strerror(errno));
            return 1;
        }
        note(&pace, start, stall_ns);
        usleep(every);
    }
    printf("pace_reads %" PRIu64 "\npace_stalls %" PRIu64 "\npace_stalled_ms %" PRIu64
           "\npace_longest_ms %" PRIu64 "\n",
           pace.reads, pace.stalls, in_ms(pace.stalled_ns), in_ms(pace.longest_ns));
    return 0;
}
