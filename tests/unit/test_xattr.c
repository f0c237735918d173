#include "fs/xattr.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "fs/acl.h"
#include "fs/check.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "tests/support/random.h"
#include "util/log.h"

static struct fsfix fix;
static const struct fs_who root = {.uid = 0}, owner = {.uid = 1000, .gid = 1000}, other = {.uid = 2000, .gid = 2000};
static uint8_t bytes[XATTR_VALUE_MAX], got[XATTR_VALUE_MAX];
static inum_t file;

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "f", &file), 0);
}

static void setup_weak(void)
{
	expect_equal(fsfix_create(&fix, 64u << 20), 0);
	fix.options.weak_hash = true;
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_mkfile(&fix, FS_ROOT_INO, "f", &file), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static void teardown_checked(void)
{
	expect_equal(fsfix_check(&fix), 0);
	teardown();
}

static void fill(uint8_t *to, size_t size, unsigned tag)
{
	struct random random = {.state = tag + 1};

	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)random_below(&random, 256);
}

static int set(const char *name, size_t size, unsigned tag, int flags)
{
	fill(bytes, size, tag);
	return fs_setxattr(fix.fs, &root, file, name, bytes, size, flags);
}

static int get(const char *name, size_t *length)
{
	return fs_getxattr(fix.fs, &root, file, name, got, sizeof(got), length);
}

static bool has(const char *name, size_t size, unsigned tag)
{
	size_t length = 0;

	fill(bytes, size, tag);
	return get(name, &length) == 0 && length == size && !memcmp(got, bytes, size);
}

static size_t list(inum_t ino, const struct fs_who *who, char *buffer, size_t size)
{
	size_t length = 0;

	expect_equal(fs_listxattr(fix.fs, who, ino, buffer, size, &length), 0);
	return length;
}

START_TEST(a_value_of_any_size_reads_back_and_survives_a_remount)
{
	static const size_t sizes[] = {0, 1, 950, 959, 960, 975, 976, 977, 1940, 4000, 40000, 65535, 65536};

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		char name[40];

		snprintf(name, sizeof(name), "user.%u", i);
		expect_equal(set(name, sizes[i], i, 0), 0);
	}
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
			char name[40];

			snprintf(name, sizeof(name), "user.%u", i);
			ck_assert_msg(has(name, sizes[i], i), "%zu bytes", sizes[i]);
		}
		expect_equal(fsfix_remount(&fix), 0);
	}
}
END_TEST

START_TEST(a_value_is_replaced_by_one_of_any_other_size)
{
	struct random random = random_start("xattr");
	static const size_t most[] = {10, 2000, 65537};

	expect_equal(set("user.before", 5000, 1, 0), 0);
	expect_equal(set("user.behind", 5000, 2, 0), 0);
	for (unsigned i = 0; i < 300; i++) {
		size_t size = random_below(&random, most[i % ARRAY_SIZE(most)]);

		expect_equal(set("user.x", size, i, i ? XATTR_REPLACE : XATTR_CREATE), 0);
		ck_assert(has("user.x", size, i));
	}
	ck_assert(has("user.before", 5000, 1) && has("user.behind", 5000, 2));
	expect_equal(fs_removexattr(fix.fs, &root, file, "user.x"), 0);
	ck_assert(has("user.before", 5000, 1) && has("user.behind", 5000, 2));
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
	char name[300];
	size_t length;

	expect_equal(set("user.a", 3, 1, XATTR_REPLACE), -ENODATA);
	expect_equal(set("user.a", 3, 1, 0), 0);
	expect_equal(set("user.a", 3, 1, XATTR_CREATE), -EEXIST);
	expect_equal(get("user.b", &length), -ENODATA);
	expect_equal(fs_getxattr(fix.fs, &root, file, "user.a", got, 2, &length), -ERANGE);
	expect_equal(fs_getxattr(fix.fs, &root, file, "user.a", NULL, 0, &length), 0);
	ck_assert_uint_eq(length, 3);
	expect_equal(fs_removexattr(fix.fs, &root, file, "user.b"), -ENODATA);
	expect_equal(fs_setxattr(fix.fs, &root, file, "user.a", bytes, XATTR_VALUE_MAX + 1, 0), -E2BIG);
	expect_equal(set("user.", 3, 1, 0), -EINVAL);
	expect_equal(set("", 3, 1, 0), -ERANGE);
	expect_equal(set("nobody.a", 3, 1, 0), -EOPNOTSUPP);
	expect_equal(set("system.a", 3, 1, 0), -EOPNOTSUPP);
	expect_equal(set("user.a", 3, 1, 64), -EINVAL);
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[256] = 0;
	expect_equal(set(name, 3, 1, 0), -ERANGE);
	name[255] = 0;
	expect_equal(set(name, 65536, 7, 0), 0);
	ck_assert(has(name, 65536, 7));
	expect_equal(fs_setxattr(fix.fs, &root, 12345, "user.a", bytes, 1, 0), -ENOENT);
}
END_TEST

