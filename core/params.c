/*
 * params.c: the parameters of a device as a table, and what is allowed for each.
 */
#include "farswap/params.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/parse.h"
#include "core/codec/codec.h"
#include "core/image.h"
#include "core/pool/frames.h"
#include "core/prefetch.h"

const struct fsw_param_info fsw_param_table[] = {
    {"name", "NAME", NULL, "the device's name: 1 to 63 of A-Z a-z 0-9 . _ - (first not . or -)", 1},
    {"size", "SIZE", NULL, "bytes of the device (k, M, G, T): 4M to 16T, a multiple of 4096", 1},
    {"memory", "SIZE|N%", "20%",
     "the most memory that the image may take (table, pool and reserve); N% of MemTotal", 0},
    {"codec", "CODEC", "lz4", "lz4, lz4:ACCELERATION, zstd, zstd:LEVEL (-7 to 19) or raw", 0},
    {"overflow", "URI", NULL,
     "where the least recently used pages go: resp://HOST[:PORT], resp+unix:///PATH, file:PATH "
     "or nbd://HOST[:PORT][/EXPORT]; "
     "given twice, two copies",
     0},
    {"overflow-password", "+FILE", NULL, "file whose first line is the store's password", 0},
    {"overflow-plaintext", "yes|no", "no", "do not encrypt what leaves this host", 0},
    {"prefetch", "auto|off|SIZE", "auto",
     "how much a read asks the store for besides its page: what pays, nothing, or SIZE (4k to 16k)",
     0},
    {"fetch_timeout", "SECONDS", "0",
     "how long a read waits for the store before it fails (0 to 86400; 0: for ever)", 0},
    {"watermarks", "auto|START:STOP", "auto",
     "percent of memory= in use at which overflow starts and stops (START 10 to 99, STOP less)", 0},
    {"write_wait", "SECONDS", "1",
     "how long a write waits for room when pool and store are full before it fails (0 to 86400)",
     0},
    {"read_age", "young|half|keep", "young",
     "what a read does to a page's age: as if written, half as old, or nothing", 0},
    {"huge", "first|age|store", "age",
     "when pages that don't compress leave: before others, by age, or soon after they were written",
     0},
    {"overflow_limit", "SIZE|off", "off",
     "the most bytes that may leave for the store in 24 hours (1M or more)", 0},
};
const unsigned fsw_param_count = sizeof fsw_param_table / sizeof fsw_param_table[0];

/* A line of /proc/meminfo in bytes, 0 if it can't be read. */
static uint64_t meminfo(const char *key)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), ": %llu", &kib) == 1)
            break;
    fclose(file);
    return kib << 10;
}

int fsw_name_valid(const char *text)
{
    size_t length =
        strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return length >= 1 && length <= FSW_NAME_MAX && text[length] == '\0' && text[0] != '.' &&
           text[0] != '-';
}

static int set_name(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    if (!fsw_name_valid(value))
        return fsw_error(
            err, -EINVAL,
            "name=%s is not a device name: 1 to %d of A-Z a-z 0-9 . _ - are allowed, the "
            "first not . or -",
            value, FSW_NAME_MAX);
    snprintf(params->name, sizeof params->name, "%s", value);
    return 0;
}

static int set_size(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    uint64_t size;

    if (fsw_parse_size(value, &size) < 0)
        return fsw_error(err, -EINVAL,
                         "size=%s is not a size: bytes, or a number with k, M, G or T", value);
    if (size % FSW_PAGE_SIZE != 0 || size < FSW_SIZE_MIN || size > FSW_SIZE_MAX)
        return fsw_error(err, -EINVAL, "size=%s is not allowed: 4M to 16T, a multiple of 4096",
                         value);
    params->size = size;
    return 0;
}

static int set_memory(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    char number[8];
    uint64_t percent;
    size_t length = strlen(value);

    if (length > 1 && length < sizeof number && value[length - 1] == '%') {
        memcpy(number, value, length - 1);
        number[length - 1] = '\0';
        if (fsw_parse_u64(number, 1, 100, &percent) == 0) {
            params->memory = meminfo("MemTotal") / 100 * percent / FSW_FRAME_SIZE * FSW_FRAME_SIZE;
            return 0;
        }
    } else if (fsw_parse_size(value, &params->memory) == 0) {
        return 0;
    }
    return fsw_error(
        err, -EINVAL,
        "memory=%s is not allowed: bytes, a number with k, M, G or T, or 1%% to 100%% of "
        "MemTotal",
        value);
}

static int set_codec(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    return fsw_codec_parse(value, &params->codec, &params->codec_level, err);
}

static int copy_text(char *to, size_t room, const char *key, const char *value,
                     struct fsw_error *err)
{
    if (strlen(value) >= room || strpbrk(value, "\n\r") != NULL)
        return fsw_error(err, -EINVAL, "%s= must be one line shorter than %zu bytes", key, room);
    memcpy(to, value, strlen(value) + 1);
    return 0;
}

