/*
 * The daemon's control server: answers on the claim's socket (named after the image's or device's
 * inode) and on one named after the mount. Everybody gets the greeting; commands are for root and
 * the daemon's own user. A slow or hostile client costs one of a bounded number of threads and
 * nothing else.
 */
#ifndef CONTROL_SERVER_H
#define CONTROL_SERVER_H

#include "control/commands.h"
#include "media/claim.h"

struct control;

struct control_options {    /* copied, but for hooks and hooks_arg, which must outlive the server */
	const char *device; /* the source as given to mount */
	const char *mountpoint;            /* absolute */
	const char *transport;             /* "io_uring", "read/write", ... shown by list */
	const struct control_hooks *hooks; /* or NULL */
	void *hooks_arg;
};

/* Start answering. claim may be NULL (tests): then only control_mounted()'s socket is answered. 0,
 * -ENOMEM, -EAGAIN, -EMFILE. */
int control_start(struct fs *fs, struct claim *claim, const struct control_options *options,
		  struct control **out);
/* The mount is up: also listen on "mendfs/m/<st_dev of the mount, hex>". 0, -EADDRINUSE (all names
 * taken by others), ... */
int control_mounted(struct control *control, dev_t dev);
/* What list shows may be known only once the kernel has answered INIT. Any time. */
void control_set_transport(struct control *control, const char *transport);
/*
 * Publish `unmount`, see that subscribers get it (at most 1 s), end all connections, stop. Before
 * fs_unmount(). NULL is fine.
 */
void control_stop(struct control *control);

#endif
