#include "bench/populate.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/dir.h"
#include "journal/root.h"

#define FILES_PER_DIR 1000
#define ROOM_BLOCKS 100

struct populate {
	struct fs *fs;
	struct tx *tx;
	uint64_t files, extents, dirs;
	uint64_t stride; /* file i lies in slot i * stride mod files */
	blkno_t base;
};

typedef int populate_step_fn(struct populate *populate, uint64_t index);

static inum_t dir_ino(uint64_t dir)
{
	return FS_ROOT_INO + 1 + dir;
}

static inum_t file_ino(const struct populate *populate, uint64_t file)
{
	return dir_ino(populate->dirs) + file;
}

static uint64_t file_slot(const struct populate *populate, uint64_t file)
{
	return file * populate->stride % populate->files;
}

static int put_inode(struct populate *populate, inum_t ino, const struct inode_record *record)
{
	struct btree_key key = {{ino}};
	struct format_inode packed;

	format_inode_pack(&packed, record);
	return btree_insert(&populate->fs->inodes, populate->tx, &key, &packed, sizeof(packed));
}

static int put_name(struct populate *populate, inum_t dir, inum_t ino, uint32_t mode, const char *prefix, uint64_t number)
{
	struct dir_entry entry = {.record = {.ino = ino, .generation = 1, .type = dir_type_of_mode(mode)}};

	snprintf(entry.record.name, sizeof(entry.record.name), "%s%08llu", prefix, (unsigned long long)number);
	entry.record.name_length = (uint8_t)strlen(entry.record.name);
	return dir_insert_entry(populate->fs, populate->tx, dir, &entry);
}

static uint64_t files_in_dir(const struct populate *populate, uint64_t dir)
{
	return min_u64(FILES_PER_DIR, populate->files - dir * FILES_PER_DIR);
}

static int populate_dir(struct populate *populate, uint64_t dir)
{
	struct inode_record record = {.mode = S_IFDIR | 0755, .nlink = 2, .generation = 1, .parent = FS_ROOT_INO,
				      .entries = files_in_dir(populate, dir)};
	int error = put_inode(populate, dir_ino(dir), &record);

	return error ? error : put_name(populate, FS_ROOT_INO, dir_ino(dir), S_IFDIR, "directory-", dir);
}

static int populate_file(struct populate *populate, uint64_t file)
{
	struct inode_record record = {.mode = S_IFREG | 0644, .nlink = 1, .generation = 1,
				      .size_bytes = populate->extents * BLOCK_BYTES, .count_blocks = populate->extents};
	inum_t ino = file_ino(populate, file);
	int error = put_inode(populate, ino, &record);

	return error ? error : put_name(populate, dir_ino(file / FILES_PER_DIR), ino, S_IFREG, "file-", file);
}

static int populate_extents(struct populate *populate, uint64_t file)
{
	blkno_t start = populate->base + file_slot(populate, file) * populate->extents;
	int error = 0;

	for (uint64_t i = 0; i < populate->extents && !error; i++) {
		struct extent extent = {.file_block = i, .block = start + populate->extents - 1 - i, .count_blocks = 1};
		struct btree_key key = {{file_ino(populate, file), i}};
		struct format_extent packed;

		format_extent_pack(&packed, &extent);
		error = btree_insert(&populate->fs->extents, populate->tx, &key, &packed, sizeof(packed));
	}
	return error;
}

/* In the order of blocks: which file lies in this slot is asked of the inverse of the stride. */
static uint64_t inverse(uint64_t stride, uint64_t modulus)
{
	int64_t t = 0, next_t = 1;
	uint64_t r = modulus, next_r = stride;

	while (next_r) {
		uint64_t quotient = r / next_r, rest = r % next_r;
		int64_t old_t = t;

		t = next_t;
		next_t = old_t - (int64_t)quotient * next_t;
		r = next_r;
		next_r = rest;
	}
	return t < 0 ? (uint64_t)(t + (int64_t)modulus) : (uint64_t)t;
}

