/* mendctl image: the metadata of a device or image that nobody has mounted, for a bug report. */
#include "dump/image.h"

#include <string.h>

#include "mendctl/subcommand.h"
#include "mendctl/target.h"

static int emit_skipped(struct output *output, const struct iset *skipped)
{
	int error = 0;

	for (size_t i = 0; i < skipped->count && !error; i++) {
		struct json_object *range = json_object_new_object();

		json_add_u64(range, "device_offset", skipped->ranges[i].start);
		json_add_u64(range, "len", skipped->ranges[i].end - skipped->ranges[i].start);
		error = output_emit(output, range);
	}
	return error;
}

static struct json_object *describe(const char *file, const struct image_options *wanted, const struct image_report *report)
{
	struct json_object *extra = json_object_new_object(), *image = json_object_new_object();

	json_add(image, "file", json_string_make(file, strlen(file)));
	json_add_u64(image, "size_bytes", report->size_bytes);
	json_add_u64(image, "copied_bytes", report->copied_bytes);
	json_add_bool(image, "scrambled", wanted->scramble_names);
	if (wanted->scramble_names) {
		json_add_u64(image, "names", report->names);
		json_add_u64(image, "targets", report->targets);
		json_add_u64(image, "attributes", report->attributes);
	}
	json_add(extra, "image", image);
	return extra;
}

static int answer(const struct subcommand *self, const struct options *options, const struct image_options *wanted,
		  const struct image_report *report, struct why *why)
{
	struct json_object *extra = describe(options->words[1], wanted, report);
	struct output output;
	int error;

	output_begin(&output, options->json, self->array, self->columns, self->nothing);
	emit_skipped(&output, &report->skipped);
	error = output_end(&output, extra, why);
	json_object_put(extra);
	return error;
}

int image_run(const struct subcommand *self, const struct options *options, struct why *why)
{
	struct image_options wanted = {
		.scramble_names = options->given & OPTION_SCRAMBLE_NAMES,
		.replace = options->given & OPTION_FORCE,
	};
	struct image_report report;
	struct dump *dump;
	int error = target_refuse_mounted(options->words[0], why);

	if (!error)
		error = dump_open(options->words[0], why, &dump);
	if (error)
		return error;
	error = image_write(dump, options->words[1], &wanted, &report, why);
	dump_close(dump);
	if (!error)
		error = answer(self, options, &wanted, &report, why);
	iset_fini(&report.skipped);
	return error;
}
