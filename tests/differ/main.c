/*
 * differ [--ops N] [--seed S] [--walk N] [--writeback] [--xfs] [--no-tmpfile] [--no-setid] [--until N] [--trace] [--spoil KIND@N] [--differences] DIR_A DIR_B
 *
 * The same random operations in DIR_A (mendfs) and DIR_B (ext4 or XFS), in step; exit 1 at the first difference, which is told with the seed (also MENDFS_SEED) and what
 * was done before. --walk: compare the trees after that many operations (and at the end; 0: never). --until N: end after operation N, and --trace prints all. Both
 * directories must have the same in them at the beginning; a run with --ops 0 says whether they have. See allowed.c for what may differ (--differences prints it).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <unistd.h>

#include "tests/differ/differ.h"

#define MOST_BYTES (64u << 20) /* sizes of all files; above, everything is removed */

struct options {
	unsigned long count_ops, walk_every, spoil_at;
	const char *spoil_kind;
	bool prints_differences;
};

/* A SIGBUS in a mapping: what was done before is worth more than a core. */
static struct differ *running;

static void on_bus_error(int signal)
{
	fail_tree(running, "mapping", "SIGBUS");
}

static void enter(struct side *s, const struct op *op)
{
	become(0);
	if (fchdir(s->top) || chroot("."))
		abort();
	umask(op->umask);
	become(op->user);
}

static void apply(struct side *s, const struct op *op)
{
	struct answer *a = &s->answer;

	enter(s, op);
	a->count = 0;
	a->facts[0] = 0;
	errno = 0;
	a->value = op->kind->apply(s, op, a);
	a->error = a->value < 0 ? errno : 0;
}

static void trace(struct differ *d, const struct op *op)
{
	printf("%lu: ", d->op);
	op_print(stdout, op);
	for (unsigned i = 0; i < SIDES; i++) {
		printf(i ? " | " : " = ");
		answer_print(stdout, &d->side[i].answer);
	}
	printf("\n");
}

static void step(struct differ *d)
{
	struct op *op = &d->done[d->op % HISTORY];

	op_pick(d, op);
	for (unsigned i = 0; i < SIDES; i++) {
		apply(&d->side[i], op);
		d->answers[d->op % HISTORY][i] = d->side[i].answer;
	}
	become(0);
	d->count_good += d->side[0].answer.value >= 0;
	if (d->is_traced)
		trace(d, op);
	if (!answers_agree(&d->side[0].answer, &d->side[1].answer) && !difference_is_allowed(d, op))
		fail_op(d);
}

static void begin(struct differ *d, char **directories)
{
	const char *seed = getenv("MENDFS_SEED");

	d->random = random_start("differ");
	d->seed = seed ? strtoull(seed, NULL, 0) : d->random.state;
	d->began = time(NULL);
	for (unsigned i = 0; i < SIDES; i++) {
		struct side *s = &d->side[i];

		s->name = (char)('A' + i);
		s->differ = d;
		s->answer.bytes = malloc(BYTES_ROOM + PAGE);
		s->top = open(directories[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (s->top < 0 || !s->answer.bytes) {
			fprintf(stderr, "differ: %s: %s\n", directories[i], strerror(errno));
			exit(2);
		}
		for (unsigned j = 0; j < SLOTS; j++)
			s->fd[j] = -1;
	}
	running = d;
	signal(SIGBUS, on_bus_error);
	signal(SIGPIPE, SIG_IGN);
}

static int run(struct differ *d, const struct options *options)
{
	walk(d);
	for (d->op = 1; d->op <= options->count_ops; d->op++) {
		step(d);
		if (d->op == options->spoil_at && !spoil(d, options->spoil_kind))
			return 2;
		if (options->walk_every && d->op % options->walk_every == 0) {
			walk(d);
			if (d->bytes_seen > MOST_BYTES)
				wipe(d);
		}
	}
	d->op = options->count_ops;
	if (options->walk_every)
		walk(d);
	if (options->prints_differences)
		differences_print();
	printf("sample: differ: %lu operations (%lu succeeded), %lu comparisons of trees, seed %llu\n", options->count_ops, d->count_good, d->count_walks,
	       (unsigned long long)d->seed);
	return 0;
}

static bool parse(struct differ *d, struct options *options, int flag)
{
	char *at;

	switch (flag) {
	case 'n': options->count_ops = strtoul(optarg, NULL, 0); return true;
	case 's': return !setenv("MENDFS_SEED", optarg, 1);
	case 'w': options->walk_every = strtoul(optarg, NULL, 0); return true;
	case 'm': d->is_writeback = true; return true;
	case 'x': d->is_xfs = true; return true;
	case 'f': d->no_tmpfile = true; return true;
	case 'i': d->no_setid = true; return true;
	case 't': d->is_traced = true; return true;
	case 'd': options->prints_differences = true; return true;
	case 'p':
		at = strchr(optarg, '@');
		if (!at)
			return false;
		*at = 0;
		options->spoil_kind = optarg;
		options->spoil_at = strtoul(at + 1, NULL, 0);
		return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"ops", 1, NULL, 'n'}, {"until", 1, NULL, 'n'}, {"seed", 1, NULL, 's'}, {"walk", 1, NULL, 'w'},
					      {"writeback", 0, NULL, 'm'}, {"xfs", 0, NULL, 'x'}, {"no-tmpfile", 0, NULL, 'f'}, {"no-setid", 0, NULL, 'i'}, {"trace", 0, NULL, 't'},
					      {"differences", 0, NULL, 'd'}, {"spoil", 1, NULL, 'p'}, {NULL, 0, NULL, 0}};
	static struct differ d;
	struct options options = {.count_ops = 10000, .walk_every = 5000};
	int flag, status, outside = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	while ((flag = getopt_long(argc, argv, "", longs, NULL)) != -1)
		if (!parse(&d, &options, flag))
			return 2;
	if (argc - optind != 2)
		return 2;
	begin(&d, argv + optind);
	status = run(&d, &options);
	/* Out of the last side again: the leak checker wants to see /proc. */
	if (fchdir(outside) || chroot("."))
		return 2;
	close(outside);
	return status;
}
