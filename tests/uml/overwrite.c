/*
 * overwrite: the same pages again and again, to catch an old write that comes late.
 *
 *     overwrite DEVICE OFFSET WRITERS TIMEOUT FILE
 *
 * Each writer has one page, from OFFSET on, and writes versions of it one after the other with
 * O_DIRECT, the next when the last was acknowledged; now and then it reads the page back, which must
 * be the last version. A write that took about TIMEOUT seconds has been sent again: after it come a few
 * newer ones, and then only reads, for as long as its first copy may still be under way. Until there is
 * a FILE, and there were some writes. Sums up what all did. Exit status 1: a page was older, or torn, or
 * a request failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"

#define PAGE 4096u
#define WORDS (PAGE / sizeof(uint64_t))
#define READ_ONE_IN 8u
#define NEWER 3u
#define PAUSE_US 1000u /* between writes: the guest's one CPU has other things to do, too */
#define WATCH_EVERY_US 20000u
#define LEAST 1000u /* writes of all, also where the machine is slow */

struct sums {
    _Atomic uint64_t writes, reads, resent, wrong, longest_ns;
};

/* A write that takes longer was sent again, or its neighbour was; TCP, too, tries again every few
 * seconds after a cut of as many. */
static uint64_t long_ns, watch_ns;

static _Alignas(PAGE) uint64_t page[WORDS];

/* Returns how long it took. */
static uint64_t write_version(int fd, off_t offset, uint64_t version, struct sums *sums)
{
    uint64_t start = fsw_now_ns();

    for (size_t i = 0; i < WORDS; i++)
        page[i] = version;
    if (pwrite(fd, page, PAGE, offset) != PAGE) {
        printf("a write failed: %s\n", strerror(errno));
        exit(1);
    }
    uint64_t took = fsw_now_ns() - start;
    sums->writes++;
    if (took > sums->longest_ns)
        sums->longest_ns = took;
    return took;
}

static void expect_version(int fd, off_t offset, uint64_t version, struct sums *sums)
{
    if (pread(fd, page, PAGE, offset) != PAGE) {
        printf("a read failed: %s\n", strerror(errno));
        exit(1);
    }
    sums->reads++;
    for (size_t i = 0; i < WORDS; i++)
        if (page[i] != version) {
            printf("UNDONE: the page at %lld has version %" PRIu64 " in word %zu, not %" PRIu64
                   "\n",
                   (long long)offset, page[i], i, version);
            sums->wrong++;
            return;
        }
}

static void watch(int fd, off_t offset, uint64_t version, struct sums *sums)
{
    uint64_t end = fsw_now_ns() + watch_ns;

    while (fsw_now_ns() < end) {
        expect_version(fd, offset, version, sums);
        usleep(WATCH_EVERY_US);
    }
}

static void be_a_writer(const char *device, off_t offset, const char *until, struct sums *sums)
{
    int fd = open(device, O_RDWR | O_DIRECT | O_CLOEXEC);
    uint64_t version = 0;

    if (fd < 0) {
        printf("%s: %s\n", device, strerror(errno));
        exit(1);
    }
    while (access(until, F_OK) < 0 || sums->writes < LEAST) {
        uint64_t took = write_version(fd, offset, ++version, sums);
        if (took > long_ns) {
            sums->resent++;
            for (unsigned i = 0; i < NEWER; i++)
                write_version(fd, offset, ++version, sums);
            watch(fd, offset, version, sums);
        } else if (version % READ_ONE_IN == 0) {
            expect_version(fd, offset, version, sums);
        }
        usleep(PAUSE_US);
    }
    exit(0);
}

int main(int argc, char **argv)
{
    struct sums *sums =
        mmap(NULL, sizeof *sums, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status, bad = 0;

    if (argc != 6 || sums == MAP_FAILED) {
        fputs("usage: overwrite DEVICE OFFSET WRITERS TIMEOUT FILE\n", stderr);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    long_ns = strtoull(argv[4], NULL, 0) * FSW_NS_PER_S * 2 / 3;
    watch_ns = 3 * long_ns;
    unsigned writers = (unsigned)strtoul(argv[3], NULL, 0);
    for (unsigned i = 0; i < writers; i++)
        if (fork() == 0)
            be_a_writer(argv[1], strtoll(argv[2], NULL, 0) + i * (off_t)PAGE, argv[5], sums);
    while (wait(&status) > 0)
        bad |= status != 0;
    printf("overwrite_writes %" PRIu64 "\noverwrite_reads %" PRIu64 "\noverwrite_resent %" PRIu64
           "\noverwrite_wrong %" PRIu64 "\noverwrite_longest_ms %" PRIu64 "\n",
           sums->writes, sums->reads, sums->resent, sums->wrong,
           (uint64_t)(sums->longest_ns / FSW_NS_PER_MS));
    return bad || sums->wrong != 0;
}
