/*
 * pattern.h: what a page of the demonstration holds, and what is wrong with one.
 *
 * Every byte of a page follows from (seed, page number, version), so a page that is lost, swapped
 * with another, stale, torn or damaged differs from what fsw_pattern_fill() makes, and
 * fsw_pattern_explain() can say which of these it is. Nothing here blocks or allocates.
 */
#ifndef FSW_TESTS_PATTERN_H
#define FSW_TESTS_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#define FSW_PATTERN_PAGE 4096u

/* From now on this share of the pages is same-filled, besides the usual few: for a program that is
 * to be several times the memory its pages take. Before the first page; 0 at first. */
void fsw_pattern_more_same(unsigned percent);

/* From now on this share of every other page, before its last stamp, is zeroes: as of a program that
 * has much memory and little in it, and whose pages are all different. Before the first page; 0 at
 * first. */
void fsw_pattern_sparse(unsigned percent);

/* Writes one page's contents. `page` has FSW_PATTERN_PAGE bytes, aligned to 8. */
void fsw_pattern_fill(void *page, uint64_t seed, uint32_t number, uint32_t version);

/* 1 if page holds exactly that, else 0. `scratch` has FSW_PATTERN_PAGE bytes, aligned to 8. */
int fsw_pattern_matches(const void *page, void *scratch, uint64_t seed, uint32_t number,
                        uint32_t version);

/* One line, no newline, about a page that did not match: expected and found number and version,
 * and the first wrong byte. Returns text. */
#define FSW_PATTERN_TEXT 320
const char *fsw_pattern_explain(char *text, const void *page, void *scratch, uint64_t seed,
                                uint32_t number, uint32_t version);

#endif
