/*
 * Something of everything: directories, hard links, symlinks of all lengths, sharers, holes, unwritten space, entries off their hash's first place, bad and
 * quarantined space, lost content, an orphan; with so many small records that the large trees have inner nodes.
 */
#include "tests/destroy/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/acl.h"
#include "fs/dir.h"
#include "fs/inode.h"
#include "fs/query.h"
#include "notify/ledger_copy.h"

#define DIRS 16
#define FILES 620
#define SPARSE_FILES 40
#define SPARSE_PIECES 24
#define LINKS 60
#define SYMLINKS 60
#define SHARERS 24
#define ROUNDS 4
#define FRAGMENTS 260 /* of free space */
#define BAD_RANGES 110
#define DAMAGED_NOTES 130
#define ORPHANS 360

struct population {
	struct image *image;
	struct fs *fs;
	inum_t dirs[DIRS];
	inum_t files[FILES], sparse[SPARSE_FILES];
	int error; /* the first */
};

static const struct fs_who who = {.uid = 1000, .gid = 1000};

static void expect_done(struct population *p, int error, const char *what)
{
	if (!error || p->error)
		return;
	fprintf(stderr, "populate: %s: %s\n", what, strerror(-error));
	p->error = error;
}

/* Names of very different lengths, so that leaves hold 10 records or 60. */
static void make_name(char *to, const char *kind, unsigned i)
{
	unsigned fill = i % 7 == 0 ? 200 : i % 5 == 0 ? 90 : i % 11;
	int used = snprintf(to, NAME_BYTES_MAX, "%s%u", kind, i);

	memset(to + used, 'a' + i % 26, fill);
	to[used + fill] = 0;
}

static inum_t make(struct population *p, inum_t dir, const char *name, mode_t mode)
{
	struct fs_attr attr = {.ino = 0};

	expect_done(p, fs_create(p->fs, &who, dir, name, mode, S_ISCHR(mode) ? 0x0103 : 0, &attr), name);
	if (attr.ino)
		fs_forget(p->fs, attr.ino, 1);
	return attr.ino;
}

static void put(struct population *p, inum_t ino, uint64_t pos, size_t length, unsigned salt)
{
	static uint8_t bytes[64 << 10];
	size_t done;

	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(ino * 31 + salt * 17 + i * 7 + i / 256);
	expect_done(p, fs_write(p->fs, ino, pos, bytes, length, &done), "write");
}

static void flag(struct population *p, inum_t ino, uint64_t flags, unsigned project)
{
	const struct inode_record values = {.flags = flags, .project = project, .extent_hint = project % 5};
	const struct fs_who root = {.uid = 0};

	expect_done(p, fs_set_flags(p->fs, &root, ino, FS_SET_FLAGS | FS_SET_PROJECT | FS_SET_EXTENT_HINT, &values), "flags");
}

/* --- names --------------------------------------------------------------------------------------------------------------------- */

static void make_dirs(struct population *p)
{
	char name[NAME_BYTES_MAX + 1];

	for (unsigned i = 0; i < DIRS; i++) {
		make_name(name, "dir", i);
		p->dirs[i] = make(p, i < 3 ? FS_ROOT_INO : p->dirs[(i - 1) / 2], name, S_IFDIR | 0755);
	}
}

static void make_files(struct population *p, unsigned round)
{
	char name[NAME_BYTES_MAX + 1];

	for (unsigned i = round; i < FILES && !p->error; i += ROUNDS) {
		make_name(name, "file", i);
		p->files[i] = make(p, p->dirs[i % DIRS], name, S_IFREG | (i % 8 * 0100 + 0044));
		if (i % 9)
			put(p, p->files[i], 0, 1 + i * 37 % 9000, i);
	}
}

/* A symlink whose target takes 1, 2, ... parts of 1000 bytes. */
static void make_symlinks(struct population *p, unsigned round)
{
	char name[NAME_BYTES_MAX + 1], target[FS_SYMLINK_MAX + 1];
	struct fs_attr attr;

	for (unsigned i = round; i < SYMLINKS && !p->error; i += ROUNDS) {
		size_t length = i % 4 == 0 ? 1 + i * 66 % FS_SYMLINK_MAX : 5 + i;

		make_name(name, "link", i);
		memset(target, 'A' + i % 26, length);
		target[length] = 0;
		expect_done(p, fs_symlink(p->fs, &who, p->dirs[i % DIRS], name, target, &attr), name);
		if (!p->error)
			fs_forget(p->fs, attr.ino, 1);
	}
}

