/* Commands on a device or image that nobody has mounted, in this process. Queries do not write a
 * byte. */
#ifndef MENDCTL_UNMOUNTED_H
#define MENDCTL_UNMOUNTED_H

#include "control/commands.h"

int unmounted_run(const char *path, const struct command *command, const struct command_args *args,
		  struct command_sink *sink, struct why *why);

#endif
