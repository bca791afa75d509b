/*
 * proc.c: /proc/PID/stat and cmdline. A process may call itself anything, brackets and blanks too: its
 * name is what stands between the first opening and the last closing one.
 */
#include "common/proc.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *open_of(pid_t pid, const char *what)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, what);
    return fopen(path, "re");
}

int fsw_proc_is(pid_t pid, const char *name, pid_t *ret_parent)
{
    char line[512], state;
    size_t n;
    int found = 0;
    FILE *file = open_of(pid, "stat");

    if (file == NULL)
        return 0;
    n = fread(line, 1, sizeof line - 1, file); /* of a name with a newline, more than a line */
    fclose(file);
    line[n] = '\0';
    char *begin = strchr(line, '('), *end = strrchr(line, ')');
    if (begin != NULL && end != NULL && sscanf(end + 1, " %c %d", &state, ret_parent) == 2) {
        *end = '\0';
        found = strcmp(begin + 1, name) == 0 && state != 'Z' && state != 'X';
    }
    return found;
}

size_t fsw_proc_words(pid_t pid, char *words, size_t room)
{
    FILE *file = open_of(pid, "cmdline");
    size_t n = 0;

    if (file != NULL) {
        n = fread(words, 1, room - 1, file);
        fclose(file);
    }
    words[n] = '\0';
    return n;
}

int fsw_proc_each(int (*each)(pid_t pid, void *opaque), void *opaque)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    int r = 0;

    while (dir != NULL && r == 0 && (entry = readdir(dir)) != NULL) {
        pid_t pid = atoi(entry->d_name);
        if (pid > 0)
            r = each(pid, opaque);
    }
    if (dir != NULL)
        closedir(dir);
    return r;
}
