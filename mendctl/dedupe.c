/* mendctl dedupe: what the command is made of. */
#include "mendctl/dedupe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "mendctl/dedupe_index.h"
#include "mendctl/progress.h"
#include "mendctl/subcommand.h"

#define RANGE_OPTIONS (OPTION_OFFSET | OPTION_LENGTH | OPTION_DST_OFFSET)
#define TREE_OPTIONS (OPTION_BLOCK_SIZE | OPTION_MEMORY)
#define BLOCK_SIZE_MOST (1u << 24)

int dedupe_check(const struct options *options, struct why *why)
{
	uint64_t size = options->block_size;

	if (options->given & OPTION_RECURSIVE) {
		if (options->given & RANGE_OPTIONS)
			return why_set(why, -EINVAL, "with -r there are no offsets and lengths");
		if ((options->given & OPTION_BLOCK_SIZE) && (size < BLOCK_BYTES || size > BLOCK_SIZE_MOST || (size & (size - 1))))
			return why_set(why, -EINVAL, "--block-size is a power of two from 4K to 16M");
		if ((options->given & OPTION_MEMORY) && options->memory < INDEX_MEMORY_LEAST)
			return why_set(why, -EINVAL, "--memory is at least 1M");
		return 0;
	}
	if (options->given & TREE_OPTIONS)
		return why_set(why, -EINVAL, "--block-size and --memory are for -r");
	if (options->count_words < 2)
		return why_set(why, -EINVAL, "it takes SRC and at least one DST, or -r and directories");
	if ((options->offset | options->dst_offset) % BLOCK_BYTES)
		return why_set(why, -EINVAL, "offsets are multiples of 4096");
	return 0;
}

int dedupe_open(const char *path)
{
	/* For writing, so that whoever may write may have it done; read-only is enough for its owner. Only he may leave the access time alone. */
	static const int ways[] = {O_RDWR | O_NOATIME, O_RDWR, O_RDONLY | O_NOATIME, O_RDONLY};
	int fd = -1;

	for (size_t i = 0; i < ARRAY_SIZE(ways) && fd < 0; i++)
		fd = open(path, ways[i] | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

void dedupe_skip(struct dedupe *dedupe, const char *path, int error)
{
	dedupe->skipped++;
	progress_end();
	fputs("mendctl: ", stderr);
	for (; *path; path++)
		putc((unsigned char)*path < ' ' || *path == 0x7f ? '?' : *path, stderr);
	fprintf(stderr, ": %s\n", strerror(-error));
}

int dedupe_report(struct dedupe *dedupe, const struct dedupe_pair *pair, struct why *why)
{
	struct json_object *element = json_object_new_object();
	int error = element ? 0 : -ENOMEM;

	if (!error)
		error = json_add(element, "path", json_string_make(pair->path, strlen(pair->path)));
	if (!error)
		error = json_add(element, "source", json_string_make(pair->source, strlen(pair->source)));
	if (!error)
		error = json_add_u64(element, "pos", pair->pos) || json_add_u64(element, "source_pos", pair->source_pos) ||
			json_add_u64(element, "len", pair->done) || json_add_u64(element, "gained_bytes", pair->gained) ||
			json_add_bool(element, "same", !pair->differs);
	if (error) {
		json_object_put(element);
		return why_set(why, -ENOMEM, "out of memory");
	}
	dedupe->ranges++;
	dedupe->gained += pair->gained;
	progress_end();
	return output_emit(dedupe->output, element);
}

static struct json_object *totals(const struct dedupe *dedupe)
{
	struct json_object *extra = json_object_new_object(), *object = json_object_new_object();

	json_add_u64(object, "files", dedupe->files);
	json_add_u64(object, "bytes", dedupe->bytes);
	json_add_u64(object, "ranges", dedupe->ranges);
	json_add_u64(object, "gained_bytes", dedupe->gained);
	json_add_u64(object, "skipped", dedupe->skipped);
	json_add_bool(object, "dry_run", dedupe->options->given & OPTION_DRY_RUN);
	json_add(extra, "totals", object);
	return extra;
}

int dedupe_run(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct output output;
	struct dedupe dedupe = {.options = options, .output = &output};
	struct json_object *extra;
	int error;

	output_begin(&output, options->json, self->array, self->columns, self->nothing);
	error = options->given & OPTION_RECURSIVE ? dedupe_trees(&dedupe, why) : dedupe_files(&dedupe, why);
	progress_end();
	if (error) {
		output_abandon(&output);
		return error;
	}
	extra = totals(&dedupe);
	error = output_end(&output, extra, why);
	json_object_put(extra);
	return error;
}
