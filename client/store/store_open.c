/*
 * store_open.c: which store a URI names, and whether it may be used as it is.
 */
#include "client/store/store_open.h"

#include <errno.h>
#include <string.h>

#include "client/store/address.h"
#include "client/store/file.h"
#include "client/store/resp.h"

/* Far more than any server takes; bounds what the greeting puts into a buffer. */
#define PASSWORD_MOST 1024

typedef int (*address_parser)(struct fsw_address *address, const char *rest, struct fsw_error *err);

static const struct {
    const char *prefix;
    address_parser parse;
} schemes[] = {
    {"resp://", fsw_address_parse_tcp},
    {"resp+unix://", fsw_address_parse_unix},
};

static int parse_uri(const char *uri, struct fsw_address *address, struct fsw_error *err)
{
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t length = strlen(schemes[i].prefix);

        if (strncmp(uri, schemes[i].prefix, length) == 0)
            return schemes[i].parse(address, uri + length, err);
    }
    return fsw_error(err, -EINVAL,
                     "overflow=%s is no store: allowed are resp://HOST[:PORT], resp+unix:///PATH "
                     "and file:PATH",
                     uri);
}

static int open_resp(const struct fsw_store_options *options, struct fsw_store **ret_store,
                     struct fsw_error *err)
{
    struct fsw_address address;
    int r = parse_uri(options->uri, &address, err);

    if (r < 0)
        return r;
    if (!address.local && !options->plaintext)
        return fsw_error(err, -EINVAL,
                         "overflow=%s is another host, and what goes there is not encrypted yet: "
                         "overflow-plaintext=yes allows it",
                         options->uri);
    if (options->password != NULL && strlen(options->password) > PASSWORD_MOST)
        return fsw_error(err, -EINVAL, "the store's password is longer than %d characters",
                         PASSWORD_MOST);
    r = resp_store_new(&address, options->password, ret_store);
    if (r < 0)
        return fsw_error(err, r, "no memory for the store's buffers");
    return 0;
}

int fsw_store_open(const struct fsw_store_options *options, struct fsw_store **ret_store,
                   struct fsw_error *err)
{
    static const char file[] = "file:";

    if (strncmp(options->uri, file, sizeof file - 1) == 0)
        return file_store_new(options->uri + sizeof file - 1, ret_store, err);
    return open_resp(options, ret_store, err);
}
