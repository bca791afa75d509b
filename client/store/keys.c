/*
 * keys.c: names of segments. Fixed width, so that a key says by its length alone what it can be.
 */
#include "client/store/keys.h"

#include <errno.h>
#include <string.h>

static char *write_hex(char *to, uint8_t byte)
{
    static const char digits[] = "0123456789abcdef";

    *to++ = digits[byte >> 4];
    *to++ = digits[byte & 15];
    return to;
}

void fsw_device_id_text(const struct fsw_device_id *device, char text[FSW_DEVICE_ID_TEXT])
{
    for (size_t i = 0; i < sizeof device->bytes; i++)
        text = write_hex(text, device->bytes[i]);
    *text = '\0';
}

/* By hand, like the command around it (resp_command_write). */
static size_t key_format(char *key, const struct fsw_device_id *device, const char *tail)
{
    char *at = mempcpy(key, "farswap:", 8);
    size_t length = strlen(tail);

    fsw_device_id_text(device, at);
    at += FSW_DEVICE_ID_TEXT - 1;
    *at++ = ':';
    memcpy(at, tail, length + 1);
    return (size_t)(at - key) + length;
}

size_t fsw_key_segment(char key[FSW_KEY_TEXT], const struct fsw_device_id *device, uint64_t id)
{
    char tail[17];

    for (unsigned byte = 0; byte < sizeof id; byte++)
        write_hex(tail + 2 * byte, (uint8_t)(id >> (56 - 8 * byte)));
    tail[16] = '\0';
    return key_format(key, device, tail);
}

size_t fsw_key_sentinel(char key[FSW_KEY_TEXT], const struct fsw_device_id *device)
{
    return key_format(key, device, "sentinel");
}

size_t fsw_key_pattern(char key[FSW_KEY_TEXT], const struct fsw_device_id *device)
{
    return key_format(key, device, "*");
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -EINVAL;
}

int fsw_key_parse(const char *key, size_t length, const struct fsw_device_id *device,
                  uint64_t *ret_id)
{
    char prefix[FSW_KEY_TEXT];
    size_t prefix_length = key_format(prefix, device, "");
    uint64_t id = 0;

    if (length != prefix_length + 16 || memcmp(key, prefix, prefix_length) != 0)
        return -EINVAL;
    for (size_t i = prefix_length; i < length; i++) {
        int value = hex_value(key[i]);

        if (value < 0)
            return value;
        id = id << 4 | (uint64_t)value;
    }
    *ret_id = id;
    return 0;
}
