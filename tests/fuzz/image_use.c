/* The part of an input that uses the mount. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/query.h"
#include "tests/fuzz/image.h"

#define INODES_MAX 64u
#define ANSWERS_MAX 2000u /* of a query: more would only be slow */

static const struct fs_who who = {.uid = 1000, .gid = 1000}, root = {.uid = 0};

struct use {
	struct fs *fs;
	const struct base *base;
	inum_t inos[INODES_MAX], dirs[INODES_MAX];
	unsigned count_inos, count_dirs, answers;
	uint64_t held[INODES_MAX]; /* lookup references that orders took */
	unsigned count_held;
};

static char buffer[64 << 10];

/* Owner, user 5, group, mask, others; and three entries only. */
#define ACL_VALUE_BYTES 44
static const char acl_values[2][ACL_VALUE_BYTES] = {
	"\2\0\0\0\1\0\7\0\377\377\377\377\2\0\7\0\5\0\0\0\4\0\5\0\377\377\377\377\20\0\5\0\377\377\377\377\40\0\4\0\377\377\377",
	"\2\0\0\0\1\0\6\0\377\377\377\377\2\0\4\0\7\0\0\0\4\0\4\0\377\377\377\377\20\0\6\0\377\377\377\377\40\0\0\0\377\377\377",
};

/* --- walking --- */

static int walk_visit(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie, const struct fs_attr *attr)
{
	struct use *use = arg;

	if (attr)
		fs_forget(use->fs, ino, 1);
	if (++use->answers > ANSWERS_MAX)
		return 1;
	if (next_cookie < 3)
		return 0;
	if (use->count_inos < INODES_MAX)
		use->inos[use->count_inos++] = ino;
	if (type == 4 && use->count_dirs < INODES_MAX)
		use->dirs[use->count_dirs++] = ino;
	return 0;
}

static void look_at_attributes(struct use *use, inum_t ino)
{
	static char names[4096];
	size_t used, length;

	if (fs_listxattr(use->fs, &root, ino, names, sizeof(names), &used))
		return;
	for (size_t at = 0; at < used; at += strlen(names + at) + 1)
		fs_getxattr(use->fs, &root, ino, names + at, buffer, sizeof(buffer), &length);
}

static void look_at(struct use *use, inum_t ino)
{
	struct fs_attr attr;
	uint64_t pos;
	size_t done;

	if (fs_getattr(use->fs, ino, &attr))
		return;
	fs_readlink(use->fs, ino, buffer, sizeof(buffer));
	fs_read(use->fs, ino, 0, buffer, sizeof(buffer), &done);
	if (attr.record.size_bytes > 4096)
		fs_read(use->fs, ino, attr.record.size_bytes - 4096, buffer, 8192, &done);
	fs_seek(use->fs, ino, 0, SEEK_HOLE, &pos);
	look_at_attributes(use, ino);
}

static void walk(struct use *use)
{
	use->dirs[use->count_dirs++] = FS_ROOT_INO;
	use->inos[use->count_inos++] = FS_ROOT_INO;
	for (unsigned i = 0; i < use->count_dirs && i < 12; i++)
		fs_readdir(use->fs, use->dirs[i], 0, i % 2, walk_visit, use);
	for (unsigned i = 0; i < use->count_inos && i < 40; i++)
		look_at(use, use->inos[i]);
}

/* --- asking --- */

static int count_answer(struct use *use)
{
	return ++use->answers > ANSWERS_MAX;
}

static int count_owner(void *arg, const struct fs_owner *owner)
{
	return count_answer(arg);
}

static int count_damage(void *arg, const struct fs_damage *damage)
{
	return count_answer(arg);
}

static int count_badblock(void *arg, const struct badblock_record *record)
{
	return count_answer(arg);
}

static int count_extent(void *arg, const struct fs_map_extent *extent)
{
	return count_answer(arg);
}

static void ask_paths(struct use *use, inum_t ino)
{
	uint32_t generation;
	size_t count;
	char **paths;

	if (!fs_paths(use->fs, ino, &generation, &paths, &count))
		fs_paths_free(paths, count);
	use->answers = 0;
	fs_map(use->fs, ino, 0, UINT64_MAX, count_extent, use);
}

static void ask(struct use *use)
{
	struct fs_summary summary;
	struct fs_statfs st;
	inum_t ino;

	fs_statfs(use->fs, &st);
	fs_summary(use->fs, &summary);
	use->answers = 0;
	fs_owners(use->fs, 0, fs_super(use->fs)->size_bytes, count_owner, use);
	use->answers = 0;
	fs_damaged(use->fs, count_damage, use);
	use->answers = 0;
	fs_badblocks(use->fs, count_badblock, use);
	fs_resolve(use->fs, "/dir/deep/er", &ino);
	for (unsigned i = 0; i < use->count_inos && i < 20; i++)
		ask_paths(use, use->inos[i]);
}

