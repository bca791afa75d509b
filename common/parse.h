/*
 * parse.h: numbers and sizes as people type them.
 */
#ifndef FSW_PARSE_H
#define FSW_PARSE_H

#include <stdint.h>

/* "4096", "64k", "16M", "4G", "1T" (also KiB/MiB/…, any case; powers of 1024). Whole text or
 * nothing. 0, -EINVAL (not a size), -ERANGE (does not fit 64 bits). */
int fsw_parse_size(const char *text, uint64_t *ret_bytes);

/* Decimal without sign. 0, -EINVAL, -ERANGE (outside min..max). */
int fsw_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value);

/* Decimal with an optional minus. 0, -EINVAL, -ERANGE. */
int fsw_parse_i64(const char *text, int64_t min, int64_t max, int64_t *ret_value);

/* yes/no, true/false, on/off, 1/0. 0 or -EINVAL. */
int fsw_parse_bool(const char *text, int *ret_value);

/* "1.5 GiB" for people; text must have FSW_SIZE_TEXT bytes. Returns text. */
#define FSW_SIZE_TEXT 24
char *fsw_format_size(uint64_t bytes, char *text);

#endif