static void make_links(struct population *p, unsigned round)
{
	char name[NAME_BYTES_MAX + 1];
	struct fs_attr attr;

	for (unsigned i = round; i < LINKS && !p->error; i += ROUNDS) {
		make_name(name, "hard", i);
		expect_done(p, fs_link(p->fs, p->files[(i * 8 + round) % (FILES / ROUNDS) * ROUNDS + round], p->dirs[i % 5], name, &attr), name);
		if (!p->error)
			fs_forget(p->fs, attr.ino, 1);
	}
}

static void set_attribute(struct population *p, inum_t ino, const char *name, size_t size, unsigned salt)
{
	static const struct fs_who root = {.uid = 0};
	static uint8_t value[16 << 10];

	memset(value, (int)(ino + salt), size);
	expect_done(p, fs_setxattr(p->fs, &root, ino, name, value, size, 0), name);
}

static void set_acl(struct population *p, inum_t ino, const char *name, unsigned salt)
{
	static const struct fs_who root = {.uid = 0};
	const struct acl acl = {
		.count = 5,
		.entries = {{ACL_TAG_USER_OBJ, 6, 0}, {ACL_TAG_USER, 7, salt}, {ACL_TAG_GROUP_OBJ, 7, 0}, {ACL_TAG_MASK, salt % 8, 0}, {ACL_TAG_OTHER, 4, 0}},
	};
	uint8_t blob[ACL_BLOB_MAX];

	expect_done(p, fs_setxattr(p->fs, &root, ino, name, blob, format_acl_pack(blob, &acl), 0), name);
}

/* Small ones by the dozen in a leaf, and some over many leaves. */
static void make_attributes(struct population *p, unsigned round)
{
	for (unsigned i = round; i < FILES && !p->error; i += 3 * ROUNDS) {
		set_attribute(p, p->files[i], "user.short", i % 90, round);
		if (i % 4 == 0)
			set_attribute(p, p->files[i], "security.longer", 900 + i * 11 % 5000, round);
		if (i % 7 == 0)
			set_acl(p, p->files[i], XATTR_NAME_ACCESS, i);
	}
	set_attribute(p, p->files[round], "trusted.longest", 16000, round);
	set_acl(p, p->dirs[round], XATTR_NAME_DEFAULT, round);
}

static void change_attributes(struct population *p, unsigned round)
{
	static const struct fs_who root = {.uid = 0};

	for (unsigned i = round - 1; i < FILES && !p->error; i += 6 * ROUNDS)
		set_attribute(p, p->files[i], i % 2 ? "user.short" : "user.other", i % 300, round);
	expect_done(p, fs_removexattr(p->fs, &root, p->files[round - 1 + 3 * ROUNDS], "user.short"), "removexattr");
}

static void make_special(struct population *p)
{
	make(p, p->dirs[1], "fifo", S_IFIFO | 0600);
	make(p, p->dirs[1], "socket", S_IFSOCK | 0666);
	make(p, p->dirs[1], "char", S_IFCHR | 0644);
	make(p, p->dirs[2], "empty", S_IFDIR | 0700);
}

/* As if other names of the same hash had been there before: number 3 of its own hash, and number 0 of the next one behind a marker. */
static void move_cookie(struct population *p, inum_t dir, const char *name, bool next_hash)
{
	struct dir_entry entry;
	uint8_t bytes[sizeof(struct format_dirent) + NAME_BYTES_MAX];
	struct dirent_record marker = {.ino = 0};
	struct btree_key key, parent;
	struct tx *tx;
	size_t length;
	int error = fs_tx_begin(p->fs, TX_RESERVE, &tx);

	if (!error)
		error = dir_lookup_entry(p->fs, dir, name, &entry);
	if (!error)
		error = dir_remove_entry(p->fs, tx, dir, &entry);
	length = format_dirent_pack(bytes, &marker);
	key = (struct btree_key){{dir, entry.cookie | DIR_COLLISION_MARKER}};
	if (!error && next_hash)
		error = btree_insert(&p->fs->dirents, tx, &key, bytes, length);
	key.word[1] = next_hash ? (entry.cookie | 255) + 1 : (entry.cookie & ~255ull) + 3;
	parent = (struct btree_key){{entry.record.ino, dir, key.word[1]}};
	length = format_dirent_pack(bytes, &entry.record);
	if (!error)
		error = btree_insert(&p->fs->dirents, tx, &key, bytes, length);
	if (!error)
		error = btree_insert(&p->fs->parents, tx, &parent, bytes, length);
	expect_done(p, error ? error : tx_commit(tx, NULL), "cookie");
}