/* Given twice, the two are a mirror: a space between them. */
static int set_overflow(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    char both[2 * sizeof params->overflow];

    if (params->overflow[0] == '\0')
        return copy_text(params->overflow, sizeof params->overflow, "overflow", value, err);
    if (strchr(params->overflow, ' ') != NULL)
        return fsw_error(err, -EINVAL, "overflow=%s: two stores are given already", value);
    snprintf(both, sizeof both, "%s %s", params->overflow, value);
    return copy_text(params->overflow, sizeof params->overflow, "overflow", both, err);
}

/* The first line of what a file begins with: to has room for FSW_PASSWORD_BYTES and its NUL. */
static int take_password(const char *text, size_t n, const char *value, char *to,
                         struct fsw_error *err)
{
    size_t length = strcspn(text, "\r\n");

    if (memchr(text, '\0', n) != NULL)
        return fsw_error(err, -EINVAL, "overflow-password=%s: that is no text file", value);
    if (length == 0)
        return fsw_error(err, -EINVAL, "overflow-password=%s: the first line is empty", value);
    if (length > FSW_PASSWORD_BYTES)
        return fsw_error(err, -EINVAL,
                         "overflow-password=%s: the first line is longer than %u characters", value,
                         FSW_PASSWORD_BYTES);
    memcpy(to, text, length);
    to[length] = '\0';
    return 0;
}

static int set_password(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    char text[FSW_PASSWORD_BYTES + 2];

    if (value[0] != '+')
        return fsw_error(
            err, -EINVAL,
            "overflow-password= takes +FILE, a file whose first line is the password: on a "
            "command line everybody could read it");
    FSW_CLEANUP_CLOSE int fd = open(value + 1, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0)
        return fsw_error(err, -errno, "overflow-password=%s: %s", value, strerror(errno));
    text[n] = '\0';
    int r = take_password(text, (size_t)n, value, params->overflow_password, err);
    explicit_bzero(text, sizeof text);
    /* Whoever reads it again may stand in another folder. */
    FSW_CLEANUP_FREE char *path = r == 0 ? realpath(value + 1, NULL) : NULL;
    if (r == 0)
        r = copy_text(params->overflow_password_file, sizeof params->overflow_password_file,
                      "overflow-password", path != NULL ? path : value + 1, err);
    return r;
}

static int set_plaintext(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    if (fsw_parse_bool(value, &params->overflow_plaintext) < 0)
        return fsw_error(err, -EINVAL, "overflow-plaintext=%s is not allowed: yes or no", value);
    return 0;
}

static int set_prefetch(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    uint64_t bytes;

    if (strcmp(value, "auto") == 0)
        params->prefetch = FSW_PREFETCH_AUTO;
    else if (strcmp(value, "off") == 0)
        params->prefetch = FSW_PREFETCH_OFF;
    else if (fsw_parse_size(value, &bytes) == 0 && bytes >= FSW_PREFETCH_BYTES_MIN &&
             bytes <= FSW_PREFETCH_BYTES_MAX)
        params->prefetch = (uint32_t)bytes;
    else
        return fsw_error(err, -EINVAL, "prefetch=%s is not allowed: auto, off, or 4k to 16k",
                         value);
    return 0;
}

static int set_fetch_timeout(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    uint64_t seconds;

    if (fsw_parse_u64(value, 0, FSW_FETCH_TIMEOUT_MAX_S, &seconds) < 0)
        return fsw_error(err, -EINVAL,
                         "fetch_timeout=%s is not allowed: 0 (for ever) to %u, in seconds", value,
                         FSW_FETCH_TIMEOUT_MAX_S);
    params->fetch_timeout = (uint32_t)seconds * 1000;
    return 0;
}

static int set_watermarks(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    char start_text[4] = "";
    uint64_t start, stop;
    size_t length = strcspn(value, ":");

    if (strcmp(value, "auto") == 0) {
        params->watermarks = 0;
        return 0;
    }
    if (length < sizeof start_text)
        memcpy(start_text, value, length);
    if (value[length] != ':' || fsw_parse_u64(start_text, 10, 99, &start) < 0 ||
        fsw_parse_u64(value + length + 1, 1, start - 1, &stop) < 0)
        return fsw_error(err, -EINVAL,
                         "watermarks=%s is not allowed: auto, or START:STOP in percent of memory=, "
                         "START 10 to 99 and STOP less",
                         value);
    params->watermarks = (uint32_t)(start << 8 | stop);
    return 0;
}

static int set_write_wait(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    uint64_t seconds;

    if (fsw_parse_u64(value, 0, FSW_WRITE_WAIT_MAX_S, &seconds) < 0)
        return fsw_error(err, -EINVAL,
                         "write_wait=%s is not allowed: 0 (not at all) to %u, in seconds", value,
                         FSW_WRITE_WAIT_MAX_S);
    params->write_wait = (uint32_t)seconds * 1000 + 1;
    return 0;
}

