/*
 * kernel.c: nbd's netlink commands and events.
 *
 * Two sockets: one for commands with their answers, one for the multicast group, so that an event
 * never stands between a command and its answer.
 *
 * The kernel says 0 to a RECONFIGURE whose socket it did not take, because none of the device's is
 * dead yet. But it gives each socket it takes its request timeout as send timeout: that shows.
 */
#include "client/attach/kernel.h"

#include <errno.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define BLOCK_SIZE 4096

static int on_ack(struct nl_msg *message, void *opaque)
{
    struct fsw_kernel *kernel = opaque;

    kernel->answer = 0;
    return NL_STOP;
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *error, void *opaque)
{
    struct fsw_kernel *kernel = opaque;

    kernel->answer = error->error < 0 ? error->error : -EPROTO;
    return NL_STOP;
}

static void read_device(struct fsw_kernel *kernel, struct nlattr *item)
{
    static const struct nla_policy policy[NBD_DEVICE_ATTR_MAX + 1] = {
        [NBD_DEVICE_INDEX] = {.type = NLA_U32},
        [NBD_DEVICE_CONNECTED] = {.type = NLA_U8},
    };
    struct nlattr *device[NBD_DEVICE_ATTR_MAX + 1];

    if (nla_parse_nested(device, NBD_DEVICE_ATTR_MAX, item, (struct nla_policy *)policy) == 0 &&
        device[NBD_DEVICE_CONNECTED] != NULL)
        kernel->connected = nla_get_u8(device[NBD_DEVICE_CONNECTED]);
}

/* CONNECT answers with an index, STATUS with a list, LINK_DEAD comes by itself. */
static int on_message(struct nl_msg *message, void *opaque)
{
    struct fsw_kernel *kernel = opaque;
    struct genlmsghdr *header = nlmsg_data(nlmsg_hdr(message));
    struct nlattr *attributes[NBD_ATTR_MAX + 1], *item;
    int rest;

    if (nla_parse(attributes, NBD_ATTR_MAX, genlmsg_attrdata(header, 0), genlmsg_attrlen(header, 0),
                  NULL) < 0)
        return NL_SKIP;
    struct nlattr *index = attributes[NBD_ATTR_INDEX];
    if (header->cmd == NBD_CMD_LINK_DEAD)
        kernel->dead += index != NULL && nla_get_u32(index) == (uint32_t)kernel->watched;
    else if (index != NULL)
        kernel->index = (int)nla_get_u32(index);
    if (attributes[NBD_ATTR_DEVICE_LIST] != NULL)
        nla_for_each_nested(item, attributes[NBD_ATTR_DEVICE_LIST], rest) read_device(kernel, item);
    return NL_OK;
}

static int set_up_commands(struct fsw_kernel *kernel)
{
    const struct timeval wait = {.tv_sec = FSW_KERNEL_WAIT_S};

    int r = genl_connect(kernel->commands);
    if (r == 0)
        setsockopt(nl_socket_get_fd(kernel->commands), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return r;
}

int fsw_kernel_open(struct fsw_kernel *kernel, struct fsw_error *err)
{
    memset(kernel, 0, sizeof *kernel);
    kernel->commands = nl_socket_alloc();
    kernel->events = nl_socket_alloc();
    if (kernel->commands == NULL || kernel->events == NULL || set_up_commands(kernel) < 0 ||
        genl_connect(kernel->events) < 0)
        return fsw_error(err, -ENOMEM, "no netlink socket: %s", strerror(errno));
    kernel->family = genl_ctrl_resolve(kernel->commands, NBD_GENL_FAMILY_NAME);
    int group =
        genl_ctrl_resolve_grp(kernel->commands, NBD_GENL_FAMILY_NAME, NBD_GENL_MCAST_GROUP_NAME);
    if (kernel->family < 0 || group < 0)
        return fsw_error(err, -ENOENT,
                         "the kernel's nbd does not answer: modprobe nbd (in a container: use the "
                         "host's network namespace, nbd answers in no other)");
    nl_socket_modify_cb(kernel->commands, NL_CB_VALID, NL_CB_CUSTOM, on_message, kernel);
    nl_socket_modify_cb(kernel->commands, NL_CB_ACK, NL_CB_CUSTOM, on_ack, kernel);
    nl_socket_modify_err_cb(kernel->commands, NL_CB_CUSTOM, on_error, kernel);
    nl_socket_modify_cb(kernel->events, NL_CB_VALID, NL_CB_CUSTOM, on_message, kernel);
    nl_socket_disable_seq_check(kernel->events);
    nl_socket_set_nonblocking(kernel->events);
    if (nl_socket_add_membership(kernel->events, group) < 0)
        return fsw_error(err, -ENOENT, "can't listen to the kernel's nbd");
    kernel->events_fd = nl_socket_get_fd(kernel->events);
    return 0;
}

/* Sends, and reads until the acknowledgement. After a failure that isn't the kernel's own answer
 * the socket is made anew: the answer that is still to come must not be taken for the next one's. */
static int transact(struct fsw_kernel *kernel, struct nl_msg *message)
{
    kernel->answer = 1;
    int r = nl_send_auto(kernel->commands, message);
    nlmsg_free(message);
    while (r >= 0 && kernel->answer > 0)
        r = nl_recvmsgs_default(kernel->commands);
    if (kernel->answer <= 0)
        return kernel->answer;
    nl_close(kernel->commands);
    set_up_commands(kernel);
    return -ETIMEDOUT;
}

static struct nl_msg *command(struct fsw_kernel *kernel, int number, int index)
{
    struct nl_msg *message = nlmsg_alloc();

    if (message != NULL &&
        (genlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, kernel->family, 0, 0, (uint8_t)number,
                     NBD_GENL_VERSION) == NULL ||
         (index >= 0 && nla_put_u32(message, NBD_ATTR_INDEX, (uint32_t)index) < 0))) {
        nlmsg_free(message);
        message = NULL;
    }
    return message;
}

