#include "tests/exhaust/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/acl_format.h"
#include "fs/query.h"

#define BIG_PIECES 330 /* every other block, so that it is that many extents: more than one transaction ends */
#define BUFFER_BYTES (128u << 10)

static const struct fs_who who = {.uid = 1000, .gid = 1000};
static uint8_t buffer[BUFFER_BYTES]; /* one operation at a time */

/* --- the tree ------------------------------------------------------------------------------------------------------------------- */

static void fill(uint8_t seed)
{
	for (unsigned i = 0; i < BUFFER_BYTES; i++)
		buffer[i] = (uint8_t)(seed + i * 7 + i / BLOCK_BYTES);
}

static int put(struct fs *fs, inum_t ino, uint64_t pos, size_t length, uint8_t seed)
{
	size_t done = 0;

	fill(seed);
	return fs_write(fs, ino, pos, buffer, length, &done);
}

static int make(struct fs *fs, inum_t dir, const char *name, mode_t mode, inum_t *ino)
{
	struct fs_attr attr;
	int error = fs_create(fs, &who, dir, name, mode, 0, &attr);

	if (error)
		return error;
	fs_forget(fs, attr.ino, 1);
	if (ino)
		*ino = attr.ino;
	return 0;
}

static int make_file(struct fs *fs, const char *name, size_t length, inum_t *ino)
{
	int error = make(fs, FS_ROOT_INO, name, S_IFREG | 0644, ino);

	return !error && length ? put(fs, *ino, 0, length, (uint8_t)name[0]) : error;
}

static int build_big(struct fs *fs, inum_t ino)
{
	int error = 0;

	for (unsigned i = 0; i < BIG_PIECES && !error; i++)
		error = put(fs, ino, (uint64_t)i * 2 * BLOCK_BYTES, BLOCK_BYTES, (uint8_t)i);
	return error;
}

static int build_names(struct fs *fs, struct ops_tree *tree)
{
	struct fs_attr attr;
	int error = make(fs, FS_ROOT_INO, "dir", S_IFDIR | 0755, &tree->dir);

	if (!error)
		error = make(fs, FS_ROOT_INO, "target", S_IFDIR | 0755, &tree->target);
	if (!error)
		error = make(fs, tree->dir, "sub", S_IFDIR | 0755, NULL);
	for (char name[8] = "x0"; !error && name[1] < '9'; name[1]++)
		error = make(fs, tree->dir, name, S_IFREG | 0600, NULL);
	if (!error)
		error = fs_symlink(fs, &who, FS_ROOT_INO, "symlink", "where/to", &attr);
	if (error)
		return error;
	tree->symlink = attr.ino;
	fs_forget(fs, attr.ino, 1);
	error = fs_link(fs, tree->file, tree->dir, "link", &attr);
	if (!error)
		fs_forget(fs, attr.ino, 1);
	return error;
}

int ops_build(struct fs *fs, struct ops_tree *tree)
{
	int error = make_file(fs, "file", 50000, &tree->file);

	if (!error)
		error = make_file(fs, "other", 30000, &tree->other);
	if (!error)
		error = make_file(fs, "big", 0, &tree->big);
	if (!error)
		error = make_file(fs, "shared", 0, &tree->shared);
	if (!error)
		error = make_file(fs, "empty", 0, &tree->empty);
	if (!error)
		error = build_big(fs, tree->big);
	if (!error)
		error = fs_clone(fs, tree->other, tree->shared);
	return error ? error : build_names(fs, tree);
}

/* --- names ------------------------------------------------------------------------------------------------------------------------ */

static int forget_made(struct fs *fs, int error, const struct fs_attr *attr)
{
	if (!error)
		fs_forget(fs, attr->ino, 1);
	return error;
}

static int run_create(struct fs *fs, const struct ops_tree *tree)
{
	return make(fs, tree->dir, "new", S_IFREG | 0644, NULL);
}

static int run_mkdir(struct fs *fs, const struct ops_tree *tree)
{
	return make(fs, tree->dir, "new", S_IFDIR | 0755, NULL);
}

static int run_mknod(struct fs *fs, const struct ops_tree *tree)
{
	return make(fs, FS_ROOT_INO, "fifo", S_IFIFO | 0644, NULL);
}

