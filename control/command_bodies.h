/* The commands one by one, and what they share. Internal to control/. */
#ifndef CONTROL_COMMAND_BODIES_H
#define CONTROL_COMMAND_BODIES_H

#include "control/commands.h"

command_fn command_map, command_owners, command_badblocks, command_damaged; /* command_query.c */
command_fn command_inject, command_uninject;                                /* command_poison.c */
command_fn command_list, command_clone, command_stats, command_drop_caches, command_sync,
    command_check, command_version; /* command_admin.c */
command_fn command_label, command_uuid, command_resize; /* command_identity.c */
command_fn command_shutdown;                            /* command_shutdown.c */
command_fn command_scrub;                               /* command_scrub.c */

/* A negative errno in words for the person who asked. */
const char *command_reason(int error);
int command_no_memory(struct why *why);
/* element NULL: it could not be made. */
int command_emit(struct command_sink *sink, struct json_object *element, struct why *why);
/* The inode that the arguments name. */
int command_resolve(struct fs *fs, const struct command_args *args, inum_t *out, struct why *why);
int command_regular_file(struct fs *fs, const struct command_args *args, struct fs_attr *attr,
			 struct why *why);
/* -ERANGE: not inside the device. */
int command_device_range(struct fs *fs, const struct command_args *args, struct why *why);

#endif
