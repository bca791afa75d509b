/*
 * settings.h: what `farswap set` changes, as it is now.
 */
#ifndef FSW_CLI_SETTINGS_H
#define FSW_CLI_SETTINGS_H

#include "core/image.h"

#define SETTING_TEXT 32

struct setting {
    const char *key;
    /* The value as `farswap set` takes it; room for SETTING_TEXT bytes. */
    void (*value)(const struct fsw_superblock *super, char *text);
};

extern const struct setting settings[];
extern const unsigned settings_count;

#endif
