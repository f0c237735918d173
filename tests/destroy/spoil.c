#include "tests/destroy/spoil.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/inode.h"
#include "notify/ledger_copy.h"

static const struct fs_who who = {.uid = 1000, .gid = 1000};

/* The first name of a regular file with this many links at least and data. */
static const struct oracle_name *find_file(const struct bench *bench, uint32_t nlink)
{
	for (size_t i = 0; i < bench->before.count_names; i++) {
		const struct oracle_inode *inode = oracle_inode(&bench->before, bench->before.names[i].ino);

		if (inode && S_ISREG(inode->record.mode) && inode->record.nlink >= nlink && inode->count_maps)
			return &bench->before.names[i];
	}
	abort();
}

static const struct oracle_name *find_symlink(const struct bench *bench)
{
	for (size_t i = 0; i < bench->before.count_names; i++)
		if (bench->before.names[i].type == S_IFLNK >> 12)
			return &bench->before.names[i];
	abort();
}

static int spoil_drop_file(struct fs *fs, const struct bench *bench)
{
	const struct oracle_name *name = find_file(bench, 1);

	return fs_unlink(fs, name->dir, name->name);
}

static int spoil_drop_link(struct fs *fs, const struct bench *bench)
{
	const struct oracle_name *name = find_file(bench, 2);

	return fs_unlink(fs, name->dir, name->name);
}

static int spoil_add_file(struct fs *fs, const struct bench *bench)
{
	struct fs_attr attr;

	return fs_create(fs, &who, FS_ROOT_INO, "not there before", S_IFREG | 0600, 0, &attr);
}

static int spoil_mode(struct fs *fs, const struct bench *bench)
{
	struct inode_record values = {.mode = 01777};
	struct fs_attr attr;

	return fs_setattr(fs, find_file(bench, 1)->ino, FS_SET_MODE, &values, &attr);
}

static int spoil_content(struct fs *fs, const struct bench *bench)
{
	size_t done;

	return fs_write(fs, find_file(bench, 1)->ino, 0, "\xff\xfe", 2, &done);
}

static int spoil_size(struct fs *fs, const struct bench *bench)
{
	inum_t ino = find_file(bench, 1)->ino;
	struct inode_record values = {.size_bytes = oracle_inode(&bench->before, ino)->record.size_bytes + 1};
	struct fs_attr attr;

	return fs_setattr(fs, ino, FS_SET_SIZE, &values, &attr);
}

static int spoil_target(struct fs *fs, const struct bench *bench)
{
	const struct oracle_name *name = find_symlink(bench);
	struct fs_attr attr;
	int error = fs_unlink(fs, name->dir, name->name);

	return error ? error : fs_symlink(fs, &who, name->dir, name->name, "elsewhere", &attr);
}

/* One that `damaged` has, not what rmap makes of bad places. */
static int find_damaged(struct fs *fs, const struct bench *bench, struct btree_key *key)
{
	struct btree_record record;
	int error = -ENOENT;

	for (size_t i = bench->before.count_damage; error == -ENOENT && i-- > 0;) {
		*key = (struct btree_key){{bench->before.damage[i].ino, bench->before.damage[i].pos}};
		error = btree_lookup(&fs->damaged, key, &record);
	}
	return error;
}

static int spoil_damage(struct fs *fs, const struct bench *bench)
{
	struct btree_key key;
	struct tx *tx;
	int error = fs_tx_begin(fs, TX_RESERVE, &tx);

	if (!error)
		error = find_damaged(fs, bench, &key);
	if (!error)
		error = btree_remove(&fs->damaged, tx, &key);
	if (!error)
		error = ledger_copy_remove(&fs->damaged, tx, &key);
	return error ? error : tx_commit(tx, NULL);
}

static const struct {
	const char *what;
	int (*run)(struct fs *fs, const struct bench *bench);
} spoils[] = {
	{"a file lost", spoil_drop_file},   {"a link lost", spoil_drop_link},	 {"a file too many", spoil_add_file},
	{"another mode", spoil_mode},	    {"other content", spoil_content},	 {"another size", spoil_size},
	{"another target", spoil_target},   {"a damaged range lost", spoil_damage},
};
static size_t current;

static int run_current(struct image *image, const struct bench *bench)
{
	struct fs *fs = image_mount(image, false);
	int error = fs ? spoils[current].run(fs, bench) : -1;

	if (error)
		abort();
	return fs_unmount(fs);
}

/* One copy of a block that is repaired without a loss: whatever differs afterwards is the spoiler's. */
unsigned spoil_all(struct bench *bench, unsigned *count)
{
	struct trial trial = {.count = 1};
	unsigned missed = 0;
	struct why why;
	uint64_t lost;

	while (bench->targets.list[trial.list[0].target].tree != FORMAT_TREE_INODES)
		trial.list[0].target++;
	trial.list[0].copies = 1;
	*count = ARRAY_SIZE(spoils);
	if (trial_run(bench, &trial, &lost, &why)) {
		fprintf(stderr, "self test: without a spoiler: %s\n", why.text);
		return *count;
	}
	for (current = 0; current < ARRAY_SIZE(spoils); current++) {
		bench->spoil = run_current;
		if (trial_run(bench, &trial, &lost, &why) && bench->judged)
			continue;
		fprintf(stderr, "self test: %s was not noticed\n", spoils[current].what);
		missed++;
	}
	bench->spoil = NULL;
	return missed;
}
