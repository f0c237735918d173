/*
 * Exhaustion: every operation is run again and again, with memory, space or the medium failing at the first, second, third ... place, once or from there
 * on. It must end with a clean error or succeed all the same; the filesystem must be consistent, as before or as after, on this mount and on the next one;
 * what comes later must work; nothing may be left behind in memory.
 *
 * $MENDFS_EXHAUST runs the operation of this name alone; $MENDFS_LONG tries every place instead of a sample.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc/internal.h"
#include "fs/inode.h"
#include "fs/query.h"
#include "tests/exhaust/inject.h"
#include "tests/exhaust/ops.h"
#include "tests/exhaust/state.h"
#include "tests/support/fsfix.h"
#include "tests/support/lab.h"
#include "util/log.h"

#define MEDIUM_BYTES (FSFIX_SMALL_BYTES + (4u << 20)) /* room to grow */
#define POINT_SECONDS 20			      /* longer is a hang */
#define NOTIFY_MS 15000
#define POINTS_SAMPLED 60			      /* of one operation and kind; all of them with MENDFS_LONG */

enum phase { PHASE_MOUNT, PHASE_RUN, PHASE_UNMOUNT };

/* Made once, before Check forks; read only then. */
static uint8_t *base;
static struct ops_tree tree;

/* What the forked tests report to main(). */
static struct totals {
	unsigned points[INJECT_KINDS], fired, errors, leaks, violations;
	bool expected; /* violations: by the twins */
	bool again; /* on the mount after it */
	char point[160]; /* the one under way, for who dies in it */
} *totals;

/* --- the medium ----------------------------------------------------------------------------------------------------------------- */

static struct lab *lab;
static uint8_t changed[MEDIUM_BYTES / BLOCK_BYTES];

static void note_store(void *arg, devoff_t offset, const void *from, size_t length)
{
	for (uint64_t block = offset / BLOCK_BYTES; block <= (offset + length - 1) / BLOCK_BYTES; block++)
		changed[block] = 1;
}

static int inject_fault(void *arg, bool is_store, devoff_t offset, size_t length, devoff_t *at)
{
	if (!inject_hits(is_store ? INJECT_STORE : INJECT_LOAD))
		return 0;
	*at = offset;
	return BUS_MCEERR_AR;
}

static void lab_open(enum media_granularity granularity)
{
	static const struct lab_listener listener = {.store = note_store, .fault = inject_fault};

	ck_assert_int_eq(lab_create(MEDIUM_BYTES, granularity, &lab), 0);
	ck_assert_int_eq(lab_track_stores(lab), 0);
	for (uint64_t at = 0; at < FSFIX_SMALL_BYTES; at += BLOCK_BYTES)
		if (base[at] || memcmp(base + at, base + at + 1, BLOCK_BYTES - 1))
			ck_assert_int_eq(media_write(lab_media(lab), at, base + at, BLOCK_BYTES, NULL), 0);
	memset(changed, 0, sizeof(changed));
	lab_listen(lab, &listener);
}

static void lab_restore(void)
{
	for (uint64_t block = 0; block < MEDIUM_BYTES / BLOCK_BYTES; block++) {
		if (!changed[block])
			continue;
		if (block < FSFIX_SMALL_BYTES / BLOCK_BYTES)
			memcpy(lab_bytes(lab) + block * BLOCK_BYTES, base + block * BLOCK_BYTES, BLOCK_BYTES);
		else
			memset(lab_bytes(lab) + block * BLOCK_BYTES, 0, BLOCK_BYTES);
		changed[block] = 0;
	}
	lab_reset(lab);
}

/* --- one point ------------------------------------------------------------------------------------------------------------------- */

struct point {
	const struct op *op; /* NULL: mount or unmount */
	enum phase phase;
	enum inject_kind kind;
	bool persists;
	unsigned nth;
	const struct state *before, *after;
};

static void point_fails(const struct point *point, const char *what, const char *detail)
{
	totals->violations++;
	if (!totals->expected)
		fprintf(stderr, "%s%s: %s %s\n", totals->point, totals->again ? ", next mount" : "", what, detail);
}

