/*
 * engine.c: what the engine itself costs, without any front door: CPU time of one thread for random
 * 4 KiB writes and reads of a full device.
 *
 *      build/bench/engine [COMPRESSIBLE_PERCENT [SIZE_MIB [ROUNDS]]]
 *
 * Pages are like fio's with buffer_compress_percentage: random bytes, then a zero tail; with 0
 * words of text. Thread CPU time, so that a busy machine shows less.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "farswap/device.h"

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A pool of pages to write, so that making them is not what is measured. */
#define VARIANTS 4096u

static char *make_pages(unsigned percent)
{
    static const char *const words[] = {"swap ",   "page ",   "pool ", "frame ",
                                        "object ", "zspage ", "store "};
    char *pages = malloc((size_t)VARIANTS * FSW_PAGE_SIZE);
    uint64_t random = 88172645463325252ull;

    for (unsigned v = 0; v < VARIANTS; v++) {
        char *page = pages + (size_t)v * FSW_PAGE_SIZE;
        size_t filled = FSW_PAGE_SIZE * (100 - percent) / 100, at = 0;
        memset(page, 0, FSW_PAGE_SIZE);
        while (at < filled) {
            uint64_t value = next_random(&random);
            const char *from = percent > 0 ? (const char *)&value : words[value % 7];
            size_t n = percent > 0 ? sizeof value : strlen(from);
            memcpy(page + at, from, n < filled - at ? n : filled - at);
            at += n;
        }
    }
    return pages;
}

int main(int argc, char **argv)
{
    unsigned percent = argc > 1 ? (unsigned)atoi(argv[1]) : 60;
    uint64_t size = (argc > 2 ? (uint64_t)atoi(argv[2]) : 512) << 20, random = 1;
    unsigned rounds = argc > 3 ? (unsigned)atoi(argv[3]) : 3;
    struct fsw_params params;
    struct fsw_device *device;
    struct fsw_error err = {""};
    char page[FSW_PAGE_SIZE], text[32];
    const char *codec = getenv("CODEC");

    fsw_params_init(&params);
    fsw_params_set(&params, "name", "bench-engine", &err);
    snprintf(text, sizeof text, "%llu", (unsigned long long)size);
    fsw_params_set(&params, "size", text, &err);
    if (codec != NULL && fsw_params_set(&params, "codec", codec, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    params.memory = size + (size >> 2) + (64u << 20);
    if (fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &device, &err) < 0 ||
        fsw_device_start(device, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    char *pages = make_pages(percent);
    uint64_t count = size / FSW_PAGE_SIZE, n = count * 2;
    for (uint64_t i = 0; i < count; i++)
        fsw_device_write(device, pages + i % VARIANTS * FSW_PAGE_SIZE, i * FSW_PAGE_SIZE,
                         FSW_PAGE_SIZE);
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t start = cpu_ns();
        for (uint64_t i = 0; i < n; i++)
            fsw_device_write(device, pages + next_random(&random) % VARIANTS * FSW_PAGE_SIZE,
                             next_random(&random) % count * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
        uint64_t middle = cpu_ns();
        for (uint64_t i = 0; i < n; i++)
            fsw_device_read(device, page, next_random(&random) % count * FSW_PAGE_SIZE,
                            FSW_PAGE_SIZE);
        printf("write %.0f ns, read %.0f ns a page\n", (double)(middle - start) / (double)n,
               (double)(cpu_ns() - middle) / (double)n);
    }
    free(pages);
    fsw_device_discard_image(device);
    return 0;
}
