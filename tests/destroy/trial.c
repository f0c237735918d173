#include "tests/destroy/trial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsck/fsck.h"
#include "tests/support/random.h"

const char *const destroy_kind_names[DESTROY_KINDS] = {"zeros", "random", "stale", "elsewhere", "poison"};

/* --- ids ----------------------------------------------------------------------------------------------------------------------- */

void trial_name(const struct trial *trial, char id[TRIAL_ID_BYTES])
{
	size_t used = 0;

	id[0] = 0;
	for (unsigned i = 0; i < trial->count; i++)
		used += (size_t)snprintf(id + used, TRIAL_ID_BYTES - used, "%s%zu%c%x", i ? "+" : "", trial->list[i].target,
					 destroy_kind_names[trial->list[i].kind][0], trial->list[i].copies);
}

int trial_parse(const char *id, const struct targets *targets, struct trial *out)
{
	static const char letters[] = "zrsep";

	for (out->count = 0; out->count < TRIAL_BLOCKS_MAX; id++) {
		struct destruction *to = &out->list[out->count++];
		const char *letter;
		char *end;

		to->target = strtoull(id, &end, 10);
		letter = *end ? strchr(letters, *end) : NULL;
		if (end == id || to->target >= targets->count || !letter)
			return -EINVAL;
		to->kind = (enum destroy_kind)(letter - letters);
		to->copies = (unsigned)strtoul(end + 1, (char **)&id, 16);
		if (!*id)
			return 0;
		if (*id != '+')
			return -EINVAL;
	}
	return -EINVAL;
}

/* --- what is put there --------------------------------------------------------------------------------------------------------- */

unsigned copies_all(const struct target *target)
{
	return (1u << target->count_copies) - 1;
}

static uint64_t salt_of(const struct destruction *destruction)
{
	return destruction->target * 1000003 + destruction->kind * 1009 + destruction->copies;
}

/* The youngest earlier version that differs from what is there, in the first copy's place; NULL: there is none. */
static const uint8_t *stale_bytes(const struct bench *bench, const struct target *target, unsigned copy)
{
	static const uint8_t zeros[BLOCK_BYTES];
	const uint8_t *now = image_base(&bench->image, target->copy[0]);

	for (unsigned i = bench->image.count_moments; i-- > 0;) {
		const uint8_t *then = bench->image.moments[i];

		if (memcmp(then + target->copy[0], now, BLOCK_BYTES) &&
		    memcmp(then + target->copy[copy], zeros, BLOCK_BYTES))
			return then + target->copy[copy];
	}
	return NULL;
}

bool destruction_is_possible(const struct bench *bench, const struct destruction *destruction)
{
	const struct target *target = &bench->targets.list[destruction->target];

	if (destruction->kind != DESTROY_STALE)
		return true;
	for (unsigned k = 0; k < target->count_copies; k++)
		if (destruction->copies >> k & 1 && !stale_bytes(bench, target, k))
			return false;
	return true;
}

static void random_fill(uint8_t *to, uint64_t salt)
{
	struct random random = {.state = salt};

	for (size_t i = 0; i < BLOCK_BYTES; i += 8) {
		uint64_t word = random_next(&random);

		memcpy(to + i, &word, 8);
	}
}

static void elsewhere_bytes(const struct bench *bench, const struct destruction *destruction, uint8_t *to)
{
	size_t other = (destruction->target + 1 + salt_of(destruction) % (bench->targets.count - 1)) % bench->targets.count;

	memcpy(to, image_base(&bench->image, bench->targets.list[other].copy[0]), BLOCK_BYTES);
}

static void destroy_copy(struct bench *bench, const struct destruction *destruction, unsigned copy)
{
	const struct target *target = &bench->targets.list[destruction->target];
	uint8_t bytes[BLOCK_BYTES] = {0};

	switch (destruction->kind) {
	case DESTROY_STALE:
		memcpy(bytes, stale_bytes(bench, target, copy), BLOCK_BYTES);
		break;
	case DESTROY_ELSEWHERE:
		elsewhere_bytes(bench, destruction, bytes);
		break;
	case DESTROY_RANDOM:
	case DESTROY_POISON: /* what clearing leaves is undefined */
		random_fill(bytes, salt_of(destruction) + copy);
		break;
	default:
		break;
	}
	image_overwrite(&bench->image, target->copy[copy], bytes, BLOCK_BYTES);
	if (destruction->kind == DESTROY_POISON)
		image_poison(&bench->image, target->copy[copy], BLOCK_BYTES);
}

static void expect_loss(const struct bench *bench, const struct trial *trial, struct loss *loss)
{
	size_t gone[TRIAL_BLOCKS_MAX], count = 0;
	bool is_stale[TRIAL_BLOCKS_MAX];

	for (unsigned i = 0; i < trial->count; i++)
		if (trial->list[i].copies == copies_all(&bench->targets.list[trial->list[i].target])) {
			is_stale[count] = trial->list[i].kind == DESTROY_STALE;
			gone[count++] = trial->list[i].target;
		}
	loss_compute(&bench->targets, gone, is_stale, count, loss);
	for (unsigned i = 0; i < trial->count; i++) {
		const struct target *target = &bench->targets.list[trial->list[i].target];

		if (trial->list[i].kind == DESTROY_STALE && trial->list[i].copies == copies_all(target))
			loss_add_stale(loss, target, stale_bytes(bench, target, 0));
		for (unsigned k = 0; trial->list[i].kind == DESTROY_POISON && k < target->count_copies; k++)
			if (trial->list[i].copies >> k & 1)
				iset_add(&loss->bad, target->copy[k], target->copy[k] + BLOCK_BYTES, 0);
	}
}

