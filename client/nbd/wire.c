/*
 * wire.c: the transmission phase.
 *
 *      request   magic:4  flags:2  type:2  cookie:8  offset:8  length:4  [payload]
 *      reply     magic:4  error:4  cookie:8  [payload]
 */
#include "client/nbd/wire.h"

#include <errno.h>

#include "client/nbd/bytes.h"

#define REQUEST_MAGIC 0x25609513u
#define REPLY_MAGIC 0x67446698u

static int has_range(uint16_t type)
{
    return type == FSW_WIRE_READ || type == FSW_WIRE_WRITE || type == FSW_WIRE_TRIM ||
           type == FSW_WIRE_CACHE || type == FSW_WIRE_WRITE_ZEROES;
}

static uint16_t allowed_flags(uint16_t type)
{
    return type == FSW_WIRE_WRITE_ZEROES ? FSW_WIRE_FUA | FSW_WIRE_NO_HOLE | FSW_WIRE_FAST_ZERO
                                         : FSW_WIRE_FUA;
}

/* Why a request can't be done; 0 if it can. */
static uint32_t refusal(const struct fsw_wire *wire, const struct fsw_wire_request *request)
{
    int fits = request->length <= wire->size && request->offset <= wire->size - request->length;
    int writes = request->type == FSW_WIRE_WRITE || request->type == FSW_WIRE_WRITE_ZEROES;

    if (request->flags & ~allowed_flags(request->type))
        return FSW_WIRE_EINVAL;
    if (request->type == FSW_WIRE_FLUSH)
        return request->offset == 0 && request->length == 0 ? 0 : FSW_WIRE_EINVAL;
    if (!has_range(request->type) || request->length == 0)
        return FSW_WIRE_EINVAL;
    if ((request->type == FSW_WIRE_READ || request->type == FSW_WIRE_WRITE) &&
        request->length > FSW_WIRE_PAYLOAD_MAX)
        return FSW_WIRE_EINVAL;
    return fits ? 0 : writes ? FSW_WIRE_ENOSPC : FSW_WIRE_EINVAL;
}

/* Goes over what nobody wants; finds the write when that is all gone. */
static int skip_payload(struct fsw_wire *wire, size_t length, size_t *used,
                        struct fsw_wire_request *request)
{
    size_t skipped = wire->skip < length ? (size_t)wire->skip : length;

    wire->skip -= skipped;
    *used += skipped;
    if (wire->skip > 0)
        return FSW_WIRE_MORE;
    wire->refused = 0;
    *request = wire->refusal;
    return FSW_WIRE_REQUEST;
}

/* The payload of a write: in the bytes, on its way, or for nobody. */
static int find_payload(struct fsw_wire *wire, const char *bytes, size_t length, size_t *used,
                        struct fsw_wire_request *request)
{
    if (request->error != 0) {
        wire->skip = request->length;
        wire->refused = 1;
        wire->refusal = *request;
        return skip_payload(wire, length, used, request);
    }
    if (request->length > FSW_WIRE_SMALL_MAX)
        return FSW_WIRE_LARGE;
    if (length < request->length) {
        *used -= FSW_WIRE_REQUEST_BYTES;
        return FSW_WIRE_MORE;
    }
    request->payload = bytes;
    *used += request->length;
    return FSW_WIRE_REQUEST;
}

int fsw_wire_next(struct fsw_wire *wire, const char *bytes, size_t length, size_t *ret_used,
                  struct fsw_wire_request *ret_request)
{
    struct fsw_wire_request *request = ret_request;

    *ret_used = 0;
    if (wire->refused)
        return skip_payload(wire, length, ret_used, request);
    if (length < FSW_WIRE_REQUEST_BYTES)
        return FSW_WIRE_MORE;
    if (fsw_get32(bytes) != REQUEST_MAGIC)
        return -EPROTO;
    *request = (struct fsw_wire_request){
        .flags = fsw_get16(bytes + 4),
        .type = fsw_get16(bytes + 6),
        .cookie = fsw_get64(bytes + 8),
        .offset = fsw_get64(bytes + 16),
        .length = fsw_get32(bytes + 24),
    };
    *ret_used = FSW_WIRE_REQUEST_BYTES;
    if (request->type == FSW_WIRE_DISCONNECT)
        return FSW_WIRE_REQUEST;
    request->error = refusal(wire, request);
    if (request->type == FSW_WIRE_WRITE)
        return find_payload(wire, bytes + FSW_WIRE_REQUEST_BYTES, length - FSW_WIRE_REQUEST_BYTES,
                            ret_used, request);
    return FSW_WIRE_REQUEST;
}

int fsw_wire_peek(const char *bytes, size_t length, struct fsw_wire_request *ret_request)
{
    if (length < FSW_WIRE_REQUEST_BYTES || fsw_get32(bytes) != REQUEST_MAGIC)
        return 0;
    ret_request->type = fsw_get16(bytes + 6);
    ret_request->offset = fsw_get64(bytes + 16);
    ret_request->length = fsw_get32(bytes + 24);
    return 1;
}

void fsw_wire_reply(char *bytes, uint64_t cookie, uint32_t error)
{
    fsw_put32(bytes, REPLY_MAGIC);
    fsw_put32(bytes + 4, error);
    fsw_put64(bytes + 8, cookie);
}

uint32_t fsw_wire_error_of(int r)
{
    switch (r) {
    case 0:
        return 0;
    case -EPERM:
        return FSW_WIRE_EPERM;
    case -ENOMEM:
        return FSW_WIRE_ENOMEM;
    case -EINVAL:
        return FSW_WIRE_EINVAL;
    case -ENOSPC:
        return FSW_WIRE_ENOSPC;
    case -EOPNOTSUPP:
        return FSW_WIRE_ENOTSUP;
    default:
        return FSW_WIRE_EIO;
    }
}
