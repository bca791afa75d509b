/*
 * nbd_lib.c: dlopen(3), once, never closed.
 */
#include "client/store/nbd_lib.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>

#include "common/cleanup.h"

#define LIBRARY "libnbd.so.0"

struct nbd_lib libnbd; /* written once: other stores' threads may use it already */

int nbd_lib_load(struct fsw_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int loaded;
    FSW_LOCK_SCOPE(&lock);

    if (loaded)
        return 0;
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        return fsw_error(err, -ENOENT, "nbd:// needs libnbd (package libnbd0): %s", dlerror());
#define LOOK_UP(name) libnbd.name = (__typeof__(libnbd.name))dlsym(library, "nbd_" #name);
    NBD_LIB_FUNCTIONS(LOOK_UP)
#define IS_THERE(name)                                                                             \
    if (libnbd.name == NULL)                                                                       \
        return fsw_error(err, -ENOENT, LIBRARY " has no nbd_" #name);
    NBD_LIB_FUNCTIONS(IS_THERE)
    loaded = 1;
    return 0;
}
