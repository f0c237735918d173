#include "fs/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "journal/root.h"
#include "util/crc.h"

#define FINDING_BYTES 512
#define LET_GO_HOLDS 32 /* of an unmounted medium; each has read a few MiB at most */

void check_fail(struct check *check, int error)
{
	if (!check->error)
		check->error = error;
}

/* --- findings ----------------------------------------------------------------------------------------------------------------- */

static bool lines_reserve(struct check *check, size_t length)
{
	size_t size = check->lines_size ? check->lines_size : 4096;
	char *grown;

	while (size < check->lines_used + length)
		size *= 2;
	if (size == check->lines_size)
		return true;
	grown = realloc(check->lines, size);
	if (!grown)
		return false;
	check->lines = grown;
	check->lines_size = size;
	return true;
}

void check_finding(struct check *check, const char *format, ...)
{
	char line[FINDING_BYTES];
	va_list list;
	size_t length;

	va_start(list, format);
	vsnprintf(line, sizeof(line), format, list);
	va_end(list);
	check->totals.findings++;
	length = strlen(line) + 1;
	if (!lines_reserve(check, length)) {
		check_fail(check, -ENOMEM);
		return;
	}
	memcpy(check->lines + check->lines_used, line, length);
	check->lines_used += length;
}

/* Whoever is told may take his time: no lock is held. */
static void check_tell(struct check *check)
{
	size_t at;

	for (at = 0; at < check->lines_used; at += strlen(check->lines + at) + 1)
		if (check->options->tell)
			check->options->tell(check->options->arg, check->lines + at);
	check->lines_used = 0;
}

void check_unreadable(struct check *check, const struct btree *tree, int error)
{
	unsigned id = tree->ops->tree;

	if (error == -ENOMEM)
		check_fail(check, error);
	if (check->unreadable >> id & 1)
		return;
	check->unreadable |= 1ull << id;
	check_finding(check, "tree %s: cannot be read to its end: %s", format_tree_name(id), strerror(-error));
}

void check_skip(struct check *check)
{
	check->totals.not_compared++;
}

void check_counter(struct check *check, const char *name, uint64_t stored, uint64_t counted, uint64_t changes)
{
	if (check_changes(check) != changes)
		check_skip(check);
	else if (stored != counted)
		check_finding(check, "counter of %s: stored %llu, counted %llu", name, (unsigned long long)stored,
			      (unsigned long long)counted);
}

int check_load_inode(struct check *check, inum_t ino, struct inode_record *out)
{
	struct btree_key key = {{ino}};
	struct btree_record found;
	int error = btree_lookup(&check->fs->inodes, &key, &found);

	check_spend(check, CHECK_NODE_UNITS / 4);
	return error ? error : format_inode_unpack(out, found.value, found.length);
}

uint64_t check_name_hash(const struct check *check, inum_t ino, inum_t dir, uint64_t cookie, const void *value, size_t length)
{
	uint64_t hash = check_mix(check_mix(check_mix(check->seed ^ ino) + dir) + cookie);

	return check_mix(hash + crc32c(0, value, length));
}

/* --- holds -------------------------------------------------------------------------------------------------------------------- */

static void hold_begin(struct check *check)
{
	check->spent = 0;
	check->holds++;
	journal_read_begin(check->fs->journal);
}

static void hold_end(struct check *check)
{
	const struct fs_check_options *options = check->options;
	uint64_t done = check->total ? min_u64(check->done, check->total) : check->done; /* more may have come meanwhile */

	journal_read_end(check->fs->journal);
	check->totals.longest_hold = max_u64(check->totals.longest_hold, check->spent);
	check_tell(check);
	if (check->fs->options.tools && check->holds % LET_GO_HOLDS == 0)
		media_let_go(check->fs->media);
	if (!check->error && options->progress && !options->progress(options->arg, check->phase, done, check->total))
		check_fail(check, -ECANCELED);
}

void check_pause(struct check *check)
{
	hold_end(check);
	hold_begin(check);
}

void check_begin_phase(struct check *check, const char *phase, uint64_t total)
{
	check->phase = phase;
	check->done = 0;
	check->total = total;
	if (check_is_half_due(check))
		check_pause(check);
}

/* --- all of it ---------------------------------------------------------------------------------------------------------------- */

typedef void check_part_fn(struct check *check);

static void check_run(struct check *check)
{
	static check_part_fn *const parts[] = {check_fixed, check_nodes,  check_leaks, check_inodes, check_space,
					       check_names, check_maps,	  check_dirs,  check_ledger};

	check_supers(check);
	hold_begin(check);
	for (unsigned i = 0; i < ARRAY_SIZE(parts) && !check_is_over(check); i++)
		parts[i](check);
	hold_end(check);
}

int fs_check_with(struct fs *fs, const struct fs_check_options *options, struct fs_check_totals *out)
{
	struct check *check = calloc(1, sizeof(*check));
	int error;

	if (!check)
		return -ENOMEM;
	check->fs = fs;
	check->options = options;
	check->hold_units = options->hold_units ? options->hold_units : CHECK_HOLD_UNITS;
	check->phase = "fixed";
	if (getrandom(&check->seed, sizeof(check->seed), GRND_NONBLOCK) < 0)
		check->seed = time_now_ns();
	check_run(check);
	error = check->error;
	*out = check->totals;
	free(check->lines);
	free(check->reached);
	free(check->dirs);
	free(check->sharers);
	free(check);
	return error;
}

int fs_check(struct fs *fs, fs_check_fn *tell, void *arg, struct fs_check_totals *out)
{
	struct fs_check_options options = {.tell = tell, .arg = arg};

	return fs_check_with(fs, &options, out);
}
