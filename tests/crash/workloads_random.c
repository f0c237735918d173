/* Random operations on a few files and directories, with and without space. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/workloads.h"
#include "tests/support/random.h"

#define OPERATIONS_LEAST 30
#define OPERATIONS_MORE 31
#define TEXT_BYTES (16u << 10)

const size_t workloads_random_count = 64;

struct writer {
	struct random random;
	char *text;
	size_t used;
	unsigned count; /* operations */
};

static void say(struct writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct writer *w, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	w->used += (size_t)vsnprintf(w->text + w->used, TEXT_BYTES - w->used, format, list);
	va_end(list);
	for (; *format; format++)
		w->count += *format == ';';
}

static unsigned pick(struct writer *w, unsigned below)
{
	return (unsigned)random_below(&w->random, below);
}

static const char *any_file(struct writer *w)
{
	static const char *const files[] = {"p", "q", "m", "A/p", "A/q", "B/p", "B/q", "A/C/p", "%0", "%1"};

	return files[pick(w, ARRAY_SIZE(files))];
}

/* A path as a name that may be given or taken. */
static const char *any_name(struct writer *w)
{
	static const char *const names[] = {"p", "q", "A/p", "A/q", "B/p", "B/q", "A/C/p", "r"};

	return names[pick(w, ARRAY_SIZE(names))];
}

/* Often on a block's edge. */
static unsigned any_pos(struct writer *w)
{
	unsigned pos = pick(w, 12 * BLOCK_BYTES);

	return pick(w, 2) ? pos : pos / BLOCK_BYTES * BLOCK_BYTES;
}