static int populate_rmap(struct populate *populate, uint64_t slot)
{
	static uint64_t back;
	blkno_t start = populate->base + slot * populate->extents;
	uint64_t file;
	int error = 0;

	if (!slot)
		back = inverse(populate->stride, populate->files);
	file = (uint64_t)((unsigned __int128)slot * back % populate->files);
	for (uint64_t i = 0; i < populate->extents && !error; i++) {
		struct btree_key key = {{start + i, file_ino(populate, file), populate->extents - 1 - i}};
		struct format_rmap packed;

		format_rmap_pack(&packed, 1, 0);
		error = btree_insert(&populate->fs->rmap.tree, populate->tx, &key, &packed, sizeof(packed));
	}
	return error;
}

static int populate_space(struct populate *populate, uint64_t index)
{
	struct inode_record root = {.mode = S_IFDIR | 0755, .nlink = (uint32_t)(2 + populate->dirs), .generation = 1, .parent = FS_ROOT_INO,
				    .entries = populate->dirs};
	struct btree_key key = {{FS_ROOT_INO}};
	struct format_inode packed;
	int error = alloc_take_exact(populate->fs->alloc, populate->tx, populate->base, populate->files * populate->extents);

	(void)index;
	format_inode_pack(&packed, &root);
	if (!error)
		error = btree_update(&populate->fs->inodes, populate->tx, &key, &packed, sizeof(packed));
	if (!error)
		error = root_add(populate->tx, ROOT_INODES, (int64_t)(populate->dirs + populate->files));
	return error ? error : root_set(populate->tx, ROOT_NEXT_INO, file_ino(populate, populate->files));
}

static int populate_all(struct populate *populate, const char *what, uint64_t count, populate_step_fn *step)
{
	uint64_t done = 0;
	int error = 0;

	while (done < count && !error) {
		error = fs_tx_begin(populate->fs, TX_NORMAL, &populate->tx);
		if (error)
			break;
		do {
			error = step(populate, done);
		} while (!error && ++done < count && tx_room(populate->tx) > ROOM_BLOCKS);
		if (error)
			tx_abort(populate->tx);
		else
			error = tx_commit(populate->tx, NULL);
	}
	if (error)
		fprintf(stderr, "populate: %s, at %llu of %llu: %s\n", what, (unsigned long long)done, (unsigned long long)count,
			strerror(-error));
	return error;
}

/* The golden section spreads neighbours; it must have an inverse. */
static uint64_t find_stride(uint64_t files)
{
	uint64_t stride = files * 618 / 1000 | 1;

	for (;; stride++) {
		uint64_t a = stride, b = files;

		while (b) {
			uint64_t rest = a % b;

			a = b;
			b = rest;
		}
		if (a == 1)
			return stride;
	}
}

static int populate_run(struct populate *populate)
{
	static const struct { const char *what; populate_step_fn *step; } steps[] = {
		{"space", populate_space}, {"directories", populate_dir}, {"files", populate_file}, {"extents", populate_extents},
		{"reverse map", populate_rmap}};
	const uint64_t counts[] = {1, populate->dirs, populate->files, populate->files, populate->files};
	int error = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(steps) && !error; i++)
		error = populate_all(populate, steps[i].what, counts[i], steps[i].step);
	return error;
}

/* Behind the first chunks, before the replicas' half. */
blkno_t populate_base(const struct fs *fs)
{
	return fs->super.size_bytes / BLOCK_BYTES / 16;
}

int populate_files(struct fs *fs, uint64_t files, uint64_t extents)
{
	struct populate populate = {.fs = fs, .files = files, .extents = extents};

	populate.dirs = (files + FILES_PER_DIR - 1) / FILES_PER_DIR;
	populate.stride = find_stride(files);
	populate.base = populate_base(fs);
	return populate_run(&populate);
}