static int run_tmpfile(struct fs *fs, const struct ops_tree *tree)
{
	struct fs_attr attr;
	int error = fs_tmpfile(fs, &who, FS_ROOT_INO, S_IFREG | 0600, &attr);

	if (!error)
		error = put(fs, attr.ino, 0, 20000, 1);
	return forget_made(fs, error, &attr);
}

static int run_symlink(struct fs *fs, const struct ops_tree *tree)
{
	char target[FS_SYMLINK_MAX + 1] = {0};
	struct fs_attr attr;

	memset(target, 't', FS_SYMLINK_MAX);
	return forget_made(fs, fs_symlink(fs, &who, FS_ROOT_INO, "long", target, &attr), &attr);
}

static int run_link(struct fs *fs, const struct ops_tree *tree)
{
	struct fs_attr attr;

	return forget_made(fs, fs_link(fs, tree->file, tree->target, "another", &attr), &attr);
}

static int run_unlink_link(struct fs *fs, const struct ops_tree *tree)
{
	return fs_unlink(fs, tree->dir, "link");
}

static int run_unlink_big(struct fs *fs, const struct ops_tree *tree)
{
	return fs_unlink(fs, FS_ROOT_INO, "big");
}

static int hold_big(struct fs *fs, const struct ops_tree *tree)
{
	struct fs_attr attr;

	return fs_lookup(fs, FS_ROOT_INO, "big", &attr);
}

/* The last reference goes, and with it all of the file. */
static int run_unlink_and_forget(struct fs *fs, const struct ops_tree *tree)
{
	int error = fs_unlink(fs, FS_ROOT_INO, "big");

	fs_forget(fs, tree->big, 1);
	return error;
}

static int run_rmdir(struct fs *fs, const struct ops_tree *tree)
{
	return fs_rmdir(fs, FS_ROOT_INO, "target");
}

static int run_rename(struct fs *fs, const struct ops_tree *tree)
{
	return fs_rename(fs, &who, FS_ROOT_INO, "file", FS_ROOT_INO, "file-renamed", 0);
}

static int run_rename_dir(struct fs *fs, const struct ops_tree *tree)
{
	return fs_rename(fs, &who, tree->dir, "sub", tree->target, "sub", 0);
}

static int run_rename_over(struct fs *fs, const struct ops_tree *tree)
{
	return fs_rename(fs, &who, FS_ROOT_INO, "file", FS_ROOT_INO, "big", 0);
}

static int run_rename_noreplace(struct fs *fs, const struct ops_tree *tree)
{
	return fs_rename(fs, &who, FS_ROOT_INO, "file", tree->dir, "moved", RENAME_NOREPLACE);
}

static int run_rename_exchange(struct fs *fs, const struct ops_tree *tree)
{
	return fs_rename(fs, &who, tree->dir, "sub", FS_ROOT_INO, "other", RENAME_EXCHANGE);
}

static int run_rename_whiteout(struct fs *fs, const struct ops_tree *tree)
{
	return fs_rename(fs, &who, tree->dir, "sub", FS_ROOT_INO, "away", RENAME_WHITEOUT);
}

/* --- attributes and sizes -------------------------------------------------------------------------------------------------------- */

static int run_chmod(struct fs *fs, const struct ops_tree *tree)
{
	struct inode_record values = {.mode = 0600, .uid = 7};
	struct fs_attr attr;

	return fs_setattr(fs, tree->file, FS_SET_MODE | FS_SET_UID | FS_SET_MTIME_NOW, &values, &attr);
}

static int run_flags(struct fs *fs, const struct ops_tree *tree)
{
	const struct inode_record values = {.flags = INODE_NODUMP | INODE_SYNC, .project = 3};
	const struct fs_who root = {.uid = 0};

	return fs_set_flags(fs, &root, tree->file, FS_SET_FLAGS | FS_SET_PROJECT, &values);
}

static int set_size(struct fs *fs, inum_t ino, uint64_t size)
{
	struct inode_record values = {.size_bytes = size};
	struct fs_attr attr;

	return fs_setattr(fs, ino, FS_SET_SIZE, &values, &attr);
}

