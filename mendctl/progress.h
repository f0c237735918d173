/* How far a long command is, on the last line of a terminal that stderr is; nothing where it is none. */
#ifndef MENDCTL_PROGRESS_H
#define MENDCTL_PROGRESS_H

#include "control/json.h"

bool progress_is_wanted(void);
/* For struct command_sink. Always true; arg is not used. */
bool progress_show(void *arg, const char *phase, uint64_t done, uint64_t total);
/* A line of the daemon that is not an element but says how far it is: shown and freed, true. Anything else: false. */
bool progress_take(struct json_object *line);
/* The line is free for other things again. */
void progress_end(void);

#endif
