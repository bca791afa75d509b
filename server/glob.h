/*
 * glob.h: patterns as KEYS, SCAN and CONFIG GET of redis know them: * ? [abc] [a-z] [^a] and \.
 */
#ifndef FSW_SERVER_GLOB_H
#define FSW_SERVER_GLOB_H

#include <stdbool.h>
#include <stddef.h>

/* Takes at most pattern_length * text_length steps, whatever a peer writes into the pattern. */
bool fsw_glob_match(const char *pattern, size_t pattern_length, const char *text,
                    size_t text_length);

#endif
