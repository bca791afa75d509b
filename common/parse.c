/*
 * parse.c: numbers and sizes as people type them. No locale, no sign surprises, no trailing text.
 */
#include "common/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Reads the digits at *text and steps over them. */
static int parse_digits(const char **text, uint64_t *ret_value)
{
    const char *p = *text;
    uint64_t value = 0;

    if (!isdigit((unsigned char)*p))
        return -EINVAL;
    for (; isdigit((unsigned char)*p); p++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return -ERANGE;
    }
    *text = p;
    *ret_value = value;
    return 0;
}

int fsw_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
    uint64_t value;
    int r = parse_digits(&text, &value);

    if (r < 0)
        return r;
    if (*text != '\0')
        return -EINVAL;
    if (value < min || value > max)
        return -ERANGE;
    *ret_value = value;
    return 0;
}

int fsw_parse_i64(const char *text, int64_t min, int64_t max, int64_t *ret_value)
{
    int negative = *text == '-';
    uint64_t magnitude;
    int r = fsw_parse_u64(text + negative, 0, INT64_MAX, &magnitude);

    if (r < 0)
        return r;
    int64_t value = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    if (value < min || value > max)
        return -ERANGE;
    *ret_value = value;
    return 0;
}

int fsw_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "kmgtpe";
    uint64_t value;
    int r = parse_digits(&text, &value);

    if (r < 0)
        return r;
    if (*text != '\0') {
        const char *unit = strchr(units, tolower((unsigned char)*text));
        if (strcasecmp(text, "b") == 0)
            unit = NULL;
        else if (unit == NULL || (text[1] != '\0' && strcasecmp(text + 1, "ib") != 0 &&
                                  strcasecmp(text + 1, "b") != 0))
            return -EINVAL;
        if (unit != NULL) {
            unsigned shift = 10 * (unsigned)(unit - units + 1);
            if (value > UINT64_MAX >> shift)
                return -ERANGE;
            value <<= shift;
        }
    }
    *ret_bytes = value;
    return 0;
}

int fsw_parse_bool(const char *text, int *ret_value)
{
    static const char *const words[][2] = {
        {"no", "yes"}, {"false", "true"}, {"off", "on"}, {"0", "1"}};

    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        for (int value = 0; value < 2; value++)
            if (strcasecmp(text, words[i][value]) == 0) {
                *ret_value = value;
                return 0;
            }
    return -EINVAL;
}

char *fsw_format_size(uint64_t bytes, char *text)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    double value = (double)bytes;

    while (value >= 1024 && unit < 6) {
        value /= 1024;
        unit++;
    }
    snprintf(text, FSW_SIZE_TEXT,
             unit == 0 || value == (double)(uint64_t)value ? "%.0f %s" : "%.1f %s", value,
             units[unit]);
    return text;
}
