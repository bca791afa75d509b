/*
 * tree.c: the folder.
 */
#include "client/fuse/tree.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "client/fuse/knobs.h"

#define FOREVER_S 3600u /* nothing changes: names and sizes may be kept */

static unsigned nodes(void)
{
    return FSW_NODE_KNOBS + fsw_knob_count;
}

static bool known(uint64_t node)
{
    return node != 0 && node < nodes();
}

static const char *name_of(uint64_t node)
{
    return node == FSW_NODE_DISK ? "disk" : fsw_knobs[node - FSW_NODE_KNOBS].name;
}

static uint32_t mode_of(uint64_t node)
{
    if (node == FSW_NODE_ROOT)
        return S_IFDIR | 0555;
    return S_IFREG | (node == FSW_NODE_DISK ? 0600 : fsw_knobs[node - FSW_NODE_KNOBS].mode);
}

/* Knobs say a page, as files in sysfs do. */
static struct fuse_attr attributes(const struct fsw_exchange *exchange, uint64_t node)
{
    uint64_t disk = fsw_device_size(exchange->device);

    return (struct fuse_attr){
        .ino = node,
        .size = node == FSW_NODE_DISK ? disk : FSW_PAGE_SIZE,
        .blocks = node == FSW_NODE_DISK ? disk / 512 : 0,
        .mode = mode_of(node),
        .nlink = node == FSW_NODE_ROOT ? 2 : 1,
        .blksize = FSW_PAGE_SIZE,
    };
}

/* 0: there is none. */
static uint64_t find(const char *name, size_t room)
{
    if (memchr(name, '\0', room) == NULL)
        return 0;
    for (uint64_t node = FSW_NODE_DISK; node < nodes(); node++)
        if (strcmp(name, name_of(node)) == 0)
            return node;
    return 0;
}

void fsw_tree_lookup(struct fsw_exchange *exchange)
{
    uint64_t node = find(exchange->argument, exchange->argument_bytes);

    if (exchange->in.nodeid != FSW_NODE_ROOT || node == 0) {
        fsw_answer(exchange, -ENOENT);
        return;
    }
    struct fuse_entry_out out = {.nodeid = node,
                                 .generation = 1,
                                 .entry_valid = FOREVER_S,
                                 .attr_valid = FOREVER_S,
                                 .attr = attributes(exchange, node)};
    fsw_answer_with(exchange, &out, sizeof out);
}

void fsw_tree_getattr(struct fsw_exchange *exchange)
{
    struct fuse_attr_out out = {.attr_valid = FOREVER_S};

    if (!known(exchange->in.nodeid)) {
        fsw_answer(exchange, -ESTALE);
        return;
    }
    out.attr = attributes(exchange, exchange->in.nodeid);
    fsw_answer_with(exchange, &out, sizeof out);
}

void fsw_tree_setattr(struct fsw_exchange *exchange)
{
    const uint32_t owner = FATTR_MODE | FATTR_UID | FATTR_GID;
    struct fuse_setattr_in in;

    FSW_ARGUMENT(exchange, in);
    if (!known(exchange->in.nodeid))
        fsw_answer(exchange, -ESTALE);
    else if (in.valid & owner)
        fsw_answer(exchange, -EPERM);
    else if ((in.valid & FATTR_SIZE) && in.size != 0 &&
             in.size != attributes(exchange, exchange->in.nodeid).size)
        fsw_answer(exchange, -EINVAL);
    else
        fsw_tree_getattr(exchange);
}

/* Past the page cache, which would keep pages twice; writes at once, since pages are independent.
 */
void fsw_tree_open(struct fsw_exchange *exchange)
{
    struct fuse_open_out out = {.open_flags =
                                    FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH};
    uint64_t node = exchange->in.nodeid;
    struct fuse_open_in in;
    int r = known(node) ? 0 : -ESTALE;

    FSW_ARGUMENT(exchange, in);
    if (r == 0 && node >= FSW_NODE_KNOBS)
        r = fsw_knob_open((unsigned)(node - FSW_NODE_KNOBS), in.flags);
    if (r < 0)
        fsw_answer(exchange, r);
    else
        fsw_answer_with(exchange, &out, sizeof out);
}

/* Offsets are node numbers: "." is 1, ".." is 2, the n-th node n + 1. */
static size_t add_name(char *at, size_t room, uint64_t node, const char *name, uint64_t next)
{
    size_t length = strlen(name), bytes = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
    struct fuse_dirent entry = {
        .ino = node, .off = next, .namelen = (uint32_t)length, .type = mode_of(node) >> 12};

    if (bytes > room)
        return 0;
    memset(at, 0, bytes);
    memcpy(at, &entry, FUSE_NAME_OFFSET);
    memcpy(at + FUSE_NAME_OFFSET, name, length);
    return bytes;
}

void fsw_tree_readdir(struct fsw_exchange *exchange)
{
    static const char *const dots[] = {".", ".."};
    struct fuse_read_in in;
    size_t used = 0, bytes;

    FSW_ARGUMENT(exchange, in);
    size_t room = in.size < FSW_FUSE_DATA_MAX ? in.size : FSW_FUSE_DATA_MAX;
    for (uint64_t at = in.offset; at < nodes(); at++, used += bytes) {
        bytes = at < 2
                    ? add_name(exchange->data + used, room - used, FSW_NODE_ROOT, dots[at], at + 1)
                    : add_name(exchange->data + used, room - used, at, name_of(at), at + 1);
        if (bytes == 0)
            break;
    }
    fsw_answer_data(exchange, used);
}

void fsw_tree_statfs(struct fsw_exchange *exchange)
{
    struct fuse_statfs_out out = {
        .st = {.blocks = fsw_device_size(exchange->device) / FSW_PAGE_SIZE,
               .files = nodes() - 1,
               .bsize = FSW_PAGE_SIZE, /* what a loop device discards by */
               .frsize = FSW_PAGE_SIZE,
               .namelen = 63}};

    fsw_answer_with(exchange, &out, sizeof out);
}
