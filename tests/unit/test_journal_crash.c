/*
 * Loss of power at any store: the linker sends this program's stores and barriers to a recorder; an image is then built from what was ordered
 * before a point in time and a random part of what was not, and must recover to a state between two transactions. Each test has a
 * twin whose recorder forgets barriers and which must fail.
 */
#include "tests/support/journalfix.h"

#include <errno.h>

#define OPS_MAX 4096
#define STATES_MAX 256
#define BLOCKS 14
#define WORDS 4
#define WORD_STEP 120

static struct journalfix fix;

/* --- recorder --------------------------------------------------------------------------------------------------------- */

enum op_kind { OP_WRITE, OP_BARRIER };

struct op {
	enum op_kind kind;
	devoff_t offset;
	size_t length;
	uint8_t *bytes;
	unsigned state;	 /* the last transaction that had returned */
	unsigned synced; /* the last one that had to be durable */
};

static struct op ops[OPS_MAX];
static unsigned op_count, state_now, state_synced;
static bool recording, paged;

int __real_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad);
int __wrap_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad);
void __real_media_drain(struct media *media);
void __wrap_media_drain(struct media *media);
int __real_media_sync(struct media *media);
int __wrap_media_sync(struct media *media);

static void record(enum op_kind kind, devoff_t offset, const void *bytes, size_t length)
{
	struct op *op = &ops[op_count];

	if (!recording)
		return;
	ck_assert_uint_lt(op_count++, OPS_MAX);
	*op = (struct op){ .kind = kind, .offset = offset, .length = length, .state = state_now, .synced = state_synced };
	if (!length)
		return;
	op->bytes = malloc(length);
	memcpy(op->bytes, bytes, length);
}

int __wrap_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad)
{
	record(OP_WRITE, offset, buffer, length);
	return __real_media_write(media, offset, buffer, length, bad);
}

void __wrap_media_drain(struct media *media)
{
	if (!paged)
		record(OP_BARRIER, 0, NULL, 0);
	__real_media_drain(media);
}

int __wrap_media_sync(struct media *media)
{
	record(OP_BARRIER, 0, NULL, 0);
	return __real_media_sync(media);
}

/* --- states ------------------------------------------------------------------------------------------------------------- */

struct state {
	bool live[BLOCKS + 1]; /* by index in the first chunk */
	uint64_t word[BLOCKS + 1][WORDS];
};
static struct state states[STATES_MAX];

static void change_block(struct state *state, struct tx *tx)
{
	unsigned i = 1 + (unsigned)rand() % BLOCKS, w = (unsigned)rand() % WORDS;
	uint64_t value = (uint64_t)rand();
	maddr_t address = maddr_of_chunk(0, i);

	if (!state->live[i]) {
		i = maddr_index(fix_create_block(tx, value));
		ck_assert_uint_le(i, BLOCKS);
		state->live[i] = true;
		for (w = 0; w < WORDS; w++)
			state->word[i][w] = value;
	} else if (rand() % 4 == 0) {
		fix_destroy_block(tx, address);
		state->live[i] = false;
	} else {
		fix_set_word(tx, address, w * WORD_STEP, value);
		state->word[i][w] = value;
	}
}

static void run_transaction(void)
{
	struct tx *tx = fix_begin(&fix);

	states[state_now + 1] = states[state_now];
	for (unsigned n = 1 + (unsigned)rand() % 5; n; n--)
		change_block(&states[state_now + 1], tx);
	ck_assert_int_eq(tx_commit(tx, NULL), 0);
	state_now++;
	if (!paged)
		state_synced = state_now;
}

static bool state_is(const struct state *state)
{
	uint64_t value;

	for (unsigned i = 1; i <= BLOCKS; i++) {
		if (chunk_block_is_live(fix.journal, maddr_of_chunk(0, i)) != state->live[i])
			return false;
		for (unsigned w = 0; state->live[i] && w < WORDS; w++)
			if (fix_get_word(&fix, maddr_of_chunk(0, i), w * WORD_STEP, &value) || value != state->word[i][w])
				return false;
	}
	return true;
}

