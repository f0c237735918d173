#include "tests/fuzz/bases.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/acl_format.h"
#include "fs/fs.h"
#include "fs/query.h"
#include "tests/support/fsfix.h"

#define BASE_CACHE_BYTES (4u << 20)

static const struct fs_who who = {.uid = 1000, .gid = 1000};
static struct base bases[BASES];

/* A base that cannot be made would make every input mean something else. */
static void must(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "base image: %s: %s\n", what, strerror(-error));
	abort();
}

static struct fs *base_mount(struct base *base)
{
	const struct fs_options options = {.tools = true, .cache_bytes = BASE_CACHE_BYTES};
	struct why why = {0};
	struct fs *fs = NULL;

	must(fs_mount_media(medium_media(base->medium), &options, &why, &fs), why.text);
	return fs;
}

/* --- what is put into them --- */

static inum_t add(struct fs *fs, inum_t dir, const char *name, mode_t mode)
{
	struct fs_attr attr;

	must(fs_create(fs, &who, dir, name, mode, 0, &attr), name);
	fs_forget(fs, attr.ino, 1);
	return attr.ino;
}

static void add_data(struct fs *fs, inum_t ino, uint64_t pos, size_t length)
{
	static char data[16 << 10];
	size_t done;

	memset(data, 'b', sizeof(data));
	must(fs_write(fs, ino, pos, data, length, &done), "write");
}

/* Of one part, of many, and ACLs. */
static void add_attributes(struct fs *fs, inum_t file, inum_t dir)
{
	static const struct fs_who root = {.uid = 0};
	static const struct acl acl = {
		.count = 5,
		.entries = {{ACL_TAG_USER_OBJ, 6, 0}, {ACL_TAG_USER, 7, 5}, {ACL_TAG_GROUP_OBJ, 5, 0}, {ACL_TAG_MASK, 4, 0}, {ACL_TAG_OTHER, 4, 0}},
	};
	static char value[9000];
	uint8_t blob[ACL_BLOB_MAX];
	size_t length = format_acl_pack(blob, &acl);

	must(fs_setxattr(fs, &root, file, "user.short", "value", 5, 0), "setxattr");
	must(fs_setxattr(fs, &root, file, "user.long", value, sizeof(value), 0), "setxattr");
	must(fs_setxattr(fs, &root, file, "security.capability", value, 20, 0), "setxattr");
	must(fs_setxattr(fs, &root, dir, "trusted.t", value, 1500, 0), "setxattr");
	must(fs_setxattr(fs, &root, file, "system.posix_acl_access", blob, length, 0), "ACL");
	must(fs_setxattr(fs, &root, dir, "system.posix_acl_default", blob, length, 0), "ACL");
}

/* One of each kind of file, holes, unwritten and shared extents, long and many names. */
static void populate(struct fs *fs)
{
	char name[256];
	struct fs_attr attr;
	uint64_t copied;
	inum_t dir = add(fs, FS_ROOT_INO, "dir", S_IFDIR | 0755), file = 0, clone;

	for (unsigned i = 0; i < 15; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		file = add(fs, i % 3 ? FS_ROOT_INO : dir, name, S_IFREG | 0644);
		add_data(fs, file, i * 4096u, 3000u * (i % 4));
	}
	for (unsigned i = 0; i < 16; i++)
		add_data(fs, file, i * 8192u, 4096);
	clone = add(fs, dir, "clone", S_IFREG | 0600);
	must(fs_clone(fs, file, clone), "clone");
	must(fs_copy_range(fs, file, 0, clone, 1 << 20, 16384, &copied), "copy");
	must(fs_fallocate(fs, clone, FALLOC_FL_KEEP_SIZE, 4 << 20, 65536), "fallocate");
	must(fs_link(fs, clone, FS_ROOT_INO, "hard", &attr), "link");
	fs_forget(fs, clone, 1);
	must(fs_link(fs, clone, FS_ROOT_INO, "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x92\xbe \xff \xe0\x80 \xed\xa0\x80 \xf4\x90 \xc3", &attr), "link");
	fs_forget(fs, clone, 1);
	memset(name, 'n', 255);
	name[255] = '\0';
	must(fs_symlink(fs, &who, dir, name, "../file1", &attr), "symlink");
	fs_forget(fs, attr.ino, 1);
	add(fs, add(fs, dir, "deep", S_IFDIR | 0700), "er", S_IFIFO | 0600);
	add(fs, dir, "device", S_IFCHR | 0600);
	add_attributes(fs, clone, dir);
}

