/*
 * hoard: a program that wants more memory than it gets, and looks at every byte that comes back.
 *
 *     hoard --size 400M [--seed N] [--rounds N] [--until FILE] [--same PERCENT] [--sparse PERCENT]
 *           [--report FILE] [--stall MS] [--hold FIFO]
 *
 * It fills anonymous memory with pages of pattern.c, then touches them: at random, then in order,
 * verifying each page before it rewrites some under a new version, and at last verifies all of them
 * backwards. Run in a memory cgroup smaller than its size, most touches come from swap; those are
 * the ones it times (a touch counts if the kernel counted a major fault during it).
 *
 * With --until it goes on with such rounds, however many, until there is such a file, and then looks
 * at all pages once more.
 *
 * With --stall it says at once, on stdout, of each touch that took that long when it began (in the
 * uptime) and how long it took: "stall at 12.34 s for 567 ms". That is what a user of the host sees.
 *
 * With --hold it then keeps its memory until a writer of the FIFO has come and gone: time to look
 * at the device's gauges.
 *
 * What it leaves to whom: who limits its memory (scripts/lib/cgroup.sh), what it swaps on, and what
 * the device itself counted. Swap-in and swap-out rates are the host's (/proc/vmstat) over a phase.
 *
 * Exit status: 0 all pages right, 1 a page was wrong (said on stderr), 2 usage, 3 no memory.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/parse.h"
#include "latency.h"
#include "pattern.h"

#define PAGE FSW_PATTERN_PAGE
#define WRONG_SHOWN 10
#define REDRAW_NS 200000000u

struct hoard {
    unsigned char *memory;
    uint32_t *versions; /* one a page, locked: what is in `memory` may be lost, this may not */
    uint32_t pages;
    uint64_t seed, random;
    const char *until;
    uint64_t wrong;
    uint64_t stall_ns; /* 0: nothing is said of stalls */
    struct fsw_latency faults;
};

struct phase {
    const char *name;
    uint32_t (*pick)(struct hoard *hoard, uint32_t step); /* which page at this step */
    int rewrite_one_in;                                   /* 0: never */
    int verify;
    uint64_t done_ns, in_bytes, out_bytes; /* what it took, and the host's swap traffic meanwhile */
};

static _Alignas(8) unsigned char scratch[PAGE];

static uint64_t draw(struct hoard *hoard)
{
    uint64_t x = hoard->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return hoard->random = x;
}

static uint32_t pick_up(struct hoard *hoard, uint32_t step)
{
    return step;
}

static uint32_t pick_down(struct hoard *hoard, uint32_t step)
{
    return hoard->pages - 1 - step;
}

static uint32_t pick_random(struct hoard *hoard, uint32_t step)
{
    return (draw(hoard) >> 16) % hoard->pages;
}

static uint64_t major_faults(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_majflt : 0;
}

/* Reads one byte of the page, and counts the time if that came from swap. */
static void touch(struct hoard *hoard, const unsigned char *page)
{
    uint64_t faults = major_faults(), start = fsw_now_ns(), ns;

    (void)*(const volatile unsigned char *)page;
    ns = fsw_now_ns() - start;
    if (major_faults() != faults)
        fsw_latency_add(&hoard->faults, ns);
}

static void verify(struct hoard *hoard, uint32_t number)
{
    const unsigned char *page = hoard->memory + (size_t)number * PAGE;
    uint32_t version = hoard->versions[number];
    char text[FSW_PATTERN_TEXT];

    touch(hoard, page);
    if (fsw_pattern_matches(page, scratch, hoard->seed, number, version))
        return;
    if (hoard->wrong++ < WRONG_SHOWN)
        fprintf(stderr, "\nhoard: WRONG PAGE: %s\n",
                fsw_pattern_explain(text, page, scratch, hoard->seed, number, version));
}

static void rewrite(struct hoard *hoard, uint32_t number)
{
    uint32_t version = ++hoard->versions[number];

    fsw_pattern_fill(hoard->memory + (size_t)number * PAGE, hoard->seed, number, version);
}

/* Bytes that the host swapped in and out so far. */
static void swap_traffic(uint64_t *ret_in, uint64_t *ret_out)
{
    char name[64];
    uint64_t value;
    FILE *file = fopen("/proc/vmstat", "re");

    *ret_in = *ret_out = 0;
    if (!file)
        return;
    while (fscanf(file, "%63s %" SCNu64, name, &value) == 2) {
        if (strcmp(name, "pswpin") == 0)
            *ret_in = value * (uint64_t)sysconf(_SC_PAGESIZE);
        else if (strcmp(name, "pswpout") == 0)
            *ret_out = value * (uint64_t)sysconf(_SC_PAGESIZE);
    }
    fclose(file);
}

