/* A conversation with a daemon over its control socket (control/request.h). */
#ifndef MENDCTL_CLIENT_H
#define MENDCTL_CLIENT_H

#include <sys/stat.h>

#include "control/request.h"

struct client;

/* By the mount's st_dev; owner is who mounted it, and believed beside root and ourselves. -ENOENT:
 * nobody answers there. */
int client_open_mount(dev_t dev, uid_t owner, struct why *why, struct client **out);
/* By the inode of an image or device. -ENOENT: nobody answers; -EBUSY: the holder is no daemon, or
 * is not serving. */
int client_open_inode(const struct stat *st, uid_t owner, struct why *why, struct client **out);
void client_close(struct client *client);
/* Wait no longer than this for each line from now on. */
void client_limit(struct client *client, unsigned seconds);
const char *client_mountpoint(const struct client *client);

int client_request(struct client *client, const char *command, const struct command_args *args,
		   struct why *why);
/*
 * The next line of the answer. 1: an element; 0: the end, its further keys in *out (without
 * "done"); negative: the daemon's error, with its line in *why, or -ECONNRESET: it is gone.
 */
int client_next(struct client *client, struct json_object **out, struct why *why);

#endif
