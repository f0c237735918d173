#include "tests/fuzz/mutator.h"
#include "tests/fuzz/program.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
	return program_mutate(data, size, capacity, seed, &fuzz_grammar);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out, size_t capacity, unsigned seed)
{
	return program_cross(a, a_size, b, b_size, out, capacity, seed);
}