/* Inner nodes in each of the large trees. */
static void populate_much(struct fs *fs)
{
	char name[64], target[3000];
	struct fs_attr attr;
	inum_t dir = FS_ROOT_INO;

	memset(target, 't', sizeof(target));
	target[sizeof(target) - 1] = '\0';
	for (unsigned i = 0; i < 90; i++) {
		snprintf(name, sizeof(name), "an-entry-of-some-length-%u", i);
		if (i % 30 == 0)
			dir = add(fs, dir, name, S_IFDIR | 0755);
		else
			add_data(fs, add(fs, dir, name, S_IFREG | 0644), 4096u * (i % 7), 4096);
	}
	for (unsigned i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "link%u", i);
		must(fs_symlink(fs, &who, dir, name, target, &attr), "symlink");
		fs_forget(fs, attr.ino, 1);
	}
	dir = add(fs, FS_ROOT_INO, "holes", S_IFREG | 0644);
	for (unsigned i = 0; i < 90; i++)
		add_data(fs, dir, i * 8192u, 4096);
}

/* Free space and one copy of a metadata block go bad and are met. */
static void spoil(struct base *base)
{
	const devoff_t free_space = medium_size(base->medium) - (1 << 20);
	struct lab *lab = medium_lab(base->medium);
	char line[LINE_BYTES];

	for (unsigned i = 0; i < 4; i++) {
		must(lab_poison(lab, free_space + i * 65536, 512), "poison");
		media_read(lab_media(lab), free_space + i * 65536, line, sizeof(line), NULL);
	}
}

static int base_poison_extent(void *arg, const struct fs_map_extent *extent)
{
	return lab_poison(arg, extent->device_offset + 512, 1024);
}

static void populate_bad(struct base *base, struct fs *fs)
{
	static char buffer[64 << 10];
	struct fs_attr attr;
	size_t done;

	populate(fs);
	spoil(base);
	must(fs_lookup(fs, FS_ROOT_INO, "hard", &attr), "lookup");
	must(fs_map(fs, attr.ino, 0, 40960, base_poison_extent, medium_lab(base->medium)), "map");
	for (unsigned i = 0; i < 8; i++)
		fs_read(fs, attr.ino, i * 8192, buffer, 4096, &done);
	fs_forget(fs, attr.ino, 1);
	must(fs_notify_wait(fs, 5000), "notify");
}

/* An orphan, and changes that are in the journal only. */
static void leave_work(struct fs *fs)
{
	struct fs_attr attr;

	must(fs_lookup(fs, FS_ROOT_INO, "file1", &attr), "lookup");
	must(fs_unlink(fs, FS_ROOT_INO, "file1"), "unlink");
	must(fs_tmpfile(fs, &who, FS_ROOT_INO, S_IFREG | 0600, &attr), "tmpfile");
	add_data(fs, attr.ino, 0, 8192);
	add(fs, FS_ROOT_INO, "last", S_IFREG | 0644);
}

/* --- making them --- */

static void base_begin(struct base *base, const char *name, enum media_granularity granularity)
{
	base->name = name;
	must(medium_create(FSFIX_SMALL_BYTES, granularity, &base->medium), name);
	must(fsfix_format_media(medium_media(base->medium)), name);
	lab_reset(medium_lab(base->medium));
}

static void base_end(struct base *base)
{
	lab_reset(medium_lab(base->medium));
	lab_heal_all(medium_lab(base->medium));
	must(medium_keep(base->medium), base->name);
	base->places = places_find(medium_kept(base->medium), medium_size(base->medium));
	must(base->places ? 0 : -1, base->name);
}

static void base_make_clean(struct base *base, const char *name, enum media_granularity granularity, void (*fill)(struct fs *fs))
{
	struct fs *fs;

	base_begin(base, name, granularity);
	fs = base_mount(base);
	if (fill)
		fill(fs);
	must(fs_unmount(fs), name);
	base_end(base);
}

static void base_make_dirty(struct base *base, const char *name, enum media_granularity granularity)
{
	struct fs *fs;

	base_begin(base, name, granularity);
	fs = base_mount(base);
	populate(fs);
	must(fs_unmount(fs), name);
	lab_reset(medium_lab(base->medium));
	fs = base_mount(base);
	leave_work(fs);
	fs_abandon(fs);
	base_end(base);
}

static void base_make_bad(struct base *base, const char *name)
{
	struct fs *fs;

	base_begin(base, name, MEDIA_CACHELINE);
	fs = base_mount(base);
	populate_bad(base, fs);
	fs_abandon(fs);
	base_end(base);
}

void bases_make(void)
{
	base_make_clean(&bases[0], "populated", MEDIA_CACHELINE, populate);
	base_make_clean(&bases[1], "empty", MEDIA_CACHELINE, NULL);
	base_make_clean(&bases[2], "populated, page", MEDIA_PAGE, populate);
	base_make_dirty(&bases[3], "dirty journal", MEDIA_CACHELINE);
	base_make_dirty(&bases[4], "dirty journal, page", MEDIA_PAGE);
	base_make_bad(&bases[5], "ledger");
	base_make_clean(&bases[6], "deep", MEDIA_CACHELINE, populate_much);
}

const struct base *base_get(unsigned index)
{
	return &bases[index % BASES];
}