START_TEST(trusted_attributes_are_there_for_root_only)
{
	char names[100];
	size_t length;

	expect_equal(set("trusted.t", 3, 1, 0), 0);
	expect_equal(set("user.u", 3, 1, 0), 0);
	expect_equal(fs_setxattr(fix.fs, &owner, file, "trusted.x", bytes, 1, 0), -EPERM);
	expect_equal(fs_removexattr(fix.fs, &owner, file, "trusted.t"), -EPERM);
	expect_equal(fs_getxattr(fix.fs, &owner, file, "trusted.t", got, 10, &length), -ENODATA);
	ck_assert_uint_eq(list(file, &root, names, sizeof(names)), 17);
	ck_assert_uint_eq(list(file, &owner, names, sizeof(names)), 7);
	ck_assert_str_eq(names, "user.u");
	ck_assert_uint_eq(list(file, &root, NULL, 0), 17);
	expect_equal(fs_listxattr(fix.fs, &root, file, names, 16, &length), -ERANGE);
}
END_TEST

START_TEST(user_attributes_are_of_files_and_directories)
{
	struct fs_attr fifo, link;
	inum_t dir;
	struct inode_record values = {.mode = 01777};
	struct fs_attr attr;
	size_t length;

	expect_equal(fs_create(fix.fs, &owner, FS_ROOT_INO, "fifo", S_IFIFO | 0666, 0, &fifo), 0);
	expect_equal(fs_symlink(fix.fs, &owner, FS_ROOT_INO, "link", "target", &link), 0);
	expect_equal(fs_setxattr(fix.fs, &owner, fifo.ino, "user.a", "x", 1, 0), -EPERM);
	expect_equal(fs_setxattr(fix.fs, &owner, link.ino, "user.a", "x", 1, 0), -EPERM);
	expect_equal(fs_getxattr(fix.fs, &owner, link.ino, "user.a", got, 1, &length), -ENODATA);
	expect_equal(fs_setxattr(fix.fs, &root, link.ino, "trusted.a", "x", 1, 0), 0);
	expect_equal(fs_setxattr(fix.fs, &root, link.ino, "security.a", "x", 1, 0), 0);
	expect_equal(fs_readlink(fix.fs, link.ino, (char *)got, 100), 0);
	ck_assert_str_eq((char *)got, "target");
	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "d", &dir), 0);
	expect_equal(fs_setattr(fix.fs, dir, FS_SET_MODE, &values, &attr), 0);
	expect_equal(fs_setxattr(fix.fs, &other, dir, "user.a", "x", 1, 0), -EPERM);
	expect_equal(fs_setxattr(fix.fs, &owner, dir, "user.a", "x", 1, 0), 0);
	fs_forget(fix.fs, fifo.ino, 1);
	fs_forget(fix.fs, link.ino, 1);
}
END_TEST

