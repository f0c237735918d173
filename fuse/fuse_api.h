/* The one place that picks libfuse's API level, and what differs between its versions. */
#ifndef FUSE_FUSE_API_H
#define FUSE_FUSE_API_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>

#define LIBFUSE_AT_LEAST(minor) (FUSE_VERSION >= FUSE_MAKE_VERSION(3, minor))

/* Ask the kernel for a capability if it offers it; true when it does. */
static inline bool fuse_want(struct fuse_conn_info *conn, uint64_t flag)
{
#if LIBFUSE_AT_LEAST(17)
	return fuse_set_feature_flag(conn, flag);
#else
	if (!(conn->capable & flag))
		return false;
	conn->want |= (unsigned)flag;
	return true;
#endif
}

static inline void fuse_refuse(struct fuse_conn_info *conn, uint64_t flag)
{
#if LIBFUSE_AT_LEAST(17)
	fuse_unset_feature_flag(conn, flag);
#else
	conn->want &= ~(unsigned)flag;
#endif
}

#endif
