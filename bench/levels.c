/*
 * levels: what each codec and level makes of captured pages, and what a trained dictionary would add.
 *
 *      levels [--every N] FILE.pages ...         one page in N (10) of each file
 *
 * Pages are made into objects as the engine makes them, header and rounding included, with nothing of
 * a pool around them. The part of lz4's bytes is a bound on what bench/density can show for that
 * level. Dictionaries are trained on other pages of the same files, so they know more than one that
 * was trained on a host's memory of yesterday. Every object is decompressed again and compared.
 */
#define ZSTD_STATIC_LINKING_ONLY /* for the magicless format only */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zdict.h>
#include <zstd.h>

#include "core/object.h"

#define SAMPLES_EVERY 80u

static struct {
    const char *pages;
    size_t count;
} files[32];
static unsigned file_count, every = 10;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "levels: %s: %s\n", what, why);
    exit(1);
}

static void *must_have(void *memory)
{
    if (memory == NULL)
        fail("memory", "there is not enough");
    return memory;
}

static void open_file(const char *path)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &about) < 0)
        fail(path, "can't be opened: name files that bench/density captured");
    size_t count = (size_t)about.st_size / FSW_PAGE_SIZE;
    if (count == 0 || file_count == sizeof files / sizeof files[0])
        fail(path, count == 0 ? "has no page" : "is one file too many, 32 are allowed");
    files[file_count].pages = mmap(NULL, count * FSW_PAGE_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
    if (files[file_count].pages == MAP_FAILED)
        fail(path, "can't be mapped");
    files[file_count++].count = count;
    close(fd);
}

static double cpu_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- one way to compress ---- */

struct way {
    const char *name, *parameter;
    ZSTD_CCtx *with; /* NULL: the engine's own codec */
    ZSTD_DCtx *back;
    void *state; /* of the engine's codec */
    double us;
};

static size_t object_by_engine(struct way *way, const char *page, char *object)
{
    uint8_t id;
    int level;
    struct fsw_error err;

    if (fsw_codec_parse(way->parameter, &id, &level, &err) < 0)
        fail(way->name, err.text);
    const struct fsw_codec *codec = fsw_codec_by_id(id);
    if (way->state == NULL && codec->state_new != NULL)
        way->state = must_have(codec->state_new(level));
    char back[FSW_PAGE_SIZE];
    unsigned units = fsw_object_pack(page, codec, id, level, way->state, object);
    if (units == FSW_OBJECT_UNITS_MAX)
        return units * FSW_UNIT;
    fsw_object_seal(1, 2, page, object);
    if (fsw_object_open(1, 2, object, units, back) < 0 || memcmp(back, page, sizeof back) != 0)
        fail(way->name, "a page came back wrong");
    return units * FSW_UNIT;
}

static size_t object_by_dictionary(const struct way *way, const char *page)
{
    char bytes[FSW_HUGE_THRESHOLD], back[FSW_PAGE_SIZE];
    size_t length = fsw_without_tail(page);
    size_t used = ZSTD_compress2(way->with, bytes, sizeof bytes, page, length);

    if (ZSTD_isError(used))
        return FSW_OBJECT_MAX;
    if (ZSTD_decompressDCtx(way->back, back, sizeof back, bytes, used) != length ||
        memcmp(back, page, length) != 0)
        fail(way->name, "a page came back wrong");
    return (FSW_OBJECT_HEADER + used + FSW_UNIT - 1) / FSW_UNIT * FSW_UNIT;
}

static size_t measure(struct way *way)
{
    char object[FSW_OBJECT_MAX];
    size_t sum = 0, pages = 0;
    uint64_t word;
    double start = cpu_seconds();

    for (unsigned f = 0; f < file_count; f++)
        for (size_t i = 0; i < files[f].count; i += every) {
            const char *page = files[f].pages + i * FSW_PAGE_SIZE;
            if (fsw_same_filled(page, &word))
                continue;
            sum += way->with != NULL ? object_by_dictionary(way, page)
                                     : object_by_engine(way, page, object);
            pages++;
        }
    way->us = (cpu_seconds() - start) * 1e6 / (double)(pages != 0 ? pages : 1);
    return sum;
}