/* --- workload and crash ---------------------------------------------------------------------------------------------------- */

static char base[300];

static void run_transactions(unsigned count)
{
	unsigned until;

	while (count--) {
		run_transaction();
		until = state_now;
		if (rand() % 12 == 0)
			ck_assert_int_eq(journal_sync(fix.journal), 0);
		else if (rand() % 15 == 0)
			ck_assert_int_eq(journal_checkpoint(fix.journal), 0);
		else
			continue;
		state_synced = until;
	}
}

static void start_recording(void)
{
	snprintf(base, sizeof(base), "%s.base", fix.path);
	fix_copy_file(fix.path, base);
	recording = true;
}

static void run_workload(void)
{
	start_recording();
	run_transactions(60);
}

/* What is recorded begins with the replay after a kill. */
static void run_replay(void)
{
	run_transactions(25);
	fix_crash(&fix);
	start_recording();
	ck_assert_int_eq(fix_open(&fix), 0);
	run_transactions(3);
}

static void forget_workload(void)
{
	for (unsigned i = 0; i < op_count; i++)
		free(ops[i].bytes);
	unlink(base);
	fix_destroy(&fix);
}

/* Some of its lines, and of these not every word. */
static void apply_part(int fd, const struct op *op)
{
	static uint8_t bytes[1 << 20];

	ck_assert_int_eq(pread(fd, bytes, op->length, (off_t)op->offset), (ssize_t)op->length);
	for (size_t at = 0; at < op->length; at += LINE_BYTES) {
		if (rand() % 2)
			continue;
		for (size_t word = at; word < at + LINE_BYTES; word += 8)
			if (rand() % 16)
				memcpy(bytes + word, op->bytes + word, 8);
	}
	ck_assert_int_eq(pwrite(fd, bytes, op->length, (off_t)op->offset), (ssize_t)op->length);
}

/* keep(i): does the barrier at op i hold? */
typedef bool keep_fn(unsigned op);