static void make_collisions(struct population *p)
{
	char name[NAME_BYTES_MAX + 1];

	for (unsigned i = 0; i < 12 && !p->error; i++) {
		make_name(name, "file", i * 12 + 3);
		move_cookie(p, p->dirs[(i * 12 + 3) % DIRS], name, i % 2);
	}
}

/* --- data ---------------------------------------------------------------------------------------------------------------------- */

static void make_sparse(struct population *p, unsigned round)
{
	char name[NAME_BYTES_MAX + 1];

	for (unsigned i = round; i < SPARSE_FILES && !p->error; i += ROUNDS) {
		make_name(name, "sparse", i);
		p->sparse[i] = make(p, p->dirs[i % 4], name, S_IFREG | 0600);
		if (i % 4 == 0)
			flag(p, p->sparse[i], INODE_NODUMP | INODE_NOATIME, i);
		for (unsigned j = 0; j < SPARSE_PIECES; j++)
			put(p, p->sparse[i], (uint64_t)j * 3 * BLOCK_BYTES, j % 3 ? BLOCK_BYTES : 2 * BLOCK_BYTES, j);
		expect_done(p, fs_fallocate(p->fs, p->sparse[i], FALLOC_FL_KEEP_SIZE, 80 * BLOCK_BYTES, 5 * BLOCK_BYTES), "fallocate");
	}
}

static void make_sharers(struct population *p, unsigned round)
{
	char name[NAME_BYTES_MAX + 1];
	uint64_t done;

	for (unsigned i = round; i < SHARERS && !p->error; i += ROUNDS) {
		inum_t to;

		make_name(name, "clone", i);
		to = make(p, p->dirs[i % DIRS], name, S_IFREG | 0640);
		if (i % 3)
			expect_done(p, fs_clone(p->fs, p->sparse[i / ROUNDS * ROUNDS + round], to), "clone");
		else
			expect_done(p, fs_copy_range(p->fs, p->sparse[i / ROUNDS * ROUNDS + round], 0, to, BLOCK_BYTES, 9 * BLOCK_BYTES, &done), "copy");
	}
}

/* Free space in many pieces. */
static void make_fragments(struct population *p)
{
	inum_t ino = make(p, p->dirs[0], "fragments", S_IFREG | 0600);

	for (unsigned i = 0; i < 2 * FRAGMENTS; i += 8)
		put(p, ino, (uint64_t)i * BLOCK_BYTES, 8 * BLOCK_BYTES, i);
	for (unsigned i = 0; i < 2 * FRAGMENTS && !p->error; i += 2)
		expect_done(p, fs_fallocate(p->fs, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (uint64_t)i * BLOCK_BYTES, BLOCK_BYTES),
			    "punch");
}

/* What was made in the round before is changed, so that its blocks have older versions. */
static void change(struct population *p, unsigned round)
{
	struct inode_record values = {.mode = 0600, .uid = 12, .gid = 13};
	char name[NAME_BYTES_MAX + 1], other[NAME_BYTES_MAX + 1];
	struct fs_attr attr;

	for (unsigned i = round - 1; i < FILES && !p->error; i += 5 * ROUNDS) {
		expect_done(p, fs_setattr(p->fs, p->files[i], FS_SET_MODE | FS_SET_UID | FS_SET_GID, &values, &attr), "setattr");
		put(p, p->files[i], 8192, 4096, round);
		make_name(name, "file", i + 2 * ROUNDS);
		make_name(other, "moved", i);
		expect_done(p, fs_rename(p->fs, &who, p->dirs[(i + 2 * ROUNDS) % DIRS], name, p->dirs[(i + 3) % DIRS], other, i % 2 ? RENAME_WHITEOUT : 0),
			    "rename");
		if (i + 4 * ROUNDS >= FILES)
			break;
		make_name(name, "file", i + 4 * ROUNDS);
		expect_done(p, fs_unlink(p->fs, p->dirs[(i + 4 * ROUNDS) % DIRS], name), "unlink");
	}
}

/* --- failures ------------------------------------------------------------------------------------------------------------------ */

static int first_extent(void *arg, const struct fs_map_extent *extent)
{
	*(devoff_t *)arg = extent->device_offset;
	return 1;
}

