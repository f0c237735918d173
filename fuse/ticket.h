/*
 * Tickets: a file's name with what its descriptor may do, sealed so that only this daemon can have made it. So no list of them is kept, the caller's descriptors need not
 * be looked for in /proc (whose answers may be of another file by then), and a path that may not be searched is none: the file was open.
 */
#ifndef FUSE_TICKET_H
#define FUSE_TICKET_H

#include "control/mendfs_ioctl.h"
#include "util/types.h"

enum ticket_right { TICKET_READ = 1, TICKET_TARGET = 2 };

struct ticket {
	inum_t ino;
	uint32_t generation;
	uint32_t rights;
};

/* 0 or -ENOMEM: no random key can be had. */
int ticket_seal(const struct ticket *ticket, struct mendfs_ticket *out);
/* 0, -EBADF: not made here, -ESTALE: too old. */
int ticket_open(const struct mendfs_ticket *sealed, struct ticket *out);

#endif
