/*
 * status.h: farswap status for programs (status_json.c).
 */
#ifndef FSW_STATUS_H
#define FSW_STATUS_H

#include "client/cli/view.h"

void status_print_json(const struct view *views, const struct view_rate *rates, unsigned count);

#endif