static int point_mount(struct fs **fs)
{
	static const struct fs_options options = {.tools = true, .cache_bytes = 1u << 20};
	struct why why;

	*fs = NULL;
	return fs_mount_media(lab_media(lab), &options, &why, fs);
}

/* What a full host keeps from one of several slots or heads is true, and for the next writer or the next mount to mend. */
static bool is_behind(const struct point *point, const char *line)
{
	return point->kind == INJECT_HOST_FULL && !totals->again && (strstr(line, "superblock copy") || strstr(line, "has an older sequence"));
}

static void tell_finding(void *arg, const char *line)
{
	if (!is_behind(arg, line))
		point_fails(arg, "check:", line);
}

static void point_check(const struct point *point, struct fs *fs)
{
	struct fs_check_totals found;
	int error = fs_check(fs, tell_finding, (void *)point, &found);

	if (error)
		point_fails(point, "check:", strerror(-error));
}

/* Before, or after, or both for a file that may be a mix. */
static void point_compare(const struct point *point, struct fs *fs, bool done)
{
	const char *partial = point->op ? point->op->partial : NULL;
	const char *from_before, *from_after;
	struct state now;
	int error = state_read(fs, &now);

	from_before = error ? NULL : state_differs(&now, point->before, done ? NULL : partial);
	from_after = error ? NULL : state_differs(&now, point->after, done ? NULL : partial);
	if (error)
		point_fails(point, "the tree cannot be read:", strerror(-error));
	else if (from_after && (done || from_before))
		point_fails(point, done ? "not as after:" : "neither as before nor as after:", from_after);
	else if (partial && !done && !state_is_mix(&now, point->before, point->after, partial))
		point_fails(point, "other bytes than before or after:", partial);
	state_free(&now);
}

/* Metadata of which both copies are said to be bad are gone, and with them whatever they held: no more than a clean end is asked for. */
static bool point_destroys(const struct point *point)
{
	return point->persists && point->kind == INJECT_LOAD;
}

/* An msync that failed leaves nothing that could be acknowledged: EIO until the next mount. */
static bool point_is_sticky(const struct point *point, int error)
{
	return point->kind == INJECT_SYNC && error;
}

/* A lock or a reference that is left behind, or space, shows here. */
static void point_go_on(const struct point *point, struct fs *fs)
{
	struct fs_who who = {0};
	struct fs_attr attr;
	int error = fs_unlink(fs, tree.dir, "x7");

	if (!error)
		error = fs_create(fs, &who, tree.dir, "x7", S_IFREG | 0600, 0, &attr);
	if (!error) {
		attr.record.uid = attr.record.gid = 1000;
		fs_forget(fs, attr.ino, 1);
		error = fs_setattr(fs, attr.ino, FS_SET_UID | FS_SET_GID, &attr.record, &attr);
	}
	if (error)
		point_fails(point, "a later operation fails:", strerror(-error));
	if (reserved_any(fs->alloc))
		point_fails(point, "space is left set aside", "");
}

/* A failure in the middle of a chain makes the filesystem read-only; the next mount ends the chain. So does a log that fails. */
static void point_look(const struct point *point, struct fs *fs, bool done, bool may_go_on)
{
	/* What a failed store makes of the filesystem is another thread's to say. */
	if (fs_notify_wait(fs, NOTIFY_MS))
		point_fails(point, "the notify thread does not come to rest", "");
	if (fs_is_readonly(fs) || point_destroys(point))
		return;
	point_check(point, fs);
	point_compare(point, fs, done);
	if (may_go_on)
		point_go_on(point, fs);
}

static void point_look_again(const struct point *point, bool done)
{
	struct fs *fs;
	int error;

	lab_reset(lab);
	totals->again = true;
	error = point_mount(&fs);
	if (error) {
		if (!point_destroys(point))
			point_fails(point, "the next mount fails:", strerror(-error));
		return;
	}
	if (fs_is_readonly(fs) && !point_destroys(point))
		point_fails(point, "the next mount is read-only", "");
	point_look(point, fs, done, true);
	error = fs_unmount(fs);
	if (error)
		point_fails(point, "the next unmount fails:", strerror(-error));
}

