/* What mendctl asks, on a mounted filesystem or in-process on an unmounted one. Visitors answer 0 to go on; no lock is held while they run. */
#ifndef FS_QUERY_H
#define FS_QUERY_H

#include "fs/fs.h"
#include "journal/journal.h"
#include "notify/loss.h"

enum fs_owner_kind { FS_OWNER_DATA, FS_OWNER_METADATA, FS_OWNER_JOURNAL, FS_OWNER_SUPERBLOCK, FS_OWNER_FREE, FS_OWNER_QUARANTINE };
const char *fs_owner_kind_name(enum fs_owner_kind kind);

struct fs_owner {
	enum fs_owner_kind kind;
	devoff_t device_offset;
	uint64_t length_bytes;
	inum_t ino; /* data */
	uint32_t generation;
	uint64_t pos;
	int copy; /* metadata, journal, superblock: 0 primary, 1 replica, else -1 */
	bool has_peer;
	devoff_t peer_offset;
	const char *tree; /* metadata: name, "poison_log", "chunks", "root"; NULL otherwise */
	bool live;	  /* metadata: this block is in use. Live and unused blocks are separate ranges, one live block each */
};
typedef int fs_owner_fn(void *arg, const struct fs_owner *owner);
/*
 * Cover [offset, offset + length) without gaps, clipped to it, sorted by device_offset, inode, pos. O(log n + answers). -ERANGE beyond the end. Memory: 40 bytes for each owner of the
 * first block, else bounded.
 *
 * The metadata lock is held for 512 records at a time, and changes come between. What is not being changed while it runs is told exactly once, as it is. An owner that gains or loses
 * some of these blocks, or blocks beside them, in the meantime is told as it was at one of these moments, seldom twice; nothing is told that never was.
 */
int fs_owners(struct fs *fs, devoff_t offset, uint64_t length, fs_owner_fn *visit, void *arg);

/* All paths of an inode (from "/"), each malloc'ed, in *out (free each, then the array). None for an orphan. -ELOOP on a damaged tree. */
int fs_paths(struct fs *fs, inum_t ino, uint32_t *generation, char ***out, size_t *count);
void fs_paths_free(char **paths, size_t count);
/* A path from the filesystem's root, without following a last symlink. No reference is taken. */
int fs_resolve(struct fs *fs, const char *path, inum_t *out);

struct fs_map_extent {
	uint64_t pos, length_bytes;
	devoff_t device_offset;
	bool shared, written;
};
typedef int fs_map_fn(void *arg, const struct fs_map_extent *extent);
int fs_map(struct fs *fs, inum_t ino, uint64_t pos, uint64_t length, fs_map_fn *visit, void *arg);

struct fs_damage { /* one contiguous range of a file; ranges of one inode follow each other */
	inum_t ino;
	uint64_t pos, length_bytes, cause_id; /* cause_id: the first of cause_ids */
	const uint64_t *cause_ids; /* all of them, ascending; valid during the visit */
	size_t count_causes;
};
typedef int fs_damage_fn(void *arg, const struct fs_damage *damage);
/* rmap x (badblocks united with lost), and `damaged`. Sorted by inode, pos. -EIO, -EUCLEAN: some of these trees cannot be read; the rest was told. */
int fs_damaged(struct fs *fs, fs_damage_fn *visit, void *arg);

typedef int fs_badblock_fn(void *arg, const struct badblock_record *record);
int fs_badblocks(struct fs *fs, fs_badblock_fn *visit, void *arg);

#define FS_LOSSES_MAX 8
struct fs_summary {
	const char *state; /* ok, degraded, readonly, shutdown */
	const char *state_reason; /* why nothing is changed any more: "metadata_lost", "device_removed", ...; NULL */
	struct meta_loss losses[FS_LOSSES_MAX]; /* the first of the metadata blocks of which no copy can be read; files are counted, not named */
	size_t count_losses, lost_blocks;  /* told here; known (at most LOST_BLOCKS_MAX) */
	uint64_t size_bytes, free_bytes, badblock_bytes, quarantined_bytes, damaged_files, sigbus_count;
	const char *kernel_badblocks;	/* "known", "unknown"; NULL: nobody keeps a list for such a medium */
	struct why kernel_badblocks_why; /* of "unknown" */
	const char *hardware_scrub;	/* "idle", "running"; NULL: nobody scrubs such a medium */
};
int fs_summary(struct fs *fs, struct fs_summary *out);

/* Device ranges behind a range of a file: inject-error --file. -ENXIO: a hole or past the end of file. */
int fs_inject(struct fs *fs, devoff_t offset, uint64_t length, bool latent);
int fs_uninject(struct fs *fs, devoff_t offset, uint64_t length, uint64_t *removed_bytes);
int fs_notify_wait(struct fs *fs, unsigned timeout_ms);
/* What is new on the kernel's list of bad blocks is reported and handled. -ETIMEDOUT. */
int fs_refresh_badblocks(struct fs *fs, unsigned timeout_ms);

/* Called by the notify thread for each damaged or healed file range, no lock held: the FUSE front invalidates the kernel's pages. */
typedef void fs_invalidate_fn(void *arg, inum_t ino, uint64_t pos, uint64_t length);
void fs_set_invalidate(struct fs *fs, fs_invalidate_fn *fn, void *arg);

/*
 * Check everything that can be checked without writing: each tree's structure, all copies of metadata, extents against rmap both ways, rmap against free
 * space (exact complement), names against parents and links, counters, ledger. Others may go on changing the filesystem: the metadata lock is held
 * shared for short pieces of work, and what was changing under the check is not judged, only counted. Every finding is told through `tell`, no lock held.
 */
typedef void fs_check_fn(void *arg, const char *line);
struct fs_check_totals {
	uint64_t findings, inodes, extents, rmap_records, blocks_compared;
	uint64_t metadata_blocks; /* in use, each in all its copies */
	uint64_t not_compared;	  /* things that were being changed when it was their turn */
	uint64_t longest_hold;	  /* work done under one hold of the metadata lock, in records */
};
struct fs_check_options {
	fs_check_fn *tell; /* NULL: only count */
	/* Every few milliseconds, no lock held: false ends the check with -ECANCELED. total 0: unknown. NULL: nobody looks. */
	bool (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
	uint64_t hold_units; /* 0: the usual. Tests: fewer records under one hold, so that much happens between */
};
/* 0 whatever it found; -ECANCELED; -ENOMEM. */
int fs_check_with(struct fs *fs, const struct fs_check_options *options, struct fs_check_totals *out);
int fs_check(struct fs *fs, fs_check_fn *tell, void *arg, struct fs_check_totals *out);
/* Drop clean caches (tests and `mendctl drop-caches`). */
void fs_drop_caches(struct fs *fs);

/* What the journal has done since mount. */
void fs_journal_counts(struct fs *fs, struct journal_counts *out);

#endif
