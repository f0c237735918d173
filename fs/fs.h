/*
 * The filesystem: POSIX operations in inode numbers and negative errno, never FUSE. In-process users (tests, tools, fuzzers,
 * benchmarks) call exactly what the daemon calls. The root directory is inode 1.
 *
 * References: whatever fills a struct fs_attr from a name (lookup, create, mkdir, ...) adds one lookup reference to that
 * inode, ended by fs_forget(). An inode without names lives until its references are gone.
 * Thread-safe throughout. Access permission is the caller's (the kernel's default_permissions) but for sticky bits; uid and gid
 * come in a struct fs_who. Durability: see journal/tx.h; fs_fsync() makes what was acknowledged durable on PAGE media.
 */
#ifndef FS_FS_H
#define FS_FS_H

#include <sys/types.h>

#include "format/record_format.h"
#include "format/super_format.h"
#include "media/media.h"
#include "notify/event.h"

#define FS_ROOT_INO 1
#define FS_NAME_MAX 255
#define FS_SYMLINK_MAX 4095
#define FS_LINK_MAX 4294967295u
#define FS_FILE_MAX INT64_MAX

struct fs;

/* What reading does to the access time: nothing; what relatime of mount(8) says; each read sets it. */
enum fs_atime { FS_ATIME_NEVER, FS_ATIME_RELATIVE, FS_ATIME_ALWAYS };

struct fs_options {
	bool readonly;
	enum fs_atime atime;
	bool no_diratime; /* directories: never */
	uint64_t cache_bytes;	  /* 0: default */
	unsigned commit_seconds;  /* 0: 1 */
	bool tools;		  /* opened by a tool on an unmounted image: no background thread, no claim socket greeting */
	bool claim;
	bool weak_hash;		  /* tests: every name hashes to one value */
	bool repair;		  /* for fsck: changes nothing by itself (no count of mounts, no intents, orphans or ledger work), may change what it lost metadata of */
};

/* 0 or negative errno with `why`. Order: known poison of the source, superblock, poison log, journal, ledger, trees. */
int fs_mount(const char *path, const struct fs_options *options, struct why *why, struct fs **out);
/* The same over a medium that is open already and stays the caller's: fs_unmount() syncs it and leaves it open. */
int fs_mount_media(struct media *media, const struct fs_options *options, struct why *why, struct fs **out);
/* Frees orphans, syncs, checkpoints, closes. An error means that the next mount replays. */
int fs_unmount(struct fs *fs);
/* End as a kill -9 does: nothing more is stored, memory is given back, a medium of its own is closed. */
void fs_abandon(struct fs *fs);
/* mkfs's second half: media holds superblock, journal_format() and poison_log_format() results; build free space, reverse map, ledger and root. */
struct fs_format_options {
	const struct media_poison *bad; /* sectors, ascending, disjoint; latent: found by touching it just now (source sigbus) */
	size_t count_bad;
	devoff_t chunk[2];
	uid_t uid;
	gid_t gid;
	uint64_t time_ns;
	uint8_t bad_source; /* enum failure_source */
};
int fs_format(struct media *media, const struct super *super, const struct fs_format_options *options, struct why *why);
/* Read the newest valid superblock; slots in the known set are skipped. For mount and tools. */
int fs_read_super(struct media *media, struct super *super, struct why *why);
/*
 * A device or file that is larger than its filesystem: is the filesystem where it was? A namespace that was made anew with another size may begin
 * elsewhere, and superblocks alone do not show it. 0; -EUCLEAN: neither journal nor root block is at its place.
 */
int fs_check_place(struct media *media, const struct super *super, struct why *why);
/*
 * Store it in its slots, one after the other, each durable before the next is touched, so that a whole one is there at every moment; where a slot is
 * poisoned it is cleared first. 0 when at least one was stored; the error of the first that was not when none was.
 */
int fs_write_super(struct media *media, const struct super *super);

struct media *fs_media(struct fs *fs);
const struct super *fs_super(struct fs *fs); /* as it is now; valid until unmount */
/*
 * The visible identity, and the size. Each is durable on return, on every medium, and old or new after a crash. 0; -EINVAL, -EROFS, -ENOTSUP, or the medium's
 * error, each with `why`.
 */