static int set_read_age(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    static const char *const words[] = {
        [FSW_READ_AGE_YOUNG] = "young", [FSW_READ_AGE_HALF] = "half", [FSW_READ_AGE_KEEP] = "keep"};

    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(value, words[i]) == 0) {
            params->read_age = i;
            return 0;
        }
    return fsw_error(err, -EINVAL, "read_age=%s is not allowed: young, half or keep", value);
}

static int set_huge(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    static const char *const words[] = {
        [FSW_HUGE_AGE] = "age", [FSW_HUGE_FIRST] = "first", [FSW_HUGE_STORE] = "store"};

    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(value, words[i]) == 0) {
            params->huge = i;
            return 0;
        }
    return fsw_error(err, -EINVAL, "huge=%s is not allowed: first, age or store", value);
}

static int set_overflow_limit(struct fsw_params *params, const char *value, struct fsw_error *err)
{
    uint64_t bytes = 0;

    if (strcmp(value, "off") != 0 &&
        (fsw_parse_size(value, &bytes) < 0 || bytes < FSW_OVERFLOW_LIMIT_MIN))
        return fsw_error(err, -EINVAL,
                         "overflow_limit=%s is not allowed: off, or bytes a day, 1M or more",
                         value);
    params->overflow_limit = bytes;
    return 0;
}

/* In the order of fsw_param_table. */
static int (*const setters[])(struct fsw_params *, const char *, struct fsw_error *) = {
    set_name,       set_size,      set_memory,   set_codec,          set_overflow,
    set_password,   set_plaintext, set_prefetch, set_fetch_timeout,  set_watermarks,
    set_write_wait, set_read_age,  set_huge,     set_overflow_limit,
};
_Static_assert(sizeof setters / sizeof setters[0] ==
                   sizeof fsw_param_table / sizeof fsw_param_table[0],
               "one setter a parameter");

void fsw_params_init(struct fsw_params *params)
{
    memset(params, 0, sizeof *params);
    for (unsigned i = 0; i < fsw_param_count; i++)
        if (fsw_param_table[i].default_text != NULL)
            setters[i](params, fsw_param_table[i].default_text, NULL);
}

void fsw_params_wipe(struct fsw_params *params)
{
    explicit_bzero(params->overflow_password, sizeof params->overflow_password);
}

static int unknown_key(const char *key, struct fsw_error *err)
{
    char keys[256] = "";

    for (unsigned i = 0; i < fsw_param_count; i++) {
        size_t used = strlen(keys);
        snprintf(keys + used, sizeof keys - used, "%s%s", i ? ", " : "", fsw_param_table[i].name);
    }
    return fsw_error(err, -ENOENT, "%s= is unknown: the parameters are %s", key, keys);
}

int fsw_params_set(struct fsw_params *params, const char *key, const char *value,
                   struct fsw_error *err)
{
    for (unsigned i = 0; i < fsw_param_count; i++)
        if (strcmp(key, fsw_param_table[i].name) == 0) {
            params->given |= 1u << i;
            return setters[i](params, value, err);
        }
    return unknown_key(key, err);
}

int fsw_params_given(const struct fsw_params *params, const char *key)
{
    for (unsigned i = 0; i < fsw_param_count; i++)
        if (strcmp(key, fsw_param_table[i].name) == 0)
            return params->given >> i & 1;
    return 0;
}

int fsw_params_check_least(const struct fsw_params *params, struct fsw_error *err)
{
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT];
    uint64_t least = fsw_image_base_bytes(params->size) + fsw_image_table_bytes(params->size) +
                     FSW_POOL_MIN_BYTES;

    if (params->memory >= least)
        return 0;
    return fsw_error(err, -EINVAL,
                     "memory=%s is too small for the page table of a device of %s and a pool: at "
                     "least %llu bytes (memory=%lluk)",
                     fsw_format_size(params->memory, a), fsw_format_size(params->size, b),
                     (unsigned long long)least, (unsigned long long)((least + 1023) >> 10));
}

int fsw_params_check_available(const struct fsw_params *params, struct fsw_error *err)
{
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT];
    uint64_t available = meminfo("MemAvailable");

    if (available == 0 || params->memory <= available)
        return 0;
    return fsw_error(err, -EINVAL,
                     "memory=%s is more than this host can give: at most MemAvailable, now %s",
                     fsw_format_size(params->memory, a), fsw_format_size(available, b));
}

int fsw_params_check(const struct fsw_params *params, struct fsw_error *err)
{
    if (params->name[0] == '\0')
        return fsw_error(err, -EINVAL, "name= is missing: say name=NAME, %s",
                         fsw_param_table[0].meaning);
    if (params->size == 0)
        return fsw_error(err, -EINVAL, "size= is missing: say size=SIZE, %s",
                         fsw_param_table[1].meaning);
    int r = fsw_params_check_least(params, err);
    return r == 0 ? fsw_params_check_available(params, err) : r;
}
