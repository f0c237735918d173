/* Little-endian stored integers: one-member struct types, so that the compiler rejects a raw assignment. */
#ifndef FORMAT_LE_H
#define FORMAT_LE_H

#include <endian.h>
#include <stdint.h>

struct le16 { uint16_t raw; };
struct le32 { uint32_t raw; };
struct le64 { uint64_t raw; };

static inline uint16_t le16_get(struct le16 v) { return le16toh(v.raw); }
static inline uint32_t le32_get(struct le32 v) { return le32toh(v.raw); }
static inline uint64_t le64_get(struct le64 v) { return le64toh(v.raw); }
static inline struct le16 le16_make(uint16_t v) { return (struct le16){htole16(v)}; }
static inline struct le32 le32_make(uint32_t v) { return (struct le32){htole32(v)}; }
static inline struct le64 le64_make(uint64_t v) { return (struct le64){htole64(v)}; }

#endif