int fs_set_label(struct fs *fs, const char *label, struct why *why);
int fs_set_uuid(struct fs *fs, const uint8_t uuid[FORMAT_UUID_BYTES], struct why *why);
/* Grow to size_bytes (a multiple of 4096; 0: as large as the device or file is), while it is in use. It cannot shrink. */
int fs_resize(struct fs *fs, uint64_t size_bytes, struct why *why);
struct event_bus *fs_events(struct fs *fs);
bool fs_is_readonly(struct fs *fs);

struct fs_who {
	uid_t uid;
	gid_t gid;
	mode_t umask; /* of new files; a default ACL of the directory takes its place */
};
struct fs_attr {
	inum_t ino;
	struct inode_record record;
};

int fs_lookup(struct fs *fs, inum_t dir, const char *name, struct fs_attr *out); /* "." and ".." work */
void fs_forget(struct fs *fs, inum_t ino, uint64_t count);
int fs_getattr(struct fs *fs, inum_t ino, struct fs_attr *out);
enum fs_set {
	FS_SET_MODE = 1, FS_SET_UID = 2, FS_SET_GID = 4, FS_SET_SIZE = 8,
	FS_SET_ATIME = 16, FS_SET_MTIME = 32, FS_SET_ATIME_NOW = 64, FS_SET_MTIME_NOW = 128, FS_SET_CTIME = 256,
	FS_SET_KILL_SUIDGID = 512,
	FS_SET_KILL_SETGID = 1024, /* of no directory, also where the group may not execute: a new owner by one who is not in the file's group */
};
int fs_setattr(struct fs *fs, inum_t ino, unsigned set, const struct inode_record *values, struct fs_attr *out);

/*
 * Extended attributes: user., trusted. (of uid 0 only), security., system.posix_acl_access and _default; the latter are verified, and kept in step with the mode.
 * Values up to 64 KiB. What is set is there wholly or not at all. -ENODATA, -EEXIST, -ERANGE (name or buffer), -E2BIG, -EPERM, -EOPNOTSUPP, -EINVAL, -ENOSPC.
 * Reading without a buffer (NULL) tells the length only. Who may read or write the file is the caller's business, as always.
 */
#define FS_XATTR_FLAGS 3	   /* XATTR_CREATE, XATTR_REPLACE of setxattr(2) */
#define FS_XATTR_KILL_SGID (1 << 16) /* an access ACL set by one who is not in the file's group */
int fs_getxattr(struct fs *fs, const struct fs_who *who, inum_t ino, const char *name, void *buffer, size_t size, size_t *length);
int fs_setxattr(struct fs *fs, const struct fs_who *who, inum_t ino, const char *name, const void *value, size_t size, int flags);
int fs_removexattr(struct fs *fs, const struct fs_who *who, inum_t ino, const char *name);
/* Names, each with its NUL; trusted ones for uid 0 only. */
int fs_listxattr(struct fs *fs, const struct fs_who *who, inum_t ino, char *buffer, size_t size, size_t *length);

/*
 * What chattr(1) and xfs_io set: flags (INODE_FS_FLAGS), project id, extent-size hint in blocks, whichever `set` names. The kernel need not have judged, so it is done here:
 * not the owner and not uid 0, or immutable, append only or the project changed without uid 0: -EPERM; a flag that is unknown or that this kind of inode cannot have:
 * -EOPNOTSUPP. Every other call answers -EPERM to what these flags forbid, and is durable on return where INODE_SYNC or INODE_DIRSYNC ask for it.
 */
enum fs_set_flags { FS_SET_FLAGS = 1, FS_SET_PROJECT = 2, FS_SET_EXTENT_HINT = 4 };
int fs_set_flags(struct fs *fs, const struct fs_who *who, inum_t ino, unsigned set, const struct inode_record *values);
/* May this inode be opened with these flags of open(2), as far as the flags above say? -EPERM. What is open already is refused call by call. */
int fs_verify_open(struct fs *fs, inum_t ino, int open_flags);

