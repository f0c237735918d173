/* What the next operation is. Few names and few descriptors, so that operations meet. */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/falloc.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/differ/differ.h"

#define FLAGS(...) ((const unsigned[]){__VA_ARGS__, ~0u})
#define PATH_MODE (USES_PATH | USES_MODE)
#define PATH_FLAGS (USES_PATH | USES_FLAGS)
#define SLOT_RANGE (USES_SLOT | USES_POS | USES_LENGTH)
#define NOFOLLOW 4
#define OF_XATTR (USES_XATTR | USES_LENGTH)

const struct kind kinds[] = {
	{"open", 160, PATH_MODE | USES_FLAGS | USES_SLOT, NULL, apply_open},
	{"close", 6, USES_SLOT, NULL, apply_close},
	{"read", 25, USES_SLOT | USES_LENGTH, NULL, apply_read},
	{"pread", 40, SLOT_RANGE, NULL, apply_pread},
	{"write", 45, USES_SLOT | USES_LENGTH, NULL, apply_write},
	{"pwrite", 60, SLOT_RANGE, NULL, apply_pwrite},
	{"pwritev", 15, SLOT_RANGE, NULL, apply_pwritev},
	{"lseek", 25, USES_SLOT | USES_POS | USES_FLAGS, FLAGS(SEEK_SET, SEEK_SET, SEEK_CUR, SEEK_END, 77), apply_lseek},
	{"seek", 12, USES_SLOT | USES_POS | USES_FLAGS, FLAGS(SEEK_DATA, SEEK_HOLE), apply_seek_data},
	{"ftruncate", 20, USES_SLOT | USES_POS, NULL, apply_ftruncate},
	{"truncate", 20, USES_PATH | USES_POS, NULL, apply_truncate},
	{"fallocate", 40, SLOT_RANGE | USES_FLAGS,
	 FLAGS(0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE), apply_fallocate},
	{"copy_file_range", 25, SLOT_RANGE | USES_SLOT2 | USES_POS2, NULL, apply_copy_file_range},
	{"map_read", 15, USES_SLOT | USES_POS, NULL, apply_map_read},
	{"map_write", 15, SLOT_RANGE | USES_FLAGS, FLAGS(0, 0, 1), apply_map_write},
	{"fsync", 3, USES_SLOT, NULL, apply_fsync},
	{"fdatasync", 3, USES_SLOT, NULL, apply_fdatasync},
	{"mkdir", 90, PATH_MODE | USES_DIRECTORY, NULL, apply_mkdir},
	{"rmdir", 12, USES_PATH | USES_DIRECTORY, NULL, apply_rmdir},
	{"unlink", 45, USES_PATH, NULL, apply_unlink},
	{"link", 30, PATH_FLAGS | USES_PATH2, FLAGS(0, 0, AT_SYMLINK_FOLLOW), apply_link},
	{"link_slot", 15, USES_PATH | USES_SLOT, NULL, apply_link_slot},
	{"symlink", 16, USES_PATH | USES_TARGET, NULL, apply_symlink},
	{"readlink", 15, USES_PATH | USES_LENGTH, NULL, apply_readlink},
	{"rename", 70, PATH_FLAGS | USES_PATH2,
	 FLAGS(0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT, RENAME_WHITEOUT | RENAME_NOREPLACE, RENAME_EXCHANGE | RENAME_NOREPLACE),
	 apply_rename},
	{"mknod", 25, PATH_MODE | USES_FLAGS | USES_DEVICE, FLAGS(S_IFIFO, S_IFIFO, S_IFCHR, S_IFCHR, S_IFBLK, S_IFSOCK, S_IFREG, 0, S_IFDIR), apply_mknod},
	{"list", 25, USES_PATH | USES_DIRECTORY, NULL, apply_list},
	{"list_slot", 8, USES_SLOT, NULL, apply_list_slot},
	{"stat", 80, PATH_FLAGS, FLAGS(0, AT_SYMLINK_NOFOLLOW), apply_stat},
	{"fstat", 25, USES_SLOT, NULL, apply_fstat},
	{"chmod", 30, PATH_MODE, NULL, apply_chmod},
	{"fchmod", 10, USES_SLOT | USES_MODE, NULL, apply_fchmod},
	{"chown", 25, PATH_FLAGS | USES_OWNER, FLAGS(0, AT_SYMLINK_NOFOLLOW), apply_chown},
	{"fchown", 8, USES_SLOT | USES_OWNER, NULL, apply_fchown},
	{"utimens", 40, PATH_FLAGS | USES_TIMES, FLAGS(0, AT_SYMLINK_NOFOLLOW), apply_utimens},
	{"futimens", 10, USES_SLOT | USES_TIMES, NULL, apply_futimens},
	{"access", 30, PATH_MODE | USES_FLAGS, FLAGS(0, AT_EACCESS, AT_EACCESS | AT_SYMLINK_NOFOLLOW), apply_access},
	{"setxattr", 30, PATH_FLAGS | OF_XATTR, FLAGS(0, 0, 1, 2, NOFOLLOW, NOFOLLOW | 1, NOFOLLOW | 2), apply_setxattr},
	{"fsetxattr", 8, USES_SLOT | USES_FLAGS | OF_XATTR, FLAGS(0, 0, 1, 2), apply_fsetxattr},
	{"getxattr", 20, PATH_FLAGS | OF_XATTR, FLAGS(0, NOFOLLOW), apply_getxattr},
	{"fgetxattr", 8, USES_SLOT | OF_XATTR, NULL, apply_fgetxattr},
	{"listxattr", 15, PATH_FLAGS, FLAGS(0, NOFOLLOW), apply_listxattr},
	{"removexattr", 12, PATH_FLAGS | USES_XATTR, FLAGS(0, 0, NOFOLLOW), apply_removexattr},
	{"setacl", 15, PATH_FLAGS | USES_ACL, FLAGS(0, 1), apply_setacl},
	{NULL, 0, 0, NULL, NULL},
};

