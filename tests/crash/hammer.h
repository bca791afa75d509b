/*
 * hammer.h: clients that never give up, and know what the device must hold.
 *
 * Contents follow from (sector, version), so a model is two numbers a sector: the version that was
 * acknowledged, and the one of a request that is under way. A page belongs to one client, and is in
 * one request at a time; so after a broken connection each page of a request is whole old or new.
 */
#ifndef HAMMER_H
#define HAMMER_H

#include <stdatomic.h>
#include <stdint.h>

#define SECTOR 512u
#define PAGE 4096u
#define PAGE_SECTORS (PAGE / SECTOR)

struct versions {
    uint64_t seed, sectors;
    uint32_t *acknowledged; /* of each sector; 0: zeroes */
    uint32_t *under_way;
    uint8_t *busy; /* of each page: requests that touch it */
};

int versions_init(struct versions *versions, uint64_t bytes, uint64_t seed);

/* What that version of the sector holds. */
void versions_fill(const struct versions *versions, uint64_t sector, uint32_t version, void *bytes);

/* Bytes read of a range that nobody writes: 0, or a line was printed. */
int versions_compare(const struct versions *versions, uint64_t offset, uint64_t length,
                     const void *bytes);

/* The range is answered: what was under way is acknowledged. */
void versions_acknowledge(struct versions *versions, uint64_t offset, uint64_t length);

/* Bytes read of whole pages in which the range was under way and got no answer: each page is old or
 * new, and is acknowledged as that. 0, or a line was printed. *new_pages grows by those that are. */
int versions_settle(struct versions *versions, uint64_t offset, uint64_t length, uint64_t from_page,
                    uint64_t pages, const void *bytes, uint64_t *new_pages);

#endif