/* mode carries the type: regular, directory, fifo, socket, device (rdev). -EEXIST, -ENOSPC, -ENAMETOOLONG, -ENOTDIR, -ENOENT (dir removed). */
int fs_create(struct fs *fs, const struct fs_who *who, inum_t dir, const char *name, mode_t mode, dev_t rdev, struct fs_attr *out);
/* An inode without a name (O_TMPFILE); dir gives ownership only. */
int fs_tmpfile(struct fs *fs, const struct fs_who *who, inum_t dir, mode_t mode, struct fs_attr *out);
int fs_symlink(struct fs *fs, const struct fs_who *who, inum_t dir, const char *name, const char *target, struct fs_attr *out);
int fs_readlink(struct fs *fs, inum_t ino, char *buffer, size_t size); /* NUL-terminated */
int fs_link(struct fs *fs, inum_t ino, inum_t dir, const char *name, struct fs_attr *out);
int fs_unlink(struct fs *fs, inum_t dir, const char *name);
int fs_rmdir(struct fs *fs, inum_t dir, const char *name);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT of renameat2(2); others -EINVAL. `who` owns the whiteout. */
int fs_rename(struct fs *fs, const struct fs_who *who, inum_t dir, const char *name, inum_t new_dir, const char *new_name, unsigned flags);

/* Entries after the cookie (0: from the start; 1 and 2 are "." and ".."). visit answers 0 to go on, 1 when its buffer is full (that entry was not
 * taken). attr is NULL unless with_attr, in which case taken entries (not dots) carry a lookup reference; it is NULL too for dots and
 * for an entry whose inode cannot be read. */
typedef int fs_dirent_fn(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie, const struct fs_attr *attr);
int fs_readdir(struct fs *fs, inum_t dir, uint64_t cookie, bool with_attr, fs_dirent_fn *visit, void *arg);
/*
 * Has fs_readdir() told anything of the directory since this was last asked? For a front whose kernel keeps what it was told: who changes names asks, and
 * forgets what is kept. True as well where that is not known, because the directory was not in memory all the while: hold a lookup reference.
 */
bool fs_listing_ends(struct fs *fs, inum_t dir);

/*
 * Read. *done bytes (short only at end of file). A range that meets poison: -EIO with *done = bytes before the first bad 4 KiB block of the file,
 * all of them valid in buffer (the caller decides between short and EIO). Holes and unwritten blocks are zeros.
 */
int fs_read(struct fs *fs, inum_t ino, uint64_t pos, void *buffer, size_t size, size_t *done);
/* The same for O_NOATIME. */
int fs_read_unseen(struct fs *fs, inum_t ino, uint64_t pos, void *buffer, size_t size, size_t *done);
/* Write all of it, or an error and a prefix (*done). Partial overwrite of a bad block is -EIO; of whole blocks heals them. */
int fs_write(struct fs *fs, inum_t ino, uint64_t pos, const void *buffer, size_t size, size_t *done);
/* What has become of a file's setuid and setgid bits under `kills_ids`: added to *ids of the calls below, which may be NULL. */
#define FS_IDS_KILLED 1u /* the mode has changed */
#define FS_IDS_SETGID 2u /* setgid is still there, since the group may not execute: whether the caller's changes clear it all the same he knows (FS_SET_KILL_SETGID) */
/* The same as fs_write(), of one who may not keep the file's setuid and setgid bits if `kills_ids`. */
int fs_write_as(struct fs *fs, inum_t ino, bool kills_ids, uint64_t pos, const void *buffer, size_t size, size_t *done, unsigned *ids);
/*
 * Before content changes: security.capability goes, and if `kills_ids` the setuid bit, and the setgid bit where the group may execute. Calls that change content
 * (those with _as, those without for one who may keep the bits, the size in fs_setattr()) do that themselves, once nothing can refuse them any more. It is durable before any new content can be seen, so a crash never leaves new content with old privileges.
 */
int fs_kill_privileges(struct fs *fs, inum_t ino, bool kills_ids, unsigned *ids);
/* As fs_write at the end of file, atomically. */
int fs_append(struct fs *fs, inum_t ino, const void *buffer, size_t size, size_t *done);
int fs_fsync(struct fs *fs, inum_t ino);
int fs_syncfs(struct fs *fs);
/*
 * May be short: after about 1 GiB of data. Holes stay holes and take no time by their length. Within a file the ranges may not overlap (-EINVAL).
 */
int fs_copy_range(struct fs *fs, inum_t from, uint64_t from_pos, inum_t to, uint64_t to_pos, uint64_t length, uint64_t *done);
/*
 * Whole-file reflink of `from` over `to`, chained under an intent, finished by mount after a crash. When space runs out in the middle (-ENOSPC) `to` is
 * the beginning of `from`, maybe empty.
 */