#define ONE_OF(random, list) ((list)[pick(random, sizeof(list) / sizeof((list)[0]))])

static uint64_t pick(struct random *random, uint64_t below)
{
	return random_below(random, below);
}

static bool one_in(struct random *random, unsigned chances)
{
	return pick(random, chances) == 0;
}

static const struct kind *pick_kind(struct random *random)
{
	unsigned total = 0, at;
	const struct kind *kind;

	for (kind = kinds; kind->name; kind++)
		total += kind->weight;
	at = (unsigned)pick(random, total);
	for (kind = kinds; at >= kind->weight; kind++)
		at -= kind->weight;
	return kind;
}

/* One name: of a few, seldom one that is special, as long as can be, or too long. Directories are mostly a and b, or hardly anything would be below them. */
static char *add_name(struct random *random, char *to, bool is_directory)
{
	unsigned which = (unsigned)pick(random, 200);
	size_t length = which == 0 ? 255 : 256;

	if (which == 2)
		return stpcpy(to, ".");
	if (which == 3)
		return stpcpy(to, "..");
	if (which > 1) {
		*to++ = (char)(one_in(random, 16) ? 'a' + pick(random, 6) : is_directory ? 'a' + pick(random, 2) : 'c' + pick(random, 4));
	} else {
		memset(to, 'n', length);
		to += length;
	}
	*to = 0;
	return to;
}

static void pick_path(struct random *random, char *to, bool is_directory)
{
	static const unsigned depths[] = {1, 1, 1, 1, 2, 2, 2, 3, 3};
	unsigned depth = ONE_OF(random, depths);

	*to = 0;
	if (one_in(random, 400))
		return;
	if (one_in(random, 100))
		to = stpcpy(to, "/");
	for (unsigned i = 0; i < depth; i++) {
		if (i)
			to = stpcpy(to, "/");
		to = add_name(random, to, i + 1 < depth || is_directory);
	}
	if (one_in(random, 80))
		stpcpy(to, "/");
}

/* Mostly a path that may be there; now and then just long. */
static void pick_target(struct differ *d, char *to)
{
	static const unsigned lengths[] = {59, 60, 61, 255, 1000, 1024, 1025, 4095, 4096};
	struct random *random = &d->random;
	size_t length;

	if (!one_in(random, 10)) {
		pick_path(random, one_in(random, 4) ? stpcpy(to, "../") : to, one_in(random, 2));
		return;
	}
	length = ONE_OF(random, lengths);
	if (d->is_xfs && length > 1000)
		length = 1000; /* allowed.c */
	memset(to, 't', length);
	to[length] = 0;
}

static unsigned pick_open_flags(struct differ *d)
{
	static const unsigned ways[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR};
	static const unsigned more[] = {O_EXCL, O_DIRECTORY, O_TRUNC, O_APPEND, O_NOFOLLOW};
	struct random *random = &d->random;
	unsigned flags = ONE_OF(random, ways);

	if (one_in(random, 15)) {
		flags |= O_TMPFILE | (one_in(random, 5) ? O_EXCL : 0);
		return d->no_tmpfile ? O_RDONLY : flags;
	}
	if (one_in(random, 40))
		return O_PATH | (one_in(random, 2) ? O_NOFOLLOW : 0);
	if (!one_in(random, 3))
		flags |= O_CREAT;
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
		if (one_in(random, i == 2 || i == 3 ? 6 : 12))
			flags |= more[i];
	return flags;
}

static unsigned pick_flags(struct differ *d, const struct kind *kind)
{
	unsigned count = 0;

	if (!kind->flags)
		return pick_open_flags(d);
	while (kind->flags[count] != ~0u)
		count++;
	return kind->flags[pick(&d->random, count)];
}

static mode_t pick_mode(struct differ *d)
{
	static const mode_t modes[] = {0644, 0666, 0666, 0755, 0777, 0777, 0777, 0777, 0700, 0600, 01777, 01777, 02775, 02777, 04755, 06755, 06777, 02666, 0, 0111, 0444, 0070, 0007};

	return ONE_OF(&d->random, modes) & (d->no_setid ? 01777u : 07777u);
}

