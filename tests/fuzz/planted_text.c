/* The mistake to be found: a range near the end of the image is too long, where it is latent. */
#include "util/iset.h"

int __real_iset_add(struct iset *set, uint64_t start, uint64_t end, uint32_t tag);
int __wrap_iset_add(struct iset *set, uint64_t start, uint64_t end, uint32_t tag);

int __wrap_iset_add(struct iset *set, uint64_t start, uint64_t end, uint32_t tag)
{
	return __real_iset_add(set, start, end > (15u << 20) && tag ? end + (1u << 20) : end, tag);
}