START_TEST(thousands_of_attributes_are_listed_once_each_and_go_with_the_inode)
{
	static char names[1 << 17];
	static bool seen[3000];
	struct fs_statfs before, after;
	size_t length;
	unsigned count = 0;

	fs_statfs(fix.fs, &before);
	for (unsigned i = 0; i < ARRAY_SIZE(seen); i++) {
		snprintf(names, 40, "user.name-%u", i);
		expect_equal(set(names, i % 50, i, XATTR_CREATE), 0);
	}
	length = list(file, &root, names, sizeof(names));
	for (size_t at = 0; at < length; at += strlen(names + at) + 1, count++) {
		unsigned i = (unsigned)atoi(names + at + 10);

		ck_assert(i < ARRAY_SIZE(seen) && !seen[i]);
		seen[i] = true;
		ck_assert(has(names + at, i % 50, i));
	}
	ck_assert_uint_eq(count, ARRAY_SIZE(seen));
	expect_equal(fs_unlink(fix.fs, FS_ROOT_INO, "f"), 0);
	expect_equal(fsfix_remount(&fix), 0);
	fs_statfs(fix.fs, &after);
	ck_assert_uint_eq(after.inodes, before.inodes - 1);
}
END_TEST

START_TEST(names_of_the_same_hash_are_told_apart)
{
	char name[40];
	static const struct { unsigned from, to; } rounds[] = {{0, 256}, {100, 120}};

	for (unsigned i = 0; i < 256; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		expect_equal(set(name, i * 9, i, XATTR_CREATE), 0);
	}
	expect_equal(set("user.more", 1, 1, 0), -ENOSPC);
	for (unsigned i = rounds[1].from; i < rounds[1].to; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		expect_equal(fs_removexattr(fix.fs, &root, file, name), 0);
	}
	expect_equal(set("user.more", 1, 1, 0), 0);
	for (unsigned i = rounds[0].from; i < rounds[0].to; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		ck_assert(has(name, i * 9, i) == (i < rounds[1].from || i >= rounds[1].to));
	}
	ck_assert(has("user.more", 1, 1));
}
END_TEST

static void put_part(uint64_t slot, uint64_t part, const void *value, size_t length)
{
	const struct btree_key key = {{file, slot, part}};
	struct tx *tx;

	expect_equal(fs_tx_begin(fix.fs, TX_NORMAL, &tx), 0);
	expect_equal(btree_update(&fix.fs->xattrs, tx, &key, value, length), 0);
	expect_equal(tx_commit(tx, NULL), 0);
}

START_TEST(a_value_of_old_and_new_parts_is_never_read)
{
	size_t length;

	expect_equal(set("user.a", 3000, 1, 0), 0);
	put_part(xattr_hash(fix.fs, "user.a", 6), 2, bytes, XATTR_PART_BYTES);
	expect_equal(get("user.a", &length), -EUCLEAN);
	ck_assert_int_gt(fsfix_check(&fix), 0);
}
END_TEST

START_TEST(a_full_filesystem_refuses_cleanly_and_lets_attributes_be_removed)
{
	char name[40];
	unsigned count = 0;
	int error = 0;

	for (; !error && count < 100000; count++) {
		snprintf(name, sizeof(name), "user.%u", count);
		error = set(name, 65536, count, 0);
	}
	expect_equal(error, -ENOSPC);
	count--;
	ck_assert_uint_gt(count, 10);
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		ck_assert(has(name, 65536, i));
		expect_equal(fs_removexattr(fix.fs, &root, file, name), 0);
	}
	expect_equal(set("user.again", 65536, 5, 0), 0);
}
END_TEST

/* --- what comes with ACLs and privileges --------------------------------------------------------------------------------------------- */

