/* struct media and what it is made of; for the files of this folder and for recording backends of
 * tests. */
#ifndef MEDIA_MEDIA_TYPES_H
#define MEDIA_MEDIA_TYPES_H

#include <pthread.h>
#include <stdatomic.h>

#include "media/block.h"
#include "media/counts.h"
#include "media/dirty.h"
#include "media/guard.h"
#include "media/known.h"
#include "media/media.h"
#include "media/poison.h"
#include "media/stop.h"

struct claim;
struct pmem2_map;
struct pmem2_source;
struct pmem2_vm_reservation;

/*
 * How accesses reach the medium: the seam for a backend that records them. Copies return how many
 * bytes are done; fewer than asked for means a SIGBUS, described in *fault. Ranges are checked
 * already.
 */
struct media_backend {
	size_t (*load)(struct media *media, devoff_t offset, void *to, size_t length,
		       struct guard_fault *fault);
	size_t (*store)(struct media *media, devoff_t offset, const void *from, size_t length,
			struct guard_fault *fault);
	size_t (*zero)(struct media *media, devoff_t offset, size_t length,
		       struct guard_fault *fault);
	size_t (*store_line)(struct media *media, devoff_t offset, const void *line,
			     struct guard_fault *fault);
	void (*drain)(struct media *media);
	int (*sync)(struct media *media);
	/* Make the range of the medium good. 0; -ENOTSUP, -EIO as media_clear(). */
	int (*clear)(struct media *media, devoff_t offset, uint64_t length);
	/* As media_discard(); NULL: not on this medium. */
	int (*discard)(struct media *media, devoff_t offset, uint64_t length);
};

extern const struct media_backend media_backend_mapped;
extern const struct media_backend media_backend_block;
int discard_mapped(struct media *media, devoff_t offset, uint64_t length); /* discard.c */
int clear_mapped(struct media *media, devoff_t offset, uint64_t length); /* clear.c */
int clear_block(struct media *media, devoff_t offset, uint64_t length);

struct media {
	struct guard_region map;
	_Atomic uint64_t size; /* grows only */
	uint64_t limit;	       /* media_grow() can make it as large as this without a new opening */
	uint64_t alignment;
	enum media_granularity granularity;
	bool is_device; /* device-dax */
	bool is_block;
	bool is_fsdax; /* a file that lies on persistent memory directly: whole blocks of it fail */
	bool readonly;
	int fd;
	struct block block; /* of block devices only */
	char *path;
	char *real_path;
	struct pmem2_source *pmem_source;
	struct pmem2_map *pmem_map;
	struct pmem2_vm_reservation *room; /* address space that a plain file may grow into, or NULL */
	struct pmem2_map **grown;	   /* what was mapped behind pmem_map since, in order */
	size_t count_grown;
	void (*flush)(const void *ptr,
		      size_t length_bytes); /* NULL at PAGE: msync would hide in it */
	void (*fence)(void);
	const struct media_backend *backend;
	void *backend_state;
	struct dirty dirty;
	struct known known;
	struct poison poison;
	struct counts counts;
	atomic_bool host_is_full;
	atomic_bool told_no_clear;
	struct stop stop;
	struct claim *claim;
	pthread_mutex_t handler_lock; /* both fields below; never held while the handler runs */
	media_fault_fn *handler;
	void *handler_arg;
};

#endif
