/* The subcommands of mendctl. */
#ifndef MENDCTL_SUBCOMMAND_H
#define MENDCTL_SUBCOMMAND_H

#include "mendctl/options.h"
#include "mendctl/output.h"

struct subcommand {
	const char *name;
	const char *synopsis; /* after the name */
	const char *summary;  /* one line */
	const char *details;  /* lines of the help, each ending with a newline */
	unsigned options;     /* enum option_bit that it takes */
	int words_min, words_max;
	const struct column *columns;
	const char *array;
	const char *nothing;
	/* 0, or -EINVAL with *why: a usage error that counts and masks do not show. NULL: none. */
	int (*check)(const struct options *options, struct why *why);
	/* 0, or negative errno with *why. */
	int (*run)(const struct subcommand *self, const struct options *options, struct why *why);
};

extern const struct subcommand subcommands[];
extern const size_t count_subcommands;
const struct subcommand *subcommand_find(const char *name);

typedef int subcommand_run_fn(const struct subcommand *self, const struct options *options,
			      struct why *why);
typedef int subcommand_check_fn(const struct options *options, struct why *why);
subcommand_run_fn query_run, query_map, query_list, query_version; /* query.c */
subcommand_run_fn monitor_run;                                     /* monitor.c */
subcommand_run_fn clone_run;                                       /* clone.c */
subcommand_run_fn dedupe_run;                                      /* dedupe.c */
subcommand_check_fn dedupe_check;
subcommand_run_fn dump_command_run;                                /* dump.c */
subcommand_check_fn dump_command_check;
subcommand_run_fn identity_run, resize_run, shutdown_run; /* identity.c */
subcommand_check_fn resize_check;
subcommand_run_fn image_run;                                       /* image.c */

#endif