static void destroy_all(struct bench *bench, const struct trial *trial)
{
	for (unsigned i = 0; i < trial->count; i++)
		for (unsigned k = 0; k < bench->targets.list[trial->list[i].target].count_copies; k++)
			if (trial->list[i].copies >> k & 1)
				destroy_copy(bench, &trial->list[i], k);
}

/* --- repair -------------------------------------------------------------------------------------------------------------------- */

struct told {
	bool verbose;
	char last[400]; /* the last finding */
};

static void tell(void *arg, enum fsck_grade grade, const char *line)
{
	static const char *const grades[] = {"note", "error", "fixed", "loss"};
	struct told *told = arg;

	if (grade == FSCK_ERROR)
		snprintf(told->last, sizeof(told->last), "%s", line);
	if (told->verbose)
		printf("  %s: %s\n", grades[grade], line);
}

static int repair(struct bench *bench, struct fsck_report *report, struct told *told, struct why *why)
{
	struct fsck_options options = {.write = true, .force = true, .tell = tell, .arg = told};
	struct why inner = {.text = ""};
	int error;

	lab_reset(bench->image.lab);
	error = fsck_run(lab_media(bench->image.lab), &options, report, &inner);
	lab_reset(bench->image.lab);
	return error ? why_set(why, -EUCLEAN, "fsck gives up: %s: %.800s", strerror(-error), inner.text) : 0;
}

static int repair_twice(struct bench *bench, struct why *why)
{
	struct told told = {.verbose = bench->verbose};
	struct fsck_report report;
	int error = repair(bench, &report, &told, why);

	if (error)
		return error;
	if (report.left)
		return why_set(why, -EUCLEAN, "fsck leaves %llu findings: %s", (unsigned long long)report.left, told.last);
	if (bench->verbose)
		printf("  once more:\n");
	image_watch(&bench->image);
	error = repair(bench, &report, &told, why);
	if (error)
		return error;
	if (report.left || report.errors || report.fixed || report.losses)
		return why_set(why, -EUCLEAN, "a second fsck finds %llu, repairs %llu, leaves %llu: %s", (unsigned long long)report.errors,
			       (unsigned long long)report.fixed, (unsigned long long)report.left, told.last);
	/* Opening the journal for writing raises the epoch in its heads, whatever is found. */
	if (bench->image.changed_bytes)
		return why_set(why, -EUCLEAN, "a second fsck changes %llu bytes", (unsigned long long)bench->image.changed_bytes);
	return 0;
}

/* --- all ----------------------------------------------------------------------------------------------------------------------- */

static int compare(struct bench *bench, const struct loss *loss, struct why *why)
{
	struct oracle after = {.names = NULL};
	struct why inner = {.text = ""};
	struct fs *fs;
	int error;

	fs = image_mount(&bench->image, true);
	if (!fs)
		return why_set(why, -EUCLEAN, "cannot be mounted after fsck");
	error = oracle_take(fs, &after, &inner);
	fs_abandon(fs);
	bench->judged = !error;
	if (error)
		error = why_set(why, -EUCLEAN, "after fsck: %.900s", inner.text);
	else
		error = judge(&bench->before, &after, loss, why);
	oracle_fini(&after);
	return error ? error : judge_data(&bench->image, &bench->before, loss, why);
}

int trial_run(struct bench *bench, const struct trial *trial, uint64_t *lost, struct why *why)
{
	struct loss loss;
	int error;

	expect_loss(bench, trial, &loss);
	*lost = iset_bytes(&loss.inodes) + iset_bytes(&loss.targets);
	bench->judged = false;
	destroy_all(bench, trial);
	error = repair_twice(bench, why);
	if (!error && bench->spoil)
		error = bench->spoil(&bench->image, bench);
	if (!error)
		error = compare(bench, &loss, why);
	loss_fini(&loss);
	image_restore(&bench->image);
	return error;
}

int bench_create(struct bench *bench)
{
	struct why why = {.text = ""};
	struct fs *fs;
	int error;

	memset(bench, 0, sizeof(*bench));
	error = image_create(&bench->image);
	if (error)
		return error;
	fs = image_mount(&bench->image, true);
	if (!fs)
		return -EIO;
	error = targets_find(fs, &bench->targets);
	if (!error)
		error = oracle_take(fs, &bench->before, &why);
	fs_abandon(fs);
	image_restore(&bench->image);
	if (error)
		fprintf(stderr, "destroy: the oracle: %s: %s\n", strerror(-error), why.text);
	return error;
}

void bench_destroy(struct bench *bench)
{
	oracle_fini(&bench->before);
	targets_fini(&bench->targets);
	image_destroy(&bench->image);
}
