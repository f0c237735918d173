#include "tests/exhaust/inject.h"

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/alloc.h"
#include "journal/buf.h"
#include "media/media.h"

#define HEAP_SLOTS (1u << 18) /* a power of two, well above what one mount holds */

static _Atomic int armed_kind = -1;
static atomic_uint seen, failing_from, failing_to;

const char *inject_name(enum inject_kind kind)
{
	static const char *const names[] = {"ENOMEM", "ENOSPC", "EIO load", "EIO store", "ENOSPC store", "EIO sync"};

	return names[kind];
}

void inject_arm(enum inject_kind kind, unsigned nth, bool persists)
{
	atomic_store(&seen, 0);
	atomic_store(&failing_from, nth ? nth : ~0u);
	atomic_store(&failing_to, persists ? ~0u : nth);
	atomic_store(&armed_kind, (int)kind);
}

unsigned inject_disarm(void)
{
	atomic_store(&armed_kind, -1);
	return atomic_load(&seen);
}

bool inject_hits(enum inject_kind kind)
{
	unsigned number;

	if (atomic_load_explicit(&armed_kind, memory_order_relaxed) != (int)kind)
		return false;
	number = atomic_fetch_add(&seen, 1) + 1;
	return number >= atomic_load(&failing_from) && number <= atomic_load(&failing_to);
}

/* --- the heap: who has taken what --------------------------------------------------------------------------------------------- */

static pthread_mutex_t heap_lock = PTHREAD_MUTEX_INITIALIZER;
static struct heap_piece {
	void *at;
	void *taker;
} pieces[HEAP_SLOTS];
static size_t count_pieces;

static size_t heap_slot(const void *at)
{
	return ((uintptr_t)at >> 4) * 0x9e3779b97f4a7c15ull >> 20 & (HEAP_SLOTS - 1);
}

static void *heap_note(void *at, void *taker)
{
	size_t slot = heap_slot(at);

	if (!at)
		return NULL;
	pthread_mutex_lock(&heap_lock);
	while (pieces[slot].at)
		slot = (slot + 1) & (HEAP_SLOTS - 1);
	pieces[slot] = (struct heap_piece){at, taker};
	if (++count_pieces > HEAP_SLOTS / 2)
		abort(); /* the table is too small for this test */
	pthread_mutex_unlock(&heap_lock);
	return at;
}

/* Close the gap, so that searches need no tombstones. */
static void heap_close_gap(size_t gap)
{
	for (size_t slot = (gap + 1) & (HEAP_SLOTS - 1); pieces[slot].at; slot = (slot + 1) & (HEAP_SLOTS - 1)) {
		size_t home = heap_slot(pieces[slot].at);

		if (((slot - home) & (HEAP_SLOTS - 1)) < ((slot - gap) & (HEAP_SLOTS - 1)))
			continue;
		pieces[gap] = pieces[slot];
		gap = slot;
	}
	pieces[gap].at = NULL;
}

/* What others took (libraries, before the last inject_forget_heap()) is not ours to count. */
static void heap_unnote(void *at)
{
	size_t slot = heap_slot(at);

	if (!at)
		return;
	pthread_mutex_lock(&heap_lock);
	while (pieces[slot].at && pieces[slot].at != at)
		slot = (slot + 1) & (HEAP_SLOTS - 1);
	if (pieces[slot].at) {
		heap_close_gap(slot);
		count_pieces--;
	}
	pthread_mutex_unlock(&heap_lock);
}

void inject_forget_heap(void)
{
	pthread_mutex_lock(&heap_lock);
	memset(pieces, 0, sizeof(pieces));
	count_pieces = 0;
	pthread_mutex_unlock(&heap_lock);
}

size_t inject_outstanding(bool tell)
{
	size_t count = count_pieces;

	for (size_t slot = 0; slot < HEAP_SLOTS && tell; slot++)
		if (pieces[slot].at)
			backtrace_symbols_fd(&pieces[slot].taker, 1, 2);
	return count;
}

/* --- wrapped: the heap --------------------------------------------------------------------------------------------------------- */

