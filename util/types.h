/* Scalars that carry a unit. */
#ifndef UTIL_TYPES_H
#define UTIL_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t devoff_t; /* byte offset in the device or image; the top 8 bits are the device number (0 now) */
typedef uint64_t blkno_t;  /* devoff_t / BLOCK_BYTES */
typedef uint64_t maddr_t;  /* logical address of a metadata block, in blocks; see format/chunk_format.h */
typedef uint64_t inum_t;

#define BLOCK_SHIFT 12
#define BLOCK_BYTES 4096u
#define LINE_BYTES 64u	  /* what one store to the medium is torn into at worst is 8; what we log is lines */
#define SECTOR_BYTES 512u /* the kernel's badblock unit */
#define HUGE_BYTES (2u << 20)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

static inline uint64_t round_down_u64(uint64_t x, uint64_t to)
{
	return x - x % to;
}

static inline uint64_t round_up_u64(uint64_t x, uint64_t to)
{
	return round_down_u64(x + to - 1, to);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
