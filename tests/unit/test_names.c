/* Random operations on names against a model in memory, with crashes and remounts between; and many threads at once. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "tests/support/random.h"

#define NAMES 24 /* per directory */
#define DIRS 12	 /* that may exist at once; number 0 is the root */
#define STEPS 6000
#define THREADS 4
#define THREAD_STEPS 1500

static struct fsfix fix;
static const struct fs_who who = {.uid = 1000, .gid = 1000};

/* What lies under each name: 0 or an inode number. Directories are known by their slot. */
struct model {
	inum_t dir[DIRS];
	inum_t entry[DIRS][NAMES];
};

static void setup(void)
{
	expect_equal(fsfix_create_mounted(&fix, 64u << 20), 0);
}

static void setup_weak(void)
{
	expect_equal(fsfix_create(&fix, 64u << 20), 0);
	fix.options.weak_hash = true;
	expect_equal(fsfix_mount(&fix), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static const char *name_of(unsigned i)
{
	static const char *const stems[] = {"a", "file with spaces", "\xff\xfe not UTF-8", "long"};
	static _Thread_local char names[2][256];
	static _Thread_local unsigned turn;
	char *name = names[turn++ % 2];
	int length = snprintf(name, 256, "%s.%u", stems[i % 4], i);

	if (i % 4 == 3) { /* up to the longest */
		memset(name + length, 'x', 255 - (size_t)length);
		name[255] = '\0';
	}
	return name;
}

static int slot_of(const struct model *model, inum_t ino)
{
	for (unsigned i = 0; i < DIRS; i++)
		if (model->dir[i] == ino)
			return (int)i;
	return -1;
}

static unsigned any_dir(const struct model *model, struct random *random)
{
	unsigned slot;

	do
		slot = (unsigned)random_below(random, DIRS);
	while (!model->dir[slot]);
	return slot;
}

/* --- steps; the model follows what the filesystem says that it did, and its errors must be explained by the model ------------ */

static void step_create(struct model *model, struct random *random)
{
	unsigned d = any_dir(model, random), n = (unsigned)random_below(random, NAMES);
	int error, slot = slot_of(model, 0);
	bool make_dir = slot >= 0 && random_below(random, 4) == 0;
	inum_t ino;

	error = make_dir ? fsfix_mkdir(&fix, model->dir[d], name_of(n), &ino)
			 : fsfix_mkfile(&fix, model->dir[d], name_of(n), &ino);
	expect_equal(error, model->entry[d][n] ? -EEXIST : 0);
	if (error)
		return;
	model->entry[d][n] = ino;
	if (make_dir)
		model->dir[slot] = ino;
}

static bool dir_is_empty(const struct model *model, int slot)
{
	for (unsigned n = 0; n < NAMES; n++)
		if (model->entry[slot][n])
			return false;
	return true;
}

static void step_remove(struct model *model, struct random *random)
{
	unsigned d = any_dir(model, random), n = (unsigned)random_below(random, NAMES);
	inum_t ino = model->entry[d][n];
	int slot = ino ? slot_of(model, ino) : -1;
	int error;

	if (slot >= 0) {
		error = fs_rmdir(fix.fs, model->dir[d], name_of(n));
		expect_equal(error, dir_is_empty(model, slot) ? 0 : -ENOTEMPTY);
	} else {
		error = fs_unlink(fix.fs, model->dir[d], name_of(n));
		expect_equal(error, ino ? 0 : -ENOENT);
	}
	if (error)
		return;
	model->entry[d][n] = 0;
	if (slot >= 0)
		model->dir[slot] = 0;
}

static void step_link(struct model *model, struct random *random)
{
	unsigned d = any_dir(model, random), n = (unsigned)random_below(random, NAMES);
	unsigned to = any_dir(model, random), m = (unsigned)random_below(random, NAMES);
	inum_t ino = model->entry[d][n];
	struct fs_attr attr;
	int error;

	if (!ino)
		return;
	error = fs_link(fix.fs, ino, model->dir[to], name_of(m), &attr);
	if (slot_of(model, ino) >= 0) {
		expect_equal(error, -EPERM);
		return;
	}
	expect_equal(error, model->entry[to][m] ? -EEXIST : 0);
	if (error)
		return;
	fs_forget(fix.fs, ino, 1);
	model->entry[to][m] = ino;
}

static void step_rename(struct model *model, struct random *random)
{
	unsigned d = any_dir(model, random), n = (unsigned)random_below(random, NAMES);
	unsigned to = any_dir(model, random), m = (unsigned)random_below(random, NAMES);
	bool exchange = random_below(random, 3) == 0;
	inum_t ino = model->entry[d][n], old = model->entry[to][m];
	int error = fs_rename(fix.fs, &who, model->dir[d], name_of(n), model->dir[to], name_of(m),
			      exchange ? RENAME_EXCHANGE : 0);

	if (!ino || (exchange && !old)) {
		expect_equal(error, -ENOENT);
		return;
	}
	if (error) { /* a loop or a mismatch, only where a directory takes part */
		expect(error == -EINVAL || error == -ENOTEMPTY || error == -EISDIR || error == -ENOTDIR);
		expect(slot_of(model, ino) >= 0 || (old && slot_of(model, old) >= 0));
		return;
	}
	if (ino == old)
		return;
	if (!exchange && old && slot_of(model, old) >= 0)
		model->dir[slot_of(model, old)] = 0;
	model->entry[to][m] = ino;
	model->entry[d][n] = exchange ? old : 0;
}

static void step(struct model *model, struct random *random)
{
	switch (random_below(random, 8)) {
	case 0 ... 2:
		step_create(model, random);
		break;
	case 3 ... 4:
		step_remove(model, random);
		break;
	case 5:
		step_link(model, random);
		break;
	default:
		step_rename(model, random);
		break;
	}
}

/* --- comparing ------------------------------------------------------------------------------------------------------------ */

struct compare {
	const struct model *model;
	unsigned slot, met;
};

static int compare_visit(void *arg, const char *name, inum_t ino, uint8_t type, uint64_t next_cookie,
			 const struct fs_attr *attr)
{
	struct compare *compare = arg;

	if (next_cookie < 3)
		return 0;
	for (unsigned n = 0; n < NAMES; n++)
		if (strcmp(name, name_of(n)) == 0) {
			expect_equal(compare->model->entry[compare->slot][n], ino);
			compare->met++;
			return 0;
		}
	ck_abort_msg("a name that was never made: %s", name);
	return 0;
}

static void compare_dir(const struct model *model, unsigned slot)
{
	struct compare compare = {.model = model, .slot = slot};
	struct fs_attr attr;
	unsigned wanted = 0;

	expect_equal(fs_readdir(fix.fs, model->dir[slot], 0, false, compare_visit, &compare), 0);
	for (unsigned n = 0; n < NAMES; n++) {
		inum_t ino = model->entry[slot][n];
		int error = fsfix_lookup(&fix, model->dir[slot], name_of(n), &attr);

		expect_equal(error, ino ? 0 : -ENOENT);
		expect(error || attr.ino == ino);
		wanted += ino != 0;
	}
	expect_equal(compare.met, wanted);
}

static void compare_all(const struct model *model)
{
	for (unsigned slot = 0; slot < DIRS; slot++)
		if (model->dir[slot])
			compare_dir(model, slot);
	expect_equal(fsfix_check(&fix), 0);
}

static void run_model(const char *test)
{
	struct random random = random_start(test);
	struct model model = {.dir = {FS_ROOT_INO}};

	for (unsigned i = 1; i <= STEPS; i++) {
		step(&model, &random);
		if (i % 500)
			continue;
		if (random_below(&random, 2))
			expect_equal(fsfix_crash(&fix) ?: fsfix_mount(&fix), 0);
		else if (random_below(&random, 2))
			expect_equal(fsfix_remount(&fix), 0);
		compare_all(&model);
	}
}

START_TEST(random_operations_follow_the_model_over_crashes)
{
	run_model("names");
}
END_TEST

START_TEST(random_operations_follow_the_model_when_all_names_collide)
{
	run_model("names, weak hash");
}
END_TEST

/* --- threads -------------------------------------------------------------------------------------------------------------- */

struct worker {
	uint64_t seed;
	inum_t dirs[4];
};

static void worker_make(struct worker *worker, struct random *random, inum_t dir, const char *name)
{
	struct fs_attr attr;
	mode_t mode = random_below(random, 5) ? S_IFREG | 0600 : S_IFDIR | 0700;
	int error = fs_create(fix.fs, &who, dir, name, mode, 0, &attr);

	expect(error == 0 || error == -EEXIST);
	if (!error)
		fs_forget(fix.fs, attr.ino, 1);
}

static void worker_look(struct random *random, inum_t dir, const char *name)
{
	struct inode_record values = {.mode = 0600};
	struct fs_attr attr, other;

	if (fs_lookup(fix.fs, dir, name, &attr))
		return;
	expect_equal(fs_getattr(fix.fs, attr.ino, &other), 0);
	if (random_below(random, 2))
		expect_equal(fs_setattr(fix.fs, attr.ino, FS_SET_MODE, &values, &other), 0);
	fs_forget(fix.fs, attr.ino, 1);
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct random random = {.state = worker->seed};

	for (unsigned i = 0; i < THREAD_STEPS; i++) {
		inum_t dir = worker->dirs[random_below(&random, 4)], to = worker->dirs[random_below(&random, 4)];
		const char *name = name_of((unsigned)random_below(&random, NAMES));
		const char *other = name_of((unsigned)random_below(&random, NAMES));

		switch (random_below(&random, 6)) {
		case 0 ... 1:
			worker_make(worker, &random, dir, name);
			break;
		case 2:
			if (fs_unlink(fix.fs, dir, name) == -EISDIR)
				fs_rmdir(fix.fs, dir, name);
			break;
		case 3:
			fs_rename(fix.fs, &who, dir, name, to, other, random_below(&random, 2) ? RENAME_EXCHANGE : RENAME_WHITEOUT);
			break;
		default:
			worker_look(&random, dir, name);
			break;
		}
	}
	return NULL;
}

START_TEST(many_threads_on_the_same_names_leave_a_whole_filesystem)
{
	struct random random = random_start("threads on names");
	struct worker workers[THREADS];
	pthread_t threads[THREADS];
	inum_t dirs[4] = {FS_ROOT_INO};

	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "one", &dirs[1]), 0);
	expect_equal(fsfix_mkdir(&fix, dirs[1], "two", &dirs[2]), 0);
	expect_equal(fsfix_mkdir(&fix, dirs[2], "three", &dirs[3]), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].seed = random_next(&random);
		memcpy(workers[i].dirs, dirs, sizeof(dirs));
		expect_equal(pthread_create(&threads[i], NULL, worker_main, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(fsfix_crash(&fix) ?: fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("names");
	TCase *plain = tcase_create("plain"), *weak = tcase_create("weak hash");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(plain, setup, teardown);
	tcase_set_timeout(plain, 200);
	tcase_add_test(plain, random_operations_follow_the_model_over_crashes);
	tcase_add_test(plain, many_threads_on_the_same_names_leave_a_whole_filesystem);
	suite_add_tcase(suite, plain);
	tcase_add_checked_fixture(weak, setup_weak, teardown);
	tcase_set_timeout(weak, 200);
	tcase_add_test(weak, random_operations_follow_the_model_when_all_names_collide);
	suite_add_tcase(suite, weak);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
