/*
 * nbd_lib.h: libnbd, loaded when a store first needs it. Through libxml2 it brings the tables of ICU, 30 MB
 * that a server would map, touch and lock whether it has such a store or not.
 *
 * libnbd.NAME(...) is nbd_NAME(...). Not before nbd_lib_load() returned 0; from any thread after.
 */
#ifndef FSW_STORE_NBD_LIB_H
#define FSW_STORE_NBD_LIB_H

#include <libnbd.h>

#include "farswap/error.h"

#define NBD_LIB_FUNCTIONS(F)                                                                       \
    F(add_meta_context)                                                                            \
    F(aio_block_status)                                                                            \
    F(aio_command_completed)                                                                       \
    F(aio_connect)                                                                                 \
    F(aio_connect_unix)                                                                            \
    F(aio_get_direction)                                                                           \
    F(aio_get_fd)                                                                                  \
    F(aio_is_closed)                                                                               \
    F(aio_is_dead)                                                                                 \
    F(aio_is_ready)                                                                                \
    F(aio_notify_read)                                                                             \
    F(aio_notify_write)                                                                            \
    F(aio_pread)                                                                                   \
    F(aio_pwrite)                                                                                  \
    F(aio_trim)                                                                                    \
    F(aio_zero)                                                                                    \
    F(can_meta_context)                                                                            \
    F(can_trim)                                                                                    \
    F(can_zero)                                                                                    \
    F(close)                                                                                       \
    F(create)                                                                                      \
    F(get_block_size)                                                                              \
    F(get_errno)                                                                                   \
    F(get_error)                                                                                   \
    F(get_size)                                                                                    \
    F(is_read_only)                                                                                \
    F(poll)                                                                                        \
    F(set_export_name)

#define NBD_LIB_MEMBER(name) __typeof__(nbd_##name) *name;
extern struct nbd_lib {
    NBD_LIB_FUNCTIONS(NBD_LIB_MEMBER)
} libnbd;

/* -ENOENT with a line: it is not installed, or too old. Allocates; may be called again. Any thread. */
int nbd_lib_load(struct fsw_error *err);

#endif