/* --- orders --- */

struct arguments {
	inum_t ino, other, dir, other_dir;
	char name[32], other_name[32];
	uint64_t pos, length;
	uint8_t flags;
};

static inum_t pick(const inum_t *list, unsigned count, unsigned index)
{
	return count ? list[index % count] : FS_ROOT_INO;
}

static void take_name(struct bytes *bytes, char name[32])
{
	static const char *const known[] = {"dir", "file", "clone", "hard", "deep", "er", "new", "device", "link", "last"};
	unsigned which = bytes_u8(bytes), number = which / ARRAY_SIZE(known);

	snprintf(name, 32, "%s", known[which % ARRAY_SIZE(known)]);
	if (which % ARRAY_SIZE(known) == 1)
		snprintf(name, 32, "file%u", number);
}

static struct arguments take_arguments(const struct use *use, struct bytes *bytes)
{
	struct arguments a;

	a.ino = pick(use->inos, use->count_inos, bytes_u8(bytes));
	a.other = pick(use->inos, use->count_inos, bytes_u8(bytes));
	a.dir = pick(use->dirs, use->count_dirs, bytes_u8(bytes));
	a.other_dir = pick(use->dirs, use->count_dirs, bytes_u8(bytes));
	take_name(bytes, a.name);
	take_name(bytes, a.other_name);
	a.flags = bytes_u8(bytes);
	a.pos = bytes_u64(bytes);
	a.length = bytes_u64(bytes);
	return a;
}

static void keep_reference(struct use *use, int error, const struct fs_attr *attr, uint8_t flags)
{
	if (error)
		return;
	if (flags & 1 && use->count_held < INODES_MAX)
		use->held[use->count_held++] = attr->ino;
	else
		fs_forget(use->fs, attr->ino, 1);
}

static void order_names(struct use *use, unsigned opcode, const struct arguments *a)
{
	static const mode_t modes[] = {S_IFREG | 0644, S_IFDIR | 0755, S_IFIFO | 0600, S_IFSOCK | 0600};
	struct fs_attr attr;

	switch (opcode) {
	case 0:
		keep_reference(use, fs_create(use->fs, &who, a->dir, a->name, modes[a->length % 4], 0, &attr), &attr, a->flags);
		break;
	case 1:
		keep_reference(use, fs_symlink(use->fs, &who, a->dir, a->name, "some/where", &attr), &attr, a->flags);
		break;
	case 2:
		keep_reference(use, fs_link(use->fs, a->ino, a->dir, a->name, &attr), &attr, a->flags);
		break;
	case 3:
		fs_unlink(use->fs, a->dir, a->name);
		break;
	case 4:
		fs_rmdir(use->fs, a->dir, a->name);
		break;
	case 5:
		fs_rename(use->fs, &who, a->dir, a->name, a->other_dir, a->other_name, a->flags % 8);
		break;
	case 6:
		keep_reference(use, fs_tmpfile(use->fs, &who, a->dir, S_IFREG | 0600, &attr), &attr, a->flags);
		break;
	default:
		keep_reference(use, fs_lookup(use->fs, a->dir, a->flags & 2 ? ".." : a->name, &attr), &attr, a->flags);
		break;
	}
}

static void order_attributes(struct use *use, const struct arguments *a)
{
	struct inode_record values = {.size_bytes = a->pos, .mode = 0640, .uid = 1, .gid = 2};
	struct fs_attr attr;

	if (a->length >> 56 & 1) { /* also as somebody who may not */
		values.flags = a->pos;
		values.project = values.extent_hint = (uint32_t)(a->pos >> 32);
		fs_set_flags(use->fs, a->flags & 8 ? &who : &root, a->ino, a->flags, &values);
		fs_verify_open(use->fs, a->ino, a->flags & 3);
	}
	values.atime.nsec = (uint32_t)a->length % 1000000000;
	fs_setattr(use->fs, a->ino, a->flags | (a->flags & 1 ? FS_SET_SIZE : 0), &values, &attr);
}