static size_t make_acl(uint8_t *blob, unsigned user, unsigned named, unsigned group, int mask, unsigned others)
{
	struct acl acl = {.count = 0};

	acl.entries[acl.count++] = (struct acl_entry){ACL_TAG_USER_OBJ, (uint16_t)user, ACL_ID_NONE};
	if (mask >= 0)
		acl.entries[acl.count++] = (struct acl_entry){ACL_TAG_USER, (uint16_t)named, 3000};
	acl.entries[acl.count++] = (struct acl_entry){ACL_TAG_GROUP_OBJ, (uint16_t)group, ACL_ID_NONE};
	if (mask >= 0)
		acl.entries[acl.count++] = (struct acl_entry){ACL_TAG_MASK, (uint16_t)mask, ACL_ID_NONE};
	acl.entries[acl.count++] = (struct acl_entry){ACL_TAG_OTHER, (uint16_t)others, ACL_ID_NONE};
	return format_acl_pack(blob, &acl);
}

static uint32_t mode_of(inum_t ino)
{
	struct fs_attr attr;

	expect_equal(fs_getattr(fix.fs, ino, &attr), 0);
	return attr.record.mode & 07777;
}

static void set_mode(inum_t ino, uint32_t mode)
{
	struct inode_record values = {.mode = mode};
	struct fs_attr attr;

	expect_equal(fs_setattr(fix.fs, ino, FS_SET_MODE, &values, &attr), 0);
}

static int get_acl(inum_t ino, const char *name, struct acl *acl)
{
	uint8_t blob[ACL_BLOB_MAX];
	size_t length = 0;
	int error = fs_getxattr(fix.fs, &owner, ino, name, blob, sizeof(blob), &length);

	return error ? error : format_acl_unpack(acl, blob, length);
}

START_TEST(an_access_acl_and_the_mode_say_the_same)
{
	uint8_t blob[ACL_BLOB_MAX];
	struct acl acl;

	expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_ACCESS, blob, make_acl(blob, 7, 6, 5, 4, 1), 0), 0);
	ck_assert_uint_eq(mode_of(file), 0741);
	set_mode(file, 0620);
	expect_equal(get_acl(file, XATTR_NAME_ACCESS, &acl), 0);
	ck_assert_uint_eq(acl_mode(&acl), 0620);
	ck_assert_uint_eq(acl.entries[2].permissions, 5); /* the group itself stays behind the mask */
	expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_ACCESS, blob, make_acl(blob, 6, 0, 4, -1, 4), 0), 0);
	ck_assert_uint_eq(mode_of(file), 0644);
	expect_equal(get_acl(file, XATTR_NAME_ACCESS, &acl), -ENODATA); /* as much as the mode says is not stored */
	expect_equal(fs_removexattr(fix.fs, &owner, file, XATTR_NAME_ACCESS), 0);
}
END_TEST

START_TEST(what_is_no_acl_is_refused)
{
	uint8_t blob[ACL_BLOB_MAX + 8];
	size_t length = make_acl(blob, 7, 6, 5, 4, 1);

	expect_equal(fs_setxattr(fix.fs, &other, file, XATTR_NAME_ACCESS, blob, length, 0), -EPERM);
	expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_DEFAULT, blob, length, 0), -EACCES);
	expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_ACCESS, blob, length - 1, 0), -EINVAL);
	expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_ACCESS, blob, length - 8, 0), -EINVAL);
	expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_ACCESS, blob, 0, 0), -EINVAL);
	expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_ACCESS, blob, ACL_BLOB_MAX + 8, 0), -E2BIG);
	for (size_t i = 0; i < length; i++) {
		uint8_t bad[sizeof(blob)];

		memcpy(bad, blob, length);
		bad[i] ^= 0x40;
		/* Ids and what is no id may be anything. */
		if ((i - 4) % 8 < 4 || i < 4)
			expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_ACCESS, bad, length, 0), -EINVAL);
	}
}
END_TEST

