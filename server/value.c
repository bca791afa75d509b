/*
 * value.c: malloc, or the vault, with a count of holders and a sum of costs.
 */
#include "server/value.h"

#include <malloc.h>
#include <stdlib.h>

#include "server/vault.h"

#define VALUE_MAX (1u << 30)

static uint64_t cost_of_all;

struct fsw_value *fsw_value_new(size_t length)
{
    struct fsw_value *value;

    if (length > VALUE_MAX)
        return NULL;
    value = malloc(sizeof *value + length + 1);
    if (value == NULL)
        return NULL;
    value->bytes = (char *)(value + 1);
    value->vault = NULL;
    value->holders = 1;
    value->length = (uint32_t)length;
    value->bytes[length] = '\0';
    cost_of_all += fsw_value_cost(value);
    return value;
}

struct fsw_value *fsw_value_hold(struct fsw_value *value)
{
    value->holders++;
    return value;
}

void fsw_value_release(struct fsw_value *value)
{
    if (value == NULL || --value->holders > 0)
        return;
    if (value->vault != NULL) {
        fsw_vault_give(value);
        return;
    }
    cost_of_all -= fsw_value_cost(value);
    free(value);
}

size_t fsw_value_cost(const struct fsw_value *value)
{
    return value->vault != NULL ? 0 : malloc_usable_size((void *)value) + sizeof(size_t);
}

uint64_t fsw_value_cost_of_all(void)
{
    return cost_of_all;
}
