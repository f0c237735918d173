/* bench-populate IMAGE FILES EXTENTS: populate.h on an unmounted filesystem. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/populate.h"
#include "util/log.h"

int main(int argc, char **argv)
{
	struct fs_options options = {.tools = true, .claim = true};
	struct why why;
	struct fs *fs;
	int error, end;

	if (argc != 4) {
		fprintf(stderr, "usage: bench-populate IMAGE FILES EXTENTS\n");
		return 2;
	}
	log_set_level(LOG_LEVEL_SILENT);
	if (fs_mount(argv[1], &options, &why, &fs)) {
		fprintf(stderr, "bench-populate: %s\n", why.text);
		return 1;
	}
	error = populate_files(fs, strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
	end = fs_unmount(fs);
	return error || end;
}
