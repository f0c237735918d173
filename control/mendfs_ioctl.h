/*
 * ioctl(2) on files of a mounted mendfs: clone, deduplicate, map. Installed as <mendfs/ioctl.h>; complete in itself, C and C++.
 *
 * The kernel answers FICLONE, FICLONERANGE, FIDEDUPERANGE and FS_IOC_FIEMAP itself, with EOPNOTSUPP, before a FUSE server hears of them; these are the same by another name.
 * Any user may call them: what one may do depends on what one has open, as it does there.
 *
 * A file descriptor cannot be handed to a FUSE server. So a second file is named by a ticket, which its own descriptor gives. A ticket says what that
 * descriptor may do, is sealed by the server and good for MENDFS_TICKET_SECONDS on this mount; whoever is given it may use it, as a descriptor that is passed on.
 *
 * All offsets and lengths are in bytes, on the file (device_offset: on the device or image). Reserved fields must be 0 (EINVAL). ENOTTY: this is not a
 * mendfs, or an older one. All of them: EISDIR and EINVAL for what is not a regular file; ENOMEM; EIO for failed memory; EUCLEAN for damaged metadata.
 */
#ifndef MENDFS_IOCTL_H
#define MENDFS_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MENDFS_IOC 0xed

/* --- tickets ------------------------------------------------------------------------------------------------------------- */

#define MENDFS_TICKET_SECONDS 60

struct mendfs_ticket {
	__u64 opaque[4];
};

/*
 * A ticket of this file. It lets read where the descriptor does, and be a target of MENDFS_IOC_DEDUPE where the descriptor may write, or the caller owns the file or is root.
 * On a mount with -o no_open the server does not know how a file is open: the owner and root may do both, others nothing (EACCES).
 */
#define MENDFS_IOC_TICKET _IOR(MENDFS_IOC, 1, struct mendfs_ticket)

/* --- clone --------------------------------------------------------------------------------------------------------------- */

/*
 * Called on the destination, which must be open for writing; the ticket of the source must let read (EBADF: one of them is not so, or the ticket is none of this mount;
 * ESTALE: it is too old, or its file is gone).
 *
 * Without flags, as FICLONERANGE: [source_offset, + length) is shared into [offset, ...). Offsets in whole blocks of 4096; a length that is not must end
 * at the end of the source, and not within the destination (EINVAL); length 0: to the end of the source. Both may be one file, the ranges apart (EINVAL).
 * After an error or a crash the beginning of it may be there.
 *
 * MENDFS_CLONE_WHOLE: the file becomes what the source is, its size included, at once, also across a crash; the other fields are 0. ENOSPC: it may be the beginning of the source.
 *
 * What the kernel holds back of both is handed over before, what it has cached of the destination is dropped. With -o writeback it goes by its own idea of a
 * file's size: ftruncate(2) to the size that fstat() of the source and the range come to. EPERM: immutable, or append only. EAGAIN: too many at once, try again a moment later;
 * EOPNOTSUPP: mounted with -o io_uring_q_depth=1, which leaves no place for what this waits for. ENOSPC, EROFS, EFBIG as of write(2).
 */
#define MENDFS_CLONE_WHOLE 1

struct mendfs_clone {
	struct mendfs_ticket source;
	__u64 source_offset;
	__u64 length;
	__u64 offset;
	__u32 flags;
	__u32 reserved;
};

#define MENDFS_IOC_CLONE _IOW(MENDFS_IOC, 2, struct mendfs_clone)

/* --- deduplicate --------------------------------------------------------------------------------------------------------- */

/*
 * Called on the source, which must be open for reading (EBADF), as FIDEDUPERANGE: each target whose bytes at `offset` are those of [offset, + length) of the source
 * gets its blocks. The comparison and the sharing are one step for whoever writes to either. Neither times nor privileges of a target change. At most 16 MiB for
 * each target are compared in one call: go on behind bytes_deduped. Offsets in whole blocks; a last piece of a block is shared only where it ends
 * both files, else it is left out of bytes_deduped; both ranges within their files.
 *
 * What is compared is what the server has: fsync(2) or sync_file_range(2) first, where somebody writes through a mapping. Nothing is lost either way.
 *
 * status: 0, MENDFS_DEDUPE_DIFFERS (nothing was shared), or an error: -EBADF, -EPERM and -ESTALE as above, -EPERM for immutable files, -EINVAL for the range, -EIO ...
 */
#define MENDFS_DEDUPE_TARGETS 60
#define MENDFS_DEDUPE_DIFFERS 1

struct mendfs_dedupe_target {
	struct mendfs_ticket ticket;
	__u64 offset;
	__u64 bytes_deduped; /* out: the same from the beginning, and shared now */
	__u64 bytes_gained;  /* out: of these, not shared with the source before */
	__s32 status;	     /* out */
	__u32 reserved;
};

struct mendfs_dedupe {
	__u64 offset;
	__u64 length;
	__u32 count; /* of targets, 1 to MENDFS_DEDUPE_TARGETS (EINVAL) */
	__u32 reserved;
	struct mendfs_dedupe_target targets[MENDFS_DEDUPE_TARGETS];
};

#define MENDFS_IOC_DEDUPE _IOWR(MENDFS_IOC, 3, struct mendfs_dedupe)

/* --- map ----------------------------------------------------------------------------------------------------------------- */

/*
 * Called on any descriptor, as FS_IOC_FIEMAP: the extents of [start, + length), clipped to it, in order. To go on, ask again from the end of the last one; the one with
 * MENDFS_EXTENT_LAST is the last of the range. Each answer is of one moment per 64 extents. What is written but not handed over yet by the kernel is not
 * there: fsync(2) first. Blocks beyond the end of file that are set aside are extents too. Quarantined space belongs to no file, so it is in no map.
 */
#define MENDFS_MAP_EXTENTS 120

#define MENDFS_EXTENT_LAST 1
#define MENDFS_EXTENT_UNWRITTEN 2 /* reads as zeros */
#define MENDFS_EXTENT_SHARED 4	  /* all of it has at least one other owner, in this file or another; how many: mendctl owners */
#define MENDFS_EXTENT_BAD 8	  /* all of it is known to be bad, or its content lost: EIO. Whole blocks written over it heal it */

struct mendfs_extent {
	__u64 offset;
	__u64 length;
	__u64 device_offset;
	__u32 flags;
	__u32 reserved;
};

struct mendfs_map {
	__u64 start;
	__u64 length;
	__u32 room;  /* for extents, 1 to MENDFS_MAP_EXTENTS (EINVAL) */
	__u32 count; /* out */
	__u64 reserved;
	struct mendfs_extent extents[MENDFS_MAP_EXTENTS]; /* out */
};

#define MENDFS_IOC_MAP _IOWR(MENDFS_IOC, 4, struct mendfs_map)

#endif