/* Names that may be there, and values of all lengths; ACLs that are none but for their first bytes. */
static void order_xattrs(struct use *use, unsigned opcode, const struct arguments *a)
{
	static const char *const names[] = {"user.short", "user.long", "trusted.t", "security.capability", "system.posix_acl_access",
					    "system.posix_acl_default", "user.new", "nobody.n"};
	const char *name = names[a->flags % ARRAY_SIZE(names)];
	size_t length;

	switch (opcode) {
	case 23:
		fs_setxattr(use->fs, &root, a->ino, name, buffer, a->length % sizeof(buffer), a->flags >> 6);
		break;
	case 24:
		fs_removexattr(use->fs, &root, a->ino, name);
		break;
	case 25:
		fs_setxattr(use->fs, &root, a->ino, name, acl_values[a->pos % 2], ACL_VALUE_BYTES, 0);
		break;
	default:
		fs_kill_privileges(use->fs, a->ino, a->flags & 1, NULL);
		fs_getxattr(use->fs, a->flags & 2 ? &who : &root, a->ino, name, buffer, a->length % sizeof(buffer), &length);
		break;
	}
}

/* Often of ranges that may be asked for. */
static void order_dedupe(struct use *use, const struct arguments *a)
{
	struct fs_dedupe dedupe = {.from = a->ino, .to = a->other, .from_pos = a->pos, .to_pos = a->pos + a->flags * 4096u, .length = a->length};

	if (a->length >> 57 & 1) {
		dedupe.from_pos = a->pos % 8 * 4096;
		dedupe.to_pos = a->flags % 8 * 4096u;
		dedupe.length = a->length % 32 * 4096;
	}
	fs_dedupe(use->fs, &dedupe);
}

static void order_data(struct use *use, unsigned opcode, const struct arguments *a)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE};
	uint64_t copied;
	size_t done;

	switch (opcode) {
	case 8:
		fs_write(use->fs, a->ino, a->pos, buffer, a->length % sizeof(buffer), &done);
		break;
	case 9:
		fs_append(use->fs, a->ino, buffer, a->length % sizeof(buffer), &done);
		break;
	case 10:
		fs_read(use->fs, a->ino, a->pos, buffer, a->length % sizeof(buffer), &done);
		break;
	case 11:
		order_attributes(use, a);
		break;
	case 12:
		fs_fallocate(use->fs, a->ino, modes[a->flags % 4], a->pos, a->length);
		break;
	case 13:
		fs_clone(use->fs, a->ino, a->other);
		break;
	default:
		if (a->length >> 56 & 1)
			order_dedupe(use, a);
		else
			fs_copy_range(use->fs, a->ino, a->pos, a->other, a->pos + a->flags * 4096u, a->length, &copied);
		break;
	}
}

static void order_rest(struct use *use, unsigned opcode, const struct arguments *a)
{
	uint64_t pos, size = medium_size(use->base->medium);

	switch (opcode) {
	case 15:
		fs_fsync(use->fs, a->ino);
		break;
	case 16:
		fs_syncfs(use->fs);
		break;
	case 17:
		if (a->length >> 56 & 1)
			fs_trim(use->fs, &(struct fs_trim_range){a->pos, a->length, a->flags * 4096u}, NULL, NULL, &pos);
		else
			fs_drop_caches(use->fs);
		break;
	case 18:
		fs_seek(use->fs, a->ino, a->pos, a->flags & 1 ? SEEK_DATA : SEEK_HOLE, &pos);
		break;
	case 19:
		lab_poison(medium_lab(use->base->medium), a->pos % size, 1 + a->length % 8192 % (size - a->pos % size));
		break;
	case 20:
		look_at(use, a->ino);
		break;
	case 21:
		use->answers = 0;
		fs_readdir(use->fs, a->dir, a->pos, a->flags & 1, walk_visit, use);
		break;
	default:
		ask_paths(use, a->ino);
		break;
	}
}

static void obey(struct use *use, const struct order *order)
{
	struct bytes bytes = order_bytes(order);
	unsigned opcode = bytes_u8(&bytes) % 27;
	struct arguments a = take_arguments(use, &bytes);

	if (opcode < 8)
		order_names(use, opcode, &a);
	else if (opcode < 15)
		order_data(use, opcode, &a);
	else if (opcode < 23)
		order_rest(use, opcode, &a);
	else
		order_xattrs(use, opcode, &a);
}

void image_use(struct fs *fs, const struct base *base, const struct program *program)
{
	struct use use = {.fs = fs, .base = base};
	unsigned uses = 0;

	walk(&use);
	if (program->head[1] & IMAGE_QUERY)
		ask(&use);
	for (size_t i = 0; i < program->count && uses < IMAGE_USES; i++)
		if (program->orders[i].kind % IMAGE_ORDERS == IMAGE_USE) {
			obey(&use, &program->orders[i]);
			uses++;
		}
	while (use.count_held)
		fs_forget(fs, use.held[--use.count_held], 1);
}
