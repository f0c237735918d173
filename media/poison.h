/*
 * Emulated poison. On a plain file each 4 KiB page with an armed byte is replaced by one beyond the
 * end of an empty memfd, so that a touch is a real SIGBUS; what is armed decides, byte by byte,
 * whether poison was consumed. Content stays in the file, under the trap.
 */
#ifndef MEDIA_POISON_H
#define MEDIA_POISON_H

#include <pthread.h>
#include <stdatomic.h>

#include "util/iset.h"

enum poison_tag { POISON_NOTIFIED, POISON_LATENT };

/* What IMAGE.poison is tied to. */
struct poison_tie {
	bool tied;
	uint8_t uuid[16];
};

struct poison {
	atomic_size_t count;         /* ranges, readable without a lock */
	pthread_mutex_t change_lock; /* one change at a time: file, trap pages and set */
	pthread_rwlock_t lock;       /* the set and the trap pages; inside change_lock */
	struct iset set;             /* tags: enum poison_tag */
	struct poison_tie tie;
	char *file; /* IMAGE.poison, or NULL */
	int empty_fd;
};

struct media;

/* image: NULL where nothing can be kept beside the medium, so that what is armed lasts as long as the mapping. */
int poison_init(struct poison *poison, const char *image);
void poison_fini(struct poison *poison);

enum poison_answer {
	POISON_NOT_TRAPPED, /* this page is the file's own */
	POISON_INNOCENT,    /* trapped, but no armed byte in the range */
	POISON_CONSUMED,    /* *first is armed */
};
/* About [at, end), which lies in one page. */
enum poison_answer poison_ask(struct poison *poison, uint64_t at, uint64_t end, uint64_t *first);
/* The first armed byte of a range of any length. */
bool poison_find(struct poison *poison, uint64_t start, uint64_t end, uint64_t *first);

#endif
