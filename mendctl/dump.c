/* mendctl dump: structures of a device or image that nobody has mounted. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dump/dump.h"
#include "mendctl/readable.h"
#include "mendctl/subcommand.h"
#include "mendctl/target.h"

/* Options of one structure given with another are a mistake that would go unnoticed. */
static int check_options(const struct options *options, const char *what, struct why *why)
{
	if (options->given & (OPTION_FROM | OPTION_LIMIT) && strcmp(what, "tree"))
		return why_set(why, -EINVAL, "--from and --limit are for tree");
	if (options->given & OPTION_RECORDS && strcmp(what, "journal"))
		return why_set(why, -EINVAL, "--records is for journal");
	return 0;
}

int dump_command_check(const struct options *options, struct why *why)
{
	const char *what = options->words[1], *argument = options->count_words > 2 ? options->words[2] : NULL;
	int wants = dump_wants(what);
	uint64_t number;

	if (wants < 0)
		return why_set(why, -EINVAL,
			       "%s: it is super, root, journal, poison-log, chunks, chunk, block, device-offset, tree or inode", what);
	if ((wants >= 2) != !!argument && !(wants == 1))
		return why_set(why, -EINVAL, argument ? "%s takes no more words" : "%s what? it needs one word more", what);
	if (wants == 3 && dump_tree_parse(argument) < 0)
		return why_set(why, -EINVAL,
			       "there is no tree %s: they are inodes, dirents, parents, extents, xattrs, rmap, free, badblocks, lost, "
			       "damaged, orphans, intents and ledger_copy",
			       argument);
	if (wants < 3 && argument && options_parse_size(argument, &number))
		return why_set(why, -EINVAL, "%s %s: give a number", what, argument);
	return check_options(options, what, why);
}

struct dump_output {
	struct output *output; /* JSON */
	uint64_t count;
};

static int emit(void *arg, struct json_object *element)
{
	struct dump_output *to = arg;

	to->count++;
	if (to->output->json)
		return output_emit(to->output, element);
	readable_print(stdout, element);
	json_object_put(element);
	return ferror(stdout) ? -EIO : 0;
}

static int run_dump(const struct options *options, struct dump_output *to, struct why *why)
{
	struct dump_request request = {
		.what = options->words[1],
		.name = options->count_words > 2 ? options->words[2] : NULL,
		.raw = options->given & OPTION_RAW,
		.records = options->given & OPTION_RECORDS,
		.from = {{options->from[0], options->from[1], options->from[2]}},
		.limit = options->limit,
		.emit = emit,
		.arg = to,
	};
	struct dump *dump;
	int error = dump_open(options->words[0], why, &dump);

	if (error)
		return error;
	if (dump_trouble(dump)[0])
		fprintf(stderr, "mendctl: it cannot be mounted (%s): what is shown is what lies there, without the journal\n",
			dump_trouble(dump));
	request.has_number = request.name && dump_wants(request.what) < 3;
	if (request.has_number)
		options_parse_size(request.name, &request.number);
	error = dump_run(dump, &request, why);
	dump_close(dump);
	return error;
}

int dump_command_run(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct output output;
	struct dump_output to = {.output = &output};
	int error = target_refuse_mounted(options->words[0], why);

	if (error)
		return error;
	output_begin(&output, options->json, self->array, NULL, self->nothing);
	error = run_dump(options, &to, why);
	if (error)
		output_abandon(&output);
	else if (!options->json)
		output.count = to.count;
	return error ? error : output_end(&output, NULL, why);
}