START_TEST(a_default_acl_is_inherited_and_stands_for_the_umask)
{
	const struct fs_who who = {.uid = 1000, .gid = 1000, .umask = 077};
	uint8_t blob[ACL_BLOB_MAX];
	struct fs_attr made, deeper, link;
	struct acl acl;
	inum_t dir;

	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "d", &dir), 0);
	expect_equal(fs_create(fix.fs, &who, dir, "masked", S_IFREG | 0666, 0, &made), 0);
	ck_assert_uint_eq(made.record.mode & 07777, 0600);
	expect_equal(fs_setxattr(fix.fs, &owner, dir, XATTR_NAME_DEFAULT, blob, make_acl(blob, 7, 6, 5, 7, 4), 0), 0);
	expect_equal(fs_create(fix.fs, &who, dir, "f", S_IFREG | 0666, 0, &made), 0);
	ck_assert_uint_eq(made.record.mode & 07777, 0664);
	expect_equal(get_acl(made.ino, XATTR_NAME_ACCESS, &acl), 0);
	ck_assert_uint_eq(acl_mode(&acl), 0664);
	expect_equal(get_acl(made.ino, XATTR_NAME_DEFAULT, &acl), -ENODATA);
	expect_equal(fs_create(fix.fs, &who, dir, "sub", S_IFDIR | 0755, 0, &deeper), 0);
	ck_assert_uint_eq(deeper.record.mode & 07777, 0754);
	expect_equal(get_acl(deeper.ino, XATTR_NAME_DEFAULT, &acl), 0);
	ck_assert_uint_eq(acl_mode(&acl), 0774);
	expect_equal(fs_tmpfile(fix.fs, &who, deeper.ino, S_IFREG | 0666, &made), 0);
	ck_assert_uint_eq(made.record.mode & 07777, 0664);
	expect_equal(fs_symlink(fix.fs, &who, dir, "l", "x", &link), 0);
	ck_assert_uint_eq(list(link.ino, &root, NULL, 0), 0);
	expect_equal(fs_removexattr(fix.fs, &owner, dir, XATTR_NAME_DEFAULT), 0);
	expect_equal(fs_create(fix.fs, &who, dir, "again", S_IFREG | 0666, 0, &made), 0);
	ck_assert_uint_eq(made.record.mode & 07777, 0600);
}
END_TEST

START_TEST(privileges_go_when_content_changes)
{
	struct inode_record values = {.size_bytes = 10, .uid = 5};
	struct fs_attr attr;
	size_t done, length;
	unsigned ids = 0;

	set_mode(file, 06755);
	expect_equal(fs_setxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, "cap", 3, 0), 0);
	expect_equal(fs_write(fix.fs, file, 0, "x", 1, &done), 0);
	ck_assert_uint_eq(mode_of(file), 06755);
	expect_equal(fs_getxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, got, 10, &length), -ENODATA);
	expect_equal(fs_write_as(fix.fs, file, true, 0, "x", 1, &done, &ids), 0);
	ck_assert_uint_eq(mode_of(file), 0755);
	ck_assert_uint_eq(ids, FS_IDS_KILLED);
	ids = 0;
	set_mode(file, 02644); /* no setgid: a mark for locking */
	expect_equal(fs_write_as(fix.fs, file, true, 0, "x", 1, &done, &ids), 0);
	ck_assert_uint_eq(mode_of(file), 02644);
	ck_assert_uint_eq(ids, FS_IDS_SETGID);
	set_mode(file, 04755);
	expect_equal(fs_setxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, "cap", 3, 0), 0);
	expect_equal(fs_setattr(fix.fs, file, FS_SET_SIZE | FS_SET_KILL_SUIDGID, &values, &attr), 0);
	ck_assert_uint_eq(attr.record.mode & 07777, 0755);
	expect_equal(fs_getxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, got, 10, &length), -ENODATA);
	set_mode(file, 06711);
	expect_equal(fs_setxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, "cap", 3, 0), 0);
	expect_equal(fs_setattr(fix.fs, file, FS_SET_UID, &values, &attr), 0);
	ck_assert_uint_eq(attr.record.mode & 07777, 0711);
	expect_equal(fs_getxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, got, 10, &length), -ENODATA);
	set_mode(file, 04755);
	ids = 0;
	expect_equal(fs_kill_privileges(fix.fs, file, true, &ids), 0);
	ck_assert_uint_eq(mode_of(file), 0755);
	ck_assert_uint_eq(ids, FS_IDS_KILLED);
	expect_equal(fs_kill_privileges(fix.fs, file, false, &ids), 0);
	set_mode(file, 06744);
	expect_equal(fs_kill_privileges(fix.fs, file, true, &ids), 0);
	ck_assert_uint_eq(mode_of(file), 02744);
	ck_assert_uint_eq(ids, FS_IDS_KILLED | FS_IDS_SETGID);
}
END_TEST