static int first_free(void *arg, const struct fs_owner *owner)
{
	if (owner->kind != FS_OWNER_FREE || owner->length_bytes < 64 * BLOCK_BYTES)
		return 0;
	*(devoff_t *)arg = owner->device_offset + 8 * BLOCK_BYTES;
	return 1;
}

static void break_range(struct population *p, devoff_t offset, uint64_t length)
{
	uint8_t bytes[BLOCK_BYTES];

	lab_poison(p->image->lab, offset, length);
	iset_add(&p->image->poison, offset, offset + length, 0);
	media_read(fs_media(p->fs), offset, bytes, 64, NULL);
	expect_done(p, fs_notify_wait(p->fs, 10000), "notify");
}

/* As an operation that could not tell where the content lay would leave it. */
static void note_damaged(struct population *p, inum_t ino)
{
	struct damaged_record record = {.length_bytes = 512, .cause_id = 1};
	struct format_damaged bytes;
	struct btree_key key = {{ino, 512}};
	struct tx *tx;
	int error = fs_tx_begin(p->fs, TX_RESERVE, &tx);

	format_damaged_pack(&bytes, &record);
	if (!error)
		error = btree_insert(&p->fs->damaged, tx, &key, &bytes, sizeof(bytes));
	if (!error)
		error = ledger_copy_put(&p->fs->damaged, tx, &key, &bytes, sizeof(bytes));
	expect_done(p, error ? error : tx_commit(tx, NULL), "damaged");
}

static void make_failures(struct population *p)
{
	devoff_t place = 0;

	for (unsigned i = 0; i < 6; i++) {
		fs_map(p->fs, i < 3 ? p->sparse[i] : p->files[i * 20 + 3], 0, INT64_MAX, first_extent, &place);
		break_range(p, place + 512 * i, 512);
	}
	for (unsigned i = 0; i < 3; i++) {
		place = 0;
		fs_owners(p->fs, 0, IMAGE_BYTES, first_free, &place);
		break_range(p, place, i ? BLOCK_BYTES : 512);
	}
	for (unsigned i = 0; i < BAD_RANGES; i++) {
		fs_map(p->fs, p->sparse[8 + i % 20], (3 + 3 * (i / 20)) * BLOCK_BYTES, BLOCK_BYTES, first_extent, &place);
		break_range(p, place + 1024 * (i % 3), 512);
	}
	for (unsigned i = 0; i < DAMAGED_NOTES; i++)
		note_damaged(p, p->files[i * 4 + 3]);
}

/* Files without a name: what a kill leaves of those that were open. */
static void make_orphans(struct population *p)
{
	struct fs_attr orphan;
	size_t done;

	for (unsigned i = 0; i < ORPHANS && !p->error; i++) {
		expect_done(p, fs_tmpfile(p->fs, &who, FS_ROOT_INO, S_IFREG | 0600, &orphan), "tmpfile");
		if (!p->error && i % 40 == 0)
			expect_done(p, fs_write(p->fs, orphan.ino, 0, "orphan", 6, &done), "write");
	}
}

/* --- all ----------------------------------------------------------------------------------------------------------------------- */

static void run_round(struct population *p, unsigned round)
{
	p->fs = image_mount(p->image, false);
	if (!p->fs) {
		p->error = -EIO;
		return;
	}
	if (!round) {
		make_dirs(p);
		make_special(p);
	}
	make_files(p, round);
	make_symlinks(p, round);
	make_sparse(p, round);
	make_links(p, round);
	make_sharers(p, round);
	make_attributes(p, round);
	if (round)
		change_attributes(p, round);
	if (round)
		change(p, round);
	expect_done(p, fs_unmount(p->fs), "unmount");
	expect_done(p, image_remember(p->image), "remember");
}

/* The last mount ends as by a kill right after a checkpoint: the journal is empty, and the orphan is there. */
static void run_last(struct population *p)
{
	p->fs = image_mount(p->image, false);
	if (!p->fs) {
		p->error = -EIO;
		return;
	}
	make_collisions(p);
	make_failures(p);
	make_fragments(p);
	make_orphans(p);
	expect_done(p, journal_sync(p->fs->journal), "sync");
	expect_done(p, journal_checkpoint(p->fs->journal), "checkpoint");
	fs_abandon(p->fs);
}

int populate(struct image *image)
{
	static struct population p;

	memset(&p, 0, sizeof(p));
	p.image = image;
	for (unsigned round = 0; round < ROUNDS && !p.error; round++)
		run_round(&p, round);
	if (!p.error)
		run_last(&p);
	return p.error;
}