int fs_clone(struct fs *fs, inum_t from, inum_t to);
/*
 * Deduplication, by the rules of FIDEDUPERANGE for one destination: if both ranges hold the same bytes, `to` shares the blocks of `from` afterwards. Positions in whole
 * blocks; both ranges within their files (-EINVAL); the file may be the same, the ranges apart (-EINVAL); a last piece of a block is left out unless it
 * ends both files. Holes and unwritten blocks are zeros; where `to` has such it stays as it is, and what is shared already is not read. Neither times nor
 * privileges change, for the content does not; files that may only be appended to are fine, immutable ones are not (-EPERM).
 *
 * Compared and shared in slices of about 1 MiB, each under both files' data locks. A difference, or bytes that cannot be read (-EIO), in a range that nobody writes to
 * leave it as it was; beside writers it ends short. Crash: any part of it is shared, the content is the same.
 */
#define FS_DEDUPE_BYTES (16ull << 20) /* compared by one call; what needs no comparing is not counted */
struct fs_dedupe {
	inum_t from, to;
	uint64_t from_pos, to_pos, length;
	uint64_t done;	 /* bytes from the beginning that are the same, and shared where there is anything to share. May be short */
	uint64_t gained; /* of these, not shared before */
	bool differs;	 /* done is 0 then */
};
int fs_dedupe(struct fs *fs, struct fs_dedupe *dedupe);
/* FALLOC_FL_ flags: 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE; others -EOPNOTSUPP. */
int fs_fallocate(struct fs *fs, inum_t ino, int mode, uint64_t pos, uint64_t length);
/* The same, of one who may not keep the file's setuid and setgid bits if `kills_ids`. */
int fs_fallocate_as(struct fs *fs, inum_t ino, bool kills_ids, int mode, uint64_t pos, uint64_t length, unsigned *ids);
int fs_copy_range_as(struct fs *fs, bool kills_ids, inum_t from, uint64_t from_pos, inum_t to, uint64_t to_pos, uint64_t length, uint64_t *done,
		     unsigned *ids);
int fs_seek(struct fs *fs, inum_t ino, uint64_t pos, int whence, uint64_t *out); /* SEEK_DATA, SEEK_HOLE */

/*
 * FITRIM: free space within the range, in runs of at least least_bytes, goes back to the host, and reads as zeros from then on. Blocks whose freeing is not durable, that are set
 * aside, quarantined or known to be bad are left alone; others go on allocating meanwhile. go_on (may be NULL) is asked before each of many steps: false ends it with -EINTR.
 * 0; -EINVAL (a start past the end, less than a block); -EOPNOTSUPP: the medium has no such thing; -EROFS; *trimmed_bytes counts, also with an error.
 */
struct fs_trim_range {
	uint64_t start, length_bytes, least_bytes;
};
typedef bool fs_go_on_fn(void *arg);
int fs_trim(struct fs *fs, const struct fs_trim_range *range, fs_go_on_fn *go_on, void *arg, uint64_t *trimmed_bytes);

/*
 * The end of use, as FS_IOC_SHUTDOWN has it. From now on every call answers -EIO, but for fs_statfs(), fs_getattr() of the root, fs_forget(), fs_unmount() and what fs/query.h has; the state is
 * "shutdown", an event says so, and on return nothing is stored any more by anybody, fs_unmount() included. How much of what was acknowledged is durable on PAGE
 * media (on others all of it is): everything; the journal, with all data that it names; what happens to be. The next mount recovers. 0, also when it was stopped already;
 * the error of syncing: stopped all the same.
 */
enum fs_stop_mode { FS_STOP_SYNCED, FS_STOP_LOGGED, FS_STOP_AT_ONCE };
int fs_stop(struct fs *fs, enum fs_stop_mode mode);
/* Visit the inodes that the kernel may know (with lookup references), no lock held. Stops at the first nonzero answer and returns it; -ENOMEM. */
typedef int fs_known_fn(void *arg, inum_t ino);
int fs_known(struct fs *fs, fs_known_fn *visit, void *arg);

struct fs_statfs {
	uint64_t total_blocks, free_blocks;
	uint64_t available_blocks;    /* to data: free but for the reserve of metadata and deletes */
	uint64_t inodes, free_inodes; /* in use; an estimate of how many more there may be */
};
void fs_statfs(struct fs *fs, struct fs_statfs *out);

#endif
