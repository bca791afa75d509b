/*
 * config.h: the parameters of `farswap up`: /etc/farswap/NAME.conf, then the command line.
 */
#ifndef FSW_CLI_CONFIG_H
#define FSW_CLI_CONFIG_H

#include "farswap/error.h"

#define CONFIG_WORDS 24

/* "key=value" words, no key twice: a later one takes the place of an earlier. */
struct config {
    char *words[CONFIG_WORDS + 1]; /* up to a NULL; owned */
    unsigned count;
};

/* -EINVAL: no key=value. -E2BIG. */
int config_add(struct config *config, const char *word, struct fsw_error *err);

/* Lines "key=value"; empty ones and those that begin with # are skipped. No file is no error. */
int config_read(struct config *config, const char *name, struct fsw_error *err);

/* Every word is a parameter with a value that it can have; for a device that is to be made, also
 * that none is missing and this host can give it. May read files. */
int config_check(const struct config *config, const char *name, int is_new, struct fsw_error *err);

void config_free(struct config *config);

#endif
