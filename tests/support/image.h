/* The image file of a fixture, of this process. */
#ifndef TESTS_IMAGE_H
#define TESTS_IMAGE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* With the faults that were injected into it. */
static inline void image_remove(const char *path)
{
	char poison[320];

	unlink(path);
	snprintf(poison, sizeof(poison), "%s.poison", path);
	unlink(poison);
}

/* Nothing is there: what another process of this number left behind, when a test of it failed, would be taken for the image's. */
static inline void image_name(char *path, size_t size, const char *kind, unsigned number)
{
	const char *dir = getenv("TMPDIR");

	if (!dir)
		dir = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
	snprintf(path, size, "%.180s/mendfs-%s-%d-%u", dir, kind, (int)getpid(), number);
	image_remove(path);
}

#endif
