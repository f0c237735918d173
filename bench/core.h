/* bench-core: fs/ in this process, without the kernel. */
#ifndef BENCH_CORE_H
#define BENCH_CORE_H

#include <stdio.h>

#include "fs/fs.h"

#define CORE_ROUNDS_MAX 99

struct core_options {
	bool smoke, large, json;
	bool paged; /* a plain file as such; else as on persistent memory */
	unsigned rounds;
};

/* Each prints one section: a table, or with json the value of its key. 0 or negative errno. */
int core_operations(const struct core_options *options);
int core_scaling(const struct core_options *options);
int core_owners(const struct core_options *options);
int core_mount_time(const struct core_options *options);

/* A fresh filesystem on tmpfs, mounted as the daemon does; core_close() unmounts and removes it. */
int core_open(const struct core_options *options, uint64_t size_bytes, struct fs **out);
int core_close(struct fs *fs);
/* Of the one that is open. */
const char *core_image(void);
int core_fail(int error, const char *what); /* says it; gives the error back */

static inline uint64_t core_scaled(const struct core_options *options, uint64_t count)
{
	return options->smoke ? count / 100 + 1 : count;
}

static inline struct fs_who core_who(void)
{
	return (struct fs_who){.uid = 0, .gid = 0};
}

#endif
