#include "notify/loss.h"

#include <stdlib.h>
#include <string.h>

void loss_report_free(struct loss_report *report)
{
	if (!report)
		return;
	for (size_t i = 0; i < report->count_files; i++) {
		for (size_t k = 0; k < report->files[i].count_paths; k++)
			free(report->files[i].paths[k]);
		free(report->files[i].paths);
	}
	free(report);
}

static int file_copy(struct loss_file *to, const struct loss_file *from)
{
	*to = (struct loss_file){.ino = from->ino};
	if (from->count_paths == 0)
		return 0;
	to->paths = calloc(from->count_paths, sizeof(*to->paths));
	for (; to->paths && to->count_paths < from->count_paths; to->count_paths++) {
		to->paths[to->count_paths] = strdup(from->paths[to->count_paths]);
		if (!to->paths[to->count_paths])
			return -1;
	}
	return to->paths ? 0 : -1;
}

struct loss_report *loss_report_copy(const struct loss_report *report)
{
	struct loss_report *copy = calloc(1, sizeof(*copy));

	if (!copy)
		return NULL;
	copy->loss = report->loss;
	while (copy->count_files < report->count_files) {
		const size_t i = copy->count_files++;

		if (file_copy(&copy->files[i], &report->files[i])) {
			loss_report_free(copy);
			return NULL;
		}
	}
	return copy;
}