static int run_shrink(struct fs *fs, const struct ops_tree *tree)
{
	return set_size(fs, tree->other, 4097); /* of a block that is shared */
}

static int run_shrink_big(struct fs *fs, const struct ops_tree *tree)
{
	return set_size(fs, tree->big, 10);
}

static int run_grow(struct fs *fs, const struct ops_tree *tree)
{
	return set_size(fs, tree->file, 200000);
}

/* --- extended attributes ----------------------------------------------------------------------------------------------------------- */

static const struct fs_who root = {.uid = 0};

static int set_xattr(struct fs *fs, inum_t ino, const char *name, size_t size, uint8_t seed)
{
	fill(seed);
	return fs_setxattr(fs, &root, ino, name, buffer, size, 0);
}

static int run_setxattr(struct fs *fs, const struct ops_tree *tree)
{
	return set_xattr(fs, tree->file, "user.new", 100, 1);
}

static int run_setxattr_longest(struct fs *fs, const struct ops_tree *tree)
{
	return set_xattr(fs, tree->file, "user.new", 65536, 2);
}

static int prepare_xattrs(struct fs *fs, const struct ops_tree *tree)
{
	int error = set_xattr(fs, tree->file, "user.long", 60000, 3);

	if (!error)
		error = set_xattr(fs, tree->file, "security.capability", 20, 4);
	return error ? error : set_xattr(fs, tree->file, "user.short", 3000, 5);
}

static int run_replace_xattr(struct fs *fs, const struct ops_tree *tree)
{
	return set_xattr(fs, tree->file, "user.long", 65000, 6);
}

static int run_removexattr(struct fs *fs, const struct ops_tree *tree)
{
	return fs_removexattr(fs, &root, tree->file, "user.long");
}

static int run_read_xattrs(struct fs *fs, const struct ops_tree *tree)
{
	size_t length;
	int error = fs_getxattr(fs, &root, tree->file, "user.long", buffer, BUFFER_BYTES, &length);

	return error ? error : fs_listxattr(fs, &root, tree->file, (char *)buffer, BUFFER_BYTES, &length);
}

static int set_acl(struct fs *fs, inum_t ino, const char *name)
{
	static const struct acl acl = {
		.count = 5,
		.entries = {{ACL_TAG_USER_OBJ, 7, 0}, {ACL_TAG_USER, 7, 5}, {ACL_TAG_GROUP_OBJ, 7, 0}, {ACL_TAG_MASK, 5, 0}, {ACL_TAG_OTHER, 4, 0}},
	};

	return fs_setxattr(fs, &root, ino, name, buffer, format_acl_pack(buffer, &acl), 0);
}

static int run_setacl(struct fs *fs, const struct ops_tree *tree)
{
	return set_acl(fs, tree->file, "system.posix_acl_access");
}

static int prepare_default(struct fs *fs, const struct ops_tree *tree)
{
	return set_acl(fs, tree->dir, "system.posix_acl_default");
}

static int run_kill(struct fs *fs, const struct ops_tree *tree)
{
	return fs_kill_privileges(fs, tree->file, true, NULL);
}

static int run_write_as(struct fs *fs, const struct ops_tree *tree)
{
	size_t done = 0;

	fill(9);
	return fs_write_as(fs, tree->file, true, 10, buffer, 30000, &done, NULL);
}

static int run_fallocate_as(struct fs *fs, const struct ops_tree *tree)
{
	return fs_fallocate_as(fs, tree->file, true, 0, 0, 300000, NULL);
}

static int run_copy_as(struct fs *fs, const struct ops_tree *tree)
{
	int error = 0;

	/* May copy less at a time. */
	for (uint64_t at = 0, done = 0; at < 30000 && !error; at += done)
		error = fs_copy_range_as(fs, true, tree->big, at, tree->file, 100 + at, 30000 - at, &done, NULL);
	return error;
}

/* --- data ------------------------------------------------------------------------------------------------------------------------- */

static int run_write_new(struct fs *fs, const struct ops_tree *tree)
{
	return put(fs, tree->empty, 0, 100000, 3);
}

static int run_overwrite(struct fs *fs, const struct ops_tree *tree)
{
	return put(fs, tree->file, 5, 40000, 4);
}

