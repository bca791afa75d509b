/*
 * nbd_lib.c: dlopen(3), never closed.
 */
#include "client/store/nbd_lib.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

#define LIBRARY "libnbd.so.0"

struct nbd_lib libnbd;

int nbd_lib_load(struct fsw_error *err)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        return fsw_error(err, -ENOENT, "nbd:// needs libnbd (package libnbd0): %s", dlerror());
#define LOOK_UP(name) libnbd.name = (__typeof__(libnbd.name))dlsym(library, "nbd_" #name);
    NBD_LIB_FUNCTIONS(LOOK_UP)
#define IS_THERE(name)                                                                             \
    if (libnbd.name == NULL)                                                                       \
        return fsw_error(err, -ENOENT, LIBRARY " has no nbd_" #name);
    NBD_LIB_FUNCTIONS(IS_THERE)
    return 0;
}