/* ---- dictionaries ---- */

static size_t train(void *dictionary, size_t room)
{
    size_t count = 0, used = 0, all = 0;
    uint64_t word;

    for (unsigned f = 0; f < file_count; f++)
        all += files[f].count / SAMPLES_EVERY + 1;
    char *samples = must_have(malloc(all * FSW_PAGE_SIZE));
    size_t *lengths = must_have(calloc(all, sizeof lengths[0]));
    for (unsigned f = 0; f < file_count; f++)
        for (size_t i = SAMPLES_EVERY / 2 + 1; i < files[f].count; i += SAMPLES_EVERY) {
            const char *page = files[f].pages + i * FSW_PAGE_SIZE;
            if (i % every == 0 || fsw_same_filled(page, &word))
                continue;
            lengths[count] = fsw_without_tail(page);
            memcpy(samples + used, page, lengths[count]);
            used += lengths[count++];
        }
    size_t made = ZDICT_trainFromBuffer(dictionary, room, samples, lengths, (unsigned)count);
    if (ZDICT_isError(made))
        fail("a dictionary", ZDICT_getErrorName(made));
    free(samples);
    free(lengths);
    return made;
}

static void with_dictionary(struct way *way, int level, const void *dictionary, size_t length)
{
    way->with = must_have(ZSTD_createCCtx());
    way->back = must_have(ZSTD_createDCtx());
    ZSTD_CCtx_setParameter(way->with, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(way->with, ZSTD_c_format, ZSTD_f_zstd1_magicless);
    ZSTD_DCtx_setParameter(way->back, ZSTD_d_format, ZSTD_f_zstd1_magicless);
    ZSTD_CCtx_setParameter(way->with, ZSTD_c_contentSizeFlag, 0);
    ZSTD_CCtx_setParameter(way->with, ZSTD_c_dictIDFlag, 0);
    ZSTD_CCtx_refCDict(way->with, must_have(ZSTD_createCDict(dictionary, length, level)));
    ZSTD_DCtx_refDDict(way->back, must_have(ZSTD_createDDict(dictionary, length)));
}

/* ---- the table ---- */

static void print(struct way *way, size_t lz4)
{
    size_t bytes = measure(way);

    printf("%-26s %8.1f MB  %5.3f  %8.1f us\n", way->name, (double)bytes * every / 1e6,
           (double)bytes / (double)(lz4 != 0 ? lz4 : bytes), way->us);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const char *const codecs[] = {"lz4:8",  "zstd:-3", "zstd:1", "zstd:3",
                                         "zstd:6", "zstd:12", "zstd:19"};
    static char dictionary[112640];

    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--every") == 0 && i + 1 < argc && atoi(argv[i + 1]) > 0)
            every = (unsigned)atoi(argv[++i]);
        else
            open_file(argv[i]);
    if (file_count == 0)
        fail("no pages", "usage: levels [--every N] FILE.pages ... (bench/density captures them)");
    struct way lz4 = {.name = "lz4", .parameter = "lz4"};
    size_t bytes = measure(&lz4);
    printf("%-26s %11s  %5s  %11s\n", "objects", "bytes", "lz4=1", "there, back");
    print(&lz4, bytes);
    for (unsigned i = 0; i < sizeof codecs / sizeof codecs[0]; i++)
        print(&(struct way){.name = codecs[i], .parameter = codecs[i]}, bytes);
    size_t length = train(dictionary, sizeof dictionary);
    for (int level = 1; level <= 3; level += 2) {
        struct way way = {.name = level == 1 ? "zstd:1, 110 KiB dictionary"
                                             : "zstd:3, 110 KiB dictionary"};
        with_dictionary(&way, level, dictionary, length);
        print(&way, bytes);
    }
    return 0;
}