static int run_write_shared(struct fs *fs, const struct ops_tree *tree)
{
	return put(fs, tree->shared, 100, 12000, 5);
}

static int run_write_holes(struct fs *fs, const struct ops_tree *tree)
{
	return put(fs, tree->big, 0, 16 * BLOCK_BYTES, 6);
}

static int run_append(struct fs *fs, const struct ops_tree *tree)
{
	size_t done = 0;

	fill(8);
	return fs_append(fs, tree->file, buffer, 30000, &done);
}

static int prepare_dirty(struct fs *fs, const struct ops_tree *tree)
{
	return put(fs, tree->file, 0, 9000, 9);
}

static int run_fsync(struct fs *fs, const struct ops_tree *tree)
{
	return fs_fsync(fs, tree->file);
}

static int run_syncfs(struct fs *fs, const struct ops_tree *tree)
{
	return fs_syncfs(fs);
}

static int know(void *arg, inum_t ino)
{
	return 0;
}

static int run_known(struct fs *fs, const struct ops_tree *tree)
{
	return fs_known(fs, know, NULL);
}

/* May copy less at a time. */
static int copy_all(struct fs *fs, inum_t from, uint64_t from_pos, inum_t to, uint64_t to_pos, uint64_t length)
{
	int error = 0;

	for (uint64_t at = 0, done = 0; at < length && !error; at += done)
		error = fs_copy_range(fs, from, from_pos + at, to, to_pos + at, length - at, &done);
	return error;
}

static int run_copy(struct fs *fs, const struct ops_tree *tree)
{
	return copy_all(fs, tree->file, 0, tree->other, BLOCK_BYTES, 5 * BLOCK_BYTES);
}

static int run_copy_unaligned(struct fs *fs, const struct ops_tree *tree)
{
	return copy_all(fs, tree->file, 100, tree->other, 77, 20000);
}

static int run_clone(struct fs *fs, const struct ops_tree *tree)
{
	return fs_clone(fs, tree->file, tree->empty);
}

static int run_clone_big(struct fs *fs, const struct ops_tree *tree)
{
	return fs_clone(fs, tree->big, tree->other);
}

static int run_clone_over_big(struct fs *fs, const struct ops_tree *tree)
{
	return fs_clone(fs, tree->file, tree->big);
}

/* The same bytes in blocks of its own. */
static int prepare_twin(struct fs *fs, const struct ops_tree *tree)
{
	return put(fs, tree->empty, 0, 50000, (uint8_t)'f');
}

static int run_dedupe(struct fs *fs, const struct ops_tree *tree)
{
	struct fs_dedupe dedupe = {.from = tree->file, .to = tree->empty, .length = 50000};
	int error = fs_dedupe(fs, &dedupe);

	return !error && dedupe.differs ? -EUCLEAN : error;
}

static int prepare_big_twin(struct fs *fs, const struct ops_tree *tree)
{
	int error = copy_all(fs, tree->big, 0, tree->empty, 0, 1);

	return error ? error : copy_all(fs, tree->big, 1, tree->empty, 1, (2 * BIG_PIECES - 1) * BLOCK_BYTES - 1);
}

static int run_dedupe_big(struct fs *fs, const struct ops_tree *tree)
{
	struct fs_dedupe dedupe = {.from = tree->big, .to = tree->empty};
	int error = 0;

	while (!error && dedupe.from_pos < (2 * BIG_PIECES - 1) * BLOCK_BYTES) {
		dedupe.length = (2 * BIG_PIECES - 1) * BLOCK_BYTES - dedupe.from_pos;
		error = fs_dedupe(fs, &dedupe);
		if (!error && !dedupe.done)
			return -EUCLEAN;
		dedupe.from_pos = dedupe.to_pos += dedupe.done;
	}
	return error;
}

static int run_allocate(struct fs *fs, const struct ops_tree *tree)
{
	return fs_fallocate(fs, tree->file, 0, 40000, 100000);
}

static int run_allocate_holes(struct fs *fs, const struct ops_tree *tree)
{
	return fs_fallocate(fs, tree->big, FALLOC_FL_KEEP_SIZE, 0, 100 * BLOCK_BYTES);
}