/* Half of them where a block begins, a few where nothing can be. */
static int64_t pick_pos(struct random *random)
{
	static const unsigned below[] = {64, PAGE, 4 * PAGE, 16 * PAGE, 64 * PAGE, MOST_SIZE};
	int64_t pos = (int64_t)pick(random, ONE_OF(random, below));

	if (one_in(random, 100))
		return -pos;
	return one_in(random, 2) ? pos / PAGE * PAGE : pos;
}

static size_t pick_length(struct random *random, unsigned uses)
{
	static const unsigned below[] = {64, PAGE, 4 * PAGE, 16 * PAGE, MOST_LENGTH};
	size_t length;

	if (uses & USES_XATTR) /* six names with this much each fit a block of ext4 */
		return one_in(random, 5) ? 0 : (size_t)pick(random, 450);
	if (!(uses & (USES_POS | USES_SLOT))) /* readlink */
		return (size_t)pick(random, one_in(random, 3) ? 8 : 5000);
	length = (size_t)pick(random, ONE_OF(random, below));
	return one_in(random, 2) ? (length + PAGE - 1) / PAGE * PAGE : length;
}

/* Far from now, so that it is seen who changed it since, and within what ext4 can store. */
static struct timespec pick_time(struct random *random)
{
	static const int64_t seconds[] = {-2147483647, -1000000000, -1, 0, 1, 1000000000, 2147483647, 2147483648, 4294967295, 4294967296, 14000000000};
	static const long parts[] = {0, 1, 999999999, 123456789, UTIME_NOW, UTIME_OMIT};
	struct timespec time = {ONE_OF(random, seconds), ONE_OF(random, parts)};

	return time;
}

static void add_entry(struct op *op, unsigned tag, unsigned bits, uint32_t id)
{
	uint32_t at = op->acl[15] / sizeof(op->acl[0]);

	op->acl[at] = tag | bits << 16;
	op->acl[at + 1] = id;
	op->acl[15] += 8;
}

/* As linux/posix_acl_xattr.h has it. None: the attribute goes. */
static void pick_acl(struct random *random, struct op *op)
{
	bool has_user = one_in(random, 2), has_group = one_in(random, 2);

	memset(op->acl, 0, sizeof(op->acl));
	if (one_in(random, 3))
		return;
	op->acl[0] = 2;
	op->acl[15] = 4;
	add_entry(op, 1, (unsigned)pick(random, 8), ~0u);
	if (has_user)
		add_entry(op, 2, (unsigned)pick(random, 8), 1000 + (uint32_t)pick(random, 2));
	add_entry(op, 4, (unsigned)pick(random, 8), ~0u);
	if (has_group)
		add_entry(op, 8, (unsigned)pick(random, 8), 2000);
	if ((has_user || has_group) != one_in(random, 10)) /* without it, and not needing it: an error, or none */
		add_entry(op, 0x10, (unsigned)pick(random, 8), ~0u);
	add_entry(op, 0x20, (unsigned)pick(random, 8), ~0u);
}

static void pick_attributes(struct differ *d, struct op *op)
{
	struct random *random = &d->random;
	static const char *const names[] = {"user.a", "user.a", "user.b", "user.c", "trusted.a", "trusted.b", "nothing.a", "user."};
	static const uid_t owners[] = {0, 1000, 1000, 1001, (uid_t)-1};
	static const gid_t groups[] = {0, 1000, 1001, 2000, (gid_t)-1};
	const dev_t devices[] = {makedev(0, 0), makedev(0, 0), makedev(240, 1), makedev(259, 70000)};

	op->times[0] = pick_time(random);
	op->times[1] = pick_time(random);
	op->uid = ONE_OF(random, owners);
	op->gid = ONE_OF(random, groups);
	if (op->uid == (uid_t)-1 && op->gid == (gid_t)-1) /* allowed.c */
		op->uid = 0;
	op->xattr = ONE_OF(random, names);
	op->device = ONE_OF(random, devices);
	pick_acl(random, op);
}

void op_pick(struct differ *d, struct op *op)
{
	static const mode_t masks[] = {0, 022, 022, 077};
	struct random *random = &d->random;
	bool is_directory;

	op->kind = pick_kind(random);
	op->user = pick(random, 3) < 2 ? 0 : 1 + (unsigned)pick(random, count_users() - 1);
	op->umask = ONE_OF(random, masks);
	is_directory = one_in(random, 12) != !!(op->kind->uses & USES_DIRECTORY);
	pick_path(random, op->path[0], is_directory);
	if (op->kind->uses & USES_TARGET)
		pick_target(d, op->path[1]);
	else
		pick_path(random, op->path[1], is_directory);
	op->slot[0] = (unsigned)pick(random, SLOTS);
	op->slot[1] = (unsigned)pick(random, SLOTS);
	op->flags = op->kind->uses & USES_FLAGS ? pick_flags(d, op->kind) : 0;
	op->mode = pick_mode(d);
	op->pos[0] = pick_pos(random);
	op->pos[1] = pick_pos(random);
	op->length = pick_length(random, op->kind->uses);
	op->fill = random_next(random) | 0x0101010101010101ull;
	pick_attributes(d, op);
}
