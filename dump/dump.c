#include "dump/internal.h"

#include <errno.h>
#include <string.h>

enum wants { WANTS_NOTHING, MAY_HAVE_NUMBER, WANTS_NUMBER, WANTS_NAME };

static const struct {
	const char *what;
	enum wants wants;
	dump_fn *run;
} structures[] = {
	{"super", MAY_HAVE_NUMBER, dump_super},
	{"root", WANTS_NOTHING, dump_root},
	{"journal", WANTS_NOTHING, dump_journal},
	{"poison-log", WANTS_NOTHING, dump_poison_log},
	{"chunks", WANTS_NOTHING, dump_chunks},
	{"chunk", WANTS_NUMBER, dump_chunk},
	{"block", WANTS_NUMBER, dump_block},
	{"device-offset", WANTS_NUMBER, dump_device_offset},
	{"tree", WANTS_NAME, dump_tree},
	{"inode", WANTS_NUMBER, dump_inode},
};

int dump_wants(const char *what)
{
	for (size_t i = 0; i < ARRAY_SIZE(structures); i++)
		if (!strcmp(structures[i].what, what))
			return (int)structures[i].wants;
	return -1;
}

int dump_run(struct dump *dump, const struct dump_request *request, struct why *why)
{
	int error = -EINVAL;

	why->text[0] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(structures); i++)
		if (!strcmp(structures[i].what, request->what))
			error = structures[i].run(dump, request, why);
	if (error && !why->text[0])
		why_set(why, error, "dump %s: %s", request->what, strerror(-error));
	return error;
}