#define TAKER __builtin_return_address(0)

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return inject_hits(INJECT_MEMORY) ? NULL : heap_note(__real_malloc(size), TAKER);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
	return inject_hits(INJECT_MEMORY) ? NULL : heap_note(__real_calloc(count, size), TAKER);
}

void *__real_realloc(void *at, size_t size);
void *__wrap_realloc(void *at, size_t size);
void *__wrap_realloc(void *at, size_t size)
{
	void *moved = inject_hits(INJECT_MEMORY) ? NULL : __real_realloc(at, size);

	if (!moved)
		return NULL;
	heap_unnote(at);
	return heap_note(moved, TAKER);
}

void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return inject_hits(INJECT_MEMORY) ? NULL : heap_note(__real_aligned_alloc(alignment, size), TAKER);
}

int __real_posix_memalign(void **out, size_t alignment, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
	int error = inject_hits(INJECT_MEMORY) ? ENOMEM : __real_posix_memalign(out, alignment, size);

	if (!error)
		heap_note(*out, TAKER);
	return error;
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
	return inject_hits(INJECT_MEMORY) ? NULL : heap_note(__real_strdup(text), TAKER);
}

void __real_free(void *at);
void __wrap_free(void *at);
void __wrap_free(void *at)
{
	heap_unnote(at);
	__real_free(at);
}

/* --- wrapped: space ------------------------------------------------------------------------------------------------------------- */

int __real_alloc_take(struct alloc *alloc, struct tx *tx, const struct alloc_request *request, blkno_t *start, uint64_t *count);
int __wrap_alloc_take(struct alloc *alloc, struct tx *tx, const struct alloc_request *request, blkno_t *start, uint64_t *count);
int __wrap_alloc_take(struct alloc *alloc, struct tx *tx, const struct alloc_request *request, blkno_t *start, uint64_t *count)
{
	return inject_hits(INJECT_SPACE) ? -ENOSPC : __real_alloc_take(alloc, tx, request, start, count);
}

int __real_alloc_reserve(struct alloc *alloc, const struct alloc_request *request, blkno_t *start, uint64_t *count);
int __wrap_alloc_reserve(struct alloc *alloc, const struct alloc_request *request, blkno_t *start, uint64_t *count);
int __wrap_alloc_reserve(struct alloc *alloc, const struct alloc_request *request, blkno_t *start, uint64_t *count)
{
	return inject_hits(INJECT_SPACE) ? -ENOSPC : __real_alloc_reserve(alloc, request, start, count);
}

int __real_chunk_take_block(struct tx *tx, maddr_t *address);
int __wrap_chunk_take_block(struct tx *tx, maddr_t *address);
int __wrap_chunk_take_block(struct tx *tx, maddr_t *address)
{
	return inject_hits(INJECT_SPACE) ? -ENOSPC : __real_chunk_take_block(tx, address);
}

/* --- wrapped: the medium ---------------------------------------------------------------------------------------------------------- */

int __real_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad);
int __wrap_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad);
int __wrap_media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad)
{
	return inject_hits(INJECT_HOST_FULL) ? -ENOSPC : __real_media_write(media, offset, buffer, length, bad);
}

int __real_media_zero(struct media *media, devoff_t offset, uint64_t length, devoff_t *bad);
int __wrap_media_zero(struct media *media, devoff_t offset, uint64_t length, devoff_t *bad);
int __wrap_media_zero(struct media *media, devoff_t offset, uint64_t length, devoff_t *bad)
{
	return inject_hits(INJECT_HOST_FULL) ? -ENOSPC : __real_media_zero(media, offset, length, bad);
}

int __real_media_write_line(struct media *media, devoff_t offset, const void *line, devoff_t *bad);
int __wrap_media_write_line(struct media *media, devoff_t offset, const void *line, devoff_t *bad);
int __wrap_media_write_line(struct media *media, devoff_t offset, const void *line, devoff_t *bad)
{
	return inject_hits(INJECT_HOST_FULL) ? -ENOSPC : __real_media_write_line(media, offset, line, bad);
}

/* As the real one: once it has failed it does not succeed any more. */
int __real_media_sync(struct media *media);
int __wrap_media_sync(struct media *media);
int __wrap_media_sync(struct media *media)
{
	return inject_hits(INJECT_SYNC) ? -EIO : __real_media_sync(media);
}