static void build_image(unsigned crash, keep_fn *keep)
{
	unsigned ordered = 0;
	int fd;

	fix_copy_file(base, fix.path);
	fd = open(fix.path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	for (unsigned i = 0; i < crash; i++)
		if (ops[i].kind == OP_BARRIER && keep(i))
			ordered = i;
	for (unsigned i = 0; i < crash; i++) {
		if (ops[i].kind != OP_WRITE)
			continue;
		if (i < ordered)
			ck_assert_int_eq(pwrite(fd, ops[i].bytes, ops[i].length, (off_t)ops[i].offset), (ssize_t)ops[i].length);
		else
			apply_part(fd, &ops[i]);
	}
	close(fd);
}

static bool image_recovers(unsigned crash)
{
	const struct op *last = &ops[crash - 1];
	bool found = false;

	if (fix_open(&fix))
		return false;
	if (!journal_recovery(fix.journal)->hole && !journal_recovery(fix.journal)->lost)
		for (unsigned s = last->synced; s <= last->state + 1 && s <= state_now && !found; s++)
			found = state_is(&states[s]);
	fix_close(&fix);
	return found;
}

/* How many of the crashes do not recover? */
static unsigned crash_everywhere(void (*workload)(void), unsigned samples, keep_fn *keep)
{
	unsigned failed = 0, crash;

	memset(states, 0, sizeof(states));
	op_count = state_now = state_synced = 0;
	fix_create_open(&fix, 2);
	workload();
	recording = false;
	fix_close(&fix);
	printf("%u stores and barriers, %u transactions, %u crashes\n", op_count, state_now, samples);
	for (unsigned i = 0; i < samples; i++) {
		crash = 1 + (unsigned)rand() % op_count;
		build_image(crash, keep);
		if (paged)
			setenv("MENDFS_BOOT_ID", "after", 1);
		if (!image_recovers(crash))
			failed++;
		if (paged)
			setenv("MENDFS_BOOT_ID", "before", 1);
	}
	forget_workload();
	return failed;
}

static bool keep_all(unsigned op)
{
	return true;
}

static bool keep_none(unsigned op)
{
	return false;
}

static bool is_in_log(devoff_t offset)
{
	return (offset >= fix_ring(&fix, 0) && offset < fix_ring(&fix, 0) + FIX_MIB) ||
	       (offset >= fix_ring(&fix, 1) && offset < fix_ring(&fix, 1) + FIX_MIB);
}

/* Barriers of write-backs only are forgotten: the store before was not into the ring. */
static bool keep_log(unsigned op)
{
	while (op && ops[op].kind == OP_BARRIER)
		op--;
	return is_in_log(ops[op].offset);
}

static void start(bool is_paged, unsigned number)
{
	const char *seed = getenv("MENDFS_TEST_SEED");
	unsigned used = (seed ? (unsigned)atoi(seed) : 1) + number;

	paged = is_paged;
	srand(used);
	printf("seed %u\n", used);
	if (paged)
		setenv("MENDFS_BOOT_ID", "before", 1);
	else
		setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
}

static void teardown(void)
{
	recording = false;
	fix_destroy(&fix);
	unsetenv("MENDFS_BOOT_ID");
	unsetenv("PMEM2_FORCE_GRANULARITY");
}

START_TEST(power_lost_at_any_store_leaves_a_state_between_transactions)
{
	start(false, 0);
	ck_assert_uint_eq(crash_everywhere(run_workload, 150, keep_all), 0);
}
END_TEST

START_TEST(twin_without_any_barrier_fails)
{
	start(false, 1);
	ck_assert_uint_gt(crash_everywhere(run_workload, 60, keep_none), 0);
}
END_TEST

START_TEST(twin_without_the_barriers_of_write_back_fails)
{
	start(false, 2);
	ck_assert_uint_gt(crash_everywhere(run_workload, 120, keep_log), 0);
}
END_TEST

START_TEST(a_host_that_crashes_at_any_store_leaves_at_least_what_was_synced)
{
	start(true, 3);
	ck_assert_uint_eq(crash_everywhere(run_workload, 150, keep_all), 0);
}
END_TEST

START_TEST(power_lost_during_replay_is_replayed_again)
{
	start(false, 5);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(crash_everywhere(run_replay, 40, keep_all), 0);
}
END_TEST

START_TEST(a_host_that_crashes_during_replay_is_replayed_again)
{
	start(true, 6);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(crash_everywhere(run_replay, 40, keep_all), 0);
}
END_TEST

START_TEST(twin_of_replay_without_the_barriers_of_write_back_fails)
{
	unsigned failed = 0;

	start(false, 7);
	for (unsigned i = 0; i < 8 && !failed; i++)
		failed = crash_everywhere(run_replay, 40, keep_log);
	ck_assert_uint_gt(failed, 0);
}
END_TEST

START_TEST(twin_of_the_host_without_any_sync_fails)
{
	start(true, 4);
	ck_assert_uint_gt(crash_everywhere(run_workload, 60, keep_none), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("journal_crash");
	TCase *tests = tcase_create("crash");

	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, power_lost_at_any_store_leaves_a_state_between_transactions);
	tcase_add_test(tests, twin_without_any_barrier_fails);
	tcase_add_test(tests, twin_without_the_barriers_of_write_back_fails);
	tcase_add_test(tests, a_host_that_crashes_at_any_store_leaves_at_least_what_was_synced);
	tcase_add_test(tests, power_lost_during_replay_is_replayed_again);
	tcase_add_test(tests, a_host_that_crashes_during_replay_is_replayed_again);
	tcase_add_test(tests, twin_of_replay_without_the_barriers_of_write_back_fails);
	tcase_add_test(tests, twin_of_the_host_without_any_sync_fails);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
