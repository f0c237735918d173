#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "mendctl/mounts.h"

static const char text[] = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
			   "30 22 0:40 / /mnt rw,nosuid,nodev - fuse.mendfs /dev/dax0.0 "
			   "rw,user_id=0,group_id=0,allow_other\n"
			   "31 22 0:41 / /mnt\\040with\\134odd\\012names rw shared:7 master:2 - "
			   "fuse.mendfs image\\040one rw,user_id=1000,group_id=100\n"
			   "32 22 0:40 /sub /bind rw - fuse.mendfs /dev/dax0.0 rw,user_id=0\n"
			   "33 22 0:42 / /mnt/inner rw - fuse.sshfs host rw,user_id=7\n"
			   "34 22 0:43 / /mnt/inner/deep rw - fuse.mendfs /dev/null rw\n"
			   "rubbish\n"
			   "35 22 0:44 /\n"
			   "36 22 x / /bad rw - fuse.mendfs s rw\n";

static struct mount_entry *entries;

static void setup(void)
{
	FILE *file = fmemopen((void *)text, strlen(text), "r");

	ck_assert_int_eq(mounts_parse(file, &entries), 0);
	fclose(file);
}

static void teardown(void)
{
	mounts_free(entries);
}

START_TEST(only_mendfs_is_taken_and_what_is_malformed_is_not)
{
	size_t count = 0;

	for (const struct mount_entry *entry = entries; entry; entry = entry->next)
		count++;
	ck_assert_uint_eq(count, 4);
	ck_assert_ptr_null(mounts_by_id(entries, 33));
	ck_assert_ptr_null(mounts_by_id(entries, 36));
}
END_TEST

START_TEST(names_are_unescaped_and_owners_known)
{
	const struct mount_entry *entry = mounts_by_id(entries, 31);

	ck_assert_ptr_nonnull(entry);
	ck_assert_str_eq(entry->mountpoint, "/mnt with\\odd\nnames");
	ck_assert_str_eq(entry->source, "image one");
	ck_assert_uint_eq(entry->uid, 1000);
	ck_assert(entry->dev == makedev(0, 41));
}
END_TEST

START_TEST(the_innermost_mount_of_a_path_is_found_by_whole_components)
{
	ck_assert_uint_eq(mounts_by_path(entries, "/mnt")->id, 30);
	ck_assert_uint_eq(mounts_by_path(entries, "/mnt/file")->id, 30);
	ck_assert_uint_eq(mounts_by_path(entries, "/mnt/inner/deep/x")->id, 34);
	ck_assert_ptr_null(mounts_by_path(entries, "/mntx"));
	ck_assert_ptr_null(mounts_by_path(entries, "/"));
}
END_TEST

START_TEST(a_source_is_known_by_its_device_whatever_its_name)
{
	struct stat st;

	ck_assert_int_eq(stat("/dev/null", &st), 0);
	ck_assert_uint_eq(mounts_by_source(entries, &st)->id, 34);
	ck_assert_int_eq(stat("/dev/zero", &st), 0);
	ck_assert_ptr_null(mounts_by_source(entries, &st)); /* nobody has mounted it */
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("mounts");
	TCase *tcase = tcase_create("mounts");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, only_mendfs_is_taken_and_what_is_malformed_is_not);
	tcase_add_test(tcase, names_are_unescaped_and_owners_known);
	tcase_add_test(tcase, the_innermost_mount_of_a_path_is_found_by_whole_components);
	tcase_add_test(tcase, a_source_is_known_by_its_device_whatever_its_name);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
