/*
 * glob.c: when something after a star does not match, only the last star takes one more character:
 * what earlier stars took need never be tried again. So there is no recursion and no blow-up.
 */
#include "server/glob.h"

/* Matches c against the class that begins after '['; *p is left after its ']' (or at end). */
static bool class_matches(const char **p, const char *end, unsigned char c)
{
    const char *at = *p;
    bool negated = at < end && *at == '^';
    bool found = false;

    for (at += negated; at < end && *at != ']'; at++) {
        if (*at == '\\' && at + 1 < end)
            at++;
        unsigned char low = (unsigned char)*at, high = low;
        if (at + 2 < end && at[1] == '-' && at[2] != ']') {
            at += 2;
            high = (unsigned char)*at;
        }
        if ((low <= c && c <= high) || (high <= c && c <= low))
            found = true;
    }
    *p = at < end ? at + 1 : end;
    return found != negated;
}

/* Matches one character against the one unit of the pattern at *p, and steps over that unit. */
static bool unit_matches(const char **p, const char *end, char c)
{
    char unit = *(*p)++;

    if (unit == '?')
        return true;
    if (unit == '[')
        return class_matches(p, end, (unsigned char)c);
    if (unit == '\\' && *p < end)
        unit = *(*p)++;
    return unit == c;
}

bool fsw_glob_match(const char *pattern, size_t pattern_length, const char *text,
                    size_t text_length)
{
    const char *p = pattern, *p_end = pattern + pattern_length;
    const char *t = text, *t_end = text + text_length;
    const char *after_star = NULL, *star_took = NULL;

    while (t < t_end) {
        if (p < p_end && *p == '*') {
            after_star = ++p;
            star_took = t;
        } else if (p < p_end && unit_matches(&p, p_end, *t)) {
            t++;
        } else if (after_star != NULL) {
            p = after_star;
            t = ++star_took;
        } else {
            return false;
        }
    }
    while (p < p_end && *p == '*')
        p++;
    return p == p_end;
}