START_TEST(privileges_go_from_a_file_that_may_be_appended_to)
{
	struct inode_record values = {.flags = INODE_APPEND};
	size_t done;

	set_mode(file, 06755);
	expect_equal(fs_set_flags(fix.fs, &root, file, FS_SET_FLAGS, &values), 0);
	expect_equal(fs_write_as(fix.fs, file, true, 0, "x", 1, &done, NULL), 0);
	ck_assert_uint_eq(mode_of(file), 0755);
}
END_TEST

static void *look_for_capability(void *arg)
{
	size_t length;

	expect_equal(fs_getxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, got, 10, &length), -ENODATA);
	return NULL;
}

/* Who looks while it is being set still finds none, and remembers that no longer than it is so. */
START_TEST(a_capability_is_found_by_who_looked_while_it_was_set)
{
	struct inode *inode;
	pthread_t thread;
	struct tx *tx;
	size_t length;

	expect_equal(inode_get(fix.fs, file, &inode), 0);
	expect_equal(fs_tx_begin(fix.fs, TX_NORMAL, &tx), 0);
	expect_equal(xattr_store(inode, tx, XATTR_NAME_CAPABILITY, "cap", 3, 0), 0);
	expect_equal(pthread_create(&thread, NULL, look_for_capability, NULL), 0);
	pthread_join(thread, NULL);
	expect_equal(tx_end(tx, 0, NULL), 0);
	expect_equal(fs_getxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, got, 10, &length), 0);
	inode_put(inode);
}
END_TEST

START_TEST(a_setgid_bit_goes_with_an_acl_from_outside_the_group)
{
	uint8_t blob[ACL_BLOB_MAX];

	set_mode(file, 02755);
	expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_ACCESS, blob, make_acl(blob, 7, 6, 5, 5, 5), 0), 0);
	ck_assert_uint_eq(mode_of(file), 02755);
	expect_equal(fs_setxattr(fix.fs, &owner, file, XATTR_NAME_ACCESS, blob, make_acl(blob, 7, 6, 5, 5, 5), FS_XATTR_KILL_SGID), 0);
	ck_assert_uint_eq(mode_of(file), 0755);
}
END_TEST

/* --- by many at once ------------------------------------------------------------------------------------------------------------------- */

#define THREADS 4
#define TURNS 300

static void thread_set(struct random *random, uint8_t *value)
{
	size_t size = random_below(random, 3000);

	memset(value, (int)random_below(random, 256), size);
	expect_equal(fs_setxattr(fix.fs, &root, file, random_below(random, 2) ? "user.a" : XATTR_NAME_CAPABILITY, value, size, 0), 0);
}

/* Whatever is there is of one set: all bytes alike. */
static void thread_get(uint8_t *value)
{
	size_t length = 0;
	int error = fs_getxattr(fix.fs, &root, file, "user.a", value, 4096, &length);

	expect(error == 0 || error == -ENODATA);
	for (size_t i = 1; i < length && !error; i++)
		expect(value[i] == value[0]);
}

