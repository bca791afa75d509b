/*
 * pages.c: files of captured pages, counted by their compressed size, or put onto a device.
 *
 *      pages sizes CODEC FILE...                  one line a size: bytes of payload, pages
 *      pages thresholds CODEC FILE...             the same for other huge thresholds: threshold first
 *      pages write TARGET FILE                    the file's pages, in order, from offset 0
 *      pages stir TARGET SEED TIMES FINAL OTHER...
 *                                                 every page of the device is overwritten TIMES
 *                                                 times, in random order, by pages drawn from the
 *                                                 OTHER files; FINAL gets what it then holds
 *      pages verify TARGET FILE                   every page compared
 *      pages discard TARGET SEED PERCENT          so many of its pages, one by one, at random
 *
 * TARGET: an NBD URI or a block device. The same seed makes the same sequence, so two devices can
 * be brought to the same contents by the same way.
 *
 * `sizes` packs each page as the engine does, so its figures are the engine's: zero pages are
 * listed as "zero", pages of one 32-bit word (which take no object) as "same".
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/target.h"
#include "core/codec/codec.h"
#include "core/object.h"

#define PART (32 * PAGE) /* as the kernel sends clusters */

struct set {
    const char *bytes;
    uint64_t pages;
};

static struct set map(const char *path)
{
    struct stat file;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &file) < 0 || file.st_size < PAGE)
        die("%s can't be read, or is shorter than a page", path);
    void *bytes = mmap(NULL, (size_t)file.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (bytes == MAP_FAILED)
        die("%s can't be mapped", path);
    close(fd);
    return (struct set){.bytes = bytes, .pages = (uint64_t)file.st_size / PAGE};
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);

    if (*text == '\0' || *end != '\0')
        die("%s is not a number", text);
    return value;
}

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- sizes ---- */

struct sizes {
    uint64_t of[PAGE + 1], zero, same;
};

struct packer {
    const struct fsw_codec *codec;
    uint8_t id;
    int level;
    void *state;
};

static void count(struct sizes *sizes, const char *page, const struct packer *packer)
{
    static _Alignas(64) char object[2 * FSW_OBJECT_MAX];
    struct fsw_object_header header;
    uint64_t word;

    if (!fsw_same_filled(page, &word)) {
        fsw_object_pack(page, packer->codec, packer->id, packer->level, packer->state, object);
        memcpy(&header, object, FSW_OBJECT_HEADER);
        sizes->of[header.length]++;
    } else if (word >> 32 != (uint32_t)word) {
        sizes->of[sizeof word]++;
    } else {
        *(word == 0 ? &sizes->zero : &sizes->same) += 1;
    }
}

/* All pages of all files, with the codec that argv[0] names. */
static void walk(int argc, char **argv,
                 void (*each)(struct sizes *sizes, const char *page, const struct packer *packer),
                 struct sizes *sizes)
{
    struct fsw_error err = {""};
    struct packer packer;

    if (fsw_codec_parse(argv[0], &packer.id, &packer.level, &err) < 0)
        die("%s", err.text);
    packer.codec = fsw_codec_by_id(packer.id);
    packer.state = packer.codec->state_new != NULL ? packer.codec->state_new(packer.level) : NULL;
    for (int i = 1; i < argc; i++) {
        struct set set = map(argv[i]);
        for (uint64_t page = 0; page < set.pages; page++)
            each(sizes, set.bytes + page * PAGE, &packer);
        munmap((void *)set.bytes, set.pages * PAGE);
    }
    if (packer.state != NULL)
        packer.codec->state_free(packer.state);
}

static int run_sizes(int argc, char **argv)
{
    static struct sizes sizes;

    walk(argc, argv, count, &sizes);
    printf("zero %" PRIu64 "\nsame %" PRIu64 "\n", sizes.zero, sizes.same);
    for (unsigned length = 0; length <= PAGE; length++)
        if (sizes.of[length] > 0)
            printf("%u %" PRIu64 "\n", length, sizes.of[length]);
    return 0;
}

/* ---- the same for other huge thresholds ---- */

#define THRESHOLD_STEP 128u
#define THRESHOLD_LEAST 3072u
#define THRESHOLD_MOST 4080u /* the next unit holds the page itself */
#define THRESHOLDS ((THRESHOLD_MOST - THRESHOLD_LEAST) / THRESHOLD_STEP + 2)

static unsigned threshold_of(unsigned i)
{
    unsigned threshold = THRESHOLD_LEAST + i * THRESHOLD_STEP;
    return threshold < THRESHOLD_MOST ? threshold : THRESHOLD_MOST;
}

/* As fsw_object_pack() would with each: what is kept raw has its length, without the zero tail where
 * that saves a unit. */
static void count_each(struct sizes *sizes, const char *page, const struct packer *packer)
{
    char payload[PAGE];
    size_t length = fsw_without_tail(page), packed = 0;
    size_t raw = FSW_OBJECT_HEADER + length > FSW_OBJECT_MAX - FSW_UNIT ? PAGE : length;
    uint64_t word;

    if (fsw_same_filled(page, &word))
        return;
    if (!fsw_looks_random(page, length))
        packed = packer->codec->compress(packer->state, packer->level, page, length, payload,
                                         THRESHOLD_MOST);
    for (unsigned i = 0; i < THRESHOLDS; i++)
        sizes[i].of[packed != 0 && packed <= threshold_of(i) ? packed : raw]++;
}

