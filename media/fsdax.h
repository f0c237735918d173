/* A plain file on a filesystem that maps persistent memory directly (ext4, XFS with -o dax): the kernel knows bad blocks below it. */
#ifndef MEDIA_FSDAX_H
#define MEDIA_FSDAX_H

#include "media/media.h"

#define FSDAX_NAME_BYTES 64

/* The block device ("pmem0") with direct access that the file lies on. false: it is no file, or lies elsewhere. */
bool fsdax_host(const struct media *media, char *name);
/* Bad blocks of that device that are the file's, in bytes of it. 0, the visitor's answer, or -EIO: they cannot be had. */
int fsdax_badblocks(struct media *media, int (*visit)(void *arg, devoff_t offset, uint64_t length), void *arg);

#endif