static int put_socket(struct nl_msg *message, int fd)
{
    struct nlattr *sockets = nla_nest_start(message, NBD_ATTR_SOCKETS);
    struct nlattr *item = sockets != NULL ? nla_nest_start(message, NBD_SOCK_ITEM) : NULL;

    if (item == NULL || nla_put_u32(message, NBD_SOCK_FD, (uint32_t)fd) < 0)
        return -EMSGSIZE;
    nla_nest_end(message, item);
    nla_nest_end(message, sockets);
    return 0;
}

/* A message with config's times, its identifier, and the socket. */
static struct nl_msg *configure(struct fsw_kernel *kernel, int number, int index,
                                const struct fsw_kernel_config *config, int fd)
{
    struct nl_msg *message = command(kernel, number, index);

    if (message != NULL &&
        (nla_put_u64(message, NBD_ATTR_TIMEOUT, config->timeout) < 0 ||
         nla_put_u64(message, NBD_ATTR_DEAD_CONN_TIMEOUT, config->dead_timeout) < 0 ||
         nla_put_string(message, NBD_ATTR_BACKEND_IDENTIFIER, config->backend) < 0 ||
         put_socket(message, fd) < 0)) {
        nlmsg_free(message);
        message = NULL;
    }
    return message;
}

int fsw_kernel_connect(struct fsw_kernel *kernel, int index, const struct fsw_kernel_config *config,
                       int fd, int *ret_index)
{
    struct nl_msg *message = configure(kernel, NBD_CMD_CONNECT, index, config, fd);

    if (message == NULL || nla_put_u64(message, NBD_ATTR_SIZE_BYTES, config->size) < 0 ||
        nla_put_u64(message, NBD_ATTR_BLOCK_SIZE_BYTES, BLOCK_SIZE) < 0 ||
        nla_put_u64(message, NBD_ATTR_SERVER_FLAGS, config->flags) < 0) {
        nlmsg_free(message);
        return -ENOMEM;
    }
    kernel->index = index;
    int r = transact(kernel, message);
    if (r == 0)
        *ret_index = kernel->index;
    return r == 0 && kernel->index < 0 ? -EPROTO : r;
}

/* Does it have a send timeout? */
static int is_taken(int fd)
{
    struct timeval timeout = {0};
    socklen_t length = sizeof timeout;

    return getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, &length) == 0 &&
           (timeout.tv_sec != 0 || timeout.tv_usec != 0);
}

int fsw_kernel_reconfigure(struct fsw_kernel *kernel, int index,
                           const struct fsw_kernel_config *config, int fd)
{
    struct nl_msg *message = configure(kernel, NBD_CMD_RECONFIGURE, index, config, fd);

    if (message == NULL)
        return -ENOMEM;
    int r = transact(kernel, message);
    return r < 0 ? r : is_taken(fd);
}

int fsw_kernel_disconnect(struct fsw_kernel *kernel, int index)
{
    struct nl_msg *message = command(kernel, NBD_CMD_DISCONNECT, index);

    return message == NULL ? -ENOMEM : transact(kernel, message);
}

int fsw_kernel_connected(struct fsw_kernel *kernel, int index)
{
    struct nl_msg *message = command(kernel, NBD_CMD_STATUS, index);

    kernel->connected = 0;
    int r = message == NULL ? -ENOMEM : transact(kernel, message);
    return r < 0 ? r : kernel->connected;
}

int fsw_kernel_link_died(struct fsw_kernel *kernel, int index)
{
    int r;

    kernel->watched = index;
    kernel->dead = 0;
    do
        r = nl_recvmsgs_default(kernel->events);
    while (r >= 0);
    return kernel->dead > 0 || r != -NLE_AGAIN;
}