static void point_leaks(const struct point *point)
{
	if (!inject_outstanding(false))
		return;
	totals->leaks++;
	point_fails(point, "memory is left behind", "");
	inject_outstanding(!totals->expected);
}

/* What the operation answered, with `kind` failing. */
static bool point_error_is_clean(const struct point *point, struct fs *fs, int error)
{
	static const int right[INJECT_KINDS] = {-ENOMEM, -ENOSPC, -EIO, -EIO, -ENOSPC, -EIO};

	if (!error || error == right[point->kind] || error == -EROFS)
		return true;
	/* The log cannot take the record whole, nor take it back. */
	return point->kind == INJECT_HOST_FULL && error == -EIO && (!fs || fs_is_readonly(fs));
}

/* 0: it had nothing to fail. Else its errno, or 1 when it succeeded all the same. */
static int point_run_op(const struct point *point, struct fs *fs, unsigned *seen)
{
	int error;

	inject_arm(point->kind, point->nth, point->persists);
	error = point->op->run(fs, &tree);
	*seen = inject_disarm();
	return error;
}

static int point_do(const struct point *point, struct fs **fs, unsigned *seen)
{
	int error;

	if (point->phase == PHASE_MOUNT)
		inject_arm(point->kind, point->nth, point->persists);
	error = point_mount(fs);
	if (point->phase == PHASE_MOUNT)
		*seen = inject_disarm();
	else
		ck_assert_int_eq(error, 0);
	if (point->op && point->op->prepare)
		ck_assert_int_eq(point->op->prepare(*fs, &tree), 0);
	if (point->phase == PHASE_RUN)
		error = point_run_op(point, *fs, seen);
	return error;
}

static int point_unmount(const struct point *point, struct fs *fs, unsigned *seen)
{
	int error;

	if (point->phase == PHASE_UNMOUNT)
		inject_arm(point->kind, point->nth, point->persists);
	error = fs_unmount(fs);
	if (point->phase == PHASE_UNMOUNT)
		*seen = inject_disarm();
	return error;
}

static void point_name(const struct point *point)
{
	static const char *const phases[] = {"mount", "", "unmount"};

	snprintf(totals->point, sizeof(totals->point), "%s, %s %u%s", point->op ? point->op->name : phases[point->phase], inject_name(point->kind), point->nth,
		 point->persists ? " and on" : "");
}

/* How many places there were. */
static unsigned point_try(const struct point *point)
{
	unsigned seen = 0;
	struct fs *fs;
	int error, end = 0;

	point_name(point);
	totals->again = false;
	alarm(POINT_SECONDS);
	lab_restore();
	inject_forget_heap();
	error = point_do(point, &fs, &seen);
	if (!point_error_is_clean(point, fs, error))
		point_fails(point, "an error of another kind:", strerror(-error));
	if (fs && point->phase != PHASE_UNMOUNT)
		point_look(point, fs, !error && point->phase == PHASE_RUN, !point_is_sticky(point, error));
	if (fs)
		end = point_unmount(point, fs, &seen);
	if (!point_error_is_clean(point, NULL, end))
		point_fails(point, "unmount:", strerror(-end));
	point_look_again(point, !error && point->phase == PHASE_RUN);
	point_leaks(point);
	totals->errors += error || end;
	alarm(0);
	return seen;
}

/* --- all points of an operation ---------------------------------------------------------------------------------------------------- */

static void read_state(const struct op *op, bool run, struct state *out)
{
	struct fs *fs;

	lab_restore();
	ck_assert_int_eq(point_mount(&fs), 0);
	if (op && op->prepare)
		ck_assert_int_eq(op->prepare(fs, &tree), 0);
	if (op && run)
		ck_assert_int_eq(op->run(fs, &tree), 0);
	ck_assert_int_eq(state_read(fs, out), 0);
	ck_assert_int_eq(fs_unmount(fs), 0);
}

static unsigned stride_of(unsigned count)
{
	return getenv("MENDFS_LONG") || count <= POINTS_SAMPLED ? 1 : count / POINTS_SAMPLED + 1;
}

