/* mendctl: ask a mendfs filesystem, mounted or not, and inject failures into it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mendctl/subcommand.h"
#include "util/log.h"

enum { EXIT_USAGE = 2 };

static void print_help(void)
{
	printf("usage: mendctl COMMAND [ARGUMENTS] [--json]\n\n"
	       "Ask a mendfs filesystem, mounted or not, and inject failures into it.\n\n");
	for (size_t i = 0; i < count_subcommands; i++)
		printf("  %-15s %s\n", subcommands[i].name, subcommands[i].summary);
	printf("\n      --json      one JSON object instead of the readable form\n"
	       "  -h, --help      this text, or that of a command: mendctl COMMAND --help\n"
	       "  -V, --version   the version\n\n"
	       "See mendctl(1).\n");
}

static void print_command_help(const struct subcommand *command)
{
	printf("usage: mendctl %s %s\n\n%s.\n\n%s", command->name, command->synopsis,
	       command->summary, command->details);
	if (command->array)
		printf("      --json                 one JSON object with the array \"%s\"\n",
		       command->array);
	printf("  -h, --help                 this text\n"
	       "  -V, --version              the version\n");
}

static int check_usage(const struct subcommand *command, const struct options *options,
		       struct why *why)
{
	if (options->given & ~command->options)
		return why_set(why, -EINVAL, "an option that this command does not take");
	if (options->count_words < command->words_min || options->count_words > command->words_max)
		return why_set(why, -EINVAL, "it takes %s", command->synopsis);
	return command->check ? command->check(options, why) : 0;
}

/* One line, whatever names it quotes. */
static void complain(const char *text)
{
	fputs("mendctl: ", stderr);
	for (; *text; text++)
		putc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, stderr);
	putc('\n', stderr);
}

static int run(const struct subcommand *command, const struct options *options)
{
	struct why why = {.text = ""};

	if (check_usage(command, options, &why)) {
		fprintf(stderr, "mendctl: %s: %s; see mendctl %s --help\n", command->name, why.text,
			command->name);
		return EXIT_USAGE;
	}
	if (!command->run(command, options, &why))
		return EXIT_SUCCESS;
	complain(why.text);
	return EXIT_FAILURE;
}

static int print_version(void)
{
	printf("mendctl %s\n", MENDFS_VERSION);
	return EXIT_SUCCESS;
}

static int usage_error(const char *text)
{
	complain(text);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	const struct subcommand *command;
	struct options options;
	struct why why;

	/* What lower layers have to tell about an image that we only look at is in the answer, or
	 * in our one line. */
	log_set_level(LOG_LEVEL_SILENT);
	if (options_parse(argc, argv, &options, &why))
		return usage_error(why.text);
	command = options.command ? subcommand_find(options.command) : NULL;
	if (options.command && !command) {
		fprintf(stderr, "mendctl: no command %s; see mendctl --help\n", options.command);
		return EXIT_USAGE;
	}
	if (options.version)
		return print_version();
	if (!options.help)
		return command ? run(command, &options)
			       : usage_error("which command? see mendctl --help");
	if (command)
		print_command_help(command);
	else
		print_help();
	return EXIT_SUCCESS;
}