static int run_punch(struct fs *fs, const struct ops_tree *tree)
{
	return fs_fallocate(fs, tree->big, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 2 * BIG_PIECES * BLOCK_BYTES - 8000);
}

static int run_zero(struct fs *fs, const struct ops_tree *tree)
{
	return fs_fallocate(fs, tree->file, FALLOC_FL_ZERO_RANGE, 100, 45000);
}

/* --- reading: takes memory, and metadata with a bad copy are repaired on the way ---------------------------------------------------- */

static int run_look(struct fs *fs, const struct ops_tree *tree)
{
	struct fs_attr attr;
	char target[FS_SYMLINK_MAX + 1];
	int error = fs_lookup(fs, tree->dir, "x3", &attr);

	if (error)
		return error;
	error = fs_verify_open(fs, attr.ino, O_RDWR);
	if (!error)
		error = fs_getattr(fs, attr.ino, &attr);
	fs_forget(fs, attr.ino, 1);
	return error ? error : fs_readlink(fs, tree->symlink, target, sizeof(target));
}

static int take_entry(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie, const struct fs_attr *attr)
{
	if (attr)
		fs_forget(arg, ino, 1);
	return 0;
}

static int run_readdir(struct fs *fs, const struct ops_tree *tree)
{
	return fs_readdir(fs, tree->dir, 0, true, take_entry, fs);
}

static int run_read(struct fs *fs, const struct ops_tree *tree)
{
	uint64_t found;
	size_t done = 0;
	int error = fs_read(fs, tree->big, 100, buffer, BUFFER_BYTES, &done);

	if (!error)
		error = fs_read_unseen(fs, tree->file, 0, buffer, BUFFER_BYTES, &done);
	return error ? error : fs_seek(fs, tree->big, 10, SEEK_HOLE, &found);
}

static int take_owner(void *arg, const struct fs_owner *owner)
{
	return 0;
}

static int run_queries(struct fs *fs, const struct ops_tree *tree)
{
	uint32_t generation;
	size_t count;
	char **paths;
	int error = fs_owners(fs, 0, fs_super(fs)->size_bytes, take_owner, NULL);

	if (!error)
		error = fs_paths(fs, tree->file, &generation, &paths, &count);
	if (!error)
		fs_paths_free(paths, count);
	return error;
}

static int run_check(struct fs *fs, const struct ops_tree *tree)
{
	struct fs_check_options options = {0};
	struct fs_check_totals totals;

	return fs_check_with(fs, &options, &totals);
}

/* --- the filesystem itself ---------------------------------------------------------------------------------------------------------- */

static int run_label(struct fs *fs, const struct ops_tree *tree)
{
	struct why why;

	return fs_set_label(fs, "exhausted", &why);
}

static int run_uuid(struct fs *fs, const struct ops_tree *tree)
{
	static const uint8_t uuid[FORMAT_UUID_BYTES] = {1, 2, 3, 4, 5};
	struct why why;

	return fs_set_uuid(fs, uuid, &why);
}

static int run_resize(struct fs *fs, const struct ops_tree *tree)
{
	struct why why;

	return fs_resize(fs, 0, &why);
}

static int run_trim(struct fs *fs, const struct ops_tree *tree)
{
	uint64_t trimmed;

	return fs_trim(fs, &(struct fs_trim_range){.length_bytes = UINT64_MAX}, NULL, NULL, &trimmed);
}