static void try_all(struct point *point)
{
	unsigned count, stride;

	point->nth = 0;
	count = point_try(point);
	stride = stride_of(count);
	/* The first ones, where most are different, one by one. */
	for (unsigned nth = 1; nth <= count; nth += nth < POINTS_SAMPLED / 2 ? 1 : stride) {
		point->nth = nth;
		point_try(point);
		totals->points[point->kind]++;
	}
}

static void try_kinds(const struct op *op, enum phase phase)
{
	struct state before, after;
	struct point point = {.op = op, .phase = phase, .before = &before, .after = &after};
	unsigned was = totals->violations;

	for (enum inject_kind kind = 0; kind < INJECT_KINDS; kind++) {
		lab_open(kind >= INJECT_HOST_FULL ? MEDIA_PAGE : MEDIA_CACHELINE);
		read_state(op, false, &before);
		read_state(op, true, &after);
		point.kind = kind;
		for (int persists = 0; persists < 2; persists++) {
			point.persists = persists;
			try_all(&point);
		}
		state_free(&before);
		state_free(&after);
		lab_destroy(lab);
	}
	ck_assert_uint_eq(totals->violations, was);
}

START_TEST(an_operation_fails_cleanly_wherever_it_is_hit)
{
	const char *only = getenv("MENDFS_EXHAUST");

	if (!only || !strcmp(only, ops[_i].name))
		try_kinds(&ops[_i], PHASE_RUN);
}
END_TEST

START_TEST(mount_fails_cleanly_wherever_it_is_hit)
{
	try_kinds(NULL, PHASE_MOUNT);
}
END_TEST

START_TEST(unmount_fails_cleanly_wherever_it_is_hit)
{
	try_kinds(NULL, PHASE_UNMOUNT);
}
END_TEST

/* --- without a mount -------------------------------------------------------------------------------------------------------------- */

/* fsfix says on stderr what fails, which is what is wanted here. */
static int format_silently(void)
{
	int saved = dup(2), null = open("/dev/null", O_WRONLY | O_CLOEXEC), error;

	dup2(null, 2);
	error = fsfix_format_media(lab_media(lab));
	dup2(saved, 2);
	close(null);
	close(saved);
	return error;
}

static unsigned format_try(struct point *point)
{
	unsigned seen;
	struct fs *fs;
	int error;

	snprintf(totals->point, sizeof(totals->point), "format, %s %u", inject_name(point->kind), point->nth);
	totals->again = false;
	alarm(POINT_SECONDS);
	inject_forget_heap();
	ck_assert_int_eq(lab_create(FSFIX_SMALL_BYTES, MEDIA_PAGE, &lab), 0);
	lab_listen(lab, &(struct lab_listener){.fault = inject_fault});
	inject_arm(point->kind, point->nth, false);
	error = format_silently();
	seen = inject_disarm();
	if (!point_error_is_clean(point, NULL, error))
		point_fails(point, "an error of another kind:", strerror(-error));
	lab_reset(lab);
	if (!error) {
		ck_assert_int_eq(point_mount(&fs), 0);
		point_check(point, fs);
		ck_assert_int_eq(fs_unmount(fs), 0);
	}
	lab_destroy(lab);
	point_leaks(point);
	totals->points[point->kind]++;
	totals->errors += error != 0;
	return seen;
}

START_TEST(format_fails_cleanly_wherever_it_is_hit)
{
	struct point point = {.op = NULL};
	unsigned was = totals->violations, count;

	for (point.kind = 0; point.kind < INJECT_KINDS; point.kind++) {
		point.nth = 0;
		count = format_try(&point);
		for (point.nth = 1; point.nth <= count; point.nth += point.nth < POINTS_SAMPLED ? 1 : stride_of(count))
			format_try(&point);
	}
	ck_assert_uint_eq(totals->violations, was);
}
END_TEST

/* --- no space for real ------------------------------------------------------------------------------------------------------------ */

static uint64_t free_blocks_of(struct fs *fs)
{
	struct fs_statfs info;

	fs_statfs(fs, &info);
	return info.free_blocks;
}

