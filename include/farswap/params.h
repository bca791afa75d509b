/*
 * params.h: what a device is made of, in the words that plugin, config file and man page share.
 */
#ifndef FARSWAP_PARAMS_H
#define FARSWAP_PARAMS_H

#include <stdint.h>

#include "farswap/error.h"

#define FSW_NAME_MAX 63
#define FSW_PASSWORD_BYTES 255u
#define FSW_PAGE_SIZE 4096u
#define FSW_SIZE_MIN (4ull << 20)
#define FSW_SIZE_MAX (16ull << 40)
/* write_wait=: what it is if nobody says, and at most. */
#define FSW_WRITE_WAIT_NS 1000000000ull
#define FSW_WRITE_WAIT_MAX_S 86400u
#define FSW_OVERFLOW_LIMIT_MIN (1ull << 20) /* overflow_limit= at least */

/* What a read does to the age of a page in the pool (read_age=). */
enum fsw_read_age {
    FSW_READ_AGE_YOUNG, /* it is as if just written */
    FSW_READ_AGE_HALF,  /* half as old */
    FSW_READ_AGE_KEEP,  /* nothing */
};

/* When pages leave that did not compress (huge=). */
enum fsw_huge {
    FSW_HUGE_AGE,   /* in their turn */
    FSW_HUGE_FIRST, /* before others, when pages must leave */
    FSW_HUGE_STORE, /* as soon as they fill a segment, whatever room there is; and before others */
};

struct fsw_params {
    char name[FSW_NAME_MAX + 1];
    uint64_t size;   /* bytes, a multiple of 4096, 4 MiB to 16 TiB */
    uint64_t memory; /* bytes that the image may keep resident */
    uint8_t codec;   /* enum fsw_codec_id (core/codec/codec.h) */
    int codec_level;
    char overflow[512];                             /* URI of the store, "" for none */
    char overflow_password[FSW_PASSWORD_BYTES + 1]; /* "" for none; wipe it with fsw_params_wipe */
    char overflow_password_file[512]; /* where it was read from, "" if given directly */
    int overflow_plaintext;
    uint32_t prefetch;      /* superblock.prefetch (core/prefetch.h) */
    uint32_t fetch_timeout; /* ms; 0: for ever */
    uint32_t watermarks;     /* percent in use: stops in bits 0 to 7, starts in 8 to 15; 0: auto */
    uint32_t write_wait;     /* superblock.write_wait */
    uint32_t read_age;       /* enum fsw_read_age */
    uint32_t huge;           /* enum fsw_huge */
    uint64_t overflow_limit; /* bytes a day; 0: none */
    int encrypted;  /* 1: the image's pages at its store are (fsw_device_complete_params) */
    unsigned given; /* bit i: fsw_params_set was called for the i-th of fsw_param_table */
};

/* One line per parameter, for parser, help and man page. */
struct fsw_param_info {
    const char *name, *value, *default_text, *meaning;
    int required;
};
extern const struct fsw_param_info fsw_param_table[];
extern const unsigned fsw_param_count;

void fsw_params_init(struct fsw_params *params);

/* Sets one. -EINVAL with one line that says what is allowed; -ENOENT with the list of keys for a
 * key that does not exist. memory=N% is taken of MemTotal, as zswap's max_pool_percent.
 * overflow-password=+FILE is read here. May read files. */
int fsw_params_set(struct fsw_params *params, const char *key, const char *value,
                   struct fsw_error *err);

/* 1 if fsw_params_set was called for it, so that it is not the default. */
int fsw_params_given(const struct fsw_params *params, const char *key);

/* For a device that is to be made: what is missing, what contradicts, what this host can't give:
 * memory against MemAvailable and against the table of that size. */
int fsw_params_check(const struct fsw_params *params, struct fsw_error *err);

/* Parts of it: memory against the table of that size; memory against MemAvailable. */
int fsw_params_check_least(const struct fsw_params *params, struct fsw_error *err);
int fsw_params_check_available(const struct fsw_params *params, struct fsw_error *err);

void fsw_params_wipe(struct fsw_params *params);

/* 1 if text can be a device's name: 1 to 63 of A-Z a-z 0-9 . _ -, not beginning with . or - */
int fsw_name_valid(const char *text);

#endif
