/* Ask one target one question, wherever it is answered. */
#ifndef MENDCTL_QUERY_H
#define MENDCTL_QUERY_H

#include "control/commands.h"
#include "mendctl/output.h"
#include "mendctl/target.h"

/* Elements go to the output; *extra (NULL before, or an object) takes what else the answer has, and
 * is the caller's to put. */
int query_ask(struct target *target, const char *command, const struct command_args *args,
	      struct output *output, struct json_object **extra, struct why *why);
/* Print what was answered, or nothing after an error; puts `extra`. Returns `error`, or that of printing. */
int query_finish(struct output *output, struct json_object *extra, int error, struct why *why);
/* The file as the user's shell sees it, when it is in the mount; else as a path from the
 * filesystem's root. */
int query_file(const struct target *target, const char *file, struct command_args *args,
	       struct why *why);

#endif