static void *thread_run(void *arg)
{
	struct random random = {.state = (uintptr_t)arg};
	struct inode_record values = {.mode = 0640};
	uint8_t value[4096];
	struct fs_attr attr;
	size_t done;

	for (unsigned i = 0; i < TURNS; i++) {
		switch (random_below(&random, 6)) {
		case 0:
		case 1:
			thread_set(&random, value);
			break;
		case 2:
			expect_equal(fs_write_as(fix.fs, file, true, 0, value, 100, &done, NULL), 0);
			break;
		case 3:
			fs_removexattr(fix.fs, &root, file, "user.a");
			break;
		case 4:
			expect_equal(fs_setattr(fix.fs, file, FS_SET_MODE, &values, &attr), 0);
			break;
		default:
			thread_get(value);
		}
	}
	return NULL;
}

START_TEST(threads_see_whole_values_only)
{
	struct random random = random_start("xattr_threads");
	pthread_t threads[THREADS];
	size_t length, done;

	for (unsigned i = 0; i < THREADS; i++)
		expect_equal(pthread_create(&threads[i], NULL, thread_run, (void *)(uintptr_t)random_below(&random, 1u << 30)), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	/* What is known to be absent is so, and what is there is known. */
	expect_equal(fs_setxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, "cap", 3, 0), 0);
	expect_equal(fs_write(fix.fs, file, 0, "x", 1, &done), 0);
	expect_equal(fs_getxattr(fix.fs, &root, file, XATTR_NAME_CAPABILITY, NULL, 0, &length), -ENODATA);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("xattr");
	TCase *values = tcase_create("values"), *weak = tcase_create("weak"), *damage = tcase_create("damage"), *rights = tcase_create("rights");
	SRunner *runner = srunner_create(suite);
	int failed;

	log_set_level(LOG_LEVEL_SILENT);
	tcase_set_timeout(values, 120);
	tcase_add_checked_fixture(values, setup, teardown_checked);
	tcase_add_test(values, a_value_of_any_size_reads_back_and_survives_a_remount);
	tcase_add_test(values, a_value_is_replaced_by_one_of_any_other_size);
	tcase_add_test(values, what_cannot_be_is_refused);
	tcase_add_test(values, trusted_attributes_are_there_for_root_only);
	tcase_add_test(values, user_attributes_are_of_files_and_directories);
	tcase_add_test(values, thousands_of_attributes_are_listed_once_each_and_go_with_the_inode);
	tcase_add_test(values, a_full_filesystem_refuses_cleanly_and_lets_attributes_be_removed);
	suite_add_tcase(suite, values);
	tcase_set_timeout(weak, 120);
	tcase_add_checked_fixture(weak, setup_weak, teardown_checked);
	tcase_add_test(weak, names_of_the_same_hash_are_told_apart);
	suite_add_tcase(suite, weak);
	tcase_add_checked_fixture(damage, setup, teardown);
	tcase_add_test(damage, a_value_of_old_and_new_parts_is_never_read);
	suite_add_tcase(suite, damage);
	tcase_add_checked_fixture(rights, setup, teardown_checked);
	tcase_set_timeout(rights, 120);
	tcase_add_test(rights, an_access_acl_and_the_mode_say_the_same);
	tcase_add_test(rights, what_is_no_acl_is_refused);
	tcase_add_test(rights, a_default_acl_is_inherited_and_stands_for_the_umask);
	tcase_add_test(rights, privileges_go_when_content_changes);
	tcase_add_test(rights, privileges_go_from_a_file_that_may_be_appended_to);
	tcase_add_test(rights, a_capability_is_found_by_who_looked_while_it_was_set);
	tcase_add_test(rights, a_setgid_bit_goes_with_an_acl_from_outside_the_group);
	tcase_add_test(rights, threads_see_whole_values_only);
	suite_add_tcase(suite, rights);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
