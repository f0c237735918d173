/*
 * IMAGE.poison: "# mendfs poison for UUID|none", then lines "offset length" or "offset length
 * latent". Whoever can write beside the image can write this, so nothing in it is believed
 * unchecked.
 */
#ifndef MEDIA_POISON_FILE_H
#define MEDIA_POISON_FILE_H

#include "media/poison.h"
#include "util/why.h"

/* More than this many pages cannot be trapped anyway (the kernel's limit of mappings is 65,530). */
#define POISON_FILE_RANGES 65536u

/*
 * Add the file's ranges to `set`. 0; -ENOENT; -EUCLEAN with the number of the damaged line; an
 * error of reading. `size` is the image's.
 */
int poison_file_read(const char *file, uint64_t size, struct iset *set, struct poison_tie *tie,
		     struct why *why);
/* Replace it atomically and durably; remove it when the set is empty. Owner and mode are those of
 * the image. */
int poison_file_replace(const char *file, int image_fd, const struct iset *set,
			const struct poison_tie *tie);

#endif
