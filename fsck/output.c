#include "fsck/output.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

static const char *const list_names[] = {
	[FSCK_NOTE] = "notes", [FSCK_ERROR] = "findings", [FSCK_FIXED] = "repaired", [FSCK_LOSS] = "lost",
};

void output_begin(struct output *output, const char *target)
{
	memset(output, 0, sizeof(*output));
	output->target = target;
	for (unsigned i = 0; i < ARRAY_SIZE(list_names); i++)
		output->lists[i] = json_object_new_array();
}

static void progress_clear(struct output *output)
{
	if (output->line_is_open)
		fprintf(stderr, "\r\033[K");
	output->line_is_open = false;
}

void output_tell(void *arg, enum fsck_grade grade, const char *line)
{
	struct output *output = arg;
	struct json_object *item;

	if (output->json) {
		item = json_object_new_object();
		json_object_object_add(item, "message", json_object_new_string(line));
		json_object_array_add(output->lists[grade], item);
		return;
	}
	if (output->quiet && grade == FSCK_NOTE)
		return;
	progress_clear(output);
	printf("%s%s\n", grade == FSCK_LOSS ? "lost: " : "", line);
	fflush(stdout);
}

bool output_ask(void *arg, const char *question)
{
	char answer[16] = "";

	progress_clear(arg);
	printf("%s (y/n)? ", question);
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

void output_progress(void *arg, const char *phase, uint64_t done_units, uint64_t total_units)
{
	struct output *output = arg;
	unsigned percent = total_units ? (unsigned)(min_u64(done_units, total_units) * 100 / total_units) : 0;

	if (!output->progress || (percent + 1 == output->percent && done_units))
		return;
	output->percent = percent + 1;
	output->line_is_open = true;
	fprintf(stderr, "\r\033[K%s: %s %u%%", output->target, phase, percent);
	fflush(stderr);
}

static void add_count(struct json_object *to, const char *name, uint64_t value)
{
	json_object_object_add(to, name, json_object_new_uint64(value));
}

static struct json_object *totals_object(const struct fsck_report *report)
{
	const struct fs_check_totals *totals = &report->totals;
	struct json_object *object = json_object_new_object();

	add_count(object, "findings", totals->findings);
	add_count(object, "inodes", totals->inodes);
	add_count(object, "extents", totals->extents);
	add_count(object, "rmap_records", totals->rmap_records);
	add_count(object, "blocks_compared", totals->blocks_compared);
	add_count(object, "errors", report->errors);
	add_count(object, "repaired", report->fixed);
	add_count(object, "lost", report->losses);
	add_count(object, "lost_found", report->lost_found);
	add_count(object, "left", report->left);
	return object;
}

static void print_json(struct output *output, const struct fsck_report *report)
{
	struct json_object *answer = json_object_new_object();

	json_object_object_add(answer, "version", json_object_new_int(1));
	for (unsigned i = 0; i < ARRAY_SIZE(list_names); i++)
		json_object_object_add(answer, list_names[i], json_object_get(output->lists[i]));
	json_object_object_add(answer, "totals", totals_object(report));
	json_object_object_add(answer, "changed", json_object_new_boolean(report->changed));
	puts(json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN));
	json_object_put(answer);
}

static void print_counts(const struct output *output, const struct fs_check_totals *totals)
{
	printf("%s: %llu inodes, %llu extents, %llu reverse map records, %llu blocks compared\n", output->target,
	       (unsigned long long)totals->inodes, (unsigned long long)totals->extents,
	       (unsigned long long)totals->rmap_records, (unsigned long long)totals->blocks_compared);
}

static void print_summary(const struct output *output, const struct fsck_report *report)
{
	if (report->left && !report->changed)
		printf("%s: %llu errors, left as they are\n", output->target, (unsigned long long)report->errors);
	else if (report->left)
		printf("%s: %llu errors, %llu left\n", output->target, (unsigned long long)report->errors,
		       (unsigned long long)report->left);
	else if (report->errors || report->fixed || report->losses)
		printf("%s: %llu errors, repaired: %llu, records lost: %llu, inodes put into lost+found: %llu\n", output->target,
		       (unsigned long long)report->errors, (unsigned long long)report->fixed,
		       (unsigned long long)report->losses, (unsigned long long)report->lost_found);
	else if (!output->quiet)
		printf("%s: clean\n", output->target);
}

void output_end(struct output *output, const struct fsck_report *report)
{
	progress_clear(output);
	if (report && output->json)
		print_json(output, report);
	if (report && !output->json) {
		if (output->verbose)
			print_counts(output, &report->totals);
		print_summary(output, report);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(list_names); i++)
		json_object_put(output->lists[i]);
}