static void fill_up(struct fs *fs)
{
	static const uint8_t data[64 << 10] = {1};
	struct fs_who who = {0};
	struct fs_attr attr;
	uint64_t pos = 0;
	size_t done = 0;
	int error = fs_create(fs, &who, FS_ROOT_INO, "filler", S_IFREG | 0600, 0, &attr);

	ck_assert_int_eq(error, 0);
	fs_forget(fs, attr.ino, 1);
	while (!error) {
		error = fs_write(fs, attr.ino, pos, data, sizeof(data), &done);
		pos += done;
	}
	ck_assert_int_eq(error, -ENOSPC);
}

START_TEST(everything_is_refused_cleanly_when_full_and_deletes_still_work)
{
	unsigned was = totals->violations, refused = 0;
	struct fs *fs;

	lab_open(MEDIA_CACHELINE);
	for (unsigned i = 0; i < ops_count; i++) {
		struct point point = {.op = &ops[i], .kind = INJECT_SPACE};
		uint64_t before;
		int error;

		snprintf(totals->point, sizeof(totals->point), "%s, full", ops[i].name);
		alarm(POINT_SECONDS);
		lab_restore();
		ck_assert_int_eq(point_mount(&fs), 0);
		before = free_blocks_of(fs);
		fill_up(fs);
		error = ops[i].prepare ? ops[i].prepare(fs, &tree) : 0;
		error = error ? error : ops[i].run(fs, &tree);
		refused += error == -ENOSPC;
		if (!point_error_is_clean(&point, fs, error))
			point_fails(&point, "an error of another kind:", strerror(-error));
		point_check(&point, fs);
		ck_assert_int_eq(fs_unlink(fs, FS_ROOT_INO, "filler"), 0);
		point_go_on(&point, fs);
		ck_assert_int_eq(fs_unmount(fs), 0);
		lab_reset(lab);
		ck_assert_int_eq(point_mount(&fs), 0);
		if (free_blocks_of(fs) + 600 < before)
			point_fails(&point, "space is lost", "");
		ck_assert_int_eq(fs_unmount(fs), 0);
	}
	alarm(0);
	ck_assert_uint_gt(refused, 5);
	ck_assert_uint_eq(totals->violations, was);
	lab_destroy(lab);
}
END_TEST

/* --- the test itself ------------------------------------------------------------------------------------------------------------- */

static const char exempt[] = " fs_mount fs_mount_media fs_unmount " /* phases of their own */
			     "fs_format " /* has a test of its own */
			     "fs_read_super fs_check_place fs_write_super " /* within mount, format, label */
			     "fs_stop " /* ends all use: test_stop */
			     "fs_abandon fs_statfs fs_known "; /* cannot fail */

static bool is_listed(const char *call)
{
	char word[90];

	snprintf(word, sizeof(word), " %s ", call);
	if (strstr(exempt, word))
		return true;
	for (unsigned i = 0; i < ops_count; i++) {
		char calls[170];

		snprintf(calls, sizeof(calls), " %s ", ops[i].calls);
		if (strstr(calls, word))
			return true;
	}
	return false;
}

START_TEST(every_call_of_the_header_is_in_the_list)
{
	FILE *header = fopen(MENDFS_SOURCE_DIR "/fs/fs.h", "r");
	char line[512], call[80];
	unsigned count = 0;

	ck_assert_ptr_nonnull(header);
	while (fgets(line, sizeof(line), header)) {
		if (sscanf(line, "int %79[a-z_](", call) != 1 && sscanf(line, "void %79[a-z_](", call) != 1)
			continue;
		ck_assert_msg(is_listed(call), "%s is run under no injection: add it to ops[]", call);
		count++;
	}
	fclose(header);
	ck_assert_uint_gt(count, 30);
}
END_TEST

/* Broken twins: two operations under the name of one, memory that nobody frees, and space that stays set aside. */
static int run_half(struct fs *fs, const struct ops_tree *made)
{
	int error = fs_unlink(fs, made->dir, "x1");

	return error ? error : fs_unlink(fs, made->dir, "x2");
}

static int run_leak(struct fs *fs, const struct ops_tree *made)
{
	static void *leaked; /* reached from here, so that LeakSanitizer takes no offence */

	free(leaked);
	leaked = malloc(10);
	return leaked ? 0 : -ENOMEM;
}

