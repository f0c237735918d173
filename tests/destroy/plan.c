#include "tests/destroy/plan.h"

#include <stdlib.h>
#include <string.h>

#define SINGLES_MAX 200000

static bool is_all(const struct bench *bench, const struct destruction *destruction)
{
	const struct target *target = &bench->targets.list[destruction->target];
	unsigned all = copies_all(target);

	/* Of superblocks one is left: nothing else says where anything lies. */
	return target->is_super ? __builtin_popcount(destruction->copies) > 1 : destruction->copies == all;
}

static void add_single(const struct bench *bench, struct plan *plan, size_t target, enum destroy_kind kind, unsigned copies)
{
	struct destruction *to = &plan->singles[plan->count_singles];

	*to = (struct destruction){target, kind, copies};
	if (!destruction_is_possible(bench, to) || plan->count_singles == SINGLES_MAX - 1)
		return;
	plan->rows[plan->row_of[target]].of[kind][is_all(bench, to)]++;
	plan->count_singles++;
}

static size_t find_row(struct plan *plan, const struct target *target)
{
	size_t i = 0;

	while (i < plan->count_rows && (strcmp(plan->rows[i].name, target->name) || plan->rows[i].level != target->level))
		i++;
	if (i == plan->count_rows)
		plan->rows[plan->count_rows++] = (struct row){.name = target->name, .level = target->level};
	plan->rows[i].targets++;
	return i;
}

void plan_make(const struct bench *bench, struct plan *out)
{
	memset(out, 0, sizeof(*out));
	out->singles = calloc(SINGLES_MAX, sizeof(*out->singles));
	out->chosen = calloc(SINGLES_MAX, sizeof(*out->chosen));
	out->row_of = calloc(bench->targets.count, sizeof(*out->row_of));
	out->rows = calloc(bench->targets.count, sizeof(*out->rows));
	if (!out->singles || !out->chosen || !out->row_of || !out->rows)
		abort();
	for (size_t i = 0; i < bench->targets.count; i++) {
		const struct target *target = &bench->targets.list[i];

		out->row_of[i] = find_row(out, target);
		for (unsigned kind = 0; kind < DESTROY_KINDS; kind++) {
			for (unsigned k = 0; k < target->count_copies; k++)
				add_single(bench, out, i, kind, 1u << k);
			for (unsigned k = 0; target->is_super && k < target->count_copies; k++)
				add_single(bench, out, i, kind, copies_all(target) & ~(1u << k));
			if (!target->is_super && target->count_copies > 1)
				add_single(bench, out, i, kind, copies_all(target));
		}
	}
}

void plan_fini(struct plan *plan)
{
	free(plan->singles);
	free(plan->chosen);
	free(plan->row_of);
	free(plan->rows);
}

/* In random order, so that any beginning of it is a fair sample. */
static size_t *shuffle(const struct plan *plan, struct random *random)
{
	size_t *order = calloc(plan->count_singles, sizeof(*order));

	if (!order)
		abort();
	for (size_t i = 0; i < plan->count_singles; i++)
		order[i] = i;
	for (size_t i = plan->count_singles; i > 1; i--) {
		size_t j = random_below(random, i), swap = order[i - 1];

		order[i - 1] = order[j];
		order[j] = swap;
	}
	return order;
}

/* One more of each cell of the table that has one left. */
static void choose_round(struct plan *plan, const size_t *order, size_t wanted)
{
	bool (*cells)[DESTROY_KINDS][2] = calloc(plan->count_rows, sizeof(*cells));

	if (!cells)
		abort();
	for (size_t i = 0; i < plan->count_singles && plan->count_chosen < wanted; i++) {
		const struct destruction *single = &plan->singles[order[i]];
		bool *cell = &cells[plan->row_of[single->target]][single->kind][__builtin_popcount(single->copies) > 1];

		if (*cell || plan->chosen[order[i]])
			continue;
		*cell = true;
		plan->chosen[order[i]] = true;
		plan->count_chosen++;
	}
	free(cells);
}

void plan_choose(struct plan *plan, struct random *random, size_t wanted)
{
	size_t *order = shuffle(plan, random);

	wanted = wanted ? min_u64(wanted, plan->count_singles) : plan->count_singles;
	/* Half of it evenly over the cells, so that the rare ones are there; the other half anyhow. */
	while (plan->count_chosen < wanted / 2)
		choose_round(plan, order, wanted / 2);
	for (size_t i = 0; plan->count_chosen < wanted; i++)
		if (!plan->chosen[order[i]]) {
			plan->chosen[order[i]] = true;
			plan->count_chosen++;
		}
	free(order);
}

static bool has_target(const struct trial *trial, size_t target)
{
	for (unsigned i = 0; i < trial->count; i++)
		if (trial->list[i].target == target)
			return true;
	return false;
}

void plan_group(const struct bench *bench, struct random *random, struct trial *out)
{
	unsigned wanted = 2 + (unsigned)random_below(random, TRIAL_BLOCKS_MAX - 1);
	unsigned all_in_8 = (unsigned)random_below(random, 9); /* groups that lose much, and groups that lose nothing */

	out->count = 0;
	while (out->count < wanted) {
		struct destruction one = {
			.target = random_below(random, bench->targets.count),
			.kind = (enum destroy_kind)random_below(random, DESTROY_KINDS),
		};
		const struct target *target = &bench->targets.list[one.target];
		bool all = random_below(random, 8) < all_in_8;

		one.copies = all ? copies_all(target) : 1u << random_below(random, target->count_copies);
		if (all && target->is_super)
			one.copies &= ~(1u << random_below(random, target->count_copies));
		if (!has_target(out, one.target) && destruction_is_possible(bench, &one))
			out->list[out->count++] = one;
	}
}

void plan_count(const struct bench *bench, struct plan *plan, const struct destruction *destruction, bool violation)
{
	struct row *row = &plan->rows[plan->row_of[destruction->target]];

	row->tried[destruction->kind][is_all(bench, destruction)]++;
	row->violations += violation;
}

void plan_print(const struct plan *plan)
{
	printf("%-14s %5s %6s", "blocks", "level", "count");
	for (unsigned kind = 0; kind < DESTROY_KINDS; kind++)
		printf(" %11s,1 %11s,*", destroy_kind_names[kind], destroy_kind_names[kind]);
	printf(" violations\n");
	for (size_t i = 0; i < plan->count_rows; i++) {
		const struct row *row = &plan->rows[i];

		printf("%-14s %5u %6zu", row->name, row->level, row->targets);
		for (unsigned kind = 0; kind < DESTROY_KINDS; kind++)
			for (unsigned all = 0; all < 2; all++)
				printf(" %6llu/%-6llu", (unsigned long long)row->tried[kind][all], (unsigned long long)row->of[kind][all]);
		printf(" %llu\n", (unsigned long long)row->violations);
	}
	printf("1: one copy; *: all copies, of superblocks all but one; tried/of how many\n");
}
