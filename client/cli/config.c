/*
 * config.c: words of parameters, from a file and from people.
 */
#include "client/cli/config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "farswap/params.h"

#define LINE_MAX_BYTES 1024
#define KEY_MAX_BYTES 64

static size_t key_length(const char *word)
{
    return strcspn(word, "=");
}

int config_add(struct config *config, const char *word, struct fsw_error *err)
{
    size_t length = key_length(word);
    unsigned at = 0;

    if (word[length] != '=' || length == 0)
        return fsw_error(err, -EINVAL, "%s: say key=value", word);
    while (at < config->count && (key_length(config->words[at]) != length ||
                                  strncmp(config->words[at], word, length) != 0))
        at++;
    if (at == CONFIG_WORDS)
        return fsw_error(err, -E2BIG, "more than %d parameters", CONFIG_WORDS);
    char *copy = strdup(word);
    if (copy == NULL)
        return fsw_error(err, -ENOMEM, "no memory");
    free(config->words[at]);
    config->words[at] = copy;
    if (at == config->count)
        config->count++;
    return 0;
}

/* Spaces around the key, the = and the value mean nothing. */
static char *tidy(char *line)
{
    size_t end = strlen(line), begin = 0, key, value;

    while (end > 0 && isspace((unsigned char)line[end - 1]))
        line[--end] = '\0';
    while (isspace((unsigned char)line[begin]))
        begin++;
    line += begin;
    key = value = key_length(line);
    if (line[0] == '#' || line[key] != '=')
        return line;
    while (key > 0 && isspace((unsigned char)line[key - 1]))
        key--;
    do
        value++;
    while (isspace((unsigned char)line[value]));
    line[key] = '=';
    memmove(line + key + 1, line + value, strlen(line + value) + 1);
    return line;
}

int config_read(struct config *config, const char *name, struct fsw_error *err)
{
    const char *dir = secure_getenv("FARSWAP_CONFDIR");
    char path[PATH_MAX], line[LINE_MAX_BYTES];
    struct fsw_error inner = {""};
    int r = 0;

    snprintf(path, sizeof path, "%s/%s.conf", dir != NULL && *dir != '\0' ? dir : "/etc/farswap",
             name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return errno == ENOENT ? 0 : fsw_error(err, -errno, "%s: %s", path, strerror(errno));
    for (int number = 1; r == 0 && fgets(line, sizeof line, file) != NULL; number++) {
        char *word = tidy(line);
        if (word[0] == '\0' || word[0] == '#')
            continue;
        r = config_add(config, word, &inner);
        if (r < 0)
            fsw_error(err, r, "%s, line %d: %.600s", path, number, inner.text);
    }
    fclose(file);
    return r;
}

static int set_word(struct fsw_params *params, const char *word, struct fsw_error *err)
{
    size_t length = key_length(word);
    char key[KEY_MAX_BYTES];

    if (length >= sizeof key)
        return fsw_error(err, -ENOENT, "%.20s...: no parameter has so long a name", word);
    memcpy(key, word, length);
    key[length] = '\0';
    return fsw_params_set(params, key, word + length + 1, err);
}

int config_check(const struct config *config, const char *name, int is_new, struct fsw_error *err)
{
    struct fsw_params params;

    fsw_params_init(&params);
    int r = fsw_params_set(&params, "name", name, err);
    for (unsigned i = 0; r == 0 && i < config->count; i++)
        r = set_word(&params, config->words[i], err);
    if (r == 0 && strcmp(params.name, name) != 0)
        r = fsw_error(err, -EINVAL, "name=%s: it is called %s", params.name, name);
    if (r == 0 && is_new)
        r = fsw_params_check(&params, err);
    fsw_params_wipe(&params);
    return r;
}

void config_free(struct config *config)
{
    while (config->count > 0)
        free(config->words[--config->count]);
}