static int run_reserve(struct fs *fs, const struct ops_tree *made)
{
	struct alloc_request request = {.want_blocks = 1, .least_blocks = 1, .align_blocks = 1};
	blkno_t start;
	uint64_t count;

	return alloc_reserve(fs->alloc, &request, &start, &count);
}

START_TEST(what_must_not_be_is_noticed)
{
	static const struct op twins[] = {{"half", "", NULL, run_half, NULL}, {"leak", "", NULL, run_leak, NULL}, {"reserve", "", NULL, run_reserve, NULL}};
	/* The second of two unlinks takes no memory, and one store that fails is made up for. */
	static const struct { enum inject_kind kind; bool persists; } hits[] = {{INJECT_STORE, true}, {INJECT_MEMORY, false}, {INJECT_MEMORY, false}};
	struct totals was = *totals;
	struct state before, after;

	totals->expected = true;
	lab_open(MEDIA_CACHELINE);
	for (unsigned i = 0; i < 3; i++) {
		struct point point = {.op = &twins[i], .phase = PHASE_RUN, .kind = hits[i].kind, .persists = hits[i].persists, .before = &before, .after = &after};
		unsigned violations = totals->violations;

		read_state(&twins[i], false, &before);
		read_state(&twins[i], true, &after);
		try_all(&point);
		ck_assert_msg(totals->violations > violations, "%s went unnoticed", twins[i].name);
		state_free(&before);
		state_free(&after);
	}
	lab_destroy(lab);
	*totals = was;
}
END_TEST

/* --- running ------------------------------------------------------------------------------------------------------------------------ */

static int make_base(void)
{
	struct fs *fs;
	int error = lab_create(FSFIX_SMALL_BYTES, MEDIA_CACHELINE, &lab);

	base = mmap(NULL, FSFIX_SMALL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (error || base == MAP_FAILED || totals == MAP_FAILED)
		return -ENOMEM;
	error = fsfix_format_media(lab_media(lab));
	lab_reset(lab);
	if (!error)
		error = point_mount(&fs);
	if (!error)
		error = ops_build(fs, &tree);
	if (!error)
		error = fs_unmount(fs);
	memcpy(base, lab_bytes(lab), FSFIX_SMALL_BYTES);
	lab_destroy(lab);
	return error;
}

static void report(void)
{
	unsigned sum = 0;

	for (int i = 0; i < INJECT_KINDS; i++)
		sum += totals->points[i];
	printf("sample: exhaustion: %u points (ENOMEM %u, ENOSPC %u, EIO load %u, EIO store %u, ENOSPC store %u, EIO sync %u), %u answered with an error, "
	       "%u violations, %u leaks\n",
	       sum, totals->points[0], totals->points[1], totals->points[2], totals->points[3], totals->points[4], totals->points[5], totals->errors,
	       totals->violations, totals->leaks);
}

int main(void)
{
	Suite *suite = suite_create("exhaust");
	TCase *tests = tcase_create("operations");
	SRunner *runner;
	int failed, error;

	log_set_level(LOG_LEVEL_SILENT);
	error = make_base();
	if (error) {
		fprintf(stderr, "the filesystem to start from: %s\n", strerror(-error));
		return 1;
	}
	tcase_set_timeout(tests, 600);
	tcase_add_loop_test(tests, an_operation_fails_cleanly_wherever_it_is_hit, 0, (int)ops_count);
	tcase_add_test(tests, mount_fails_cleanly_wherever_it_is_hit);
	tcase_add_test(tests, format_fails_cleanly_wherever_it_is_hit);
	tcase_add_test(tests, everything_is_refused_cleanly_when_full_and_deletes_still_work);
	tcase_add_test(tests, every_call_of_the_header_is_in_the_list);
	tcase_add_test(tests, what_must_not_be_is_noticed);
	tcase_add_test(tests, unmount_fails_cleanly_wherever_it_is_hit);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	if (failed)
		fprintf(stderr, "last point: %s\n", totals->point);
	report();
	return failed ? 1 : 0;
}