const struct op ops[] = {
	{"create", "fs_create", NULL, run_create, NULL},
	{"mkdir", "fs_create", NULL, run_mkdir, NULL},
	{"mknod", "fs_create", NULL, run_mknod, NULL},
	{"tmpfile", "fs_tmpfile", NULL, run_tmpfile, NULL},
	{"symlink", "fs_symlink", NULL, run_symlink, NULL},
	{"link", "fs_link", NULL, run_link, NULL},
	{"unlink a link", "fs_unlink", NULL, run_unlink_link, NULL},
	{"unlink", "fs_unlink", NULL, run_unlink_big, NULL},
	{"unlink and forget", "fs_forget", hold_big, run_unlink_and_forget, NULL},
	{"rmdir", "fs_rmdir", NULL, run_rmdir, NULL},
	{"rename", "fs_rename", NULL, run_rename, NULL},
	{"rename a directory", "fs_rename", NULL, run_rename_dir, NULL},
	{"rename over", "fs_rename", NULL, run_rename_over, NULL},
	{"rename noreplace", "fs_rename", NULL, run_rename_noreplace, NULL},
	{"rename exchange", "fs_rename", NULL, run_rename_exchange, NULL},
	{"rename whiteout", "fs_rename", NULL, run_rename_whiteout, NULL},
	{"setattr", "fs_setattr", NULL, run_chmod, NULL},
	{"flags", "fs_set_flags", NULL, run_flags, NULL},
	{"shrink", "fs_setattr", NULL, run_shrink, NULL},
	{"shrink a chain", "fs_setattr", NULL, run_shrink_big, NULL},
	{"grow", "fs_setattr", NULL, run_grow, NULL},
	{"write", "fs_write", NULL, run_write_new, "/empty"},
	{"overwrite", "fs_write", NULL, run_overwrite, "/file"},
	{"write shared", "fs_write", NULL, run_write_shared, "/shared"},
	{"write into holes", "fs_write", NULL, run_write_holes, "/big"},
	{"append", "fs_append", NULL, run_append, "/file"},
	{"set an attribute", "fs_setxattr", NULL, run_setxattr, NULL},
	{"set the longest", "fs_setxattr", NULL, run_setxattr_longest, NULL},
	{"replace an attribute", "fs_setxattr", prepare_xattrs, run_replace_xattr, NULL},
	{"remove an attribute", "fs_removexattr", prepare_xattrs, run_removexattr, NULL},
	{"read attributes", "fs_getxattr fs_listxattr", prepare_xattrs, run_read_xattrs, NULL},
	{"set an ACL", "fs_setxattr", NULL, run_setacl, NULL},
	{"inherit an ACL", "fs_create", prepare_default, run_mkdir, NULL},
	{"kill privileges", "fs_kill_privileges", prepare_xattrs, run_kill, NULL},
	{"write by another", "fs_write_as", prepare_xattrs, run_write_as, "/file"},
	{"fallocate by another", "fs_fallocate_as", prepare_xattrs, run_fallocate_as, "/file"},
	{"copy by another", "fs_copy_range_as", prepare_xattrs, run_copy_as, "/file"},
	{"fsync", "fs_fsync", prepare_dirty, run_fsync, NULL},
	{"syncfs", "fs_syncfs", prepare_dirty, run_syncfs, NULL},
	{"known inodes", "fs_known", prepare_dirty, run_known, NULL},
	{"copy", "fs_copy_range", NULL, run_copy, "/other"},
	{"copy unaligned", "fs_copy_range", NULL, run_copy_unaligned, "/other"},
	{"clone", "fs_clone", NULL, run_clone, "/empty"},
	{"clone a chain", "fs_clone", NULL, run_clone_big, "/other"},
	{"clone over a chain", "fs_clone", NULL, run_clone_over_big, NULL},
	{"dedupe", "fs_dedupe", prepare_twin, run_dedupe, NULL},
	{"dedupe many extents", "fs_dedupe", prepare_big_twin, run_dedupe_big, NULL},
	{"fallocate", "fs_fallocate", NULL, run_allocate, NULL},
	{"fallocate holes", "fs_fallocate", NULL, run_allocate_holes, NULL},
	{"punch", "fs_fallocate", NULL, run_punch, "/big"},
	{"zero", "fs_fallocate", NULL, run_zero, "/file"},
	{"look", "fs_lookup fs_verify_open fs_getattr fs_readlink", NULL, run_look, NULL},
	{"readdir", "fs_readdir", NULL, run_readdir, NULL},
	{"read", "fs_read fs_read_unseen fs_seek", NULL, run_read, NULL},
	{"queries", "", NULL, run_queries, NULL},
	{"check", "", NULL, run_check, NULL},
	{"label", "fs_set_label", NULL, run_label, NULL},
	{"uuid", "fs_set_uuid", NULL, run_uuid, NULL},
	{"resize", "fs_resize", NULL, run_resize, NULL},
	{"trim", "fs_trim", NULL, run_trim, NULL},
};
const unsigned ops_count = sizeof(ops) / sizeof(ops[0]);
