/*
 * versions.c: contents by number.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hammer.h"

#define WORDS (SECTOR / 8)

int versions_init(struct versions *versions, uint64_t bytes, uint64_t seed)
{
    versions->seed = seed;
    versions->sectors = bytes / SECTOR;
    versions->acknowledged = calloc(versions->sectors, sizeof(uint32_t));
    versions->under_way = calloc(versions->sectors, sizeof(uint32_t));
    versions->busy = calloc(bytes / PAGE, 1);
    return versions->acknowledged && versions->under_way && versions->busy ? 0 : -ENOMEM;
}

static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* One in eight is noise, one repeats a word all over its page, the others compress to some half; the
 * first word always tells sector and version. */
void versions_fill(const struct versions *versions, uint64_t sector, uint32_t version, void *bytes)
{
    uint64_t words[WORDS], state = versions->seed ^ (uint64_t)version << 32;
    unsigned noisy = version % 8 == 0 ? WORDS : 6 + version % 16;

    if (version == 0) {
        memset(bytes, 0, SECTOR);
        return;
    }
    if (version % 8 == 1) {
        state ^= sector / PAGE_SECTORS;
        uint64_t word = mix(&state);
        for (unsigned i = 0; i < WORDS; i++)
            words[i] = word;
    } else {
        state ^= sector;
        for (unsigned i = 0; i < WORDS; i++)
            words[i] = i < noisy ? mix(&state) : 0x2020202020202020ull;
    }
    memcpy(bytes, words, SECTOR);
}

static int is_version(const struct versions *versions, uint64_t sector, uint32_t version,
                      const char *bytes)
{
    char wanted[SECTOR];

    versions_fill(versions, sector, version, wanted);
    return memcmp(wanted, bytes, SECTOR) == 0;
}

static void complain(const struct versions *versions, uint64_t sector, uint32_t version,
                     const char *bytes, const char *what)
{
    char guess[64] = "nothing that was written lately";

    for (uint32_t back = 1; back < 2000 && back <= version; back++)
        if (is_version(versions, sector, version - back, bytes)) {
            snprintf(guess, sizeof guess, "version %u, an older one", version - back);
            break;
        }
    for (uint32_t ahead = 1; ahead < 100; ahead++)
        if (is_version(versions, sector, version + ahead, bytes))
            snprintf(guess, sizeof guess, "version %u, a newer one", version + ahead);
    fprintf(stderr, "page %llu, sector %llu of it: %s %u, but found %s (%02x %02x %02x %02x ...)\n",
            (unsigned long long)(sector / PAGE_SECTORS),
            (unsigned long long)(sector % PAGE_SECTORS), what, version, guess, (uint8_t)bytes[0],
            (uint8_t)bytes[1], (uint8_t)bytes[2], (uint8_t)bytes[3]);
}

int versions_compare(const struct versions *versions, uint64_t offset, uint64_t length,
                     const void *bytes)
{
    const char *at = bytes;

    for (uint64_t sector = offset / SECTOR; sector < (offset + length) / SECTOR; sector++) {
        if (!is_version(versions, sector, versions->acknowledged[sector], at)) {
            complain(versions, sector, versions->acknowledged[sector], at,
                     "acknowledged is version");
            return -EIO;
        }
        at += SECTOR;
    }
    return 0;
}

void versions_acknowledge(struct versions *versions, uint64_t offset, uint64_t length)
{
    for (uint64_t sector = offset / SECTOR; sector < (offset + length) / SECTOR; sector++)
        versions->acknowledged[sector] = versions->under_way[sector];
}

/* 1 if the page is what it would be with (new) or without (old) the request's sectors. */
static int page_is(const struct versions *versions, uint64_t page, const char *bytes,
                   uint64_t first, uint64_t end, int with)
{
    for (uint64_t i = 0; i < PAGE_SECTORS; i++) {
        uint64_t sector = page * PAGE_SECTORS + i;
        int in = with && sector >= first && sector < end;
        if (!is_version(versions, sector,
                        in ? versions->under_way[sector] : versions->acknowledged[sector],
                        bytes + i * SECTOR))
            return 0;
    }
    return 1;
}

int versions_settle(struct versions *versions, uint64_t offset, uint64_t length, uint64_t from_page,
                    uint64_t pages, const void *bytes, uint64_t *new_pages)
{
    uint64_t first = offset / SECTOR, end = (offset + length) / SECTOR;

    for (uint64_t i = 0; i < pages; i++) {
        uint64_t page = from_page + i, sector = page * PAGE_SECTORS;
        const char *at = (const char *)bytes + i * PAGE;
        if (page_is(versions, page, at, first, end, 0))
            continue;
        if (!page_is(versions, page, at, first, end, 1)) {
            fprintf(stderr, "page %llu is neither old nor new after a crash\n",
                    (unsigned long long)page);
            for (uint64_t s = sector; s < sector + PAGE_SECTORS; s++)
                if (!is_version(versions, s, versions->acknowledged[s], at + (s - sector) * SECTOR))
                    complain(versions, s, versions->acknowledged[s], at + (s - sector) * SECTOR,
                             "acknowledged is version");
            return -EIO;
        }
        ++*new_pages;
        for (uint64_t s = sector; s < sector + PAGE_SECTORS; s++)
            if (s >= first && s < end)
                versions->acknowledged[s] = versions->under_way[s];
    }
    return 0;
}