static double mib_per_second(uint64_t bytes, uint64_t ns)
{
    return ns ? (double)bytes / 1048576 / ((double)ns / 1e9) : 0;
}

static void show_progress(const struct hoard *hoard, const struct phase *phase, uint32_t step)
{
    static uint64_t last;
    uint64_t now = fsw_now_ns();

    if (now - last < REDRAW_NS || !isatty(STDERR_FILENO))
        return;
    last = now;
    fprintf(stderr, "\r  %-24s %3u %%  (%" PRIu64 " pages came from swap) ", phase->name,
            (unsigned)(100ull * step / hoard->pages), hoard->faults.count);
}

/* Told to come to an end (--until). Filling and the last look are never cut short. */
static int is_over(const struct hoard *hoard, const struct phase *phase, uint32_t step)
{
    return hoard->until != NULL && phase->verify && phase->rewrite_one_in > 0 && step % 256 == 0 &&
           access(hoard->until, F_OK) == 0;
}

static void step_on(struct hoard *hoard, const struct phase *phase, uint32_t number)
{
    uint64_t start = fsw_now_ns();

    if (phase->verify)
        verify(hoard, number);
    if (phase->rewrite_one_in && draw(hoard) % phase->rewrite_one_in == 0)
        rewrite(hoard, number);
    uint64_t took = fsw_now_ns() - start;
    if (hoard->stall_ns != 0 && took >= hoard->stall_ns)
        printf("stall at %.2f s for %.0f ms\n", (double)start / 1e9, (double)took / 1e6);
}

static void run_phase(struct hoard *hoard, struct phase *phase)
{
    uint64_t start = fsw_now_ns(), in, out, in_end, out_end, wrong = hoard->wrong;

    swap_traffic(&in, &out);
    for (uint32_t step = 0; step < hoard->pages && !is_over(hoard, phase, step); step++) {
        step_on(hoard, phase, phase->pick(hoard, step));
        if (step % 256 == 0)
            show_progress(hoard, phase, step);
    }
    swap_traffic(&in_end, &out_end);
    phase->done_ns = fsw_now_ns() - start;
    phase->in_bytes = in_end - in;
    phase->out_bytes = out_end - out;
    fprintf(stderr, "%s  %-24s %5.1f s, out %4.0f MiB/s, in %4.0f MiB/s, %" PRIu64 " wrong\n",
            isatty(STDERR_FILENO) ? "\r" : "", phase->name, (double)phase->done_ns / 1e9,
            mib_per_second(phase->out_bytes, phase->done_ns),
            mib_per_second(phase->in_bytes, phase->done_ns), hoard->wrong - wrong);
}

static void report(FILE *file, const struct hoard *hoard, const struct phase *fill,
                   const struct phase *touches)
{
    const struct fsw_latency *faults = &hoard->faults;

    fprintf(file, "pages %u\n", hoard->pages);
    fprintf(file, "wrong_pages %" PRIu64 "\n", hoard->wrong);
    fprintf(file, "swap_out_mib_per_second %.0f\n", mib_per_second(fill->out_bytes, fill->done_ns));
    fprintf(file, "swap_in_mib_per_second %.0f\n",
            mib_per_second(touches->in_bytes, touches->done_ns));
    fprintf(file, "faults %" PRIu64 "\n", faults->count);
    fprintf(file, "fault_p50_us %.0f\n", (double)fsw_latency_percentile(faults, 0.5) / 1000);
    fprintf(file, "fault_p99_us %.0f\n", (double)fsw_latency_percentile(faults, 0.99) / 1000);
    fprintf(file, "fault_p999_us %.0f\n", (double)fsw_latency_percentile(faults, 0.999) / 1000);
    fprintf(file, "fault_max_us %.0f\n", (double)faults->max / 1000);
}

static int hoard_init(struct hoard *hoard, uint64_t size, uint64_t seed)
{
    size_t bytes = size / PAGE * PAGE;

    hoard->pages = size / PAGE;
    hoard->seed = seed;
    hoard->random = seed | 1;
    hoard->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    hoard->versions = calloc(hoard->pages, sizeof(*hoard->versions));
    if (hoard->memory == MAP_FAILED || !hoard->versions)
        return -ENOMEM;
    /* a huge page would be split at the first swap-out, and time something else */
    madvise(hoard->memory, bytes, MADV_NOHUGEPAGE);
    /* best effort: without CAP_IPC_LOCK a lost page of versions shows as wrong pages all the same
     */
    if (mlock(hoard->versions, hoard->pages * sizeof(*hoard->versions)) < 0)
        fprintf(stderr, "hoard: version table not locked: %s\n", strerror(errno));
    return 0;
}