static int run_thresholds(int argc, char **argv)
{
    static struct sizes sizes[THRESHOLDS];

    walk(argc, argv, count_each, sizes);
    for (unsigned i = 0; i < THRESHOLDS; i++)
        for (unsigned length = 0; length <= PAGE; length++)
            if (sizes[i].of[length] > 0)
                printf("%u %u %" PRIu64 "\n", threshold_of(i), length, sizes[i].of[length]);
    return 0;
}

/* ---- devices ---- */

static struct target *open_for(const char *where, uint64_t pages)
{
    struct target *target = target_open(where);

    if (target_size(target) < pages * PAGE)
        die("%s is smaller than what should go onto it", where);
    return target;
}

static int run_write(int argc, char **argv)
{
    struct set set = map(argv[1]);
    struct target *target = open_for(argv[0], set.pages);

    for (uint64_t at = 0, end = set.pages * PAGE; at < end; at += PART)
        target_write(target, set.bytes + at, at, end - at < PART ? end - at : PART);
    target_close(target);
    return 0;
}

static int run_verify(int argc, char **argv)
{
    struct set set = map(argv[1]);
    struct target *target = open_for(argv[0], set.pages);
    uint64_t wrong = 0;
    char *part = aligned_alloc(PAGE, PART);

    for (uint64_t at = 0, end = set.pages * PAGE; at < end; at += PART) {
        size_t length = end - at < PART ? end - at : PART;
        target_read(target, part, at, length);
        for (size_t i = 0; i < length; i += PAGE)
            wrong += memcmp(part + i, set.bytes + at + i, PAGE) != 0;
    }
    free(part);
    target_close(target);
    if (wrong > 0)
        die("%s: %" PRIu64 " WRONG PAGES of %" PRIu64, argv[0], wrong, set.pages);
    return 0;
}

/* times numbers of each page, shuffled. */
static uint32_t *shuffled(uint64_t pages, uint64_t times, uint64_t *random)
{
    uint64_t n = pages * times;
    uint32_t *order = malloc((n + 1) * sizeof *order);

    if (order == NULL)
        die("no memory");
    for (uint64_t i = 0; i < n; i++)
        order[i] = (uint32_t)(i % pages);
    for (uint64_t i = n; i > 1; i--) {
        uint64_t j = draw(random) % i;
        uint32_t swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
    return order;
}

static const char *draw_page(const struct set *sets, int count, uint64_t total, uint64_t *random)
{
    uint64_t page = draw(random) % total;

    for (int i = 0; i < count; i++) {
        if (page < sets[i].pages)
            return sets[i].bytes + page * PAGE;
        page -= sets[i].pages;
    }
    abort(); /* total is their sum */
}

static void write_final(const char *path, const char **holds, uint64_t pages)
{
    FILE *file = fopen(path, "we");

    if (file == NULL)
        die("%s can't be written", path);
    for (uint64_t i = 0; i < pages; i++)
        if (fwrite(holds[i], PAGE, 1, file) != 1)
            die("%s: not all could be written", path);
    if (fclose(file) != 0)
        die("%s: not all could be written", path);
}

static int run_stir(int argc, char **argv)
{
    uint64_t random = number(argv[1]) * 2 + 1, times = number(argv[2]), total = 0;
    int others = argc - 4;
    struct set *sets = calloc((size_t)others, sizeof *sets);
    struct target *target = target_open(argv[0]);
    uint64_t pages = target_size(target) / PAGE;
    const char **holds = calloc(pages, sizeof *holds);

    if (sets == NULL || holds == NULL || pages > UINT32_MAX || times == 0)
        die("no memory, too large a device, or no times");
    for (int i = 0; i < others; i++) {
        sets[i] = map(argv[4 + i]);
        total += sets[i].pages;
    }
    uint32_t *order = shuffled(pages, times, &random);
    for (uint64_t i = 0; i < pages * times; i++) {
        const char *page = draw_page(sets, others, total, &random);
        target_write(target, page, (uint64_t)order[i] * PAGE, PAGE);
        holds[order[i]] = page;
    }
    target_close(target);
    write_final(argv[3], holds, pages);
    free(order);
    free(holds);
    free(sets);
    return 0;
}

static int run_discard(int argc, char **argv)
{
    uint64_t random = number(argv[1]) * 2 + 1, percent = number(argv[2]);
    struct target *target = target_open(argv[0]);
    uint64_t pages = target_size(target) / PAGE;
    uint32_t *order = shuffled(pages, 1, &random);

    for (uint64_t i = 0; i < pages * percent / 100; i++)
        target_discard(target, (uint64_t)order[i] * PAGE, PAGE);
    target_close(target);
    free(order);
    return 0;
}

static const struct verb {
    const char *name, *arguments;
    int least, most; /* arguments */
    int (*run)(int argc, char **argv);
} verbs[] = {
    {"sizes", "CODEC FILE...", 2, 1000, run_sizes},
    {"thresholds", "CODEC FILE...", 2, 1000, run_thresholds},
    {"write", "TARGET FILE", 2, 2, run_write},
    {"stir", "TARGET SEED TIMES FINAL OTHER...", 5, 1000, run_stir},
    {"verify", "TARGET FILE", 2, 2, run_verify},
    {"discard", "TARGET SEED PERCENT", 3, 3, run_discard},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (argc > 1 && strcmp(argv[1], verbs[i].name) == 0 && argc - 2 >= verbs[i].least &&
            argc - 2 <= verbs[i].most)
            return verbs[i].run(argc - 2, argv + 2);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        fprintf(stderr, "usage: pages %s %s\n", verbs[i].name, verbs[i].arguments);
    return 2;
}
