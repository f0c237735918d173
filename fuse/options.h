/* The daemon's command line: `mendfs SOURCE DIR [-fdhV] [-o OPTIONS]`, and as /sbin/mount.fuse.mendfs what mount(8) passes. */
#ifndef FUSE_OPTIONS_H
#define FUSE_OPTIONS_H

#include "fuse/vfs_options.h"
#include "util/why.h"

struct options {
	char *source;	  /* as given */
	char *mountpoint; /* absolute */
	bool foreground;
	bool debug;
	bool help;
	bool version;
	bool fake; /* mount -f: check, mount nothing */
	struct vfs_options vfs;
	bool writeback;
	bool no_open;
	bool no_sched_idle;
	bool allow_other;
	bool no_uring;
	bool no_fuseblk;
	unsigned ring_depth;	 /* requests that a ring of io_uring can hold; 0: libfuse's default */
	unsigned commit_seconds; /* 0: default */
	uint64_t cache_bytes;	 /* 0: default */
	struct fuse_args args;	 /* what goes on to libfuse */
};

/* 0; 1: help or version was asked for; -EINVAL: usage; another errno: the mount point is not usable. `why` says it. */
int options_parse(int argc, char **argv, struct options *options, struct why *why);
void options_free(struct options *options);
void options_usage(const char *program);

#endif