static int run(struct hoard *hoard, unsigned rounds, const char *report_path)
{
    struct phase fill = {.name = "fill", .pick = pick_up, .rewrite_one_in = 1};
    struct phase at_random = {
        .name = "touch at random", .pick = pick_random, .rewrite_one_in = 3, .verify = 1};
    struct phase in_order = {
        .name = "touch in order", .pick = pick_up, .rewrite_one_in = 4, .verify = 1};
    struct phase backwards = {.name = "verify all, backwards", .pick = pick_down, .verify = 1};
    FILE *file = stdout;

    run_phase(hoard, &fill);
    for (unsigned round = 0; hoard->until ? access(hoard->until, F_OK) != 0 : round < rounds;
         round++) {
        run_phase(hoard, &at_random);
        run_phase(hoard, &in_order);
    }
    run_phase(hoard, &backwards);
    if (report_path && !(file = fopen(report_path, "we"))) {
        fprintf(stderr, "hoard: %s: %s\n", report_path, strerror(errno));
        return 3;
    }
    report(file, hoard, &fill, &backwards);
    if (report_path)
        fclose(file);
    if (hoard->wrong)
        fprintf(stderr, "hoard: %" PRIu64 " WRONG PAGES of %u (seed %" PRIu64 ")\n", hoard->wrong,
                hoard->pages, hoard->seed);
    return hoard->wrong ? 1 : 0;
}

static void hold(const char *fifo)
{
    char byte;
    FILE *file = fopen(fifo, "re"); /* waits for a writer */

    if (!file) {
        fprintf(stderr, "hoard: %s: %s\n", fifo, strerror(errno));
        return;
    }
    while (fread(&byte, 1, 1, file) == 1)
        ;
    fclose(file);
}

static int usage(FILE *file, int status)
{
    fputs("usage: hoard --size BYTES [--seed N] [--rounds N] [--until FILE] [--same PERCENT]\n"
          "             [--sparse PERCENT] [--report FILE] [--stall MS] [--hold FIFO]\n",
          file);
    return status;
}

static const struct option options[] = {
    {"size", required_argument, NULL, 's'},
    {"seed", required_argument, NULL, 'e'},
    {"rounds", required_argument, NULL, 'r'},
    {"until", required_argument, NULL, 'u'},
    {"same", required_argument, NULL, 'm'},
    {"sparse", required_argument, NULL, 'p'},
    {"report", required_argument, NULL, 'o'},
    {"stall", required_argument, NULL, 'l'},
    {"hold", required_argument, NULL, 'w'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

int main(int argc, char **argv)
{
    static struct hoard hoard;
    uint64_t size = 0, seed = fsw_now_ns() ^ (uint64_t)getpid() << 40, rounds = 1;
    const char *report_path = NULL, *fifo = NULL;
    uint64_t same = 0, sparse = 0, stall_ms = 0;
    int option, status, bad = 0;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            bad |= fsw_parse_size(optarg, &size);
        else if (option == 'e')
            bad |= fsw_parse_u64(optarg, 0, UINT64_MAX, &seed);
        else if (option == 'r')
            bad |= fsw_parse_u64(optarg, 1, 1000, &rounds);
        else if (option == 'u')
            hoard.until = optarg;
        else if (option == 'm')
            bad |= fsw_parse_u64(optarg, 0, 100, &same);
        else if (option == 'p')
            bad |= fsw_parse_u64(optarg, 0, 100, &sparse);
        else if (option == 'o')
            report_path = optarg;
        else if (option == 'l')
            bad |= fsw_parse_u64(optarg, 1, 3600000, &stall_ms);
        else if (option == 'w')
            fifo = optarg;
        else
            return option == 'h' ? usage(stdout, 0) : usage(stderr, 2);
    }
    if (bad || optind != argc || size < PAGE || size / PAGE > UINT32_MAX)
        return usage(stderr, 2);
    hoard.stall_ns = stall_ms * FSW_NS_PER_MS;
    fsw_pattern_more_same((unsigned)same);
    fsw_pattern_sparse((unsigned)sparse);
    if (hoard_init(&hoard, size, seed) < 0) {
        fprintf(stderr, "hoard: no memory for %" PRIu64 " bytes\n", size);
        return 3;
    }
    fprintf(stderr, "hoard: %u pages, seed %" PRIu64 "\n", hoard.pages, seed);
    status = run(&hoard, rounds, report_path);
    if (fifo)
        hold(fifo);
    return status;
}
