/*
 * disk.c: read, write, discard. The file is as long as the device, whatever is done to it.
 *
 * Everything is tried without waiting first. What would have to wait, for the store or for space,
 * leaves its seat to another thread and is done again, as a whole.
 */
#include "client/fuse/disk.h"

#include <errno.h>
#include <linux/falloc.h>

#define NOTHING (FSW_FLUSH + 1)

static int do_io(struct fsw_exchange *exchange, struct fsw_io *io)
{
    io->flags = FSW_IO_NOWAIT;
    fsw_device_do(exchange->device, io);
    if (io->result == -EAGAIN) {
        fsw_exchange_may_wait(exchange);
        io->flags = 0;
        fsw_device_do(exchange->device, io);
    }
    return io->result;
}

void fsw_disk_read(struct fsw_exchange *exchange)
{
    uint64_t size = fsw_device_size(exchange->device), length;
    struct fuse_read_in in;

    FSW_ARGUMENT(exchange, in);
    length = in.offset < size ? size - in.offset : 0; /* up to the end of the file */
    if (length > in.size)
        length = in.size;
    if (length > FSW_FUSE_DATA_MAX) {
        fsw_answer(exchange, -EINVAL);
        return;
    }
    struct fsw_io io = {
        .verb = FSW_READ, .bytes = exchange->data, .offset = in.offset, .length = length};
    int r = length > 0 ? do_io(exchange, &io) : 0;
    if (r < 0)
        fsw_answer(exchange, r);
    else
        fsw_answer_data(exchange, length);
}

void fsw_disk_write(struct fsw_exchange *exchange)
{
    uint64_t size = fsw_device_size(exchange->device);
    struct fuse_write_out out = {0};
    struct fuse_write_in in;

    FSW_ARGUMENT(exchange, in);
    if (in.size > exchange->argument_bytes - sizeof in) {
        fsw_answer(exchange, -EINVAL);
        return;
    }
    if (in.offset >= size) {
        fsw_device_count_invalid(exchange->device);
        fsw_answer(exchange, -ENOSPC); /* as behind the end of a disk */
        return;
    }
    out.size = in.size < size - in.offset ? in.size : (uint32_t)(size - in.offset);
    struct fsw_io io = {
        .verb = FSW_WRITE, .bytes = exchange->data, .offset = in.offset, .length = out.size};
    int r = do_io(exchange, &io);
    if (r < 0)
        fsw_answer(exchange, r);
    else
        fsw_answer_with(exchange, &out, sizeof out);
}

/* What the mode asks for; NOTHING, or -EOPNOTSUPP. */
static int verb_of(const struct fuse_fallocate_in *in)
{
    int whole_pages = (in->offset | in->length) % FSW_PAGE_SIZE == 0;

    switch (in->mode & ~(uint32_t)FALLOC_FL_KEEP_SIZE) {
    case 0:
        return NOTHING;
    case FALLOC_FL_PUNCH_HOLE:
        return whole_pages ? FSW_DISCARD : FSW_ZERO;
    case FALLOC_FL_ZERO_RANGE:
        return FSW_ZERO;
    default:
        return -EOPNOTSUPP;
    }
}

void fsw_disk_fallocate(struct fsw_exchange *exchange)
{
    uint64_t size = fsw_device_size(exchange->device);
    struct fuse_fallocate_in in;

    FSW_ARGUMENT(exchange, in);
    int verb = verb_of(&in);
    if (in.offset >= size || in.length > size - in.offset) {
        fsw_device_count_invalid(exchange->device);
        fsw_answer(exchange, -EFBIG);
    } else if (verb == NOTHING || verb < 0) {
        fsw_answer(exchange, verb == NOTHING ? 0 : verb);
    } else {
        struct fsw_io io = {.verb = (enum fsw_verb)verb, .offset = in.offset, .length = in.length};
        fsw_answer(exchange, do_io(exchange, &io));
    }
}
