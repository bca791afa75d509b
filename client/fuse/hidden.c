/*
 * hidden.c: paths compared without links in them. What is not there yet counts by the folder that it
 * would be in.
 */
#include "client/fuse/hidden.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/registry.h"

/* Of the path, or of the folder nearest to it that is there. */
static int resolve(const char *path, char resolved[PATH_MAX])
{
    char text[PATH_MAX];

    if (strlen(path) >= sizeof text)
        return 0;
    strcpy(text, path);
    while (realpath(text, resolved) == NULL) {
        char *slash = strrchr(text, '/');
        if (slash == NULL || slash == text)
            return 0;
        *slash = '\0';
    }
    return 1;
}

static int is_inside(const char *folder, const char *path)
{
    char resolved[PATH_MAX];
    size_t length = strlen(folder);

    if (path[0] == '\0' || !resolve(path, resolved))
        return 0;
    if (length == 1) /* "/" */
        return 1;
    return strncmp(resolved, folder, length) == 0 && strchr("/", resolved[length]) != NULL;
}

int fsw_hidden_check(const char *mountpoint, const struct fsw_params *params, struct fsw_error *err)
{
    const char *run = secure_getenv("FARSWAP_RUNDIR"), *file = strstr(params->overflow, "file:");
    char folder[PATH_MAX];

    if (realpath(mountpoint, folder) == NULL)
        return 0; /* mounting will say why */
    const struct {
        const char *what, *path;
    } needed[] = {{"FARSWAP_RUNDIR", run != NULL && *run != '\0' ? run : "/run/farswap"},
                  {"FARSWAP_STATEDIR", fsw_registry_state_dir()},
                  {"the file of overflow=", file != NULL ? file + 5 : ""},
                  {"the file of overflow-password=", params->overflow_password_file}};
    for (unsigned i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (is_inside(folder, needed[i].path))
            return fsw_error(err, -EINVAL,
                             "mounting on %s would hide %s (%s) from the servers, which would wait "
                             "for themselves: mount on a folder of its own, for example %s/%s.mnt",
                             mountpoint, needed[i].what, needed[i].path, needed[0].path,
                             params->name);
    return 0;
}