static unsigned any_length(struct writer *w)
{
	static const unsigned most[] = {100, 2 * BLOCK_BYTES, 8 * BLOCK_BYTES, 60 * BLOCK_BYTES};
	unsigned length = 1 + pick(w, most[pick(w, ARRAY_SIZE(most))]);

	return pick(w, 2) ? length : (length + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

/* So that there is something to work on: what was taken away is mostly made anew. */
static void say_again(struct writer *w, const char *name)
{
	if (pick(w, 4))
		say(w, "create %s; append %s %u; ", name, name, any_length(w));
}

static void say_move(struct writer *w)
{
	static const char *const moves[] = {"rename", "replace", "replace", "exchange", "whiteout"};
	const char *move = moves[pick(w, ARRAY_SIZE(moves))], *from = any_name(w);

	say(w, "%s %s %s; ", move, from, any_name(w));
	if (move[0] == 'w')
		say(w, "unlink %s; ", from);
	if (move[0] != 'e')
		say_again(w, from);
}

static void say_unlink(struct writer *w)
{
	const char *name = any_name(w);
	unsigned slot = pick(w, 2);

	if (pick(w, 2))
		say(w, "forget %u; open %s %u; ", slot, name, slot);
	say(w, "unlink %s; ", name);
	say_again(w, name);
}

static void say_name(struct writer *w)
{
	const char *name = any_name(w);

	switch (pick(w, 10)) {
	case 0:
		return say(w, "mkdir %s; ", pick(w, 2) ? "A/C" : "D");
	case 1:
		return say(w, "unlink %s; symlink %s @%u; unlink %s; create %s; ", name, name, 1 + pick(w, 3000), name, name);
	case 2:
	case 3:
		return say(w, "link %s %s%u; ", any_file(w), pick(w, 2) ? "A/n" : "n", pick(w, 4));
	case 4:
	case 5:
	case 6:
		return say_unlink(w);
	case 7:
		return say(w, "rmdir D; rename D A/D; rename A/D D; ");
	default:
		return say_move(w);
	}
}

static void say_attribute(struct writer *w)
{
	static const unsigned most[] = {100, 3000, 65537};

	switch (pick(w, 6)) {
	case 0:
		return say(w, "removexattr %s user.%u; ", any_file(w), pick(w, 3));
	case 1:
		return say(w, "setacl %s 0%o; ", any_file(w), pick(w, 01000));
	case 2:
		return say(w, "setdefault A 0%o; ", pick(w, 01000));
	default:
		return say(w, "setxattr %s user.%u %u; ", any_file(w), pick(w, 3), pick(w, most[pick(w, ARRAY_SIZE(most))]));
	}
}

/* Mostly of what was made equal just now. */
static void say_dedupe(struct writer *w)
{
	const char *from = any_file(w), *to = any_file(w);
	unsigned length = (1 + pick(w, 4)) * BLOCK_BYTES;

	if (pick(w, 4))
		say(w, "copy %s 0 %s 0 1; copy %s 1 %s 1 %u; ", from, to, from, to, length);
	say(w, "dedupe %s 0 %s 0 %u; ", from, to, length);
}

static void say_content(struct writer *w)
{
	/* mostly none, append only, no dump, sync */
	static const unsigned flags[] = {0, 0, 0, 0x20, 0x40, 8};
	static const char *const modes[] = {"alloc", "keep", "punch", "punch", "zero", "zerokeep"};

	switch (pick(w, 15)) {
	case 12:
		return say_attribute(w);
	case 13:
		return say_dedupe(w);
	case 0:
	case 1:
		return say(w, "append %s %u; ", any_file(w), any_length(w));
	case 2:
		return say(w, "truncate %s %u; ", any_file(w), pick(w, 4) ? any_pos(w) : 0);
	case 3:
	case 4:
		return say(w, "copy %s %u %s %u %u; ", any_file(w), any_pos(w), any_file(w), any_pos(w), any_length(w));
	case 5:
		return say(w, "clone %s %s; ", any_file(w), any_file(w));
	case 6:
	case 7:
		return say(w, "%s %s %u %u; ", modes[pick(w, ARRAY_SIZE(modes))], any_file(w), any_pos(w), any_length(w));
	case 9:
		return say(w, "chattr %s %u; ", any_file(w), flags[pick(w, ARRAY_SIZE(flags))]);
	case 8:
		return say(w, "chmod %s 0%o; ", any_file(w), 0400 + pick(w, 0400));
	default:
		return say(w, "write %s %u %u; ", any_file(w), any_pos(w), any_length(w));
	}
}

static void say_something(struct writer *w)
{
	unsigned what = pick(w, 100);

	if (what < 35)
		say_name(w);
	else if (what < 92)
		say_content(w);
	else if (what < 96)
		say(w, "fsync %s; ", any_file(w));
	else
		say(w, what < 98 ? "syncfs; " : "forget 0; forget 1; ");
}

/* Every third has no space left, every other a file of more extents than one link of a chain takes. */
static void say_setup(struct writer *w, size_t index)
{
	say(w, "mkdir A; mkdir B; mkdir A/C; create p; write p 0 5b+77; create q; clone p q; create m; create A/p; write A/p 0 1b; ");
	say(w, "create B/q; write B/q 3b 100; create A/q; create B/p; create A/C/p; append A/C/p 2b; clone A/C/p B/p; ");
	if (index % 2)
		say(w, "spread m 150; ");
	if (index % 3 == 0)
		say(w, "create full; fill full; unlink A/p; ");
}

static char *writer_start(struct writer *w)
{
	w->text = calloc(1, TEXT_BYTES);
	w->used = w->count = 0;
	return w->text;
}

int workload_random(uint64_t seed, size_t index, char **setup, char **run)
{
	struct writer w = {.random.state = seed * 0x9e3779b97f4a7c15ull + index};

	*setup = writer_start(&w);
	if (*setup)
		say_setup(&w, index);
	*run = writer_start(&w);
	if (!*setup || !*run)
		return -ENOMEM;
	say(&w, "open A/q 0; open p 1; ");
	for (unsigned count = OPERATIONS_LEAST + pick(&w, OPERATIONS_MORE); w.count < count;)
		say_something(&w);
	return 0;
}
