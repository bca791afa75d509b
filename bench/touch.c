/*
 * touch: a program whose time is spent in page faults: what a swap device costs who waits for it.
 *
 *     touch --size 400M --seed N [--report FILE]
 *
 * It fills anonymous memory, then touches pages at random (a third of them is rewritten), then all
 * in order, and compares every page that it touched: each is one of VARIANTS prepared pages of
 * words, which lz4 makes some 2.5 times smaller, with its number and version stamped on it. So what
 * it does itself is a memcpy or memcmp a page; tests/swap/hoard is the one that looks harder.
 *
 * The first access to a page is timed; if the kernel counted a fault during it, that time was spent
 * in a fault. Reports seconds, those of them in faults, and how many faults (major, and all).
 *
 * Exit status: 0 all pages right, 1 a page was wrong, 2 usage, 3 no memory.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/parse.h"

#define PAGE 4096u
#define VARIANTS 256u

struct stamp {
    uint64_t seed;
    uint32_t number, version;
};

struct run {
    char *memory;
    uint32_t *versions;
    uint32_t pages;
    uint64_t seed, random;
    uint64_t fault_ns, faults, major, wrong;
};

static _Alignas(8) char variants[VARIANTS][PAGE];

static uint64_t draw(struct run *run)
{
    run->random ^= run->random << 13;
    run->random ^= run->random >> 7;
    run->random ^= run->random << 17;
    return run->random;
}

/* Words of a vocabulary, between numbers: text and binary, as heaps have them. */
static void make_variants(struct run *run)
{
    static const char *const words[] = {
        "address", "buffer ", "counter", "device ", "entry  ", "frame  ", "granted", "handler",
        "index  ", "journal", "kernel ", "length ", "memory ", "number ", "object ", "pointer"};

    for (unsigned v = 0; v < VARIANTS; v++)
        for (unsigned at = 0; at < PAGE; at += 8) {
            uint64_t value = draw(run);
            if (value >> 61 < 2) /* a quarter is random */
                memcpy(variants[v] + at, &value, 8);
            else
                memcpy(variants[v] + at, words[value % 16], 8);
        }
}

/* The first access. */
static void touch(struct run *run, char *page, int write)
{
    struct rusage before, after;
    uint64_t start;

    getrusage(RUSAGE_SELF, &before);
    start = fsw_now_ns();
    if (write)
        *(volatile char *)page = 0;
    else
        (void)*(volatile char *)page;
    start = fsw_now_ns() - start;
    getrusage(RUSAGE_SELF, &after);
    uint64_t major = (uint64_t)(after.ru_majflt - before.ru_majflt);
    uint64_t faults = major + (uint64_t)(after.ru_minflt - before.ru_minflt);
    if (faults > 0) {
        run->fault_ns += start;
        run->faults += faults;
        run->major += major;
    }
}

static void fill(struct run *run, uint32_t number)
{
    struct stamp stamp = {run->seed, number, ++run->versions[number]};
    char *page = run->memory + (size_t)number * PAGE;

    memcpy(page, variants[number % VARIANTS], PAGE);
    memcpy(page, &stamp, sizeof stamp);
}

static void compare(struct run *run, uint32_t number)
{
    struct stamp stamp = {run->seed, number, run->versions[number]};
    const char *page = run->memory + (size_t)number * PAGE;

    if (memcmp(page, &stamp, sizeof stamp) == 0 &&
        memcmp(page + sizeof stamp, variants[number % VARIANTS] + sizeof stamp,
               PAGE - sizeof stamp) == 0)
        return;
    if (run->wrong++ < 10)
        fprintf(stderr, "touch: WRONG PAGE %u (seed %" PRIu64 ")\n", number, run->seed);
}

static void work(struct run *run)
{
    for (uint32_t i = 0; i < run->pages; i++) {
        touch(run, run->memory + (size_t)i * PAGE, 1);
        fill(run, i);
    }
    for (uint32_t i = 0; i < 2 * run->pages; i++) {
        int in_order = i >= run->pages;
        uint32_t number = in_order ? i - run->pages : (uint32_t)((draw(run) >> 16) % run->pages);
        touch(run, run->memory + (size_t)number * PAGE, 0);
        compare(run, number);
        if (!in_order && draw(run) % 3 == 0)
            fill(run, number);
    }
}

static int start(struct run *run, uint64_t size, uint64_t seed)
{
    run->pages = (uint32_t)(size / PAGE);
    run->seed = seed;
    run->random = seed * 2 + 1;
    run->memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    run->versions = calloc(run->pages, sizeof *run->versions);
    if (run->memory == MAP_FAILED || run->versions == NULL)
        return -ENOMEM;
    madvise(run->memory, size, MADV_NOHUGEPAGE);
    make_variants(run);
    /* What it works with must not come from swap itself. */
    if (mlock(run->versions, run->pages * sizeof *run->versions) < 0 ||
        mlock(variants, sizeof variants) < 0)
        fprintf(stderr, "touch: tables not locked: %s\n", strerror(errno));
    return 0;
}

static int usage(void)
{
    fputs("usage: touch --size BYTES --seed N [--report FILE]\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"size", required_argument, NULL, 's'},
                                            {"seed", required_argument, NULL, 'e'},
                                            {"report", required_argument, NULL, 'o'},
                                            {NULL, 0, NULL, 0}};
    static struct run run;
    uint64_t size = 0, seed = 0;
    const char *path = NULL;
    int option, bad = 0;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            bad |= fsw_parse_size(optarg, &size);
        else if (option == 'e')
            bad |= fsw_parse_u64(optarg, 1, UINT64_MAX, &seed);
        else if (option == 'o')
            path = optarg;
        else
            bad = 1;
    }
    if (bad || optind != argc || size < PAGE || size / PAGE > UINT32_MAX / 2 || seed == 0)
        return usage();
    if (start(&run, size, seed) < 0) {
        fprintf(stderr, "touch: no memory for %" PRIu64 " bytes\n", size);
        return 3;
    }
    uint64_t begin = fsw_now_ns();
    work(&run);
    uint64_t took = fsw_now_ns() - begin;
    FILE *file = path != NULL ? fopen(path, "we") : stdout;
    if (file == NULL) {
        fprintf(stderr, "touch: %s: %s\n", path, strerror(errno));
        return 3;
    }
    fprintf(file,
            "seconds %.3f\nfault_seconds %.3f\nfaults %" PRIu64 "\nmajor %" PRIu64
            "\nwrong %" PRIu64 "\n",
            (double)took / 1e9, (double)run.fault_ns / 1e9, run.faults, run.major, run.wrong);
    if (path != NULL)
        fclose(file);
    return run.wrong > 0;
}
